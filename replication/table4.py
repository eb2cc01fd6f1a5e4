"""Table 4: the main comparison on a Gemma-style backbone, with tag-free prompts (App. E.4).

    python -m replication.table4 --model tiny            # runs on tiny-gemma
    python -m replication.table4 --model gemma-3-4b
"""

from replication.cli import main
from replication.declarations import Group, Table
from replication.table1 import CODE, MATH

TABLE = Table(
    name="table4",
    title="Main results on a Gemma-style backbone: pass@1 accuracy (%) under greedy decoding",
    place="Table 4",
    groups=(Group(title="Math", average="Math Avg.", columns=MATH.columns[1:]), CODE),
    reference_rows=("M0", "M1"),
    rows=("sft", "undial", "neftune", "spin", "ssb", "wmss"),
    backbone="gemma",
)

if __name__ == "__main__":
    main(TABLE)
