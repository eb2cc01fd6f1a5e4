"""Table 6: what two methods do to the logits, after three epochs.

    python -m replication.table6 --model tiny
"""

from replication.cells import PlannedCell
from replication.cli import main
from replication.declarations import Table
from replication.derived import planned
from replication.diagnostics import TABLE6_NOTES, table6_cells
from replication.paper import integer
from replication.plan import Planners

EPOCH = integer("table6.epoch")
ROWS = {"SFT": f"sft[sft.epochs={EPOCH}]", "WMSS": f"wmss[wmss.iterations={EPOCH - 1}]"}


def cells(planners: Planners, table: Table) -> list[PlannedCell]:
    """SFT and WMSS at epoch 3 on the same 200 examples, and the relative change."""
    planner = planners()
    parts = tuple((name, planner.logit_statistics(planner.final(text), f"{name}, epoch {EPOCH}"))
                  for name, text in ROWS.items())
    context = planner.model.context
    return planned(parts, lambda found: table6_cells(found["SFT"], found["WMSS"], context=context))


TABLE = Table(
    name="table6",
    title=f"Logits of SFT and WMSS at epoch {EPOCH}, on 200 training examples",
    place="Table 6",
    cells=cells,
    trained=tuple(ROWS.values()),
    notes=(f"Epoch {EPOCH}: the warm-up and two more epochs of each method.", *TABLE6_NOTES),
)

if __name__ == "__main__":
    main(TABLE)
