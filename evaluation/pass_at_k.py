"""pass@k and the mean over samples: two different numbers, from the same counts of right samples per problem.

pass@k is the chance that at least one of k samples is right, estimated without bias from n >= k samples of which c are
right: 1 - C(n-c, k) / C(n, k) (M. Chen et al., Evaluating Large Language Models Trained on Code, 2021, Eq. 1). Problems
count equally, whatever their number of samples. Proportions, never percents. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from foundation.errors import InputError


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the unbiased estimate for one problem.

    The quotient is formed of whole numbers and rounded once, so that it is exact to the last bit for any n.

    Args:
        n: samples drawn.
        c: of them right.
        k: samples one may submit.

    Raises:
        InputError: c is not within 0..n, or k is not within 1..n (fewer samples than k say nothing about pass@k).
    """
    _checked(n, c)
    if k < 1:
        raise InputError(f"pass@{k} does not exist; k starts at 1")
    if k > n:
        raise InputError(f"pass@{k} needs at least {k} samples per problem, found {n}; draw more, or lower k")
    return float(1 - Fraction(math.comb(n - c, k), math.comb(n, k)))


def mean_pass_at_k(counts: Sequence[tuple[int, int]], k: int) -> float:
    """Return pass@k averaged over problems.

    Args:
        counts: (n, c) of each problem: samples drawn, and right ones among them.
        k: samples one may submit.

    Raises:
        InputError: no problem, or one that `pass_at_k` refuses.
    """
    return _mean([pass_at_k(n, c, k) for n, c in counts])


def avg_at_n(counts: Sequence[tuple[int, int]]) -> float:
    """Return the share of right samples averaged over problems: equal to pass@1 in value, reported as avg@n.

    Args:
        counts: (n, c) of each problem.

    Raises:
        InputError: no problem, or an impossible count.
    """
    for n, c in counts:
        _checked(n, c)
    return _mean([c / n for n, c in counts])


def _checked(n: int, c: int) -> None:
    if n < 1:
        raise InputError(f"a problem with {n} samples has no score; generate and grade it first")
    if not 0 <= c <= n:
        raise InputError(f"{c} right of {n} samples is impossible: count each sample once")


def _mean(values: Sequence[float]) -> float:
    if not values:
        raise InputError("an average over 0 problems: generate and grade the benchmark first")
    return math.fsum(values) / len(values)
