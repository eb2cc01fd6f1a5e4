"""`python -m evaluation grade-samples`: grade completions that were produced elsewhere.

    python -m evaluation grade-samples --benchmark gsm8k --samples samples_gsm8k.jsonl --data-root DIR

Reads evalplus' samples.jsonl, lm-eval's logged samples (`--log_samples`) or this suite's records, and maps them to the
benchmark's problems. Writes a line for every expected sample, `{"id", "sample", "outcome", "correct", "reason",
"seconds"}`; a sample that is not there is a line with the outcome `missing` and counts as not correct; lines of the
file that belong to no problem follow as `unknown_id`, `unreadable` or `surplus`. The summary says how many of each.

Programs (HumanEval+, MBPP+, BigCodeBench, LiveCodeBench) are run in isolation, several at a time. Each verdict is
appended to a file (--kept, by default SAMPLES.verdicts) when it is there: the same command after a kill goes on from
there. The file is also read when other samples are graded; it is never wrong, as its keys are hashes of all that can
move a verdict, and may be deleted at any time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from evaluation.benchmarks import Benchmark, benchmark
from evaluation.benchmarks.code import CodeTask
from evaluation.benchmarks.fetching import benchmark_problems, benchmark_tasks
from evaluation.commands.code_options import add_code_options, code_grader, progress_bar
from evaluation.commands.output import print_line
from evaluation.graders.math import MathGrader, Verdict
from evaluation.graders.records import ProgramGrader, ProgramVerdict, Submission, packages_for
from evaluation.lines import read_lines
from evaluation.problem import Problem
from evaluation.samples import Matched, match_samples
from evaluation.statistics import clustered_mean, mean_interval
from foundation.errors import InputError
from foundation.locks import LOCK_PATH

BASE_TESTS = {"humaneval_plus": "HumanEval", "mbpp_plus": "MBPP"}


@dataclass(frozen=True, slots=True)
class _Missing:
    reason: str
    outcome: str = "missing"
    seconds: float = 0.0


def main(arguments: list[str]) -> int:
    """Run the command.

    Raises:
        InputError: the file holds no sample of the benchmark, or a setting is wrong.
        PrerequisiteError: the benchmark's data are not there, or no isolation works to run programs in.
    """
    options = _parser().parse_args(arguments)
    if options.n is not None and options.n < 1:
        raise InputError(f"--n is {options.n}; it must be at least 1")
    entry = benchmark(options.benchmark)
    if entry.domain == "code":
        tasks = benchmark_tasks(entry, options.data_root, options.lock)
        problems = [task.problem for task in tasks]
        matched = matched_samples(entry, problems, options)
        with (code_grader(options, packages_for([entry.name])) as grader,
              ProgramGrader(grader, _kept(options)) as programs):
            report(entry, problems, matched, options.n, _programs(entry, tasks, matched, programs))
            print("grader: " + json.dumps(grader.settings() | {"verdicts_kept_before": programs.repeated}),
                  file=sys.stderr)
        return 0
    problems = benchmark_problems(entry, options.data_root, options.lock)
    matched = matched_samples(entry, problems, options)
    with MathGrader() as math_grader:
        report(entry, problems, matched, options.n, _answers(problems, matched, math_grader))
    return 0


def matched_samples(entry: Benchmark, problems: list[Problem], options: argparse.Namespace) -> Matched:
    """Read the file and assign its samples to the problems.

    Raises:
        InputError: it cannot be read, or holds no sample of the benchmark.
    """
    matched = match_samples(entry, problems, read_lines(options.samples), options.n)
    if matched.samples_per_problem() == 0:
        first = f"; first: {matched.faults[0].reason}" if matched.faults else ""
        raise InputError(f"{options.samples} holds no sample of {entry.title} ({len(matched.faults)} lines that belong "
                         f"to no problem{first})")
    return matched


def _kept(options: argparse.Namespace) -> Path | None:
    if options.kept is not None:
        return Path(options.kept)
    samples = Path(options.samples)
    if samples.is_file() and os.access(samples.parent, os.W_OK):
        return samples.with_name(f"{samples.name}.verdicts")
    print("verdicts are not kept: a killed grading begins anew (--kept FILE keeps them)", file=sys.stderr)
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m evaluation grade-samples", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    root = os.environ.get("WMSS_DATA_ROOT")
    parser.add_argument("--benchmark", required=True, metavar="NAME")
    parser.add_argument("--samples", required=True, metavar="FILE", help="JSON lines; - for the standard input")
    parser.add_argument("--data-root", type=Path, default=Path(root) if root else None, metavar="DIR")
    parser.add_argument("--n", type=int, metavar="N", help="samples per problem (default: the most that a problem has)")
    parser.add_argument("--lock", type=Path, default=LOCK_PATH)
    programs = parser.add_argument_group("programs")
    programs.add_argument("--kept", type=Path, metavar="FILE",
                          help="where verdicts are kept as they come (default: SAMPLES.verdicts)")
    add_code_options(programs)
    return parser


def report(entry: Benchmark, problems: list[Problem], matched: Matched, n: int | None, verdicts: Iterator[Any]) -> None:
    """Print a line for every expected sample and every fault, and the score over all problems.

    `verdicts` come in the order of the problems, and of each one's samples.
    """
    samples = n or matched.samples_per_problem()
    counts: Counter[str] = Counter()
    right, base = Counter[str](), Counter[str]()
    with progress_bar(entry.title, len(problems) * samples if not sys.stdout.isatty() else 0) as advance:
        for problem, number in product(problems, range(samples)):
            given = len(matched.samples[problem.id])
            verdict = next(verdicts) if number < given else _Missing(f"only {given} of {samples} samples in the file")
            counts[verdict.outcome] += 1
            right[problem.id] += verdict.outcome == "correct"
            base[problem.id] += getattr(verdict, "base_correct", None) is True
            print_line(problem.id, verdict.outcome, verdict.reason, verdict.seconds, sample=number)
            advance()
    for fault in matched.faults:
        print_line(fault.identity, fault.outcome, fault.reason, 0.0)
    name = "accuracy" if samples == 1 else f"avg@{samples}"
    account = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
    score = _score(problems, [right[problem.id] / samples for problem in problems])
    print(f"{entry.title}: {name} {score} over {len(problems)} problems x {samples}: {account}", file=sys.stderr)
    if entry.name in BASE_TESTS and base.total() >= right.total():  # the hub's copies hold all tests as one
        score = _score(problems, [base[problem.id] / samples for problem in problems])
        print(f"{BASE_TESTS[entry.name]} (the original tests alone): {name} {score}", file=sys.stderr)
    _say_incomplete(counts, Counter(fault.outcome for fault in matched.faults))


def _say_incomplete(counts: Counter[str], faults: Counter[str]) -> None:
    if counts["missing"] or counts["grader_failure"] or faults:
        print(f"INCOMPLETE: {counts['missing']} samples missing (counted as not correct), {counts['grader_failure']} "
              f"grader failures; lines of no problem: {faults['unknown_id']} unknown id, {faults['unreadable']} "
              f"unreadable, {faults['surplus']} surplus", file=sys.stderr)


def _score(problems: list[Problem], scores: list[float]) -> str:
    clusters = [problem.cluster for problem in problems if problem.cluster]
    if len(clusters) == len(problems):
        found = clustered_mean(scores, clusters)
        mean, (low, high), how = found.mean, found.ci95, f", {found.clusters} clusters"
    else:
        (mean, (low, high)), how = mean_interval(scores), ""
    return f"{100 * mean:.1f} % (95 % {100 * low:.1f} to {100 * high:.1f}{how})"


def _answers(problems: list[Problem], matched: Matched, grader: MathGrader) -> Iterator[Verdict]:
    for problem in problems:
        for sample in matched.samples[problem.id]:
            yield grader.grade(problem, sample.text, sample.finish_reason)


def _programs(entry: Benchmark, tasks: list[CodeTask], matched: Matched, programs: ProgramGrader
              ) -> Iterator[ProgramVerdict]:
    return programs.grade_all(
        Submission(style=entry.name, row=task.row, text=sample.text, form=sample.form,
                   finish_reason=sample.finish_reason)
        for task in tasks for sample in matched.samples[task.problem.id])
