"""From a table's declaration to steps, from finished steps to cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from replication.cells import PlannedCell, grid
from replication.comparisons import comparisons
from replication.declarations import Table
from replication.measures import Reading
from replication.paper import TABLES, printed
from replication.plan import Planners
from replication.run import RunReport
from replication.steps import Step
from replication.store import Store

Cell = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TableRun:
    """One table for one request: which steps it needs, and what they gave."""

    table: Table
    planners: Planners
    cells: tuple[PlannedCell, ...]

    @classmethod
    def plan(cls, table: Table, planners: Planners) -> TableRun:
        """Plan every cell."""
        return cls(table, planners, tuple((table.cells or grid)(planners, table)))

    @property
    def methods(self) -> tuple[str, ...]:
        """The texts of the method rows, each once."""
        return tuple(dict.fromkeys(line.text for line in self.table.lines))

    @property
    def absent(self) -> dict[str, str]:
        """Benchmarks that were asked for and have no data, with the reason."""
        names = [name for group in self.table.groups for name in group.columns if name in self.planners.benchmarks]
        return {name: reason for name in names if (reason := self.planners.lacking(name)) is not None}

    @property
    def targets(self) -> list[Step]:
        """The steps that the cells are read from, each once."""
        steps = [step for cell in self.cells if cell.measure is not None for step in cell.measure.steps]
        return list({step.key: step for step in steps}.values())

    def readings(self, store: Store) -> dict[int, Reading]:
        """Read what is finished, by the cell's position."""
        return {i: cell.measure.read(store) for i, cell in enumerate(self.cells)
                if cell.measure is not None and all(store.is_done(step) for step in cell.measure.steps)}

    def content(self, store: Store, report: RunReport) -> tuple[list[Cell], list[dict[str, Any]]]:
        """Return every cell, measured, missing or failed, never left out; and the paired comparisons."""
        readings = self.readings(store)
        cells = [self._cell(i, cell, readings.get(i), report) for i, cell in enumerate(self.cells)]
        return cells, comparisons(self, readings)

    def _cell(self, position: int, cell: PlannedCell, found: Reading | None, report: RunReport) -> Cell:
        planner = self.planners(next((g.domain for g in self.table.groups if g.title == cell.group), "math"))
        own = self.planners.request.model.published_as
        judged = own is not None and cell.paper_of in (None, own) and planner.comparable_with_the_paper
        paper, context = (cell.paper, None) if judged else (None, cell.paper)
        said = cell.paper_text or self._printed(cell)
        form: Cell = {"row": cell.row, "column": cell.column, "group": cell.group, "value": None, "unit": "%",
                      "n": None, "correct": None, "ci95": None, "paper": paper, "paper_context": context,
                      "paper_text": said, "status": "measured", "reason": None, "step": None,
                      "outcomes": None, "digits": 1}
        if found is not None and found.value is None:
            return form | {"status": "missing", "reason": found.reason, "unit": found.unit, "step": found.step}
        if found is not None:
            return form | {"value": found.value, "unit": found.unit, "n": found.n, "correct": found.correct,
                           "ci95": None if found.ci95 is None else list(found.ci95), "step": found.step,
                           "outcomes": found.outcomes, "digits": found.digits}
        if cell.measure is None:
            return form | {"status": "missing", "reason": cell.reason}
        failed = [report.failed[step.key] for step in cell.measure.steps if step.key in report.failed]
        if failed:
            return form | {"status": "failed", "reason": failed[0].reason}
        return form | {"status": "missing", "reason": "not run"}

    def _printed(self, cell: PlannedCell) -> str | None:
        """Return the paper's number with the digits it is printed with; None where there is no number to print."""
        name = self.table.paper_table or self.table.name
        if cell.paper is None or name not in TABLES:
            return None
        return printed(name, self.planners.request.model.context, cell.row, cell.column)
