"""Table 1: main results, pass@1 under greedy decoding.

    python -m replication.table1 --model tiny
    python -m replication.table1 --model smollm2-135m --data-root DIR --limit-train 256 --limit-eval 32
"""

from replication.cli import main
from replication.declarations import Group, Table

MATH = Group(title="Math", average="Math Avg.",
             columns=("aime2025", "math500", "amc23", "aqua", "gsm8k", "mawps", "svamp"))
CODE = Group(title="Code", average="Code Avg.", domain="code",
             columns=("humaneval_plus", "mbpp_plus", "bigcodebench", "livecodebench"))

TABLE = Table(
    name="table1",
    title="Main results: pass@1 accuracy (%) under greedy decoding",
    place="Table 1",
    groups=(MATH, CODE),
    reference_rows=("M0", "M1"),
    rows=("sft", "undial", "undial-original", "neftune", "spin", "ssb", "wmss"),
)

if __name__ == "__main__":
    main(TABLE)
