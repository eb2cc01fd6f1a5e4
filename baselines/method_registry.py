"""Which methods there are in a run: the suite's, files of the user's, and what installed packages offer.

A package offers methods as entry points of the group `wmss_replication.methods`. They are loaded only when a run
names them: a broken package disturbs nobody else.
"""

from __future__ import annotations

import inspect
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import Any, get_type_hints

from baselines.interface import Method
from baselines.user_methods import UserError, guarded, module_of, outside, place, shown
from foundation.errors import InputError

ENTRY_POINTS = "wmss_replication.methods"
_DATACLASS = "`@dataclass(frozen=True, kw_only=True)`"
_LONGEST_TITLE = 40


def methods_at_hand(known: Mapping[str, type[Method]], own: Iterable[str], words: Iterable[str],
                    reserved: Iterable[str] = ()) -> tuple[dict[str, type[Method]], list[str]]:
    """Return the registry of a run, and the names of the methods of its own rows.

    Args:
        known: the suite's methods.
        own: each `path/to/file.py:Class`, or the name of a method that an installed package offers.
        words: further names in use (of rows, of sections of settings), under which installed methods are looked up.
        reserved: names that are taken by something else.

    Raises:
        InputError: a method that cannot be used, or a name that is taken.
    """
    offered, chosen = installed(), {}
    words = list(words)
    for spec in own:
        method = _offered(spec, offered) if spec in offered else load(spec, offered)
        chosen[method] = registry_name(method)
    for name in offered:
        if name not in known and any(word == name or word.startswith(f"{name}-") for word in words):
            chosen.setdefault(_offered(name, offered), "")
    return with_methods(known, list(chosen), reserved), [name for name in chosen.values() if name]


def load(spec: str, offered: Iterable[str] = ()) -> type[Method]:
    """Return the class that `path/to/file.py:Class` names.

    Raises:
        InputError: no such file or class, an import that fails (file and line are named), or no method.
    """
    path, colon, name = spec.rpartition(":")
    if not colon or not path or not name.isidentifier():
        raise InputError(f"--method {spec!r} is neither of the form path/to/file.py:ClassName nor a method that an "
                         f"installed package offers (offered: {', '.join(offered) or 'none'})")
    if not Path(path).is_file():
        raise InputError(f"--method {spec!r}: there is no file {path}")
    file = Path(path).resolve()
    try:
        source = file.read_bytes()
    except OSError as error:
        raise InputError(f"--method {spec!r}: {path} cannot be read: {error.strerror}") from error
    module = module_of(file, source)
    if not hasattr(module, name):
        defined = [key for key, value in vars(module).items() if inspect.isclass(value) and issubclass(value, Method)
                   and value.__module__ == module.__name__]
        raise InputError(f"{path} has no class {name!r}; methods in it: {', '.join(defined) or 'none'}")
    return checked(getattr(module, name), f"{shown(file)}:1")


# ------------------------------------------------------------------------------------------- what a method must be


def checked(chosen: Any, where: str) -> type[Method]:
    """Return a class if it is a whole method that can be made with its defaults.

    Args:
        chosen: what was found.
        where: place of the finding, for what is no class.

    Raises:
        InputError: what is missing, with the line to fix.
    """
    name = getattr(chosen, "__name__", repr(chosen))
    if not (inspect.isclass(chosen) and issubclass(chosen, Method)):
        at = place(chosen) if inspect.isclass(chosen) else where
        raise InputError(f"{at}: {name} is not a method; write `class {name}(Method):` with `from baselines.interface "
                         "import Method`")
    if not outside(chosen):
        raise InputError(f"{where}: {name} is a method of the suite itself, only imported there; ask for it with "
                         "--methods, or write a subclass with a title of its own")
    _check_title(chosen)
    _check_settings(chosen)
    return chosen


def _check_title(chosen: type[Method]) -> None:
    title = getattr(chosen, "title", None)
    if title is None:
        raise InputError(f"{place(chosen)}: {chosen.__name__} has no name for the tables; add `title = \"...\"` to the "
                         "class")
    if not isinstance(title, str) or not registry_name(chosen):
        raise InputError(f"{place(chosen)}: {chosen.__name__} has the title {title!r}; a title is a text with at least "
                         "one letter a-z or digit, from which its name on the command line is made")
    if not title.isprintable() or len(title) > _LONGEST_TITLE or set(title) & set("|[];,"):
        raise InputError(f"{place(chosen)}: the title {title!r} does not fit a table; use at most {_LONGEST_TITLE} "
                         "printable characters without | [ ] ; ,")


def _check_settings(chosen: type[Method]) -> None:
    """See that settings are a dataclass's, can be read from text, and reach a worker process."""
    annotations = guarded(chosen, "has an annotation that does not resolve", lambda: get_type_hints(chosen))
    own = [name for name in inspect.get_annotations(chosen) if "ClassVar" not in str(annotations.get(name))]
    if own and "__dataclass_params__" not in vars(chosen):
        raise InputError(f"{place(chosen)}: {chosen.__name__} has settings ({', '.join(own)}) but is no dataclass of "
                         f"its own; decorate it with {_DATACLASS}")
    method = guarded(chosen, "cannot be made with its default settings", chosen)
    for section, parts in chosen.sections.items():
        if unknown := [part for part in parts if part not in {f.name for f in fields(method)}]:
            raise InputError(f"{place(chosen)}: the section {section!r} of {chosen.__name__} names {unknown[0]!r}, "
                             f"which is no field; fields are: {', '.join(f.name for f in fields(method)) or 'none'}")
    try:
        pickle.dumps(method)
    except Exception as error:
        raise InputError(f"{place(chosen)}: {chosen.__name__} cannot be sent to a worker process: {error}; define the "
                         "class at the top of its file, with settings of plain values") from error


# ------------------------------------------------------------------------------------------------------------ names


def registry_name(method: type[Method]) -> str:
    """Return the name under which a method from outside is asked for and set: its title in lower case, with dashes."""
    return re.sub(r"[^a-z0-9]+", "-", method.title.lower()).strip("-")


def with_methods(known: Mapping[str, type[Method]], chosen: Iterable[type[Method]],
                 reserved: Iterable[str] = ()) -> dict[str, type[Method]]:
    """Return the registry with methods from outside added.

    Raises:
        InputError: a name, title or section of settings is taken.
    """
    result = dict(known)
    taken = {word.casefold(): "something else in the suite" for word in reserved}
    for name, method in known.items():
        taken |= dict.fromkeys(_words(name, method), f"the method {name!r}")
    for method in chosen:
        name = registry_name(method)
        if clash := next((word for word in _words(name, method) if word in taken), None):
            raise InputError(_clash(method, clash, taken[clash]))
        taken |= dict.fromkeys(_words(name, method), f"{method.__name__} ({place(method)})")
        result[name] = method
    return result


def _words(name: str, method: type[Method]) -> list[str]:
    """Return every word that a method claims, without case: names of rows, headings, sections of settings."""
    rows = [name, *(f"{name}-{variant}" for variant in method.variants)]
    titles = [method.title, *(variant.title for variant in method.variants.values())]
    return [word.casefold() for word in (*rows, *titles, *method.sections)]


def _clash(method: type[Method], word: str, holder: str) -> str:
    said = f"{place(method)}: {method.__name__} claims the name {word!r}, which is taken by {holder}"
    if word in (method.title.casefold(), registry_name(method)):
        inherited = "" if "title" in vars(method) else " (its title is inherited)"
        return f"{said}{inherited}; give the class another `title = \"...\"`"
    return f"{said}; rename that variant or section of settings"


# ----------------------------------------------------------------------------------------------- installed packages


def installed() -> dict[str, list[metadata.EntryPoint]]:
    """Return the entry points of installed packages by name; nothing is loaded."""
    found: dict[str, list[metadata.EntryPoint]] = {}
    for point in sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda p: (p.name, p.value)):
        same = found.setdefault(point.name, [])
        if point.value not in (other.value for other in same):  # a package may be found twice on the path
            same.append(point)
    return found


def _offered(name: str, offered: Mapping[str, list[metadata.EntryPoint]]) -> type[Method]:
    point, *others = offered[name]
    if others:
        raise InputError(f"the method {name!r} is offered twice: {point.value} and {others[0].value}; uninstall one of "
                         "the packages")
    try:
        loaded = point.load()
    except UserError as error:
        raise InputError(f"the entry point {name} = {point.value} does not load: {type(error).__name__}: {error}; "
                         "repair or uninstall its package") from error
    method = checked(loaded, f"entry point {name} = {point.value}")
    if registry_name(method) != name:
        raise InputError(f"{place(method)}: the entry point of {method.__name__} is called {name!r}; call it "
                         f"{registry_name(method)!r}, as its title {method.title!r} gives, or change the title")
    return method
