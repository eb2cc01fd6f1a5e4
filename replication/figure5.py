"""Figure 5: the weak side's checkpoint, the entropy gap it opens, and what comes of it.

    python -m replication.figure5 --model tiny
"""

from replication import plots
from replication.cells import PlannedCell, grid
from replication.cli import main
from replication.declarations import Group, Line, Plot, Table
from replication.measures import EntropyGap
from replication.paper import TEXT_MODEL
from replication.plan import Planners
from replication.plots import Content
from replication.steps import closure

WEAK = {"base": "wmss", **{f"ck-{update}": f"wmss[wmss.weak_checkpoint={update}]" for update in (50, 100, 150, 200)}}
GAP, AVERAGE = "Entropy gap", "Avg."


def cells(planners: Planners, table: Table) -> list[PlannedCell]:
    """The grid, and for each row the gap between weak and strong entropies on the pool."""
    planner = planners()

    def gap(line: Line) -> PlannedCell:
        draws = [step for step in closure([planner.final(line.text)]) if step.kind == "select"]
        return PlannedCell(row=line.title or planner.row_title(line.text), column=GAP, group="Entropy",
                           measure=EntropyGap(draws[0]) if draws else None,
                           reason=None if draws else "selects nothing: it compares no entropies")

    return [*grid(planners, table), *map(gap, table.lines)]


def by_gap(content: Content) -> list[Plot]:
    """Accuracy over the entropy gap."""
    found = {(cell["row"], cell["column"]): cell for cell in content["cells"]}
    gaps = sorted((cell["value"], row) for (row, column), cell in found.items()
                  if column == GAP and cell["status"] == "measured")
    return [plots.plot("figure5", f"Accuracy by the gap of weak and strong entropies ({content['scale']} scale)",
                       "mean entropy of the weak side minus the strong side's (nats per token)", "pass@1 (%)",
                       [plots.rows(content, gaps, column, column, labels=True)
                        for column in ("MATH500", "GSM8K", AVERAGE)])]


TABLE = Table(
    name="figure5",
    title="Weak side by checkpoint: entropy gap on the pool, and pass@1 accuracy (%)",
    place="Figure 5",
    groups=(Group(title="Math", columns=("math500", "gsm8k"), average=AVERAGE),),
    rows=tuple(Line(text, title) for title, text in WEAK.items()),
    against=("wmss",),
    claims={("ck-200", column): f"fig5_ck200_{column.lower()}" for column in ("MATH500", "GSM8K")},
    cells=cells,
    plots=by_gap,
    notes=("The strong side is always the end of the warm-up (ck-218). The paper prints values for ck-200 "
           f"alone, without naming the model; read as {TEXT_MODEL}'s.",),
)

if __name__ == "__main__":
    main(TABLE)
