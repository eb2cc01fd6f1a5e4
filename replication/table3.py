"""Table 3: WD-JT without WD-DS, its weak side trained along or frozen, by checkpoint.

    python -m replication.table3 --model tiny
"""

from replication.cells import PlannedCell, paper_value
from replication.cli import main
from replication.declarations import FINAL, Group, Line, Table
from replication.measures import Accuracy
from replication.plan import Planners

CHECKPOINTS = {"50": "ck-50", "100": "ck-100", "150": "ck-150", "200": "ck-200", "final": FINAL}
ROWS = {"wmss-wd-jt": "WD-JT only", "wmss-frozen": "Frozen base"}


def cells(planners: Planners, table: Table) -> list[PlannedCell]:
    """One row per checkpoint, as the paper prints it; columns are the two variants by benchmark."""
    planner = planners()
    planned = []
    for row, at in CHECKPOINTS.items():
        for text, heading in ROWS.items():
            for name, title in (("math500", "MATH500"), ("gsm8k", "GSM8K")):
                line, column = Line(text, row, at), f"{heading} {title}"
                reason = planners.lacking(name)
                planned.append(PlannedCell(
                    row=row, column=column, group="Math", paper=paper_value(planner, table, line, row, column),
                    measure=Accuracy(planners.grades(table, line, name)) if reason is None else None,
                    reason=reason))
    return planned


TABLE = Table(
    name="table3",
    title="Freezing the weak side: pass@1 accuracy (%) at checkpoints after the shared warm-up",
    place="Table 3",
    groups=(Group(title="Math", columns=("math500", "gsm8k")),),
    cells=cells,
    trained=tuple(ROWS),
    notes=("Checkpoints are fractions of the training's updates: 50/218, 100/218, 150/218, 200/218 and the end.",
           "Both variants train on the whole pool, without WD-DS."),
)

if __name__ == "__main__":
    main(TABLE)
