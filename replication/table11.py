"""Table 11: what training costs after the shared warm-up, and what it gains.

    python -m replication.table11 --model tiny
"""

from replication import plots
from replication.cells import PlannedCell, incomplete
from replication.cli import main
from replication.declarations import Group, Line, Plot, Table
from replication.measures import Accuracy, Average, Gain, Measure, Noted, Seconds
from replication.paper import printed, published
from replication.plan import Planner, Planners
from replication.planning import TRAININGS
from replication.plots import Content
from replication.steps import Step, closure
from replication.table1 import MATH

TOTAL, BENEFIT = "Total training time", "Math-Avg change"
PARTS = {"Selection": ("entropy", "select"), "Rollouts": ("subset", "rollouts", "rollout-grades", "pairs", "hints",
                                                         "targets"), "Training": TRAININGS}


def cells(planners: Planners, table: Table) -> list[PlannedCell]:
    """Seconds by part, speed, updates, examples, and the gain in Math-Avg over SFT; one row per method."""
    planner = planners()
    planned = []
    for text in planners.methods(table):
        title = planner.row_title(text)
        for column, measure in _measures(planners, planner, table, text).items():
            if measure is not None:  # a method without rollouts has no cell there
                planned.append(PlannedCell(row=title, column=column, group="Cost" if column != BENEFIT else "Benefit",
                                           measure=measure, paper=_paper(planner.model.context, title, column),
                                           paper_text=_printed(planner.model.context, title, column)))
        if text != "sft" and (reason := _without_benefit(planners)) is not None:
            planned.append(PlannedCell(row=title, column=BENEFIT, group="Benefit", measure=None, reason=reason,
                                       paper=_paper(planner.model.context, title, BENEFIT),
                                       paper_text=_printed(planner.model.context, title, BENEFIT)))
    return planned


def _measures(planners: Planners, planner: Planner, table: Table, text: str) -> dict[str, Measure | None]:
    plan = planner.plan(text)
    before = {step.key for step in closure([planner.warmup()])}
    own = [step for step in closure(plan.trainings) if step.key not in before]
    trainings = tuple(plan.trainings)

    def of_kinds(kinds: tuple[str, ...]) -> tuple[Step, ...]:
        return tuple(step for step in own if step.kind in kinds)

    found: dict[str, Measure | None] = {TOTAL: Seconds(tuple(own))}
    for name, kinds in PARTS.items():
        found[name] = Seconds(steps) if (steps := of_kinds(kinds)) else None
    found["Speed"] = Seconds(trainings, per_token=True)
    found |= {"Updates": Noted(trainings, "updates"), "Examples": Noted(trainings, "examples_seen")}
    if text != "sft" and all(planners.lacking(name) is None for name in MATH.columns):
        ours, theirs = (Average(tuple(Accuracy(planners.grades(table, Line(row), name)) for name in MATH.columns))
                        for row in (text, "sft"))
        found[BENEFIT] = Gain(ours, theirs)
    return found


def _without_benefit(planners: Planners) -> str | None:
    """Return which benchmark without data the average needs; None where there is none, or not all were asked for."""
    asked = all(name in planners.benchmarks for name in MATH.columns)
    return incomplete(planners, MATH.columns) if asked else None


def _paper(model: str, row: str, column: str) -> float | None:
    if column == BENEFIT:
        return published("table11", model, row, "Math-Avg change")
    minutes = published("table11", model, row, "total_minutes") if column == TOTAL else None
    return None if minutes is None else 60 * minutes


def _printed(model: str, row: str, column: str) -> str | None:
    """The paper's time in the hours and minutes that it prints."""
    return printed("table11", model, row, "total_minutes" if column == TOTAL else column)


def cost_against_gain(content: Content) -> list[Plot]:
    """The gain over SFT by the time it took."""
    found = {(cell["row"], cell["column"]): cell for cell in content["cells"]}
    rows = [row for row, column in found if column == BENEFIT]
    points = [(row, found[row, TOTAL], found[row, BENEFIT]) for row in rows]
    return [plots.plot("cost-against-gain", f"Gain in Math-Avg over SFT by training time ({content['scale']} scale)",
                       "training time after the warm-up (s)", "points over SFT",
                       [plots.single(row, cost, gain) for row, cost, gain in points if gain["status"] == "measured"])]


TABLE = Table(
    name="table11",
    title="Training time after the shared warm-up, and the gain in Math-Avg over SFT",
    place="Table 11",
    groups=(Group(title="Math", columns=MATH.columns),),
    rows=("sft", "neftune", "undial", "ssb", "spin", "wmss"),
    cells=cells,
    plots=cost_against_gain,
    notes=("Times are wall seconds of each step on the machine named under provenance, with whatever ran beside it; "
           "they differ from run to run and are the only cells that do. A step that was interrupted counts the seconds "
           "of all its attempts, also of what had to be done again; its manifest lists them.",
           "A rollout-heavy method's own sampling, grading and teacher passes are part of its time; WMSS's has both "
           "entropy passes and the selection."),
)

if __name__ == "__main__":
    main(TABLE)
