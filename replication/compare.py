"""Your own method beside SFT and WMSS: the same data, budget, grader and seeds, with a paired test against each.

    python -m replication.compare --model tiny --method examples/label_smoothing.py:LabelSmoothing
    python -m replication.compare --method my.py:Mine --set mine.strength=0.2 --benchmarks gsm8k,svamp

docs/new-method.md shows how to write a method and how to read what comes out.
"""

from foundation.errors import InputError
from replication.cli import Options, exit_with_message, parse, run_table
from replication.declarations import Table
from replication.table1 import MATH

TABLE = Table(
    name="compare",
    title="Own methods beside SFT and WMSS: pass@1 accuracy (%) under greedy decoding",
    place="Comparison",
    groups=(MATH,),
    reference_rows=("M0", "M1"),
    rows=("sft", "wmss"),
    against=("sft", "wmss"),
    paper_table="table1",
)


def run(options: Options) -> int:
    """Run the comparison.

    Raises:
        InputError: no method is named.
    """
    if not options.method:
        raise InputError("there is nothing to compare: name a method of yours with --method path/to/file.py:ClassName "
                         "(docs/new-method.md; an example: examples/label_smoothing.py:LabelSmoothing)")
    return run_table(TABLE, options)


if __name__ == "__main__":
    exit_with_message(lambda: run(parse(TABLE)))
