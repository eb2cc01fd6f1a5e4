"""Intervals and tests for scores: every one named, deterministic, and refused for an empty benchmark.

Proportions, never percents. The unit of analysis is the question. Standard library only, so that importing is instant.

References: E. B. Wilson (1927); Q. McNemar (1947), exact form; R. G. Newcombe, Statistics in Medicine 17 (1998) 2635,
method 10; G. Y. Zou and A. Donner (2008), MOVER; A. Agresti and Y. Min (2005), pseudo-pairs; S. Holm (1979); E. Miller,
arXiv 2411.00640 (2024), clustered errors; M. Abramowitz and I. Stegun (1964), 26.7.3 and 26.7.4, Student's t.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist
from typing import NamedTuple

from foundation.errors import InputError

Z95 = NormalDist().inv_cdf(0.975)
_MAX_STATES = 200_000  # sums held by the exact sign-flip test; above that its normal form is used


class PairedAverage(NamedTuple):
    """The mean over benchmarks of the mean paired difference, with its interval and the named test."""

    difference: float
    ci95: tuple[float, float]
    p: float
    test: str


class ClusteredMean(NamedTuple):
    """A mean over questions that come in clusters, with its clustered standard error and interval."""

    mean: float
    standard_error: float
    ci95: tuple[float, float]
    questions: int
    clusters: int


def _checked(correct: int, n: int) -> None:
    if n <= 0:
        raise InputError(f"{n} graded problems: an empty benchmark has no score; generate and grade it first")
    if not 0 <= correct <= n:
        raise InputError(f"{correct} correct of {n} problems is impossible: count each problem once")


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a proportion: never of width 0, never outside [0, 1].

    Raises:
        InputError: n is 0, or correct is not within 0..n.
    """
    _checked(correct, n)
    return _wilson(correct / n, n)


def _wilson(p: float, n: float) -> tuple[float, float]:
    z2 = Z95**2
    centre = p + z2 / (2 * n)
    half = Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    # At 0 and n the limit is exact; rounding would leave 1e-18 there.
    low = 0.0 if p == 0 else (centre - half) / (1 + z2 / n)
    high = 1.0 if p == 1 else (centre + half) / (1 + z2 / n)
    return low, high


def mean_interval(scores: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Return the mean of the questions' scores and its 95 % interval.

    Each score is a question's mean over its samples. Scores of 0 and 1 only have Wilson's interval, others Student's
    with n - 1 degrees of freedom, within [0, 1]; where all are equal, Wilson's, which has a width.

    Raises:
        InputError: no question, or a score outside [0, 1].
    """
    n = len(scores)
    _checked(0, n)
    if not all(0 <= score <= 1 for score in scores):
        raise InputError("a score lies outside [0, 1]: give proportions, not percents")
    mean = math.fsum(scores) / n
    squares = math.fsum((score - mean) ** 2 for score in scores)
    if squares == 0 or all(score in (0, 1) for score in scores):
        return mean, _wilson(mean, n)
    half = student_t95(n - 1) * math.sqrt(squares / (n * (n - 1)))
    return mean, (max(0.0, mean - half), min(1.0, mean + half))


@lru_cache(maxsize=256)
def student_t95(degrees: int) -> float:
    """Return the t that a Student variable of so many degrees of freedom exceeds in absolute value with 5 %.

    Raises:
        InputError: degrees below 1.
    """
    if degrees < 1:
        raise InputError(f"{degrees} degrees of freedom: an interval needs at least two questions or clusters")
    low, high = 0.0, 13.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_within(middle, degrees) < 0.95 else (low, middle)
    return high


def _student_within(t: float, degrees: int) -> float:
    """Return P(|T| < t) by the finite sums for whole degrees of freedom."""
    angle = math.atan(t / math.sqrt(degrees))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = degrees % 2
    term = math.cos(angle) if odd else 1.0
    total = term if degrees > 1 else 0.0
    for k in range(3 if odd else 2, degrees, 2):
        term *= square * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def clustered_mean(scores: Sequence[float], clusters: Sequence[object]) -> ClusteredMean:
    """Return the mean of questions that come in clusters (a shared passage), with Miller's clustered standard error.

    SE = sqrt(sum over clusters of (sum of the deviations in it)^2) / n * sqrt(C / (C - 1)). The interval is Student's
    with C - 1 degrees of freedom, within [0, 1]; where the error is 0 (all questions right, say), Wilson's for as many
    questions as there are clusters, so that it is never of width 0.

    Args:
        scores: one per question, in [0, 1].
        clusters: the cluster each question belongs to.

    Raises:
        InputError: no question, lists of different lengths, or a single cluster.
    """
    n = len(scores)
    _checked(0, n)
    if n != len(clusters):
        raise InputError(f"{n} scores and {len(clusters)} cluster names: each question needs one of both")
    mean = math.fsum(scores) / n
    sums: dict[object, float] = {}
    for score, cluster in zip(scores, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + (score - mean)
    count = len(sums)
    if count < 2:
        raise InputError(f"all {n} questions are in one cluster: nothing can be said about others")
    error = math.sqrt(math.fsum(total**2 for total in sums.values()) * count / (count - 1)) / n
    if error <= 1e-12:
        return ClusteredMean(mean, error, _wilson(mean, count), n, count)
    half = student_t95(count - 1) * error
    return ClusteredMean(mean, error, (max(0.0, mean - half), min(1.0, mean + half)), n, count)


def mcnemar_exact(b: int, c: int) -> float:
    """Return the two-sided exact p-value for `b` questions only the first solved and `c` only the second.

    Raises:
        InputError: a count is negative.
    """
    if b < 0 or c < 0:
        raise InputError(f"discordant counts {b} and {c}: neither can be negative")
    tail = sum(math.comb(b + c, i) for i in range(min(b, c) + 1))
    return float(min(1, 2 * tail / 2 ** (b + c)))


def paired_difference_interval(a: Sequence[bool], b: Sequence[bool]) -> tuple[float, float]:
    """Return the 95 % interval of p_a - p_b on the same questions: Newcombe's hybrid score interval (method 10).

    It stays wider than 0 when nothing is discordant, unlike the Wald interval.

    Raises:
        InputError: no questions, or the two lists differ in length.
    """
    n = len(a)
    if n != len(b):
        raise InputError(f"paired scores of {n} and {len(b)} questions: both must hold the same questions in one order")
    both = sum(1 for x, y in zip(a, b, strict=True) if x and y)
    only_a, only_b = sum(map(bool, a)) - both, sum(map(bool, b)) - both
    low_a, high_a = wilson(both + only_a, n)
    low_b, high_b = wilson(both + only_b, n)
    p_a, p_b = (both + only_a) / n, (both + only_b) / n
    phi = _corrected_phi(both, only_a, only_b, n - both - only_a - only_b)
    down_a, up_a, down_b, up_b = p_a - low_a, high_a - p_a, p_b - low_b, high_b - p_b
    lower = math.sqrt(max(0.0, down_a**2 - 2 * phi * down_a * up_b + up_b**2))
    upper = math.sqrt(max(0.0, up_a**2 - 2 * phi * up_a * down_b + down_b**2))
    return max(-1.0, p_a - p_b - lower), min(1.0, p_a - p_b + upper)


def _corrected_phi(both: int, only_a: int, only_b: int, neither: int) -> float:
    n = both + only_a + only_b + neither
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    if margins == 0:
        return 0.0
    product = both * neither - only_a * only_b
    if product > 0:  # Newcombe's continuity correction
        product = max(product - n / 2, 0)  # type: ignore[assignment]
    return product / math.sqrt(margins)


def mean_of_proportions_interval(scores: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """Return the 95 % interval of the unweighted mean of several benchmarks' proportions (MOVER, Wilson limits).

    Args:
        scores: (correct, n) of each benchmark.

    Raises:
        InputError: no benchmark, or one without problems.
    """
    if not scores:
        raise InputError("an average over 0 benchmarks: name at least one")
    limits = [(correct / n if n else 0.0, *wilson(correct, n)) for correct, n in scores]
    k = len(limits)
    mean = math.fsum(p for p, _, _ in limits) / k
    return (mean - math.sqrt(math.fsum((p - low) ** 2 for p, low, _ in limits)) / k,
            mean + math.sqrt(math.fsum((high - p) ** 2 for p, _, high in limits)) / k)


def paired_average_test(differences: Sequence[Sequence[float]]) -> PairedAverage:
    """Compare two models by the mean over benchmarks of the mean difference per question.

    The p-value is that of the stratified sign-flip test: if the models are equal, each question's difference is as
    likely with the other sign. For 0/1 scores with few distinct sums it is enumerated ("stratified_sign_flip_exact",
    which for one benchmark is McNemar's exact test); otherwise the sum is taken as normal with its sign-flip variance
    ("stratified_sign_flip_normal"). The interval is normal with two pseudo-pairs per benchmark (Agresti and Min: one
    half in each cell), so that agreement on every question does not give width 0.

    Args:
        differences: per benchmark, the differences (first model minus second) of its questions, each in [-1, 1].

    Raises:
        InputError: no benchmark, one without questions, or a difference outside [-1, 1].
    """
    if not differences or any(len(one) == 0 for one in differences):
        raise InputError("a paired average needs at least one question in every benchmark, and at least one benchmark")
    if not all(-1 <= d <= 1 for one in differences for d in one):
        raise InputError("a paired difference lies outside [-1, 1]: give differences of scores in [0, 1]")
    k = len(differences)
    mean = math.fsum(math.fsum(one) / len(one) for one in differences) / k
    p = _sign_flip_exact(differences)
    test = "stratified_sign_flip_exact" if p is not None else "stratified_sign_flip_normal"
    if p is None:
        p = _sign_flip_normal(differences)
    return PairedAverage(mean, _average_interval(differences), p, test)


def _average_interval(differences: Sequence[Sequence[float]]) -> tuple[float, float]:
    k = len(differences)
    centre = variance = 0.0
    for one in differences:
        n = len(one) + 2
        mean = math.fsum(one) / n
        centre += mean / k
        variance += ((math.fsum(d * d for d in one) + 1) / n - mean**2) / n / k**2
    half = Z95 * math.sqrt(variance)
    return max(-1.0, centre - half), min(1.0, centre + half)


def _sign_flip_exact(differences: Sequence[Sequence[float]]) -> float | None:
    """Return the exact p-value, None when scores are not 0/1 or there are too many distinct sums."""
    if not all(d in (-1, 0, 1) for one in differences for d in one):
        return None
    common = math.lcm(*(len(one) for one in differences))
    ways = {0: 1}
    for one in differences:
        discordant, weight = sum(1 for d in one if d), common // len(one)
        if len(ways) * (discordant + 1) > _MAX_STATES:
            return None
        flipped: dict[int, int] = {}
        for total, count in ways.items():
            for ups in range(discordant + 1):
                key = total + weight * (2 * ups - discordant)
                flipped[key] = flipped.get(key, 0) + count * math.comb(discordant, ups)
        ways = flipped
    observed = abs(sum(round(math.fsum(one)) * (common // len(one)) for one in differences))
    extreme = sum(count for total, count in ways.items() if abs(total) >= observed)
    return extreme / sum(ways.values())


def _sign_flip_normal(differences: Sequence[Sequence[float]]) -> float:
    total = math.fsum(math.fsum(one) / len(one) for one in differences)
    variance = math.fsum(math.fsum(d * d for d in one) / len(one) ** 2 for one in differences)
    return 1.0 if variance == 0 else 2 * NormalDist().cdf(-abs(total) / math.sqrt(variance))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given.

    Raises:
        InputError: a value lies outside [0, 1].
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise InputError(f"p-values must lie in [0, 1], found {[p for p in p_values if not 0 <= p <= 1]}")
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    raw = [min(1.0, (len(order) - rank) * p_values[index]) for rank, index in enumerate(order)]
    for first, second in pairwise(range(len(raw))):
        raw[second] = max(raw[first], raw[second])
    adjusted = [0.0] * len(raw)
    for rank, index in enumerate(order):
        adjusted[index] = raw[rank]
    return adjusted


def smallest_detectable_difference(n: int, p: float, rho: float = 0.5) -> float:
    """Return the smallest difference found with 80 % power at 5 % two-sided, on the same n questions.

    Args:
        n: questions.
        p: the proportion around which both models score.
        rho: correlation of the two models' scores; 0 for separate questions.

    Raises:
        InputError: n is 0, or p or rho is out of range.
    """
    _checked(0, n)
    if not 0 <= p <= 1 or not -1 <= rho <= 1:
        raise InputError(f"p = {p} must lie in [0, 1] and rho = {rho} in [-1, 1]")
    return (Z95 + NormalDist().inv_cdf(0.8)) * math.sqrt(2 * p * (1 - p) * (1 - rho) / n)
