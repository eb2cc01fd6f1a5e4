"""`python -m evaluation verify --data-root DIR`: is every benchmark file the right one, and does grading accept it?

Each file of the folder is hashed, read and counted; each gold answer must parse and, given as a model's answer, must be
graded correct. Code benchmarks are loaded and counted; their reference solutions are not run yet.
A folder may hold any of the benchmarks: those without a file are named, and are an error when asked for with
--benchmark or when none is there. Anything wrong ends with exit code 2 after all have been looked at.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path

from evaluation.benchmarks import BENCHMARKS, Benchmark, benchmark
from evaluation.benchmarks.code import CodeTask, load_tasks
from evaluation.benchmarks.loading import load_benchmark
from evaluation.graders.math import MathGrader
from evaluation.problem import Problem
from foundation.errors import GoldError, InputError, PrerequisiteError, SuiteError
from foundation.locks import LOCK_PATH, expected_sha256

_SHOWN = 5


def main(arguments: list[str]) -> int:
    """Run the command.

    Raises:
        InputError: the folder does not exist, or a file or gold answer is not as it should be.
        PrerequisiteError: no file of a benchmark is there.
    """
    options = _parser().parse_args(arguments)
    if options.data_root is None or not options.data_root.is_dir():
        raise InputError(f"the data root {options.data_root} is not a folder; name one with --data-root DIR or "
                         "WMSS_DATA_ROOT")
    chosen = [benchmark(name) for name in options.benchmark or BENCHMARKS]
    present = [entry for entry in chosen if options.benchmark or (options.data_root / entry.file).is_file()]
    if not present:
        raise PrerequisiteError(f"{options.data_root} holds no benchmark file at all; the layout is in docs/data.md")
    faults: list[SuiteError] = []
    with MathGrader() as grader:
        for entry in chosen:
            started = time.monotonic()
            if entry not in present:
                print(f"{entry.title:<10} not there: {entry.file}")
                continue
            try:
                said = verify(entry, options.data_root, grader, options)
            except SuiteError as error:
                faults.append(error)
                said = f"FAILED: {error}"
            print(f"{entry.title:<10} {said} [{time.monotonic() - started:.1f} s]", flush=True)
    if faults:
        count = f"{len(faults)} of {len(present)} benchmarks"
        raise type(faults[0])(f"{count} are not as they should be; first: {faults[0]}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m evaluation verify", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    root = os.environ.get("WMSS_DATA_ROOT")
    parser.add_argument("--data-root", type=Path, default=Path(root) if root else None, metavar="DIR")
    parser.add_argument("--benchmark", action="append", metavar="NAME", help="only this one (repeatable)")
    parser.add_argument("--lock", type=Path, default=LOCK_PATH)
    parser.add_argument("--run-bigcodebench", action="store_true",
                        help="also run BigCodeBench's reference solutions (needs its 139 libraries)")
    return parser


def verify(entry: Benchmark, data_root: Path, grader: MathGrader, options: argparse.Namespace) -> str:
    """Return what was found to be right of one benchmark.

    Raises:
        InputError, PrerequisiteError, GoldError: what is not.
    """
    problems = load_benchmark(entry, data_root, expected_sha256(entry.file, options.lock))
    found = f"{len(problems)} problems"
    if entry.domain == "code":
        tasks = load_tasks(entry, [data_root / entry.file])
        return f"{found}; {verify_code(entry, tasks, run_bigcodebench=options.run_bigcodebench)}"
    rejected = list(rejected_golds(problems, grader))
    if rejected:
        raise GoldError(f"{entry.title}: {len(rejected)} gold answers are not graded correct when given as answers: "
                        + "; ".join(rejected[:_SHOWN]))
    return f"{found}; every gold answer parses and is graded correct"


def rejected_golds(problems: list[Problem], grader: MathGrader) -> Iterator[str]:
    """Yield what is wrong with each gold answer that the grader does not accept as an answer."""
    for problem in problems:
        try:
            grader.check_gold(problem)
        except GoldError as error:
            yield str(error)
            continue
        texts = [f"<think>So it is that.</think>\n<answer>\\boxed{{{problem.gold}}}</answer>",
                 f"So it is that.\n\\boxed{{{problem.gold}}}"]
        if problem.answer_type == "choice":
            texts += [f"The answer is ({problem.gold}).", f"<answer>The answer is ({problem.gold}).</answer>"]
        for text in texts:
            verdict = grader.grade(problem, text)
            if not verdict.correct:
                yield f"{problem.id} (gold {problem.gold!r} as {text[-60:]!r}: {verdict.outcome}, {verdict.reason})"
                break


def verify_code(entry: Benchmark, tasks: list[CodeTask], *, run_bigcodebench: bool) -> str:
    """Say what of a code benchmark was checked; its reference solutions are not run by this version.

    Raises:
        PrerequisiteError: BigCodeBench's reference solutions were asked for.
    """
    without = sum(1 for task in tasks if not task.problem.gold.strip())
    if without == len(tasks):
        return "loaded; it has no reference solutions"
    if entry.name == "bigcodebench" and run_bigcodebench:
        raise PrerequisiteError("--run-bigcodebench: this version does not run reference solutions; leave the flag out")
    return "loaded; reference solutions not run: this command is not connected to the code grader yet"
