"""A result in the terminal: one line a column, rows side by side, with intervals and the paper's values."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from replication.formats import Content, grid, interval_text, missing_lines, paper_text, shown_columns, value_text
from replication.run import RunReport


def show(content: Content, report: RunReport, paths: list[Path]) -> None:
    """Print the table, the headline comparisons, what is missing and why, footnotes, and where the files are."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 120)
    for table in _tables(content, console.width):
        console.print(table)
    for c in _headline(content["comparisons"]):
        console.print(f"{c['row']} - {c['against']}, {c['column']}: {c['difference']:+.1f} points, 95 % "
                      f"{c['ci95'][0]:+.1f} to {c['ci95'][1]:+.1f}, p = {c['p']:.3g}", highlight=False, markup=False)
    for line in (*missing_lines(content), *(entry["text"] for entry in content.get("ordering", ()))):
        if line:
            console.print(line, highlight=False, markup=False)
    for line in content["footnotes"]:
        console.print(f"- {line}", highlight=False, markup=False)
    console.print(f"{len(report.ran)} steps run, {report.done_before} done before, {report.seconds:.1f} s; wrote "
                  + ", ".join(str(path) for path in paths), highlight=False, markup=False, soft_wrap=True)


def _headline(comparisons: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the comparisons of averages, and single columns where a pair of rows has no average."""
    averages = [c for c in comparisons if c["test"] != "mcnemar_exact"]
    averaged = {(c["row"], c["against"]) for c in averages}
    return [c for c in comparisons if c in averages or (c["row"], c["against"]) not in averaged]


def _tables(content: Content, width: int) -> Iterator[Any]:
    """Yield tables of as many rows side by side as the width holds: value, interval, and the paper's in parentheses."""
    from rich.table import Table
    from rich.text import Text

    rows, _, cells = grid(content)
    with_paper = any(paper_text(cell) for cell in cells.values())
    caption = content["notes"][0] + (f" In parentheses: the paper's ({content['paper_source']})." if with_paper else "")
    side_by_side = max(1, (width - 13) // 15)
    for start in range(0, len(rows), side_by_side):
        shown = rows[start : start + side_by_side]
        table = Table(title=content["heading"] if start == 0 else None,
                      caption=caption if start + side_by_side >= len(rows) else None)
        table.add_column("")
        for row in shown:
            table.add_column(row, justify="right", min_width=12)
        for column in shown_columns(content):
            found = [cells.get((row, column)) for row in shown]
            table.add_row(column, *(Text.assemble(value_text(cell), (f"\n{interval_text(cell)}", "dim"),
                                                  (f"\n({paper_text(cell)})" if paper_text(cell) else "", "dim italic"))
                                    for cell in found))
        yield table
