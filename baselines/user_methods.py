"""The code of methods from outside: loaded from a file, hashed, sent to worker processes, blamed by file and line.

A method from outside has no version to raise: the source it comes from is part of every step it takes part in. A
worker gets the very source that was hashed, so a file that is edited, moved or removed while a run goes on changes
nothing for that run.
"""

from __future__ import annotations

import hashlib
import inspect
import linecache
import os
import pickle
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

from baselines.interface import Method
from baselines.phases import Phase
from foundation.errors import InputError, SuiteError

T = TypeVar("T")
UserError = (Exception, SystemExit)
"""What code of the user's may raise; an interrupt is none of it."""
_SOURCE = "__method_source__"


class _Packed(NamedTuple):
    """A method as it travels: pickled, with the source of its file where it comes from one."""

    payload: bytes
    path: str
    source: bytes | None
    sha256: str | None


class Handle:
    """A method on its way to a worker process, unpacked where it is first used: other steps need not load its code."""

    def __init__(self, method: Method | None = None, packed: _Packed | None = None) -> None:
        """Hold a method, or one that is still packed."""
        self._method, self._packed = method, packed

    @property
    def method(self) -> Method:
        """The method.

        Raises:
            InputError: its package has changed since it was packed.
        """
        if self._method is None:
            assert self._packed is not None, "a handle holds a method or a packed one"
            self._method = _unpacked(self._packed)
        return self._method

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel packed."""
        return Handle, (None, self._packed or _pack(self.method))

    def fault(self, error: BaseException) -> str | None:
        """Return `file:line: what happened` if the error came from within a method from outside, else None."""
        if self._method is None or not (lines := _lines(error, type(self._method))):
            return None
        return f"{lines[-1]}: {type(self._method).__name__}: {_told(error)}"


def _pack(method: Method) -> _Packed:
    path, source = _file(type(method)) or ("", None)
    return _Packed(pickle.dumps(method), path, source, source_sha256(type(method)))


def _unpacked(packed: _Packed) -> Method:
    if packed.source is not None:
        module_of(Path(packed.path), packed.source)
    method: Method = pickle.loads(packed.payload)
    if source_sha256(type(method)) != packed.sha256:
        raise InputError(f"the package of method {method.title!r} has changed since this run began; start the command "
                         "again")
    return method


def _file(cls: type) -> tuple[str, bytes] | None:
    """Return path and source of a class that was loaded from a file of the user's."""
    return getattr(sys.modules.get(cls.__module__), _SOURCE, None)


def module_of(path: Path, source: bytes) -> ModuleType:
    """Return the module that a file's source makes; the same source at the same path is executed once.

    The given source is compiled, not the file: what runs is what was hashed, whatever lies in a bytecode cache.

    Raises:
        InputError: it does not import; file and line are named.
    """
    name = f"user_method_{hashlib.sha256(os.fsencode(path) + source).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(path)
    setattr(module, _SOURCE, (str(path), source))
    sys.modules[name] = module  # dataclasses look their module up while the class is made
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except UserError as error:
        del sys.modules[name]
        raise InputError(f"{_import_place(error, path)}: {_told(error)}; the file must import before its method can "
                         "be used") from error
    lines = source.decode(errors="replace").splitlines(keepends=True)
    linecache.cache[str(path)] = (len(source), None, lines, str(path))  # lines as loaded, whatever the file becomes
    return module


def _import_place(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{shown(error.filename or path)}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{shown(path)}:{frames[-1].lineno}" if frames else shown(path)


def _told(error: BaseException) -> str:
    if isinstance(error, SuiteError):
        return str(error)
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}"
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def shown(path: Path | str) -> str:
    """Return a path as a person reads it: relative where it lies below the working directory."""
    absolute = Path(path)
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(path)


# -------------------------------------------------------------------------------------------------- whose code it is


def outside(cls: type) -> bool:
    """Say whether a class is neither the suite's nor Python's own."""
    root = cls.__module__.partition(".")[0]
    return root not in ("baselines", "foundation") and root not in sys.stdlib_module_names


def source_sha256(method: type[Method]) -> str | None:
    """Return the hash of the code that defines a method from outside, None for the suite's own.

    It covers the file of each class that the method inherits from, and of an installed package all of its modules.
    """
    modules = dict.fromkeys(cls.__module__ for cls in method.__mro__ if outside(cls))
    if not modules:
        return None
    hashes = [_module_sha256(sys.modules[name]) for name in modules]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def _module_sha256(module: ModuleType) -> str:
    if (known := getattr(module, _SOURCE, None)) is not None:
        return hashlib.sha256(known[1]).hexdigest()
    root = sys.modules[module.__name__.partition(".")[0]]
    file = getattr(root, "__file__", None) or getattr(module, "__file__", None)
    if file is None:
        raise InputError(f"the method's module {module.__name__} comes from no file; a method needs one: its source is "
                         "part of every result")
    if not hasattr(root, "__path__"):
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    folder, digest = Path(file).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------------- the line to fix


def place(chosen: type, name: str | None = None) -> str:
    """Return `file:line` of a class, or of its attribute `name` where it defines or inherits one from outside."""
    owner = next((cls for cls in chosen.__mro__ if name in vars(cls)), chosen)
    subject: Any = chosen if name is None or not outside(owner) else getattr(owner, name)
    try:
        return f"{shown(inspect.getfile(subject))}:{inspect.getsourcelines(subject)[1] or 1}"
    except (OSError, TypeError):  # made by other code, or no function
        return chosen.__module__ if subject is chosen else place(chosen)


def said_of(method: Method, name: str) -> str:
    """Return how a message about a method begins: with the line to fix where it is the user's."""
    where = f"{place(type(method), name)}: " if outside(type(method)) else ""
    return f"{where}method {method.title}"


def _lines(error: BaseException, chosen: type) -> list[str]:
    """Return `file:line` of the user's lines that an error passed through, outermost first."""
    files = set()
    for cls in filter(outside, chosen.__mro__):
        files.add(getattr(sys.modules.get(cls.__module__), "__file__", None))
    return [f"{shown(frame.filename)}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename in files]


def guarded(chosen: type, words: str, call: Callable[[], T]) -> T:
    """Return what the call returns.

    Raises:
        InputError: it fails, and the method is from outside; the user's line is named.
    """
    if not outside(chosen):
        return call()
    try:
        return call()
    except UserError as error:
        where = [place(chosen), *_lines(error, chosen)][-1]
        raise InputError(f"{where}: {chosen.__name__} {words}: {_told(error)}") from error


def declared_phases(method: Method) -> list[Phase]:
    """Return a method's phases.

    Raises:
        InputError: they fail, or there are none.
    """
    phases = guarded(type(method), "has phases that fail", lambda: list(method.phases()))
    if not phases:
        raise InputError(f"{said_of(method, 'phases')} declares no phases; end them with `yield Train(...)`")
    return phases
