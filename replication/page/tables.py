"""From a result file's cells to what the template prints: blocks, rows, cells, footnote marks, judgements."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from replication.page.numbers import MINUS, digits_of, interval_text, p_text, value_text

Content = dict[str, Any]
STATUSES = ("measured", "missing", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class CellView:
    """One printed cell."""

    text: str
    status: str
    interval: str = ""
    unit: str = ""
    paper: str = ""
    judged: bool = False
    """Whether `paper` is the published value of this very cell (else it is there for orientation)."""
    verdict: str = ""
    mark: str = ""
    """Letter of the reason below the table, for a cell that is missing or failed."""
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Rows under one heading; the heading is empty where a table has one block."""

    title: str
    rows: list[tuple[str, list[CellView | None]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableView:
    """One table as printed."""

    columns: list[str]
    """Names, without a group's own name where that stands above them."""
    groups: list[tuple[str, int]]
    """(title, how many columns) above the column heads; empty where there is nothing to group."""
    blocks: list[Block]
    unit: str
    """The unit that all cells share; empty where they differ and each cell names its own."""
    reasons: list[tuple[str, str]]
    judgements: list[dict[str, str]]
    comparisons: list[dict[str, str]]
    counts: dict[str, int] = field(default_factory=dict)
    any_context: bool = False


def table_view(content: Content) -> TableView:
    """Lay out a result file's cells; groups become column heads, or row blocks where a row recurs in several groups."""
    cells = content.get("cells") or []
    columns = _columns(cells)
    units = {cell.get("unit") or "" for cell in cells if cell["status"] == "measured"}
    unit = units.pop() if len(units) == 1 else ""
    marks = _marks(cells)
    in_rows = _groups_are_rows(cells)
    blocks = []
    for title in dict.fromkeys(cell.get("group") or "" for cell in cells) if in_rows else [""]:
        chosen = [cell for cell in cells if not in_rows or (cell.get("group") or "") == title]
        by_place = {(cell["row"], cell["column"]): _cell(cell, unit, marks) for cell in chosen}
        rows = list(dict.fromkeys(cell["row"] for cell in chosen))
        blocks.append(Block(title=title, rows=[(row, [by_place.get((row, c)) for c in columns]) for row in rows]))
    groups = [] if in_rows else _column_groups(cells, columns)
    return TableView(
        columns=_heads(columns, groups), groups=groups, blocks=blocks, unit=unit,
        reasons=[(mark, f"{status}: {reason}") for (status, reason), mark in marks.items()],
        judgements=[_judgement(cell) for cell in cells if cell.get("judgement")],
        comparisons=[_comparison(c, unit) for c in content.get("comparisons") or []],
        counts={status: sum(cell["status"] == status for cell in cells) for status in STATUSES},
        any_context=any(cell.get("paper_context") is not None for cell in cells),
    )


def _groups_are_rows(cells: list[Content]) -> bool:
    groups_of_column: dict[str, set[str]] = {}
    for cell in cells:
        groups_of_column.setdefault(cell["column"], set()).add(cell.get("group") or "")
    return any(len(groups) > 1 for groups in groups_of_column.values())


def _columns(cells: list[Content]) -> list[str]:
    """Return the columns in the file's order, those of one group side by side."""
    group_of = {cell["column"]: cell.get("group") or "" for cell in cells}
    groups = list(dict.fromkeys(group_of.values()))
    if _groups_are_rows(cells):
        return list(group_of)
    return sorted(group_of, key=lambda column: groups.index(group_of[column]))


def _column_groups(cells: list[Content], columns: list[str]) -> list[tuple[str, int]]:
    group_of = {cell["column"]: cell.get("group") or "" for cell in cells}
    heads: list[tuple[str, int]] = []
    for column in columns:
        if heads and heads[-1][0] == group_of[column]:
            heads[-1] = (heads[-1][0], heads[-1][1] + 1)
        else:
            heads.append((group_of[column], 1))
    return heads if len(heads) > 1 else []


def _heads(columns: list[str], groups: list[tuple[str, int]]) -> list[str]:
    above = [title for title, span in groups for _ in range(span)] or [""] * len(columns)
    return [column.removeprefix(f"{title} ") for column, title in zip(columns, above, strict=True)]


def _marks(cells: list[Content]) -> dict[tuple[str, str], str]:
    marks: dict[tuple[str, str], str] = {}
    for cell in cells:
        if cell["status"] != "measured":
            marks.setdefault((cell["status"], _reason(cell)), _letter(len(marks)))
    return marks


def _reason(cell: Content) -> str:
    return " ".join((cell.get("reason") or "no reason is given").split())[:400]


def _letter(number: int) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return letters[number] if number < 26 else _letter(number // 26 - 1) + letters[number % 26]


def _cell(cell: Content, shared_unit: str, marks: dict[tuple[str, str], str]) -> CellView:
    unit, digits = cell.get("unit") or "", digits_of(cell)
    context, published = cell.get("paper_context"), cell.get("paper")
    number = published if published is not None else context
    paper = "" if number is None else _as_printed(cell, number)
    if cell["status"] != "measured":
        text = "failed" if cell["status"] == "failed" else "–"
        return CellView(text=text, status=cell["status"], paper=paper, judged=published is not None,
                        mark=marks[cell["status"], _reason(cell)])
    counted = f"{cell['correct']:,} of {cell['n']:,}" if cell.get("correct") is not None and cell.get("n") else ""
    step = f"step {cell['step']}" if cell.get("step") else ""
    return CellView(text=value_text(cell["value"], unit, digits), status="measured",
                    interval=interval_text(cell.get("ci95"), unit, digits), unit="" if shared_unit else unit,
                    paper=paper, judged=published is not None,
                    verdict=(cell.get("judgement") or {}).get("verdict", ""),
                    title="; ".join(part for part in (counted, step) if part))


def _as_printed(cell: Content, number: float) -> str:
    """Return the paper's number with the digits it is printed with, or with the cell's own where these are not said."""
    said = cell.get("paper_text")
    return said.replace("-", MINUS) if said else value_text(number, cell.get("unit") or "", digits_of(cell))


def _judgement(cell: Content) -> dict[str, str]:
    found, unit, digits = cell["judgement"], cell.get("unit") or "", digits_of(cell)

    def number(key: str, *, sign: bool = False) -> str:
        value = found.get(key)
        return value_text(value, unit, digits, sign=sign) if isinstance(value, int | float) else ""

    measured = value_text(cell["value"], unit, digits) if cell.get("value") is not None else ""
    paper = _as_printed(cell, cell["paper"]) if cell.get("paper") is not None else ""
    return {"row": cell["row"], "column": cell["column"], "measured": measured, "paper": paper,
            "verdict": found["verdict"], "difference": number("difference", sign=True),
            "detectable": number("detectable"), "text": str(found.get("text") or "")}


def _comparison(found: Content, unit: str) -> dict[str, str]:
    return {"row": found["row"], "against": found["against"], "column": found["column"],
            "difference": value_text(found["difference"], unit, sign=True),
            "interval": interval_text(found.get("ci95"), unit, sign=True),
            "p": p_text(found.get("p")), "p_holm": p_text(found.get("p_holm")),
            "test": (found.get("test") or "").replace("_", " ")}
