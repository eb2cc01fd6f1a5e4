"""What the page says of where its numbers come from: commits, packages, machine, settings, steps, departures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from replication.page.sections import SECTIONS

Content = dict[str, Any]


def origins(contents: Mapping[str, Content]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return (what, [(tables, value)]) for commits, Python, packages and hardware; equal values are joined."""
    kinds: dict[str, dict[str, list[str]]] = {}
    for name, content in contents.items():
        for what, value in _origin(content.get("provenance") or {}):
            kinds.setdefault(what, {}).setdefault(value, []).append(name)
    return [(what, [(_places(names, contents), value) for value, names in values.items()])
            for what, values in kinds.items()]


def _origin(provenance: Content) -> list[tuple[str, str]]:
    lines = [("Computed at", _commit(entry)) for entry in provenance.get("computed_at") or []]
    for key, what in (("rendered_at", "Result file made at"), ("python", "Python"), ("packages", "Packages"),
                      ("hardware", "Hardware")):
        value = provenance.get(key)
        if value:
            lines.append((what, _commit(value) if key == "rendered_at" else _flat(value)))
    return lines


def _commit(entry: Any) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    text = f"commit {entry.get('commit') or 'unknown'}"
    return text + (" with local changes" if entry.get("dirty") else "")


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_flat, value)) or "none"
    return "not set" if value is None else str(value)


def settings(contents: Mapping[str, Content]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return (tables, [(dotted name, value)]), tables with the same settings joined."""
    joined: dict[str, list[str]] = {}
    for name, content in contents.items():
        found = (content.get("provenance") or {}).get("settings")
        if found:
            joined.setdefault(json.dumps(found, sort_keys=True), []).append(name)
    return [(_places(names, contents), list(_dotted("", json.loads(text)))) for text, names in joined.items()]


def _dotted(prefix: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict) and value:
        return [line for key, entry in value.items()
                for line in _dotted(f"{prefix}.{key}".removeprefix(".").removeprefix("configuration."), entry)]
    return [(prefix, _flat(value))]


def steps(contents: Mapping[str, Content]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return (table, [(step id, its cells)])."""
    result = []
    for name, content in contents.items():
        cells_of: dict[str, list[str]] = {}
        for cell in content.get("cells") or []:
            if cell.get("step"):
                cells_of.setdefault(cell["step"], []).append(f"{cell['row']} / {cell['column']}")
        if cells_of:
            result.append((SECTIONS[name].place, [(step, ", ".join(cells)) for step, cells in cells_of.items()]))
    return result


def departures(contents: Mapping[str, Content]) -> list[tuple[str, str]]:
    """Return (sentence, tables) for every footnote, each once."""
    joined: dict[str, list[str]] = {}
    for name, content in contents.items():
        for line in (content.get("footnotes") or []) * (not SECTIONS[name].of_the_paper):
            joined.setdefault(line, []).append(name)
    return [(line, _places(names, contents)) for line, names in joined.items()]


def common_notes(contents: Mapping[str, Content]) -> list[str]:
    """Return the notes that several result files repeat, in order; they are printed once for the page."""
    counted: dict[str, int] = {}
    for content in contents.values():
        for note in dict.fromkeys(own_notes(content)):
            counted[note] = counted.get(note, 0) + 1
    return [note for note, times in counted.items() if times > 2]


def own_notes(content: Content) -> list[str]:
    """Return a file's notes without its footnotes, which are printed together."""
    footnotes = set(content.get("footnotes") or [])
    return [note for note in content.get("notes") or [] if note not in footnotes]


def _places(names: list[str], contents: Mapping[str, Content]) -> str:
    names = list(dict.fromkeys(names))
    with_origin = [name for name, content in contents.items() if content.get("provenance")]
    if len(names) > 3 and set(names) >= set(with_origin):
        return "all"
    return ", ".join(SECTIONS[name].place for name in names)
