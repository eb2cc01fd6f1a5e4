"""Table 7: logits of the weak side and of the strong one before and after WD-JT.

    python -m replication.table7 --model tiny
"""

from replication.cells import PlannedCell
from replication.cli import main
from replication.declarations import Table
from replication.derived import planned
from replication.diagnostics import TABLE7_NOTES, table7_cells
from replication.plan import Planners

CHECKPOINTS = {"Weak init": "M0", "Strong Pre": "M1", "Strong Post": "wmss"}


def cells(planners: Planners, table: Table) -> list[PlannedCell]:
    """The base, the warm-up and WMSS's strong branch, and the change between the latter two."""
    planner = planners()
    parts = tuple((name, planner.logit_statistics(planner.final(text), planner.row_title(text)))
                  for name, text in CHECKPOINTS.items())
    context = planner.model.context
    return planned(parts, lambda found: table7_cells(*(found[name] for name in CHECKPOINTS), context=context))


TABLE = Table(
    name="table7",
    title="Logit statistics before and after WD-JT, on 200 training examples",
    place="Table 7",
    cells=cells,
    trained=("wmss",),
    notes=TABLE7_NOTES,
)

if __name__ == "__main__":
    main(TABLE)
