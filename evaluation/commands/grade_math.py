"""`python -m evaluation grade-math FILE.jsonl`: verdicts on math and multiple-choice answers of any origin.

Reads lines `{"id", "gold", "pred", "options"?}`: gold as bare LaTeX, pred as the model's full text, options as letters
("ABCDE"), a list or a mapping. The type of the answer is inferred; other fields are ignored. Writes one line per input
line, in its order: `{"id", "outcome", "correct", "reason", "seconds"}`. A line that cannot be read or whose gold does
not parse is a `grader_failure` with the reason; nothing is left out. The exit code is 0 whatever the verdicts are.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from typing import Any

from evaluation.commands.output import print_line, summary
from evaluation.graders.math import MathGrader, grader_versions
from evaluation.graders.untyped import grade_untyped, untyped_problem
from evaluation.lines import Line, read_lines
from foundation.errors import GoldError, GraderError, InputError


def main(arguments: list[str]) -> int:
    """Run the command.

    Raises:
        InputError: the file cannot be read or holds nothing.
        GraderError: the symbolic worker does not start.
    """
    parser = argparse.ArgumentParser(prog="python -m evaluation grade-math", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="JSON lines; - for the standard input")
    options = parser.parse_args(arguments)
    counts: Counter[str] = Counter()
    with MathGrader() as grader:
        for line in read_lines(options.file):
            started = time.perf_counter()
            identity, outcome, reason = grade_line(grader, line)
            counts[outcome] += 1
            print_line(identity, outcome, reason, time.perf_counter() - started)
    if not counts:
        raise InputError(f"{options.file} holds no items: there is nothing to grade")
    print(summary(counts), file=sys.stderr)
    print("grader: " + ", ".join(f"{name} {number}" for name, number in grader_versions().items()), file=sys.stderr)
    return 0


def grade_line(grader: MathGrader, line: Line) -> tuple[Any, str, str]:
    """Return id, outcome and reason of one line."""
    if line.row is None:
        return line.identity, "grader_failure", line.trouble
    identity = line.row.get("id")
    try:
        gold, text = _text(line.row, "gold"), _text(line.row, "pred")
        problem = untyped_problem(str(identity), gold, line.row.get("options"))
        grader.check_gold(problem)
        verdict = grade_untyped(grader, problem, text)
    except GraderError:
        raise  # no worker at all: nothing can be graded
    except (GoldError, ValueError) as error:
        return identity, "grader_failure", f"line {line.number}: {error}"
    except Exception as error:  # an answer nobody thought of must not end the other answers' grading
        return identity, "grader_failure", f"line {line.number}: the grader failed ({type(error).__name__}: {error})"
    return identity, verdict.outcome, verdict.reason


def _text(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value)
    raise ValueError(f"field {name!r} should be text, found {'nothing' if value is None else type(value).__name__}")
