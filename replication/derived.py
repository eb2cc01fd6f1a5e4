"""Cells that a pure function makes from what several steps measured (Tables 6 and 7, the theory)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from replication.cells import PlannedCell
from replication.diagnostics import measurement
from replication.measures import Reading
from replication.steps import Step
from replication.store import Store

Measurements = Mapping[str, Any]
Make = Callable[[Measurements], list[dict[str, Any]]]
_MISSING = {"status": "missing", "reason": "not run"}
_made: dict[tuple[str, ...], dict[tuple[str, str], dict[str, Any]]] = {}


@dataclass(frozen=True, slots=True)
class Derived:
    """One cell of what `make` returns for the named steps' measurements."""

    parts: tuple[tuple[str, Step], ...]
    make: Make
    row: str
    column: str

    @property
    def steps(self) -> tuple[Step, ...]:
        """All measurements: the cells stand or fall together."""
        return tuple(step for _, step in self.parts)

    def read(self, store: Store) -> Reading:
        """Make all cells once, and pick one."""
        key = (repr(self.make), *(step.key for step in self.steps))
        if key not in _made:
            _made[key] = {(c["row"], c["column"]): c for c in self.make(measured(self.parts, store))}
        cell = _made[key][self.row, self.column]
        ci95 = None if cell["ci95"] is None else (cell["ci95"][0], cell["ci95"][1])
        return Reading(value=cell["value"], reason=cell["reason"], unit=cell["unit"], digits=cell["digits"],
                       ci95=ci95, n=cell["n"], step=cell["step"])


def measured(parts: tuple[tuple[str, Step], ...], store: Store) -> dict[str, Any]:
    """Read the measurements by name; one that is not there says so."""
    return {name: measurement(store.use(step), step.id) if store.is_done(step) else _MISSING for name, step in parts}


def planned(parts: tuple[tuple[str, Step], ...], make: Make, paper_of: str | None = None) -> list[PlannedCell]:
    """Plan every cell that `make` returns; what it makes of missing measurements tells rows, columns and groups.

    `paper_of` is the model of the paper's values where they are of one model only (PlannedCell).
    """
    return [PlannedCell(row=cell["row"], column=cell["column"], group=cell["group"], paper=cell["paper_context"],
                        paper_of=None if cell["paper_context"] is None else paper_of,
                        measure=Derived(parts, make, cell["row"], cell["column"]))
            for cell in make({name: _MISSING for name, _ in parts})]
