"""How much of a pool stands in the benchmarks: equal questions, and questions that share 13 words in a row.

The paper does not report this. A question is compared without case, punctuation and spacing. A benchmark question of
fewer than 13 words can only be found whole. A shared run of words is a hint, not proof: set phrases are shared too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.benchmarks import BENCHMARKS, load_benchmark
from evaluation.benchmarks.math import OPTIONS_HEADING
from foundation.locks import LOCK_PATH, expected_sha256
from replication.data.pool import normalised_question

WORDS = 13


@dataclass(slots=True)
class Overlap:
    """Counts for one benchmark; sets hold positions of its problems."""

    title: str
    problems: int
    equal_examples: int = 0
    shared_examples: int = 0
    equal_problems: set[int] = field(default_factory=set)
    shared_problems: set[int] = field(default_factory=set)

    def to_row(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"benchmark": self.title, "problems": self.problems, "pool_examples_equal": self.equal_examples,
                "problems_equal": len(self.equal_problems),
                f"pool_examples_sharing_{WORDS}_words": self.shared_examples,
                f"problems_sharing_{WORDS}_words": len(self.shared_problems)}


def benchmark_questions(data_root: Path, lock: Path = LOCK_PATH) -> tuple[dict[str, list[str]], list[str]]:
    """Return the normalised questions of every benchmark of a data root by title, and the titles of those missing.

    Raises:
        InputError: a file that is there cannot be used.
    """
    found: dict[str, list[str]] = {}
    missing = []
    for benchmark in BENCHMARKS.values():
        if not (data_root / benchmark.file).is_file():
            missing.append(benchmark.title)
            continue
        problems = load_benchmark(benchmark, data_root, expected_sha256(benchmark.file, lock))
        found[benchmark.title] = [normalised_question(problem.question.partition(OPTIONS_HEADING)[0])
                                  for problem in problems]
    return found, missing


def held_out(questions: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return normalised question -> title, for leaving test questions out of a pool."""
    return {question: title for title, listed in questions.items() for question in listed}


def measure(pool: Iterable[str], questions: Mapping[str, Sequence[str]]) -> list[Overlap]:
    """Return the overlap of a pool's questions with each benchmark. Memory grows with the benchmarks, not the pool."""
    overlaps = [Overlap(title, len(listed)) for title, listed in questions.items()]
    whole: dict[str, list[tuple[int, int]]] = {}
    runs: dict[int, list[tuple[int, int]]] = {}
    for number, listed in enumerate(questions.values()):
        for place, question in enumerate(listed):
            whole.setdefault(question, []).append((number, place))
            for run in set(_runs(question)):
                runs.setdefault(run, []).append((number, place))
    for text in pool:
        question = normalised_question(text)
        _count(overlaps, whole.get(question, ()), "equal")
        _count(overlaps, {where for run in _runs(question) for where in runs.get(run, ())}, "shared")
    return overlaps


def _count(overlaps: Sequence[Overlap], found: Iterable[tuple[int, int]], how: str) -> None:
    found = list(found)
    for number in {number for number, _ in found}:
        if how == "equal":
            overlaps[number].equal_examples += 1
        else:
            overlaps[number].shared_examples += 1
    for number, place in found:
        (overlaps[number].equal_problems if how == "equal" else overlaps[number].shared_problems).add(place)


def _runs(question: str) -> Iterator[int]:
    """Yield a 64-bit hash of each run of words: the texts themselves would take ten times the memory."""
    words = question.split(" ")
    return (hash(" ".join(words[i:i + WORDS])) for i in range(len(words) - WORDS + 1))


def as_markdown(rows: Sequence[Mapping[str, Any]], examples: int, missing: Sequence[str]) -> str:
    """Return the report for a person to read."""
    lines = [f"# Overlap of {examples:,} training examples with the benchmarks", "",
             f"| benchmark | problems | examples equal to one | problems found | examples sharing {WORDS} words | "
             "problems found |", "|---|---:|---:|---:|---:|---:|"]
    for row in rows:
        title, *counts = row.values()
        lines.append(f"| {title} | " + " | ".join(f"{count:,}" for count in counts) + " |")
    lines += ["", "Questions are compared without case, punctuation and spacing. A benchmark question of fewer than "
              f"{WORDS} words can only be found whole; a shared run of words may be a set phrase."]
    if missing:
        lines += ["", f"Not compared, because the data root lacks their files: {', '.join(missing)}."]
    return "\n".join(lines) + "\n"
