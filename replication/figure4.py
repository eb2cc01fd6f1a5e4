"""Figure 4: the rise after the warm-up, with and without WD-DS, and of plain SFT.

    python -m replication.figure4 --model tiny
"""

from replication import plots
from replication.cli import main
from replication.declarations import FINAL, Group, Line, Plot, Table
from replication.paper import TEXT_MODEL, percent
from replication.paper_tables import QWEN3_4B
from replication.plots import Content

AT = {"ck-50": 50 / 218, "ck-100": 100 / 218, "ck-150": 150 / 218, "ck-200": 200 / 218, FINAL: 1.0}
COURSES = {"with WD-DS": "wmss", "without WD-DS": "wmss-wd-jt", "SFT": "sft"}
AVERAGE = "Avg. of MATH500 and GSM8K"
START = "Warm-up (M1)"


def _title(course: str, at: str) -> str:
    return f"{course}, {at}"


# The ends of the paper's curves: with WD-DS after 123 updates, its whole active set, without after 218.
_ENDS = {START: "start", _title("with WD-DS", FINAL): "with", _title("without WD-DS", FINAL): "without"}
CLAIMS = {(row, column): f"fig4_{which}_{column.lower()}" for row, which in _ENDS.items()
          for column in ("MATH500", "GSM8K")}


def courses(content: Content) -> list[Plot]:
    """The average by updates, as a share of a full epoch's: a shorter active set ends earlier."""
    updates = {budget["row"]: budget["updates"] for budget in content["budget"]}
    full = updates.get("SFT")
    series = []
    for course, row in zip(COURSES, ("WMSS", "+ WD-JT", "SFT"), strict=True):
        share = updates[row] / full if full and updates.get(row) else 1.0
        places = [(0.0, START), *((round(fraction * share, 4), _title(course, at)) for at, fraction in AT.items())]
        series.append(plots.rows(content, places, AVERAGE, course))
    return [plots.plot("figure4", f"Average of MATH500 and GSM8K after the warm-up ({content['scale']} scale)",
                       "updates, as a share of a full epoch's", "Avg. (%)",
                       [*series, *_paper_series(content["paper_source"])])]


def _paper_series(source: str) -> list[dict[str, object]]:
    """Only the ends of the paper's curves are printed, and those of one backbone: no other has any here."""
    if source.partition(",")[0] != QWEN3_4B:
        return []

    def mean(which: str) -> float:
        return (percent(f"fig4_{which}_math500") + percent(f"fig4_{which}_gsm8k")) / 2

    ends = {"with WD-DS": ("with", 123 / 218), "without WD-DS": ("without", 1.0)}
    return [{"name": f"paper, {name} ({source})", "kind": "paper", "points": [{"x": 0.0, "y": mean("start")},
                                                                  {"x": x, "y": mean(which)}]}
            for name, (which, x) in ends.items()]


TABLE = Table(
    name="figure4",
    title="Rise after the warm-up with and without WD-DS, and of SFT: pass@1 accuracy (%)",
    place="Figure 4",
    groups=(Group(title="Math", columns=("math500", "gsm8k"), average=AVERAGE),),
    rows=(Line("M1", START), *(Line(text, _title(course, at), at) for course, text in COURSES.items() for at in AT)),
    against=(),
    claims=CLAIMS,
    plots=courses,
    notes=("ck-50 to ck-200 are fractions (of 218) of each training's own updates.",
           f"The paper prints the ends of two curves, without naming the model; read as {TEXT_MODEL}'s."),
)

if __name__ == "__main__":
    main(TABLE)
