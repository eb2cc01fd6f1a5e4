"""Intervals over trainings and questions alike."""

from __future__ import annotations

import math

import pytest

from evaluation.crossed import crossed_interval
from evaluation.statistics import student_t95
from foundation.errors import InputError


def test_trainings_that_answer_alike_leave_the_questions_part():
    scores = [[1, 0, 1, 0, 1, 1, 0, 1, 0, 1]] * 3
    mean, (low, high) = crossed_interval([scores])
    variance = 0.6 * 0.4 / 9
    assert mean == pytest.approx(0.6)
    assert (high - low) / 2 == pytest.approx(student_t95(9) * math.sqrt(variance))


def test_a_spread_between_trainings_widens_the_interval():
    alike = [[1, 0] * 100] * 3
    apart = [[1] * 110 + [0] * 90, [1] * 100 + [0] * 100, [1] * 90 + [0] * 110]
    widths = [high - low for _, (low, high) in (crossed_interval([alike]), crossed_interval([apart]))]
    assert widths[1] > widths[0]


def test_by_hand_two_trainings_two_questions():
    # by question 1, 0.5: variance of their mean 0.0625; by training 1, 0.5: the same; df = 0.125^2 / (2 * 0.0625^2) = 2
    mean, (low, high) = crossed_interval([[[1, 1], [1, 0]]])
    assert mean == 0.75 and high == 1.0
    assert low == pytest.approx(max(0.0, 0.75 - student_t95(2) * math.sqrt(0.125)))


def test_benchmarks_count_equally_and_share_their_trainings():
    first, second = [[1, 0], [1, 0]], [[1, 1, 1, 0], [1, 1, 1, 0]]
    mean, _ = crossed_interval([first, second])
    assert mean == pytest.approx((0.5 + 0.75) / 2)


def test_all_right_has_a_width():
    mean, (low, high) = crossed_interval([[[1, 1, 1], [1, 1, 1]]])
    assert mean == 1 and low < 1 and high == 1


@pytest.mark.parametrize("columns", [[], [[[1, 0]]], [[[1], [0]]], [[[1, 0], [1]]], [[[1, 0], [1, 0]], [[1, 0]]]])
def test_what_has_no_interval_is_refused(columns):
    with pytest.raises(InputError):
        crossed_interval(columns)
