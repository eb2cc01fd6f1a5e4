"""The theory, measured on real checkpoints' tokens: a table and plots that the paper does not have.

    python -m replication.theory --model tiny

How often Theorem 1's condition holds and whether its conclusion held on every such token, hard negatives and
Corollary 2, the branches' shares of the gradient, the crossover of Eq. 16, 17 and 63, the drift of Stage III.
"""

from dataclasses import replace

from replication.cells import PlannedCell
from replication.cli import main
from replication.declarations import Table
from replication.derived import measured, planned
from replication.diagnostics import THEORY_CLAIMS, theory_cells, theory_notes, theory_plots
from replication.paper import TEXT_MODEL
from replication.paper_values import TEXT_CLAIMS
from replication.plan import Planners
from replication.steps import Step
from replication.store import Store
from replication.tables import TableRun

WEAK_SIDES = {"M0": "wmss", "ck-50": "wmss[wmss.weak_checkpoint=50]", "ck-200": "wmss[wmss.weak_checkpoint=200]"}


def pairs(planners: Planners) -> tuple[tuple[str, Step], ...]:
    """Return the pairs: M1 with the base and with two checkpoints inside its epoch, each followed through WD-JT."""
    planner = planners()
    found = []
    for name, text in WEAK_SIDES.items():
        weak = planner.base() if name == "M0" else planner.checkpoint("M1", name)
        found.append((f"{name} + M1", planner.theory(weak, planner.warmup(), planner.final(text), f"{name} + M1")))
    return tuple(found)


def cells(planners: Planners, table: Table) -> list[PlannedCell]:
    """One column a pair."""
    return [replace(cell, paper_text=TEXT_CLAIMS[THEORY_CLAIMS[cell.row]].text) if cell.paper is not None else cell
            for cell in planned(pairs(planners), theory_cells, paper_of=TEXT_MODEL)]


def extras(run: TableRun, store: Store) -> dict[str, list[object]]:
    """The plots over lambda, and what was found per pair."""
    found = measured(pairs(run.planners), store)
    return {"plots": list(theory_plots(found, run.planners.request.scale.name)), "notes": list(theory_notes(found))}


TABLE = Table(
    name="theory",
    title="The theory on pairs of weak and strong checkpoints, by token",
    place="Theory",
    cells=cells,
    trained=tuple(WEAK_SIDES.values()),
    extras=extras,
    notes=(f"The paper prints four of these numbers, for the base and the warm-up of {TEXT_MODEL} (App. B.8).",),
)

if __name__ == "__main__":
    main(TABLE)
