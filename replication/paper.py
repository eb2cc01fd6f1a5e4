"""Every number the paper reports and every setting it fixes, with its place; nothing else holds a figure of the paper.

`TABLES` (Tables 1 to 12), `HYPERPARAMETERS`, `TEXT_CLAIMS` (results in the running text and the figures) and
`ASSUMPTIONS` (what the paper leaves open). Source: "Weak-Driven Learning: How Weak Agents Make Strong Agents Stronger",
arXiv:2602.08222v2.

    python -m replication.paper                 an overview
    python -m replication.paper --json          all twelve tables, table -> model -> row -> column
    python -m replication.paper --assumptions   what the paper leaves open, and the reading taken

    published("table1", "Qwen3-4B-Base", "WMSS", "GSM8K")   88.5
    number("train.learning_rate")                           1e-05
"""

from __future__ import annotations

import argparse
import json
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from foundation.errors import InputError
from replication.assumptions import ASSUMPTIONS
from replication.paper_tables import ALL_MODELS, TABLES, decimals
from replication.paper_types import Assumption, Hyperparameter, PaperTable, Rows, TextClaim
from replication.paper_values import HYPERPARAMETERS, TEXT_CLAIMS

__all__ = [
    "ASSUMPTIONS", "HYPERPARAMETERS", "TABLES", "TEXT_CLAIMS", "TEXT_MODEL", "Assumption", "Hyperparameter",
    "PaperTable", "TextClaim", "count_numbers", "integer", "number", "percent", "printed", "published",
    "tables_as_json",
]  # fmt: skip

TEXT_MODEL = "Qwen3-4B-Base"
"""The model of what §6.5, B.5 and B.8 print in the text. B.8 takes its norms from Table 7; the others name none, and
Figure 4's MATH500 is that of Table 1's WMSS row."""

# The paper heads one benchmark differently from table to table.
_SAME_COLUMN = {
    "AIME": "AIME2025", "AIME25": "AIME2025", "AIME 2025": "AIME2025", "MATH": "MATH500", "MATH 500": "MATH500",
    "AQUA": "AQuA", "LogiQA 2.0": "LogiQA2",
}  # fmt: skip


def published(table: str, model: str, row: str, column: str) -> float | None:
    """Return the number the paper prints in that cell, or None if it prints none (a dash, another model, no such row).

    A benchmark is found under any of its headings: `AIME2025` also finds the `AIME25` of Table 9.
    """
    found = _found(table, model, row, column)
    return None if found is None else found[1]


def printed(table: str, model: str, row: str, column: str) -> str | None:
    """Return the same number with the digits it is printed with, or None; `total_minutes` as `about 7 h 53 min`.

    A table that belongs to no model (Table 12) is read for any.
    """
    found = _found(table, model, row, column) or _found(table, ALL_MODELS, row, column)
    if found is None:
        return None
    name, value = found
    if name == "total_minutes":
        cells = TABLES[table].values[model][row]
        minutes = "" if cells["minutes"] is None else f" {cells['minutes']} min"
        return f"{'about ' if cells['approximate'] else ''}{cells['hours']} h{minutes}"
    return f"{value:,.{decimals(table, name)}f}"


def _found(table: str, model: str, row: str, column: str) -> tuple[str, float] | None:
    """Return the heading under which a number is printed, and the number."""
    if table not in TABLES:
        raise InputError(f"table {table!r} is unknown; choose one of: {', '.join(TABLES)}")
    for name, cell in TABLES[table].values.get(model, {}).get(row, {}).items():
        if _same_column(name, column) and isinstance(cell, int | float) and not isinstance(cell, bool):
            return name, float(cell)
    return None


def number(name: str) -> float:
    """Return a numeric hyperparameter of the paper."""
    if name not in HYPERPARAMETERS:
        raise InputError(f"hyperparameter {name!r} is unknown; choose one of: {', '.join(HYPERPARAMETERS)}")
    value = HYPERPARAMETERS[name].value
    if not isinstance(value, int | float):
        raise InputError(f"hyperparameter {name!r} is {value!r}, not a number; read HYPERPARAMETERS[{name!r}].value")
    return float(value)


def integer(name: str) -> int:
    """Return a hyperparameter of the paper that counts something."""
    value = number(name)
    if not value.is_integer():
        raise InputError(f"hyperparameter {name!r} is {value}, not a whole number; use number({name!r})")
    return int(value)


def percent(claim: str) -> float:
    """Return an accuracy that the text prints as a fraction, in per cent."""
    found = TEXT_CLAIMS[claim]
    assert found.unit == "accuracy", f"{claim} is in {found.unit}"
    return round(100 * found.value, 6)


def tables_as_json() -> dict[str, Mapping[str, Rows]]:
    """Return all tables as plain dicts: table -> model -> row -> column."""
    return {table.id: table.values for table in TABLES.values()}


def count_numbers(values: Any) -> int:
    """Count the numbers among the values of nested dicts (keys, texts, flags and blanks do not count)."""
    if isinstance(values, Mapping):
        return sum(count_numbers(value) for value in values.values())
    return int(isinstance(values, int | float) and not isinstance(values, bool))


def _same_column(first: str, second: str) -> bool:
    return first == second or _SAME_COLUMN.get(first, first) == _SAME_COLUMN.get(second, second)


def _table_lines(table: PaperTable) -> list[str]:
    runs = "" if table.runs_per_cell is None else f", {table.runs_per_cell} training(s) per cell"
    head = f"{table.id:<8} {table.place:<10} {count_numbers(table.values):>4} numbers{runs}"
    lines = [head, f"         {table.caption}", f"         models: {', '.join(table.values)}"]
    return [*lines, f"         note: {table.note}"] if table.note else lines


def _hyperparameter_line(setting: Hyperparameter) -> str:
    value = ", ".join(map(str, setting.value)) if isinstance(setting.value, tuple) else str(setting.value)
    return f"{setting.name:<28} {value:<22} {setting.place:<10} {setting.unit}".rstrip()


def _claim_line(claim: TextClaim) -> str:
    value = f"{claim.text} {claim.unit}"
    return f"{claim.place:<10} {claim.statement}: {value}".rstrip()


def _assumption_lines(assumption: Assumption) -> list[str]:
    from replication.configuration import is_setting

    known = not assumption.field or is_setting(assumption.field)
    field = f"  [{assumption.field}{'' if known else ', not a setting yet'}]" if assumption.field else ""
    others = [option for option in assumption.options if option != assumption.default]
    return [
        f"{assumption.id}  {assumption.question}{field}",
        f"      {assumption.default}" + (f"   (or: {'; '.join(others)})" if others else ""),
        f"      because {assumption.reason}",
    ]


def _overview() -> list[str]:
    lines = ["Tables"]
    for table in TABLES.values():
        lines += _table_lines(table)
    lines += ["", f"Hyperparameters and counts ({len(HYPERPARAMETERS)})"]
    lines += [_hyperparameter_line(setting) for setting in HYPERPARAMETERS.values()]
    lines += ["", f"Figures in the text ({len(TEXT_CLAIMS)})", *map(_claim_line, TEXT_CLAIMS.values())]
    lines += ["", f"Assumptions ({len(ASSUMPTIONS)}; --assumptions gives the reasons)"]
    return lines + [f"{entry.id}  {entry.question}: {entry.default}" for entry in ASSUMPTIONS.values()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the overview, the tables as JSON, or the assumptions."""
    parser = argparse.ArgumentParser(prog="python -m replication.paper", description="What the paper says.")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--json", action="store_true", help="print Tables 1 to 12 as JSON")
    choice.add_argument("--assumptions", action="store_true", help="print what the paper leaves open")
    options = parser.parse_args(arguments)
    if options.json:
        print(json.dumps(tables_as_json(), indent=2))
    elif options.assumptions:
        print("\n".join(line for entry in ASSUMPTIONS.values() for line in _assumption_lines(entry)))
    else:
        print("\n".join(_overview()))


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it quietly
    main()
