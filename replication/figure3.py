"""Figure 3: four epochs, the warm-up and three weak-driven ones, beside four epochs of SFT.

    python -m replication.figure3 --model tiny
"""

from replication import plots
from replication.cli import main
from replication.declarations import Line, Plot, Table
from replication.paper import integer
from replication.plots import Content
from replication.table1 import MATH

EPOCHS = integer("figure3.epochs")
LONG = {"WMSS": ("wmss", f"wmss[wmss.iterations={EPOCHS - 1}]"), "SFT": ("sft", f"sft[sft.epochs={EPOCHS}]")}


def _lines(name: str) -> list[Line]:
    short, long = LONG[name]
    checkpoints = [(long, f"M{epoch}") for epoch in range(3, EPOCHS)]
    trained = [(short, "final"), *checkpoints, (long, "final")]
    return [Line(text, f"{name}, epoch {epoch}", at) for epoch, (text, at) in enumerate(trained, start=2)]


def trajectories(content: Content) -> list[Plot]:
    """Each benchmark's trajectory under WMSS, and the average of both."""
    titles = dict.fromkeys(cell["column"] for cell in content["cells"])
    epochs = {name: {1: "Warm-up, epoch 1"} | {e: f"{name}, epoch {e}" for e in range(2, EPOCHS + 1)} for name in LONG}
    single = [plots.rows(content, epochs["WMSS"].items(), column, column) for column in titles
              if column != MATH.average]
    means = [plots.rows(content, epochs[name].items(), MATH.average or "", name) for name in LONG]
    scale = content["scale"]
    return [plots.plot("figure3", f"WMSS over {EPOCHS} epochs, by benchmark ({scale} scale)", "epoch", "pass@1 (%)",
                       single),
            plots.plot("figure3-average", f"Average of the benchmarks over {EPOCHS} epochs ({scale} scale)", "epoch",
                       "Math Avg. (%)", means)]


TABLE = Table(
    name="figure3",
    title=f"Convergence over {EPOCHS} epochs: pass@1 accuracy (%) under greedy decoding",
    place="Figure 3",
    groups=(MATH,),
    rows=(Line("M1", "Warm-up, epoch 1"), *_lines("WMSS"), *_lines("SFT")),
    against=(),
    plots=trajectories,
    notes=("Epoch 1 is the warm-up M1; every later epoch begins a schedule of its own (A-81), its weak side the "
           "checkpoint before. The paper's figure shows WMSS alone and prints no values.",),
)

if __name__ == "__main__":
    main(TABLE)
