"""Table 9: lambda, the weight of the strong logits, over its 17 values, three trainings each.

    python -m replication.table9 --model tiny
"""

from replication import plots
from replication.cli import main
from replication.declarations import Group, Line, Plot, Table
from replication.paper import TABLES
from replication.plots import Content

LAMBDAS = tuple(next(iter(TABLES["table9"].values.values())))


def lambda_curve(content: Content) -> list[Plot]:
    """The average over lambda, measured and the paper's."""
    return [plots.plot("lambda-curve", f"Average over the benchmarks by the weight of the strong logits "
                       f"({content['scale']} scale)", "λ", "Avg. (%)", [
                           plots.column(content, "Avg.", "measured", float),
                           plots.paper_column(content, "Avg.", float)])]


TABLE = Table(
    name="table9",
    title="Sensitivity to lambda, the weight of the strong logits: mean greedy pass@1 (%) of three trainings",
    place="Table 9",
    groups=(Group(title="Math", columns=("aime2025", "math500", "aqua", "gsm8k", "mawps", "svamp"), average="Avg."),),
    rows=tuple(Line(f"wmss[wdjt.mix_weight={value}]", value) for value in LAMBDAS),
    against=(),
    trainings=3,
    sweep=True,
    plots=lambda_curve,
    notes=("Rows are lambda; the paper prints lambda across and benchmarks down.",),
)

if __name__ == "__main__":
    main(TABLE)
