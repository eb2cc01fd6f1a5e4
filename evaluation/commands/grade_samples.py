"""`python -m evaluation grade-samples`: grade completions that were produced elsewhere.

    python -m evaluation grade-samples --benchmark gsm8k --samples samples_gsm8k.jsonl --data-root DIR

Reads evalplus' samples.jsonl, lm-eval's logged samples (`--log_samples`) or this suite's records, and maps them to the
benchmark's problems. Writes a line for every expected sample, `{"id", "sample", "outcome", "correct", "reason",
"seconds"}`; a sample that is not there is a line with the outcome `missing` and counts as not correct; lines of the
file that belong to no problem follow as `unknown_id`, `unreadable` or `surplus`. The summary says how many of each.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from evaluation.benchmarks import Benchmark, benchmark
from evaluation.benchmarks.fetching import benchmark_problems
from evaluation.commands.output import print_line
from evaluation.graders.math import MathGrader
from evaluation.lines import read_lines
from evaluation.problem import Problem
from evaluation.samples import Matched, Sample, match_samples
from evaluation.statistics import clustered_mean, mean_interval
from foundation.errors import InputError, PrerequisiteError
from foundation.locks import LOCK_PATH


def main(arguments: list[str]) -> int:
    """Run the command.

    Raises:
        InputError: the file holds no sample of the benchmark, or a setting is wrong.
        PrerequisiteError: the benchmark's data are not there, or it is a code benchmark.
    """
    options = _parser().parse_args(arguments)
    if options.n is not None and options.n < 1:
        raise InputError(f"--n is {options.n}; it must be at least 1")
    entry = benchmark(options.benchmark)
    problems = benchmark_problems(entry, options.data_root, options.lock)
    matched = match_samples(entry, problems, read_lines(options.samples), options.n)
    samples = options.n or matched.samples_per_problem()
    if matched.samples_per_problem() == 0:
        first = f"; first: {matched.faults[0].reason}" if matched.faults else ""
        raise InputError(f"{options.samples} holds no sample of {entry.title} ({len(matched.faults)} lines that belong "
                         f"to no problem{first})")
    with MathGrader() as grader:
        report(entry, problems, matched, samples, grader)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m evaluation grade-samples", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    root = os.environ.get("WMSS_DATA_ROOT")
    parser.add_argument("--benchmark", required=True, metavar="NAME")
    parser.add_argument("--samples", required=True, metavar="FILE", help="JSON lines; - for the standard input")
    parser.add_argument("--data-root", type=Path, default=Path(root) if root else None, metavar="DIR")
    parser.add_argument("--n", type=int, metavar="N", help="samples per problem (default: the most that a problem has)")
    parser.add_argument("--lock", type=Path, default=LOCK_PATH)
    return parser


def report(entry: Benchmark, problems: list[Problem], matched: Matched, samples: int, grader: MathGrader) -> None:
    """Print a line for every expected sample and every fault, and the score over all problems."""
    counts: Counter[str] = Counter()
    scores = []
    for problem in problems:
        right = 0
        for number, (outcome, reason, seconds) in enumerate(_graded(entry, problem, matched, samples, grader)):
            counts[outcome] += 1
            right += outcome == "correct"
            print_line(problem.id, outcome, reason, seconds, sample=number)
        scores.append(right / samples)
    for fault in matched.faults:
        print_line(fault.identity, fault.outcome, fault.reason, 0.0)
    name = "accuracy" if samples == 1 else f"avg@{samples}"
    account = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
    print(f"{entry.title}: {name} {_score(problems, scores)} over {len(problems)} problems x {samples}: {account}",
          file=sys.stderr)
    faults = Counter(fault.outcome for fault in matched.faults)
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


def _graded(entry: Benchmark, problem: Problem, matched: Matched, samples: int,
            grader: MathGrader) -> Iterator[tuple[str, str, float]]:
    """Yield outcome, reason and seconds of each expected sample of a problem."""
    given = matched.samples[problem.id]
    for number in range(samples):
        if number >= len(given):
            yield "missing", f"only {len(given)} of {samples} samples in the file", 0.0
        elif entry.domain == "code":
            yield grade_program(entry, problem, given[number])
        else:
            verdict = grader.grade(problem, given[number].text, given[number].finish_reason)
            yield verdict.outcome, verdict.reason, verdict.seconds


def grade_program(entry: Benchmark, problem: Problem, sample: Sample) -> tuple[str, str, float]:
    """Return outcome, reason and seconds of a program.

    Raises:
        PrerequisiteError: always, so far: benchmarks of programs are not connected to the code grader.
    """
    raise PrerequisiteError(f"{entry.title}: samples of this benchmark ({problem.id}, a {sample.form}) cannot be "
                            "graded by this version; programs with tests of their own can: "
                            "python -m evaluation grade-code")
