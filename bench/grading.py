"""Speed of math grading, and proof that its fast paths leave every verdict alone.

    python -m bench.grading                      from the repository's own cases
    python -m bench.grading --data-root DIR      with MATH500 from a folder of real files

Measures, on one core: integer answers in the forms that models write, mixed MATH500-style answers (each gold once given
as itself and once against another problem's), hostile expressions one by one, and 1,319 x 64 cached verdicts read
again. Ends with 1 if a verdict differs with the fast paths off.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from evaluation.benchmarks import BENCHMARKS, load_benchmark
from evaluation.graders.cache import VerdictCache
from evaluation.graders.math import MathGrader
from evaluation.problem import Problem

CASES = Path("tests/cases/math_answer.jsonl")
THOUGHT = "First we compute 48/2 = 24 clips in May, then 48+24 = 72 in all, and check it once more. " * 4
FORMS = {
    "boxed": THOUGHT + "So the answer is $\\boxed{%d}$.",
    "tags": "<think>" + THOUGHT + "</think>\n<answer>\\boxed{%d}</answer>",
    "hashes": THOUGHT + "\n#### %d",
    "phrase": THOUGHT + "The answer is %d.",
}
HOSTILE = ["9^{9^{9^{9}}}", "(10000!)!", r"\binom{10^{9}}{10^{8}}", "(" * 60 + "x" + ")" * 60, "9" * 4000,
           r"\sqrt{" * 60 + "2" + "}" * 60, "+".join(f"x_{{{i}}}^{{{i}}}" for i in range(150)), r"\sin(10^{10^{8}})",
           r"\frac{1}{" * 50 + "x" + "}" * 50, "{" * 100_000, r"\boxed{" * 50_000, r"\prod_{n=1}^{10^9} n"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.grading", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path)
    options = parser.parse_args()
    pairs = mixed(options.data_root)
    with MathGrader() as fast, MathGrader(fast_paths=False) as slow:
        fast.grade(*pairs[0])
        for grader in (fast, slow):
            grader.check_gold(Problem(id="warm", question="", gold="\\sin x", answer_type="expression"))
        for name, form in FORMS.items():
            row(f"integer answers, {name}", rate(fast, integers(form)), 20_000, "/s")
        row(f"mixed answers ({len(pairs)})", rate(fast, pairs), 1000, "/s")
        row("  the same without fast paths", rate(slow, pairs), None, "/s")
        row("costliest hostile expression", max(seconds(fast, answer) for answer in HOSTILE), 1.0, "s")
        everything = [*pairs, *cases(), *(item for form in FORMS.values() for item in integers(form)[:500])]
        differing = compare(fast, slow, everything)
        row("1,319 x 64 cached verdicts again", cached(fast), 5.0, "s")
    print(f"{'verdicts that differ without fast paths':<40}{len(differing):>10} of {len(everything)}")
    for text in differing[:5]:
        print("  ", text)
    return 1 if differing else 0


def row(name: str, value: float, aim: float | None, unit: str) -> None:
    shown = "" if aim is None else f"aim {'>=' if unit == '/s' else '<='} {aim:,g} {unit}"
    print(f"{name:<40}{value:>10,.{0 if unit == '/s' else 2}f} {unit:<4}{shown}", flush=True)


def integers(form: str, count: int = 20_000) -> list[tuple[Problem, str]]:
    golds = [Problem(id=str(n), question="", gold=str(n), answer_type="integer") for n in range(1000)]
    return [(golds[n % 1000], form % (n % 1000 + n % 2)) for n in range(count)]


def cases() -> list[tuple[Problem, str]]:
    rows = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]
    return [(Problem(id=r["id"], question="", gold=r["gold"], answer_type=r["answer_type"]), r["pred"]) for r in rows]


def mixed(data_root: Path | None) -> list[tuple[Problem, str]]:
    if data_root is not None:
        problems = load_benchmark(BENCHMARKS["math500"], data_root)
    else:
        seen = {problem.gold: problem for problem, _ in cases() if problem.answer_type == "expression"}
        problems = list(seen.values())
    answers = [problem.gold for problem in problems]
    shifted = answers[7:] + answers[:7]
    return [(problem, f"{THOUGHT}So the answer is $\\boxed{{{answer}}}$.")
            for both in zip(problems, answers, shifted, strict=True) for problem, answer in zip(both[:1] * 2, both[1:],
                                                                                                strict=True)]


def rate(grader: MathGrader, items: list[tuple[Problem, str]]) -> float:
    started = time.perf_counter()
    for problem, text in items:
        grader.grade(problem, text)
    return len(items) / (time.perf_counter() - started)


def seconds(grader: MathGrader, answer: str) -> float:
    problem = Problem(id="hostile", question="", gold=r"\sqrt{2}", answer_type="expression")
    started = time.perf_counter()
    verdict = grader.grade(problem, f"\\boxed{{{answer}}}")
    assert not verdict.correct
    return time.perf_counter() - started


def compare(fast: MathGrader, slow: MathGrader, items: Iterable[tuple[Problem, str]]) -> list[str]:
    differing = []
    for problem, text in items:
        one = fast.grade(problem, text)
        other = slow.grade(problem, text) if one.settled else one
        if other.settled and (one.outcome, one.extracted, one.rule) != (other.outcome, other.extracted, other.rule):
            differing.append(f"{problem.id}, gold {problem.gold!r}: {one.outcome}, {other.outcome} on {text[-60:]!r}")
    return differing


def cached(grader: MathGrader) -> float:
    """Return how long the second pass over 84,416 answers takes, the cache file read from disk included."""
    problems = [Problem(id=str(n), question="Q" * 300, gold=str(n), answer_type="integer") for n in range(1319)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "verdicts.jsonl"
        for _ in range(2):
            started = time.perf_counter()
            with VerdictCache(path, grader) as cache:
                for sample in range(64):
                    for problem in problems:
                        cache.grade(problem, f"{THOUGHT}Try {sample}. \\boxed{{{problem.gold}}}")
        assert cache.misses == 0
        return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
