"""A planned cell: where it stands, what it measures, and what the paper prints there; and the grid of most tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluation.benchmarks import BENCHMARKS
from replication.measures import Accuracy, Average, Measure
from replication.paper import TABLES, TEXT_MODEL, percent, published

if TYPE_CHECKING:
    from replication.declarations import Group, Line, Table
    from replication.plan import Planner, Planners


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCell:
    """One cell of a table. `measure` is None where it cannot be measured in this run; `reason` says why."""

    row: str
    column: str
    group: str
    measure: Measure | None
    reason: str | None = None
    paper: float | None = None
    """The paper's number in the corresponding cell."""
    paper_of: str | None = None
    """The model it is of, where that is not the one whose tables stand beside (figures of the running text)."""
    paper_text: str | None = None
    """That number as printed, where the table of the same name does not say it (replication.paper.printed)."""
    key: tuple[str, str] | None = None
    """(row text, benchmark) for what paired comparisons are made of."""


def grid(planners: Planners, table: Table) -> list[PlannedCell]:
    """Return the cells of a table of methods and benchmarks, row by row."""
    return [cell for line in planners.lines(table) for group in table.groups
            for cell in _of_group(planners, table, line, group)]


def _of_group(planners: Planners, table: Table, line: Line, group: Group) -> list[PlannedCell]:
    planner = planners(group.domain)
    title = line.title or planner.row_title(line.text)
    unavailable = planner.unavailable
    cells, columns = [], []
    for name in group.columns:
        reason = unavailable or planners.lacking(name)
        measure = Accuracy(planners.grades(table, line, name)) if reason is None else None
        column = BENCHMARKS[name].title
        cells.append(PlannedCell(row=title, column=column, group=group.title, measure=measure, reason=reason,
                                 paper=paper_value(planner, table, line, title, column), key=(line.text, name),
                                 paper_of=TEXT_MODEL if (title, column) in table.claims else None))
        columns.append(measure)
    if group.average is not None:
        known = [column for column in columns if column is not None]
        whole = len(known) == len(columns)
        reason = None if whole else unavailable or incomplete(planners, group.columns)
        cells.append(PlannedCell(row=title, column=group.average, group=group.title, reason=reason,
                                 measure=Average(tuple(known)) if whole else None,
                                 paper=paper_value(planner, table, line, title, group.average)))
    return cells


def incomplete(planners: Planners, columns: Sequence[str]) -> str | None:
    """Return why there is no average over columns of which some are missing."""
    asked = [name for name in columns if name in planners.benchmarks]
    if len(asked) < len(columns):
        return f"needs all {len(columns)} columns, {len(asked)} were asked for"
    return next((f"needs all {len(columns)} columns: {reason}" for name in asked
                 if (reason := planners.lacking(name)) is not None), None)


def paper_value(planner: Planner, table: Table, line: Line, row: str, column: str) -> float | None:
    """Return what the paper prints in the corresponding cell; nothing for a row that the user's settings changed."""
    if line.text in planner.rows and planner.rows[line.text].changed and line.title is None:
        return None
    if line.title is not None and planner.configuration.methods:
        return None
    if (row, column) in table.claims:
        return percent(table.claims[row, column])
    name = table.paper_table or table.name
    return published(name, planner.model.context, row, column) if name in TABLES else None
