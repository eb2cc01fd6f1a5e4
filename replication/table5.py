"""Table 5: logical reasoning.

    python -m replication.table5 --model tiny
    python -m replication.table5 --model qwen3-4b --model gemma-3-4b      # one block for each
"""

from replication.cli import main
from replication.declarations import Group, Table

LOGIC = Group(title="Logic", average="Avg.", columns=("logiqa2", "reclor"), domain="logic")

TABLE = Table(
    name="table5",
    title="Logical reasoning: pass@1 accuracy (%) under greedy decoding",
    place="Table 5",
    groups=(LOGIC,),
    reference_rows=("M0", "M1"),
    rows=("sft", "undial", "neftune", "spin", "ssb", "wmss"),
)

if __name__ == "__main__":
    main(TABLE)
