"""`python -m evaluation verify --data-root DIR`: is every benchmark file the right one, and does grading accept it?

Each file of the folder is hashed, read and counted; each gold answer must parse and, given as a model's answer, must be
graded correct. The reference solutions of HumanEval+ and MBPP+ must pass all their tests in isolation; LiveCodeBench
has none, and BigCodeBench's are run with --run-bigcodebench, as far as its libraries are installed: tasks that lack
one (or data, the network, a shell program) are "not runnable", with what they lack.
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
from evaluation.benchmarks.code import CodeTask
from evaluation.benchmarks.fetching import benchmark_problems, benchmark_tasks
from evaluation.commands.code_options import add_code_options, code_grader, progress_bar
from evaluation.graders.math import MathGrader
from evaluation.graders.records import packages_for
from evaluation.graders.references import ReferenceReport, run_references
from evaluation.problem import Problem
from foundation.errors import GoldError, InputError, PrerequisiteError, SuiteError
from foundation.locks import LOCK_PATH
from foundation.seeds import stream

_SHOWN = 5


def main(arguments: list[str]) -> int:
    """Run the command.

    Raises:
        InputError: the folder does not exist, or a file or gold answer is not as it should be.
        PrerequisiteError: no file of a benchmark is there, or no isolation works to run reference solutions in.
    """
    options = _parser().parse_args(arguments)
    if options.limit_references is not None and options.limit_references < 0:
        raise InputError(f"--limit-references is {options.limit_references}; it must be 0 (none) or more")
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
                        help="also run BigCodeBench's reference solutions (needs its 139 libraries for all of them)")
    parser.add_argument("--limit-references", type=int, metavar="N",
                        help="run a sample of at most N reference solutions of each code benchmark (0: none)")
    add_code_options(parser)
    return parser


def verify(entry: Benchmark, data_root: Path, grader: MathGrader, options: argparse.Namespace) -> str:
    """Return what was found to be right of one benchmark.

    Raises:
        InputError, PrerequisiteError, GoldError: what is not.
    """
    if entry.domain == "code":
        tasks = benchmark_tasks(entry, data_root, options.lock)
        return f"{len(tasks)} problems; {verify_code(entry, tasks, options)}"
    problems = benchmark_problems(entry, data_root, options.lock)
    rejected = list(rejected_golds(problems, grader))
    if rejected:
        raise GoldError(f"{entry.title}: {len(rejected)} gold answers are not graded correct when given as answers: "
                        + "; ".join(rejected[:_SHOWN]))
    return f"{len(problems)} problems; every gold answer parses and is graded correct"


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


def verify_code(entry: Benchmark, tasks: list[CodeTask], options: argparse.Namespace) -> str:
    """Run a code benchmark's reference solutions; return what became of them.

    Raises:
        GoldError: a reference of HumanEval+ or MBPP+ does not pass; all of them are named with the reason.
        PrerequisiteError: no isolation works here.
    """
    chosen = [task for task in tasks if task.problem.gold.strip()]
    if not chosen:
        return "loaded; it has no reference solutions"
    if entry.name == "bigcodebench" and not options.run_bigcodebench:
        return "loaded; reference solutions not run (--run-bigcodebench runs them)"
    chosen = _sample(chosen, options.limit_references, entry.name)
    if not chosen:
        return "loaded; reference solutions not run (--limit-references 0)"
    with (code_grader(options, packages_for([entry.name])) as grader,
          progress_bar(f"{entry.title} references", len(chosen)) as advance):
        report = run_references(entry.name, chosen, grader, advance)
    for what, names in sorted(report.lacking.items(), key=lambda item: (-len(item[1]), item[0])):
        shown = ", ".join(names[:_SHOWN]) + ", ..." * (len(names) > _SHOWN)
        print(f"  not runnable, {what}: {len(names)} tasks ({shown})")
    for name, reason in report.rejected:
        print(f"  {name}: {reason}")
    if entry.name != "bigcodebench" and report.passed < len(chosen):
        raise GoldError(f"{entry.title}: {len(report.rejected) + report.not_runnable} of {len(chosen)} reference "
                        "solutions do not pass: "
                        + "; ".join(f"{name} ({reason})" for name, reason in report.rejected[:_SHOWN]))
    return f"loaded; {_account(report, len(chosen))} (isolation: {grader.isolation.name})"


def _account(report: ReferenceReport, run: int) -> str:
    if report.passed == run:
        return f"all {run} reference solutions run pass"
    return (f"of {run} reference solutions {report.passed} pass, {report.not_runnable} are not runnable here, "
            f"{len(report.rejected)} do not pass (listed above with the reason)")


def _sample(tasks: list[CodeTask], limit: int | None, name: str) -> list[CodeTask]:
    if limit is None or limit >= len(tasks):
        return tasks
    chosen = stream("verify-references", name).choice(len(tasks), size=limit, replace=False)
    return [tasks[place] for place in sorted(chosen)]
