"""`python -m evaluation grade-code FILE.jsonl`: verdicts on programs, each run in isolation.

Reads lines `{"id", "code", "tests", "entry_point"?}`: a program and its tests as Python text, as asserts, a
`check(candidate)` function, test functions or unittest classes. Writes one line per input line, in its order:
`{"id", "outcome", "correct", "reason", "seconds"}`, where `mode` "together" marks tests that had to run in the
program's own process. `seconds` includes a retry, not the start of processes. Outcomes: pass (the only correct one),
wrong, exception, timeout, memory, crash, no_code, not_runnable, grader_failure. A line that cannot be read, or whose
tests cannot, is a grader_failure. The exit code is 0 whatever the verdicts are.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from typing import Any

from evaluation.commands.code_options import add_code_options
from evaluation.graders.code import CodeGrader, CodeVerdict
from evaluation.graders.code_tasks import AssertTask
from evaluation.graders.in_order import in_order
from evaluation.isolation import Limits, find_isolation
from evaluation.lines import Line, read_lines
from evaluation.statistics import wilson
from foundation.errors import InputError

OUTCOMES = ("pass", "wrong", "exception", "timeout", "memory", "crash", "no_code", "not_runnable", "grader_failure")


def main(arguments: list[str]) -> int:
    """Run the command.

    Raises:
        InputError: the file cannot be read or holds nothing, or a setting is out of range.
        PrerequisiteError: no isolation works on this machine.
    """
    options = _parser().parse_args(arguments)
    try:
        limits = Limits(memory_mib=options.memory_mib)
    except ValueError as error:
        raise InputError(f"--memory-mib {options.memory_mib}: {error}") from error
    isolation = find_isolation(options.isolation, unsafe=options.unsafe_code_execution)
    counts: Counter[str] = Counter()
    with CodeGrader(isolation, workers=options.workers, time_limit_seconds=options.time_limit, limits=limits,
                    packages=("*",) if options.all_packages else ("numpy",)) as grader:
        for identity, verdict in in_order(lambda line: _grade_line(grader, line), read_lines(options.file),
                                          grader.workers):
            counts[verdict.outcome] += 1
            _print(identity, verdict)
        if not counts:
            raise InputError(f"{options.file} holds no items: there is nothing to grade")
        sys.stdout.flush()
        print(_summary(counts), file=sys.stderr)
        print("grader: " + json.dumps(grader.settings()), file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m evaluation grade-code", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="JSON lines; - for the standard input")
    parser.add_argument("--time-limit", type=float, default=4.0, metavar="SECONDS",
                        help="wall seconds for all tests of a program (default: 4); late ones run once more, alone")
    parser.add_argument("--memory-mib", type=int, default=Limits().memory_mib, metavar="MIB")
    parser.add_argument("--all-packages", action="store_true",
                        help="let programs import every installed package, not only numpy")
    add_code_options(parser)
    return parser


def _grade_line(grader: CodeGrader, line: Line) -> tuple[Any, CodeVerdict]:
    return line.identity if line.row is None else line.row.get("id"), _verdict(grader, line)


def _verdict(grader: CodeGrader, line: Line) -> CodeVerdict:
    if line.row is None:
        return CodeVerdict("grader_failure", line.trouble, 0.0)
    code, tests, entry = (line.row.get(name) for name in ("code", "tests", "entry_point"))
    if not isinstance(code, str | None):
        return CodeVerdict("no_code", f"line {line.number}: field 'code' is {type(code).__name__}, not text", 0.0)
    if not isinstance(tests, str) or not isinstance(entry, str | None):
        return CodeVerdict("grader_failure", f"line {line.number}: field 'tests' should be text, found "
                           f"{'nothing' if tests is None else type(tests).__name__}", 0.0)
    try:
        return grader.grade(AssertTask(id=str(line.row.get("id")), tests=tests, entry_point=entry or None), code)
    except Exception as error:  # a program nobody thought of must not end the other programs' grading
        return CodeVerdict("grader_failure", f"the grader failed ({type(error).__name__}: {error})", 0.0)


def _print(identity: Any, verdict: CodeVerdict) -> None:
    """Print one verdict. ASCII only, so that no lone surrogate of a program's can stop the output."""
    row = {"id": identity, "outcome": verdict.outcome, "correct": verdict.correct, "reason": verdict.reason,
           "seconds": round(verdict.seconds, 6), "mode": verdict.mode}
    sys.stdout.write(json.dumps(row) + "\n")


def _summary(counts: Counter[str]) -> str:
    n, right = sum(counts.values()), counts["pass"]
    low, high = wilson(right, n)
    listed = ", ".join(f"{counts[name]} {name.replace('_', ' ')}" for name in OUTCOMES if counts[name])
    return f"{n} items: {listed}; {100 * right / n:.1f} % correct (95 % Wilson {100 * low:.1f} to {100 * high:.1f})"
