"""Reads result files and holds them to the contract (docs/results.md) before anything is shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foundation.errors import InputError
from replication.models import MODELS, Model
from replication.page.sections import SECTIONS

SCHEMA = 1
VERDICTS = ("consistent", "different", "cannot tell")
Content = dict[str, Any]

_NUMBER, _TEXT, _LIST, _OBJECT = "a number", "a text", "a list", "an object"
_TYPES: dict[str, tuple[type, ...]] = {_NUMBER: (int, float), _TEXT: (str,), _LIST: (list,), _OBJECT: (dict,)}

# key -> (what it must be, whether it must be there and not null)
_Shape = Mapping[str, tuple[str, bool]]
_FILE: _Shape = {
    "title": (_TEXT, False), "heading": (_TEXT, False), "place": (_TEXT, False), "provenance": (_OBJECT, False),
    "cells": (_LIST, False), "comparisons": (_LIST, False), "ordering": (_LIST, False), "plots": (_LIST, False),
    "notes": (_LIST, False), "footnotes": (_LIST, False), "findings": (_LIST, False), "checked": (_OBJECT, False),
    "kinds": (_OBJECT, False), "paper_source": (_TEXT, False),
}  # fmt: skip
_PARTS: dict[str, _Shape] = {
    "cells": {"row": (_TEXT, True), "column": (_TEXT, True), "status": (_TEXT, True), "group": (_TEXT, False),
              "value": (_NUMBER, False), "unit": (_TEXT, False), "n": (_NUMBER, False), "ci95": (_LIST, False),
              "paper": (_NUMBER, False), "paper_context": (_NUMBER, False), "paper_text": (_TEXT, False),
              "reason": (_TEXT, False), "step": (_TEXT, False), "digits": (_NUMBER, False),
              "judgement": (_OBJECT, False)},
    "comparisons": {"row": (_TEXT, True), "against": (_TEXT, True), "column": (_TEXT, True),
                    "difference": (_NUMBER, True), "ci95": (_LIST, False), "p": (_NUMBER, False),
                    "p_holm": (_NUMBER, False), "test": (_TEXT, False)},
    "ordering": {"column": (_TEXT, True), "text": (_TEXT, True)},
    "plots": {"id": (_TEXT, True), "title": (_TEXT, True), "x": (_OBJECT, True), "y": (_OBJECT, True),
              "series": (_LIST, True)},
    "findings": {"kind": (_TEXT, True), "table": (_TEXT, False), "row": (_TEXT, False), "column": (_TEXT, False),
                 "arithmetic": (_TEXT, False), "model": (_TEXT, False), "place": (_TEXT, False)},
}  # fmt: skip
_POINT: _Shape = {"y": (_NUMBER, False), "low": (_NUMBER, False), "high": (_NUMBER, False), "label": (_TEXT, False)}
_ALONE = {"notes": _TEXT, "footnotes": _TEXT}


@dataclass(frozen=True, slots=True)
class Results:
    """The result files of one model, by name, and what else lay in the folder."""

    contents: dict[str, Content]
    skipped: list[str] = field(default_factory=list)


def read(results: Path, model: Model) -> Results:
    """Read results/<model>/*.json, and the audit, which is of no model, also from results/.

    Raises:
        InputError: no result file at all; a file that is no JSON, of another model, scale, table or schema, or whose
            shape is not the contract's. The file and the value are named.
    """
    folder = results / model.name
    found = {path.stem: path for path in sorted(folder.glob("*.json"))}
    contents = {name: read_file(found[name], name, model) for name in SECTIONS if name in found}
    if not contents:
        raise InputError(f"there are no result files in {folder}; make some first: "
                         f"python -m replication.table1 --model {model.name} --results {results}")
    for name, section in SECTIONS.items():
        path = results / f"{name}.json"
        if section.of_the_paper and name not in contents and path.is_file():
            contents[name] = read_file(path, name, model)
    unknown = [f"{path} is no table or figure that the page knows; left out" for name, path in found.items()
               if name not in SECTIONS]
    return Results({name: contents[name] for name in SECTIONS if name in contents}, unknown)


def read_file(path: Path, name: str, model: Model) -> Content:
    """Read one result file; raises as `read` does."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        place = f"{path}:{error.lineno}:{error.colno}"
        raise InputError(f"{place}: not JSON ({error.msg}); {_again(path, name)}") from error
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); {_again(path, name)}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    try:
        check(content, name, model)
    except InputError as error:
        raise InputError(f"{path}: {error}; {_again(path, name)}") from error
    return content if isinstance(content, dict) else {}


def _again(path: Path, name: str) -> str:
    return f"move the file away, or make it again with python -m replication.{name}"


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON")


def check(content: Any, name: str, model: Model) -> None:
    """Hold one file's content to the contract.

    Raises:
        InputError: what is wrong, with the place inside the file and the value.
    """
    if not isinstance(content, dict):
        raise InputError(f"expected an object, found {type(content).__name__}")
    expected = {"schema": SCHEMA, "table": name}
    if not SECTIONS[name].of_the_paper:
        expected |= {"model": _owner(content, model), "scale": model.scale}
    for key, value in expected.items():
        if content.get(key) != value:
            other = " (of another model)" if key == "model" and content.get(key) in MODELS else ""
            raise InputError(f"{key} is {content.get(key)!r}{other}, the page of {model.name} needs {value!r}")
    _check_record("", content, _FILE)
    for part, shape in _PARTS.items():
        for index, record in enumerate(content.get(part) or []):
            _check_type(f"{part}[{index}]", record, _OBJECT)
            _check_record(f"{part}[{index}].", record, shape)
            if record.get("ci95") is not None:
                _check_pair(f"{part}[{index}].ci95", record["ci95"])
    for part, kind in _ALONE.items():
        for index, entry in enumerate(content.get(part) or []):
            _check_type(f"{part}[{index}]", entry, kind)
    _check_cells(content.get("cells") or [])
    for index, plot in enumerate(content.get("plots") or []):
        _check_plot(f"plots[{index}]", plot)


def _owner(content: Content, model: Model) -> str:
    """Return the model a file must be of: the page's own, or the backbone that ran when that one was asked for."""
    ran = MODELS.get(str(content.get("model")))
    return ran.name if ran is not None and content.get("asked") == model.name else model.name


def _check_record(where: str, record: Mapping[str, Any], shape: _Shape) -> None:
    for key, (kind, needed) in shape.items():
        if record.get(key) is not None:
            _check_type(f"{where}{key}", record[key], kind)
        elif needed:
            raise InputError(f"{where}{key} is missing; it must be {kind}")


def _check_type(where: str, value: Any, kind: str) -> None:
    if not isinstance(value, _TYPES[kind]) or isinstance(value, bool):
        shown = json.dumps(value, ensure_ascii=False, default=str)
        raise InputError(f"{where} is {shown[:80]}; it must be {kind}")


def _check_pair(where: str, value: list[Any]) -> None:
    if len(value) != 2:
        raise InputError(f"{where} has {len(value)} entries; it must be [low, high]")
    for end in value:
        _check_type(where, end, _NUMBER)


def _check_cells(cells: list[Content]) -> None:
    seen = set()
    for index, cell in enumerate(cells):
        place = (cell.get("group"), cell["row"], cell["column"])
        if place in seen:
            raise InputError(f"cells[{index}] is a second cell for row {cell['row']!r}, column {cell['column']!r}")
        seen.add(place)
        if cell["status"] not in ("measured", "missing", "failed"):
            raise InputError(f"cells[{index}].status is {cell['status']!r}; it must be measured, missing or failed")
        if cell["status"] == "measured" and cell.get("value") is None:
            raise InputError(f"cells[{index}] is measured but has no value")
        judgement = cell.get("judgement")
        if judgement is not None and judgement.get("verdict") not in VERDICTS:
            raise InputError(f"cells[{index}].judgement.verdict is {judgement.get('verdict')!r}; it must be one of: "
                             + ", ".join(VERDICTS))


def _check_plot(where: str, plot: Content) -> None:
    scale = plot["x"].get("scale", "linear")
    if scale not in ("linear", "log2", "category"):
        raise InputError(f"{where}.x.scale is {scale!r}; it must be linear, log2 or category")
    for number, series in enumerate(plot["series"]):
        place = f"{where}.series[{number}]"
        _check_type(place, series, _OBJECT)
        _check_record(f"{place}.", series, {"name": (_TEXT, True), "kind": (_TEXT, False), "points": (_LIST, True)})
        for index, point in enumerate(series["points"]):
            at = f"{place}.points[{index}]"
            _check_type(at, point, _OBJECT)
            _check_record(f"{at}.", point, _POINT)
            if scale != "category":
                _check_type(f"{at}.x", point.get("x"), _NUMBER)
            if scale == "log2" and point["x"] <= 0:
                raise InputError(f"{at}.x is {point['x']}; a log2 axis needs numbers above 0")
