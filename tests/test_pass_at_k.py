"""pass@k against subset enumeration, exact fractions and the hand-worked values of the evaluation contract."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest

from evaluation.pass_at_k import avg_at_n, mean_pass_at_k, pass_at_k
from foundation.errors import InputError


@pytest.mark.parametrize(("n", "c", "k", "expected"), [
    (4, 2, 1, 0.5), (4, 2, 2, 5 / 6), (10, 3, 5, 11 / 12), (64, 1, 8, 0.125), (64, 0, 64, 0.0), (64, 1, 64, 1.0),
    (5, 3, 3, 1.0),
])
def test_hand_worked_values(n, c, k, expected):
    assert pass_at_k(n, c, k) == expected


def test_a_published_setting_to_six_digits():
    assert pass_at_k(64, 4, 16) == pytest.approx(0.693756, abs=5e-7)


@pytest.mark.parametrize("n", range(1, 7))
def test_equals_the_share_of_subsets_that_hold_a_right_sample(n):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
        assert pass_at_k(n, c, k) == sum(map(any, subsets)) / len(subsets)


@pytest.mark.parametrize(("c", "k"), [(1, 1), (1, 999), (3, 500), (500, 2), (990, 10), (997, 3), (0, 7), (1000, 1)])
def test_stays_exact_for_a_thousand_samples(c, k):
    nothing = Fraction(1)
    for i in range(k):  # all k submissions wrong, drawn one after another
        nothing *= Fraction(max(0, 1000 - c - i), 1000 - i)
    assert pass_at_k(1000, c, k) == float(1 - nothing)


def test_pass_at_1_is_the_share_and_more_tries_never_hurt():
    for c in range(65):
        values = [pass_at_k(64, c, k) for k in (1, 4, 8, 16, 32, 64)]
        assert values[0] == c / 64 and values == sorted(values)


def test_averages_are_over_problems_not_samples():
    counts = [(2, 2), (8, 0)]
    assert mean_pass_at_k(counts, 1) == avg_at_n(counts) == 0.5
    assert mean_pass_at_k([(4, 2), (10, 3)], 2) == pytest.approx((5 / 6 + 8 / 15) / 2, abs=1e-15)


@pytest.mark.parametrize(("arguments", "reason"), [
    ((4, 2, 5), "pass@5 needs at least 5 samples per problem, found 4"), ((4, 2, 0), "pass@0"),
    ((4, 5, 1), "5 right of 4"), ((4, -1, 1), "-1 right"), ((0, 0, 1), "0 samples"),
])
def test_impossible_counts_are_refused(arguments, reason):
    with pytest.raises(InputError, match=reason):
        pass_at_k(*arguments)


def test_an_empty_benchmark_and_a_problem_with_too_few_samples_have_no_average():
    for average in (lambda: mean_pass_at_k([], 1), lambda: avg_at_n([]), lambda: mean_pass_at_k([(8, 1), (4, 1)], 8),
                    lambda: avg_at_n([(4, 5)])):
        with pytest.raises(InputError):
            average()
