"""Table 1: main results, pass@1 under greedy decoding.

    python -m replication.table1 --model tiny
    python -m replication.table1 --model smollm2-135m --data-root DIR --limit-train 256 --limit-eval 32
"""

from replication.cli import main
from replication.declarations import Group, Table

TABLE = Table(
    name="table1",
    title="Main results: pass@1 accuracy (%) under greedy decoding",
    place="Table 1",
    groups=(
        Group(title="Math", average="Math Avg.",
              columns=("aime2025", "math500", "amc23", "aqua", "gsm8k", "mawps", "svamp")),
        Group(title="Code", average="Code Avg.", columns=("HE+", "MBPP+", "BCB", "LCB"),
              unavailable="code benchmarks are not part of this version"),
    ),
    reference_rows=("M0", "M1"),
    rows=("sft", "undial", "undial-original", "neftune", "spin", "ssb", "wmss"),
)

if __name__ == "__main__":
    main(TABLE)
