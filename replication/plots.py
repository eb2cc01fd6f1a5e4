"""Plots as plain data: what a figure shows, before anything is drawn (docs/results.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

Content = dict[str, Any]
Series = dict[str, Any]
Scale = Literal["linear", "log2", "category"]


def plot(name: str, title: str, x: str, y: str, series: list[Any], x_scale: Scale = "linear") -> dict[str, Any]:
    """Return a plot; series without a point are left out."""
    return {"id": name, "title": title, "x": {"label": x, "scale": x_scale}, "y": {"label": y},
            "series": [one for one in series if one["points"]]}


def _point(x: Any, cell: dict[str, Any]) -> dict[str, Any]:
    low, high = cell["ci95"] or (None, None)
    return {"x": x, "y": cell["value"], "low": low, "high": high}


def _measured(content: Content, column: str) -> dict[str, dict[str, Any]]:
    return {cell["row"]: cell for cell in content["cells"] if cell["column"] == column and cell["status"] == "measured"}


def _readable(x: Callable[[str], float], row: str) -> bool:
    """A row that somebody added to a sweep need not be a number: it has no place on the axis."""
    try:
        x(row)
    except ValueError:
        return False
    return True


def column(content: Content, name: str, title: str, x: Callable[[str], float]) -> Series:
    """Return a column over its rows; `x` reads a row's heading."""
    return {"name": title, "kind": "measured",
            "points": [_point(x(row), cell) for row, cell in _measured(content, name).items() if _readable(x, row)]}


def paper_column(content: Content, name: str, x: Callable[[str], float], title: str = "paper") -> Series:
    """Return the paper's values of a column."""
    cells = [cell for cell in content["cells"] if cell["column"] == name and _readable(x, cell["row"])]
    points = [{"x": x(cell["row"]), "y": value} for cell in cells
              if (value := cell["paper"] if cell["paper"] is not None else cell["paper_context"]) is not None]
    return {"name": f"{title} ({content['paper_source']})", "kind": "paper", "points": points}


def columns_of_group(content: Content, group: str, skip: tuple[str, ...] = ()) -> list[Series]:
    """Return every column of a group over rows that are numbers, measured and the paper's."""
    names = dict.fromkeys(cell["column"] for cell in content["cells"] if cell["group"] == group)
    kept = content | {"cells": [cell for cell in content["cells"] if cell["row"] not in skip]}
    found = []
    for name in names:
        short = name.removeprefix(f"{group} ")
        found += [column(kept, name, short, float), paper_column(kept, name, float, f"paper, {short}")]
    return found


def rows(content: Content, places: Iterable[tuple[Any, str]], name: str, title: str, labels: bool = False) -> Series:
    """Return some rows of a column as a course; `places` are (x, row heading), `labels` keeps the heading."""
    cells = _measured(content, name)
    points = [_point(x, cells[row]) | ({"label": row} if labels else {}) for x, row in places if row in cells]
    return {"name": title, "kind": "measured", "points": points}


def single(name: str, x: dict[str, Any], y: dict[str, Any]) -> Series:
    """Return one labelled point from two cells."""
    return {"name": name, "kind": "measured", "points": [_point(x["value"], y) | {"label": name}]}
