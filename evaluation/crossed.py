"""The mean over several trainings and the same questions: an interval that speaks of both.

Scores form a table, trainings by questions, and both are drawn from larger populations. The variance of the grand mean
is the questions' part (from each question's mean over the trainings) plus the trainings' part (from each training's
mean over the questions); what one training does on one question is counted in both, which errs on the wide side.
Degrees of freedom are Satterthwaite's. Standard library only; proportions, never percents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from evaluation.statistics import student_t95, wilson
from foundation.errors import InputError

Scores = Sequence[Sequence[float]]


def crossed_interval(columns: Sequence[Scores]) -> tuple[float, tuple[float, float]]:
    """Return the mean over benchmarks of the mean over trainings and questions, and its 95 % interval in [0, 1].

    Args:
        columns: for each benchmark, one row per training (the same trainings in the same order), one entry per
            question. One benchmark gives the interval of that benchmark alone.

    Raises:
        InputError: no benchmark, fewer than two trainings or questions, or rows of different lengths.
    """
    if not columns:
        raise InputError("an average over 0 benchmarks: name at least one")
    trainings = len(columns[0])
    for scores in columns:
        questions = len(scores[0]) if scores else 0
        if trainings < 2 or questions < 2 or len(scores) != trainings or any(len(row) != questions for row in scores):
            raise InputError(f"{len(scores)} trainings on {sorted({len(row) for row in scores})} questions: an "
                             "interval over both needs two or more of each, and the same questions for all")
    k = len(columns)
    means = [math.fsum(_mean(scores[t]) for scores in columns) / k for t in range(trainings)]
    mean = _mean(means)
    parts = [(_variance_of_mean(_by_question(scores)) / k**2, len(scores[0]) - 1) for scores in columns]
    parts.append((_variance_of_mean(means), trainings - 1))
    variance = math.fsum(part for part, _ in parts)
    if variance == 0:  # all right or all wrong, always: as wide as one training's interval on all questions
        low, high = wilson(round(mean * (n := sum(len(scores[0]) for scores in columns))), n)
        return mean, (low, high)
    spread = math.fsum(part**2 / degrees for part, degrees in parts)
    half = student_t95(max(1, math.floor(variance**2 / spread))) * math.sqrt(variance)
    return mean, (max(0.0, mean - half), min(1.0, mean + half))


def _by_question(scores: Scores) -> list[float]:
    return [math.fsum(answers) / len(scores) for answers in zip(*scores, strict=True)]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance_of_mean(values: Sequence[float]) -> float:
    centre = _mean(values)
    return math.fsum((value - centre) ** 2 for value in values) / (len(values) * (len(values) - 1))
