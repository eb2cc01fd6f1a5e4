"""What a cell measures: which steps it needs, and the number it reads from them once they are done.

A measure is a small frozen value with `steps` and `read(store)`; a `Reading` is the number with all that must be shown
beside it. Reading never computes anything heavy and never loads torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from evaluation.crossed import crossed_interval
from evaluation.pass_at_k import mean_pass_at_k, pass_at_k
from evaluation.statistics import clustered_mean, mean_interval, paired_average_test, wilson
from foundation.files import read_jsonl
from replication.steps import Step
from replication.store import Store

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A measured number. Scores and their intervals are percents; `scores` holds the 0/1 answers behind them."""

    value: float | None
    """None: it does not exist, `reason` says why."""
    reason: str | None = None
    unit: str = "%"
    digits: int = 1
    ci95: Interval | None = None
    n: int | None = None
    correct: int | None = None
    step: str | None = None
    outcomes: dict[str, int] | None = None
    scores: tuple[tuple[bool, ...], ...] = field(default=(), repr=False)
    """One row per training, one entry per question."""


class Measure(Protocol):
    """What a cell measures."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps to run for it."""

    def read(self, store: Store) -> Reading:
        """Return the number; all `steps` are done."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """pass@1 on one benchmark, over one or several trainings (one Grade step each)."""

    grades: tuple[Step, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        """The verdicts."""
        return self.grades

    def read(self, store: Store) -> Reading:
        """Wilson's interval; clustered where questions share a passage; over trainings as well where there are several.

        `n` counts answers, so that correct / n is the value.
        """
        scores, outcomes = [], dict[str, int]()
        for step in self.grades:
            answers, counted = _verdicts(store.use(step))
            scores.append(answers)
            for name, count in counted.items():
                outcomes[name] = outcomes.get(name, 0) + count
        correct, n = sum(map(sum, scores)), sum(map(len, scores))
        low, high = self._interval(scores, store)
        return Reading(value=100 * correct / n, ci95=(100 * low, 100 * high), n=n, correct=correct, outcomes=outcomes,
                       step=self.grades[0].id, scores=tuple(scores))

    def _interval(self, scores: Sequence[tuple[bool, ...]], store: Store) -> Interval:
        if len(scores) > 1 and len(scores[0]) > 1:
            return crossed_interval([scores])[1]
        clusters = _clusters(store.use(self.grades[0].parents["problems"]))
        if len(set(clusters)) == len(clusters) or len(set(clusters)) < 2:
            return wilson(sum(scores[0]), len(scores[0]))
        return clustered_mean([float(score) for score in scores[0]], clusters).ci95


@lru_cache(maxsize=4096)
def _verdicts(folder: Path) -> tuple[tuple[bool, ...], dict[str, int]]:
    """Read a Grade step's folder; a finished step never changes."""
    rows = read_jsonl(folder / "verdicts.jsonl")
    counts = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
    counts.pop("n")
    return tuple(row["outcome"] == "correct" for row in rows), counts


@lru_cache(maxsize=256)
def _clusters(folder: Path) -> tuple[str, ...]:
    return tuple(row.get("cluster") or row["id"] for row in read_jsonl(folder / "problems.jsonl"))


@dataclass(frozen=True, slots=True)
class Average:
    """The mean of several benchmarks, each of which counts once, whatever its size (A-93)."""

    columns: tuple[Accuracy, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        """All columns' steps."""
        return tuple(step for column in self.columns for step in column.steps)

    def read(self, store: Store) -> Reading:
        """Columns' limits combined (MOVER), or over questions and trainings where there are several trainings."""
        return average([column.read(store) for column in self.columns])


def average(readings: Sequence[Reading]) -> Reading:
    """Return the mean of columns' readings."""
    k = len(readings)
    value = math.fsum(_value(r) for r in readings) / k
    if all(len(r.scores) > 1 and len(r.scores[0]) > 1 for r in readings):
        low, high = (100 * limit for limit in crossed_interval([r.scores for r in readings])[1])
    else:
        limits = [(_value(r), *(r.ci95 or (_value(r), _value(r)))) for r in readings]
        low = value - math.sqrt(math.fsum((middle - lo) ** 2 for middle, lo, _ in limits)) / k
        high = value + math.sqrt(math.fsum((hi - middle) ** 2 for middle, _, hi in limits)) / k
    return Reading(value=value, ci95=(low, high), n=sum(r.n or 0 for r in readings),
                   correct=sum(r.correct or 0 for r in readings))


def _value(reading: Reading) -> float:
    assert reading.value is not None, "a score always has a value"
    return reading.value


@dataclass(frozen=True, slots=True)
class PassAtK:
    """Unbiased pass@k from n sampled answers a problem (B.9); with `minus`, the gain over pass@minus."""

    grades: Step
    k: int
    minus: int | None = None

    @property
    def steps(self) -> tuple[Step, ...]:
        """The verdicts of all samples."""
        return (self.grades,)

    def by_problem(self, store: Store) -> dict[str, float]:
        """Return each problem's estimate, within [0, 1]."""
        return {name: pass_at_k(n, c, self.k) - (0.0 if self.minus is None else pass_at_k(n, c, self.minus))
                for name, (n, c) in _sample_counts(store.use(self.grades)).items()}

    def read(self, store: Store) -> Reading:
        """The interval is over problems (`mean_interval`): more samples never replace more problems."""
        counts = tuple(_sample_counts(store.use(self.grades)).values())
        n, correct = sum(n for n, _ in counts), sum(c for _, c in counts)
        mean, (low, high) = mean_interval(list(self.by_problem(store).values()))
        if self.minus is not None:
            return Reading(value=100 * mean, ci95=(100 * low, 100 * high), n=len(counts), step=self.grades.id, digits=2)
        value = mean_pass_at_k(counts, self.k)
        return Reading(value=100 * value, ci95=(100 * low, 100 * high), n=len(counts), step=self.grades.id, digits=2,
                       outcomes={"samples": n, "correct": correct})


def is_share(measure: Measure | None) -> bool:
    """Say whether a measure is a share of right answers, or a mean of such: between 0 and 100 %."""
    return isinstance(measure, Accuracy | Average | PassAtK)


@lru_cache(maxsize=256)
def _sample_counts(folder: Path) -> Mapping[str, tuple[int, int]]:
    """Return each problem's samples and how many are right."""
    counts: dict[str, list[int]] = {}
    for row in read_jsonl(folder / "verdicts.jsonl"):
        found = counts.setdefault(row["id"], [0, 0])
        found[0] += 1
        found[1] += row["outcome"] == "correct"
    return {name: (n, c) for name, (n, c) in counts.items()}


@dataclass(frozen=True, slots=True)
class Noted:
    """A number from the notes of steps' manifests, summed over them: updates, examples, tokens."""

    of: tuple[Step, ...]
    key: str
    unit: str = ""
    digits: int = 0

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps that noted it."""
        return self.of

    def read(self, store: Store) -> Reading:
        """No interval: it was counted."""
        value = sum(_dig(store.read_manifest(step.id)["notes"], self.key) for step in self.of)
        return Reading(value=value, unit=self.unit, digits=self.digits, step=self.of[0].id)


def _dig(notes: dict[str, Any], key: str) -> float:
    found: Any = notes
    for part in key.split("."):
        found = found[part]
    return float(found)


@dataclass(frozen=True, slots=True)
class Seconds:
    """Measured wall seconds of steps (Table 11); with `tokens_of`, tokens a second of those trainings instead."""

    of: tuple[Step, ...]
    per_token: bool = False

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps that were timed."""
        return self.of

    def read(self, store: Store) -> Reading:
        """No interval: one run was timed; times differ from run to run."""
        manifests = [store.read_manifest(step.id) for step in self.of]
        seconds = math.fsum(manifest["seconds"] for manifest in manifests)
        if self.per_token:
            tokens = sum(manifest["notes"]["tokens"] for manifest in manifests)
            return Reading(value=tokens / seconds, unit="tokens/s", digits=0, step=self.of[0].id)
        return Reading(value=seconds, unit="s", step=self.of[0].id)


@dataclass(frozen=True, slots=True)
class Gain:
    """The difference of two averages on the same questions, in points, with the interval of the paired test."""

    ours: Average
    theirs: Average

    @property
    def steps(self) -> tuple[Step, ...]:
        """Both rows' steps."""
        return (*self.ours.steps, *self.theirs.steps)

    def read(self, store: Store) -> Reading:
        """Stratified by benchmark, as the tables' comparisons of averages."""
        pairs = [(a.read(store).scores[0], b.read(store).scores[0])
                 for a, b in zip(self.ours.columns, self.theirs.columns, strict=True)]
        test = paired_average_test([[int(a) - int(b) for a, b in zip(x, y, strict=True)] for x, y in pairs])
        return Reading(value=100 * test.difference, unit="points", n=sum(len(x) for x, _ in pairs),
                       ci95=(100 * test.ci95[0], 100 * test.ci95[1]))


@dataclass(frozen=True, slots=True)
class EntropyGap:
    """Mean entropy of the weak side minus the strong side's over the pool (B.5), from a Select step's notes."""

    select: Step

    @property
    def steps(self) -> tuple[Step, ...]:
        """The draw that compared them."""
        return (self.select,)

    def read(self, store: Store) -> Reading:
        """No interval: it is the whole pool."""
        notes = store.read_manifest(self.select.id)["notes"]
        return Reading(value=notes["mean_entropy_weak"] - notes["mean_entropy_strong"], unit="nats", digits=3,
                       n=notes["pool"], step=self.select.id)


@dataclass(frozen=True, slots=True)
class Dropped:
    """What a pool's report counts: records read or dropped; a generated pool drops none."""

    pool: Step
    which: str

    @property
    def steps(self) -> tuple[Step, ...]:
        """The pool."""
        return (self.pool,)

    def read(self, store: Store) -> Reading:
        """Counted."""
        report = pool_report(self.pool, store)
        value = report["read"] if self.which == "read" else sum(report["dropped"].values())
        return Reading(value=value, unit="", digits=0, step=self.pool.id)


def pool_report(pool: Step, store: Store) -> dict[str, Any]:
    """Return `{read, dropped: {reason: records}}` of a finished pool; a generated one drops nothing."""
    notes = store.read_manifest(pool.id)["notes"]
    found: dict[str, Any] = notes.get("report") or {"read": notes["examples"], "dropped": {}}
    return found
