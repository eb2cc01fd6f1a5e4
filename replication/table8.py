"""Table 8: the weights of WD-DS (alpha, beta, gamma) around the default.

    python -m replication.table8 --model tiny
"""

from replication.cli import main
from replication.declarations import Group, Line, Table
from replication.paper import TABLES

SETUPS = next(iter(TABLES["table8"].values.values()))


def _row(setup: str) -> Line:
    weights = ";".join(f"wdds.{name}={SETUPS[setup][name]}" for name in ("alpha", "beta", "gamma"))
    return Line(f"wmss[{weights}]", setup)


TABLE = Table(
    name="table8",
    title="Sensitivity to alpha, beta, gamma: pass@1 accuracy (%) under greedy decoding",
    place="Table 8",
    groups=(Group(title="Math", columns=("aime2025", "math500")),),
    rows=tuple(_row(setup) for setup in SETUPS),
    against=(_row("Default").text,),
    sweep=True,
    notes=("Weights (alpha, beta, gamma): " + "; ".join(
        f"{setup} {row['alpha']:g}, {row['beta']:g}, {row['gamma']:g}" for setup, row in SETUPS.items()) + ".",),
)

if __name__ == "__main__":
    main(TABLE)
