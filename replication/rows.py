"""Rows of a table: a method with its settings, found by a short text.

    wmss                                    a method as its file declares it, at this run's scale
    undial-original                         one of its named variants
    wmss[wdjt.mix_weight=0.42]              any settings, in brackets; several are separated by `;`
    wmss-wd-jt[wmss.weak_checkpoint=50]     both

Order: the paper's value, then the variant's, then the scale's ratio to the shared protocol, then the run's `--set`
(which cannot undo what makes the variant), then the brackets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

from baselines.interface import Method, Variant
from foundation.errors import InputError, SuiteError
from foundation.prompts import Domain
from replication.settings_text import parsed

if TYPE_CHECKING:
    from replication.scales import Scale

Registry = Mapping[str, type[Method]]


@dataclass(frozen=True, slots=True)
class Row:
    """A method in a table: the text that asked for it, its registry name, its heading, and itself."""

    key: str
    name: str
    title: str
    method: Method
    adapted: tuple[str, ...] = ()
    """Settings that the backbone's silent base decided (E.6's exception)."""
    changed: bool = False
    """Whether the user's settings make it another method than its name says: the paper has no value for it."""
    snapshots: bool = True
    """Whether its trainings keep checkpoints inside their epoch: those of a sweep do not, nobody asks for them."""


def split_rows(text: str) -> list[str]:
    """Split a comma-separated list, leaving commas in brackets alone."""
    parts, depth, current = [], 0, ""
    for character in text:
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += character
    return [part.strip() for part in (*parts, current) if part.strip()]


def known_rows(registry: Registry) -> list[str]:
    """Return every row that has a name."""
    return [name for method, c in registry.items() for name in (method, *(f"{method}-{v}" for v in c.variants))]


def resolve(text: str, registry: Registry, changes: Iterable[str], scale: Scale, *, silent_base: bool,
            domain: Domain = "math") -> Row:
    """Return the row that a text asks for.

    Args:
        text: as in the module's heading.
        registry: methods by name.
        changes: the run's `section.field=value` for methods.
        scale: decides the ratios.
        silent_base: whether the backbone's base cannot write verifiable answers.
        domain: whose pool the ratios are about.

    Raises:
        InputError: no such method, variant or setting; the message lists the known ones.
    """
    head, bracket, rest = text.partition("[")
    if bracket and not rest.endswith("]"):
        raise InputError(f"row {text!r}: the bracket is not closed; write NAME[section.field=value;...]")
    name, variant = _named(head.strip(), registry)
    own = [change.strip() for change in rest[:-1].split(";")] if bracket else []
    fixed = {} if variant is None else variant.changes
    method: Method = registry[name]()
    for key, value in fixed.items():
        method = changed(method, name, key, value)
    method = at_scale(method, scale, domain)
    method, adapted = _for_silent_base(method) if silent_base else (method, {})
    declared = method
    for change in changes:
        key, _, value = change.partition("=")
        if key.strip() not in fixed and owner(registry, key.partition(".")[0]) == name:
            method = changed(method, name, key.strip(), value.strip())
    plain = method
    for change in own:
        key, equals, value = change.partition("=")
        if not equals or owner(registry, key.strip().partition(".")[0]) != name:
            raise InputError(f"row {text!r}: {change!r} is no setting of {name}; its sections are: "
                             f"{', '.join(sections(name, registry[name]))}")
        method = changed(method, name, key.strip(), value.strip())
    title = method.title if variant is None else variant.title
    kept = tuple(f"{field_name} = {value}" for field_name, value in adapted.items()
                 if getattr(method, field_name) == value)
    return Row(text, name, f"{title} ({'; '.join(own)})" if own else title, method, kept, method != declared,
               _same_course(method, plain))


def _same_course(method: Method, plain: Method) -> bool:
    """Say whether a method only goes on longer than another, if it differs at all."""
    longer = {f.name: getattr(plain, f.name) for f in dataclasses.fields(method) if f.metadata.get("prolongs")}
    return dataclasses.replace(method, **longer) == plain


def _named(head: str, registry: Registry) -> tuple[str, Variant | None]:
    if head in registry:
        return head, None
    for name, chosen in registry.items():
        if head.startswith(f"{name}-") and (rest := head.removeprefix(f"{name}-")) in chosen.variants:
            return name, chosen.variants[rest]
    raise InputError(f"method {head!r} is unknown; choose from: {', '.join(known_rows(registry))}")


def sections(name: str, method: type[Method]) -> list[str]:
    """Return the names under which a method's settings are found."""
    return [name, *method.sections]


def owner(registry: Registry, section: str) -> str | None:
    """Return the method that a section of settings belongs to, if any."""
    return next((name for name, c in registry.items() if section in sections(name, c)), None)


def changed(method: Method, name: str, key: str, value: str) -> Method:
    """Return the method with `section.field` set to a text's value.

    Raises:
        InputError: no such setting, or a value it does not allow.
    """
    section, _, field_name = key.partition(".")
    if section == name:
        plain = [f.name for f in dataclasses.fields(method) if not dataclasses.is_dataclass(getattr(method, f.name))]
        if field_name in plain:
            return _replaced(method, field_name, value, key)
        names = plain
    else:
        names = []
        for part_name in method.sections.get(section, ()):
            part = getattr(method, part_name)
            part_fields = [f.name for f in dataclasses.fields(part)]
            if field_name in part_fields:
                return dataclasses.replace(method, **{part_name: _replaced(part, field_name, value, key)})
            names += part_fields
    raise InputError(f"{key}: no such setting; {section} has: {', '.join(names)}")


def _replaced(part: Any, field_name: str, value: str, key: str) -> Any:
    read = parsed(get_type_hints(type(part))[field_name], value, key)
    try:
        return dataclasses.replace(part, **{field_name: read})
    except SuiteError:
        raise
    except Exception as error:  # a check of the user's own
        raise InputError(f"{key} = {value} is refused by {type(part).__name__}: {error}") from error


def at_scale(method: Method, scale: Scale, domain: Domain = "math") -> Method:
    """Return the method with values that keep their ratio to the shared protocol's (baselines.interface.setting)."""
    ratios = scale.ratios(domain)
    scaled = {}
    for f in dataclasses.fields(method):
        ratio, value = ratios.get(f.metadata.get("scales_with", ""), 1.0), getattr(method, f.name)
        if ratio != 1.0 and value is not None:
            scaled[f.name] = max(1, round(value * ratio)) if isinstance(value, int) else float(f"{value * ratio:.6g}")
    return dataclasses.replace(method, **scaled)


def _for_silent_base(method: Method) -> tuple[Method, dict[str, Any]]:
    found = {f.name: f.metadata["silent_base"] for f in dataclasses.fields(method)
             if f.metadata.get("silent_base") is not None}
    return dataclasses.replace(method, **found), found
