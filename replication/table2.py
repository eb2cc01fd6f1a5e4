"""Table 2: the modules of WMSS one by one.

    python -m replication.table2 --model tiny
"""

from replication.cli import main
from replication.declarations import Group, Line, Table

TABLE = Table(
    name="table2",
    title="Ablation of the modules of WMSS: pass@1 accuracy (%) under greedy decoding",
    place="Table 2",
    groups=(Group(title="Math", columns=("aime2025", "math500", "gsm8k"), average="Avg."),),
    rows=(Line("sft", "Baseline"), "wmss-wd-ds", "wmss-wd-jt", "wmss"),
    notes=("Baseline is two-epoch SFT.",),
)

if __name__ == "__main__":
    main(TABLE)
