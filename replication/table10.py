"""Table 10: pass@k of WMSS and DPO from 64 samples a problem, and what more samples add.

    python -m replication.table10 --model tiny
"""

from typing import Any

from evaluation.backends.interface import Sampling
from replication import plots
from replication.cells import PlannedCell
from replication.cli import main
from replication.comparisons import adjust, compare_scores
from replication.declarations import Group, Plot, Table
from replication.measures import PassAtK
from replication.paper import integer, number, published
from replication.plan import Planner, Planners
from replication.plots import Content
from replication.steps import Step
from replication.store import Store
from replication.tables import TableRun

KS: tuple[int, ...] = (1, 4, 8, 16, 32, 64)
BENCHMARKS = {"aime2025": "AIME 2025", "amc23": "AMC23", "math500": "MATH500"}
GAIN = "Diversity gain"


def cells(planners: Planners, table: Table) -> list[PlannedCell]:
    """One row per k, as the paper prints it, and the gain from pass@1 to pass@64."""
    planner = planners()
    planned = []
    for row in (*map(str, KS), GAIN):
        for name, title in BENCHMARKS.items():
            for text in planners.methods(table):
                column = f"{title} {planner.row_title(text)}"
                reason = planners.lacking(name)
                k, minus = (KS[-1], 1) if row == GAIN else (int(row), None)
                measure = PassAtK(_grades(planner, text, name), k, minus) if reason is None else None
                planned.append(PlannedCell(row=row, column=column, group=title, measure=measure, reason=reason,
                                           paper=_paper(planner.model.context, row, column)))
    return planned


def _grades(planner: Planner, text: str, name: str) -> Step:
    return planner.sampled_grade(text, name, Sampling(
        n=integer("pass_at_k.num_samples"), temperature=number("pass_at_k.temperature"),
        top_p=number("pass_at_k.top_p")))


def extras(run: TableRun, store: Store) -> dict[str, list[Any]]:
    """Compare each row with DPO on the same problems, for every k; Holm over all of the table's tests."""
    planner, found = run.planners(), []
    anchors = [text for text in run.table.against if text in run.methods]
    for text, anchor in ((text, anchor) for anchor in anchors for text in run.methods if text not in anchors):
        titles = {"row": planner.row_title(text), "against": planner.row_title(anchor)}
        for name, title in BENCHMARKS.items():
            there = run.planners.lacking(name) is None
            both = [_grades(planner, row, name) for row in (text, anchor)] if there else []
            if both and all(map(store.is_done, both)):
                found += [titles | compare_scores(f"{title}, k = {k}", *(PassAtK(step, k).by_problem(store)
                                                                         for step in both)) for k in KS]
    adjust(found)
    return {"comparisons": found}


def _paper(model: str, row: str, column: str) -> float | None:
    if row != GAIN:
        return published("table10", model, row, column)
    most, least = (published("table10", model, k, column) for k in ("64", "1"))
    return None if most is None or least is None else round(most - least, 2)


def curves(content: Content) -> list[Plot]:
    """pass@k over k, one plot a benchmark."""
    return [plots.plot(f"pass-at-k-{name}", f"pass@k on {title} ({content['scale']} scale)", "k", "pass@k (%)",
                       plots.columns_of_group(content, title, skip=(GAIN,)), x_scale="log2")
            for name, title in BENCHMARKS.items()]


TABLE = Table(
    name="table10",
    title="pass@k (%) from 64 samples a problem at T = 0.7, top-p = 0.95",
    place="Table 10",
    groups=(Group(title="Math", columns=tuple(BENCHMARKS)),),
    rows=("wmss", "dpo"),
    against=("dpo",),
    cells=cells,
    plots=curves,
    extras=extras,
    notes=("pass@k is the unbiased estimate; k = 1 is the mean over the 64 samples, k = 64 whether any of them is "
           "right. Intervals are 95 % over problems: Student's, and Wilson's where every problem counts 0 or 1, as at "
           "k = 64, or all count alike. They speak of the problems, not of new samples or a new training: each row is "
           "one training.",
           "Comparisons are paired by problem (sign flips); p is unadjusted, p (Holm) adjusted for all of them.",
           "Diversity gain is pass@64 - pass@1 (B.9); the paper's is computed from its printed values."),
)

if __name__ == "__main__":
    main(TABLE)
