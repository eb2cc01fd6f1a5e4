"""Methods from outside: a file of the user's (`path/to/file.py:Class`) or an installed package's entry point.

A method from a file has no version to raise: the source of its file is part of every step it takes part in. Worker
processes load the same file again and refuse one that has changed meanwhile.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from baselines.interface import Method
from foundation.errors import InputError

ENTRY_POINTS = "wmss_replication.methods"
_SOURCE = "__method_source__"


@dataclass(frozen=True, slots=True)
class Handle:
    """A method on its way to a worker process: what pickle cannot carry (a class from a file) is loaded there again."""

    method: Method

    def __reduce__(self) -> tuple[Any, ...]:
        """Carry the file, its hash, the class's name and the settings."""
        source = getattr(sys.modules[type(self.method).__module__], _SOURCE, None)
        if source is None:
            return Handle, (self.method,)
        values = {f.name: getattr(self.method, f.name) for f in fields(self.method)}
        return _restore, (*source, type(self.method).__name__, values)


def _restore(path: str, sha256: str, name: str, values: dict[str, Any]) -> Handle:
    module = _module(Path(path))
    if getattr(module, _SOURCE)[1] != sha256:
        raise InputError(f"{path} has changed since this run began; start the command again")
    return Handle(getattr(module, name)(**values))


def source_sha256(method: type[Method]) -> str | None:
    """Return the hash of the file that defines a method from outside, None for the suite's own."""
    module = sys.modules[method.__module__]
    if (source := getattr(module, _SOURCE, None)) is not None:
        return str(source[1])
    if method.__module__.partition(".")[0] == "baselines":
        return None
    return hashlib.sha256(Path(inspect.getfile(method)).read_bytes()).hexdigest()


def load(spec: str) -> type[Method]:
    """Return the class that `path/to/file.py:Class` names.

    Raises:
        InputError: no such file or class, an import that fails (file and line are named), or no method.
    """
    path, colon, name = spec.rpartition(":")
    if not colon or not path or not name.isidentifier():
        raise InputError(f"--method {spec!r} is not of the form path/to/file.py:ClassName")
    if not Path(path).is_file():
        raise InputError(f"--method {spec!r}: there is no file {path}")
    module = _module(Path(path).resolve())
    if not hasattr(module, name):
        defined = [key for key, value in vars(module).items() if inspect.isclass(value) and issubclass(value, Method)
                   and value.__module__ == module.__name__]
        raise InputError(f"{path} has no class {name!r}; methods in it: {', '.join(defined) or 'none'}")
    return checked(getattr(module, name), path)


def _module(path: Path) -> ModuleType:
    source = path.read_bytes()
    sha256 = hashlib.sha256(source).hexdigest()
    name = f"user_method_{hashlib.sha256(str(path).encode() + source).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is not a Python file; name one with --method path/to/file.py:ClassName")
    module = importlib.util.module_from_spec(spec)
    setattr(module, _SOURCE, (str(path), sha256))
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise InputError(f"{_where(error, path)}: {type(error).__name__}: {error}; the file must import before its "
                         "method can be used") from error
    return module


def _where(error: Exception, path: Path) -> str:
    """Return `file:line` of the user's line that went wrong."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f"{path}:{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}:{lines[-1]}" if lines else str(path)


def checked(chosen: Any, path: str) -> type[Method]:
    """Return a class if it is a whole method.

    Raises:
        InputError: it is none, is no frozen dataclass, or has no title, with the line to fix.
    """
    name = getattr(chosen, "__name__", repr(chosen))
    if not (inspect.isclass(chosen) and issubclass(chosen, Method)):
        raise InputError(f"{path}: {name} is not a method; write `class {name}(Method):` with "
                         "`from baselines.interface import Method`")
    line = inspect.getsourcelines(chosen)[1]
    if not isinstance(getattr(chosen, "title", None), str) or not chosen.title.strip():
        raise InputError(f"{path}:{line}: {name} has no name for the tables; add `title = \"...\"` to the class")
    if not is_dataclass(chosen):  # pragma: no cover - a subclass of a dataclass is one
        raise InputError(f"{path}:{line}: decorate {name} with `@dataclass(frozen=True, kw_only=True)`")
    own = [f for f in vars(chosen).get("__annotations__", {}) if not f.startswith("_")]
    if own and "__dataclass_params__" not in vars(chosen) and not all("ClassVar" in str(
            vars(chosen)["__annotations__"][f]) for f in own):
        raise InputError(f"{path}:{line}: {name} has settings ({', '.join(own)}) but is no dataclass of its own; "
                         "decorate it with `@dataclass(frozen=True, kw_only=True)`")
    return chosen


def registry_name(method: type[Method]) -> str:
    """Return the name under which a method from outside is asked for and set: its title in lower case."""
    return re.sub(r"[^a-z0-9]+", "-", method.title.lower()).strip("-")


def with_methods(known: Mapping[str, type[Method]], chosen: list[type[Method]]) -> dict[str, type[Method]]:
    """Return the registry with methods from outside added.

    Raises:
        InputError: a name or title is taken.
    """
    result = dict(known)
    for method in chosen:
        name = registry_name(method)
        titles = {c.title: key for key, c in result.items()} | {
            v.title: f"{key}-{n}" for key, c in result.items() for n, v in c.variants.items()}
        if name in result or method.title in titles:
            line = inspect.getsourcelines(method)[1]
            raise InputError(f"{inspect.getfile(method)}:{line}: the name {method.title!r} is taken by the method "
                             f"{titles.get(method.title, name)!r}; give {method.__name__} another `title`")
        result[name] = method
    return result


def installed_methods() -> list[type[Method]]:
    """Return the methods that installed packages offer in the entry point group `wmss_replication.methods`.

    Raises:
        InputError: an entry point does not load, or is no method.
    """
    found = []
    for point in metadata.entry_points(group=ENTRY_POINTS):
        try:
            loaded = point.load()
        except Exception as error:
            raise InputError(f"the entry point {point.name} = {point.value} does not load: {type(error).__name__}: "
                             f"{error}; repair or uninstall its package") from error
        found.append(checked(loaded, point.value))
    return found
