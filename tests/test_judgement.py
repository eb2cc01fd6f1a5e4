"""Measured against printed figures: the three verdicts, and the order of the methods, against hand-worked values."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import permutations

import pytest

from evaluation.statistics import smallest_detectable_difference, wilson
from foundation.errors import InputError
from replication.judgement import (
    DEFAULT_MARGIN,
    LARGEST_MARGIN,
    average_interval,
    claimed_margin,
    judge,
    kendall_tau_b,
    ordering,
    share_interval,
    tau_p_value,
)

Q4, Q8 = "Qwen3-4B-Base", "Qwen3-8B-Base"


# --- one cell


def test_the_interval_of_the_difference_by_hand():
    # 20 of 40 and 10 of 40: Wilson [35.2, 64.8] and [14.2, 40.2]; Newcombe: 25 +- sqrt of the squared distances
    low, high = (100 * limit for limit in wilson(20, 40))
    low2, high2 = (100 * limit for limit in wilson(10, 40))
    found = judge(50.0, 25.0, digits=1, n=40)
    assert found.ci95 == pytest.approx((25 - math.hypot(50 - low, high2 - 25) - 0.05,
                                        25 + math.hypot(high - 50, 25 - low2) + 0.05))
    assert found.ci95 == pytest.approx((3.75, 43.35), abs=0.1)
    assert found.verdict == "different" and found.difference == 25.0


def test_a_small_benchmark_cannot_tell():
    found = judge(20.0, 20.0, digits=1, n=30, margin=6.7)
    assert found.verdict == "cannot tell"
    # 2.80 sqrt(2 p (1 - p) / 30) at p about 0.22, plus the rounding of 0.05
    p = (6 + 6 + 2) / 64
    assert found.detectable == pytest.approx(100 * smallest_detectable_difference(30, p, rho=0) + 0.05)
    assert f"{found.detectable:.1f} points" in found.text and 29 < found.detectable < 31


def test_a_gain_of_one_question_on_aime_is_neither_reproduced_nor_refuted():
    assert judge(100 * 7 / 30, 20.0, digits=1, n=30, margin=6.7).verdict == "cannot tell"


def test_a_large_benchmark_can_be_consistent_or_different():
    margin = claimed_margin("table1", Q4, "GSM8K")
    assert margin == 4.6  # 88.5 - 83.9
    near, far = (judge(value, 88.5, digits=1, n=1319, margin=margin) for value in (88.2, 83.9))
    assert near.verdict == "consistent" and "beyond 4.6 points is excluded" in near.text
    assert far.verdict == "different" and far.ci95[1] < 0
    assert judge(88.2, 88.5, digits=1, n=1319, margin=1.0).verdict == "cannot tell"


def test_different_and_yet_within_the_margin_is_said():
    found = judge(95.0, 94.0, digits=1, n=1_000_000, margin=5.0)
    assert found.verdict == "different" and "lies within 5.0 points" in found.text


def test_rounding_counts():
    # without it, a difference just beyond the interval would be called different
    exact = judge(50.0, 49.96, digits=2, n=10**9)
    coarse = judge(50.0, 49.96, digits=1, n=10**9)
    assert exact.verdict == "different" and coarse.verdict == "consistent"


def test_nothing_is_certain_at_0_and_100_per_cent():
    for value in (0.0, 100.0):
        found = judge(value, value, digits=1, n=30)
        assert found.verdict == "cannot tell" and found.ci95[0] < 0 < found.ci95[1] and found.detectable > 5
    assert judge(0.0, 100.0, digits=1, n=1).verdict == "cannot tell"


def test_what_the_interval_covers_is_said():
    one, several = (judge(70.0, 68.0, digits=1, ci95=(66.0, 74.0), trainings=n).text for n in (1, 3))
    assert "spread from training to training is not in the interval" in one
    assert "covers the questions and the spread of 3 trainings" in several and "not in the interval" not in several
    # a count of answers knows nothing of trainings
    assert "is not in the interval" in judge(70.0, 68.0, digits=1, n=600, trainings=3).text


def test_unequal_numbers_of_questions():
    small = judge(70.0, 68.0, digits=1, n=50, paper_n=5000)
    assert small.ci95[1] - small.ci95[0] > 2 * (share_interval(70.0, 50)[1] - 70.0)
    p = (35 + 3400 + 2) / 5054
    assert small.detectable == pytest.approx(280.15 * math.sqrt(p * (1 - p) * (1 / 50 + 1 / 5000)) + 0.05, rel=1e-3)


def test_an_average_uses_the_intervals_of_its_parts():
    scores = [(20.0, 30), (71.4, 500)]
    low, high = average_interval(scores)
    first, second = wilson(6, 30), wilson(357, 500)
    assert low == pytest.approx(45.7 - 100 * math.hypot(0.2 - first[0], 0.714 - second[0]) / 2)
    found = judge(47.0, 45.7, digits=1, ci95=(40.0, 54.0), paper_ci95=(low, high))
    assert found.ci95[0] == pytest.approx(1.3 - math.hypot(7.0, high - 45.7) - 0.05)
    assert judge(47.0, 45.7, digits=1, ci95=(40.0, 54.0)).ci95[0] == pytest.approx(1.3 - math.hypot(7.0, 7.0) - 0.05)
    # 2.80 / 3.92 of the width, as its standard error is a quarter of it
    assert found.detectable == pytest.approx(0.7147 * (found.ci95[1] - found.ci95[0] - 0.1) + 0.05, rel=1e-3)


def test_without_any_interval_nothing_is_judged():
    found = judge(47.0, 45.7, digits=1)
    assert found.verdict == "cannot tell" and found.ci95 is None and found.detectable is None
    assert found.as_dict()["ci95"] is None


def test_figures_that_are_no_shares_are_judged_by_their_interval():
    logits = {"digits": 2, "share": False, "unit": "logits"}
    found = judge(1236.0, 1240.10, ci95=(1230.0, 1242.0), margin=30.0, **logits)
    assert found.verdict == "consistent" and "-4.10 logits" in found.text
    unknown = judge(1236.0, 1240.10, ci95=(1230.0, 1242.0), **logits)
    assert (unknown.verdict, unknown.margin) == ("cannot tell", None) and "no margin is known" in unknown.text
    assert judge(-50.0, -56.9, digits=1, ci95=(-51.0, -49.0), share=False, unit="%").verdict == "different"
    bare = judge(-50.0, -56.9, digits=1, share=False, unit="")
    assert (bare.verdict, bare.difference) == ("cannot tell", pytest.approx(6.9))
    assert "differs by +6.9; no interval" in bare.text
    for wrong in ({"n": 200}, {"paper_n": 200}):
        with pytest.raises(InputError, match="no share"):
            judge(1236.0, 1240.10, **logits, **wrong)


def test_verdicts_are_as_the_result_file_stores_them():
    stored = judge(88.2, 88.5, digits=1, n=1319).as_dict()
    assert {"verdict", "difference", "detectable", "text"} <= set(stored) and isinstance(stored["ci95"], list)


@pytest.mark.parametrize("wrong", [
    {"value": 101.0}, {"value": float("nan")}, {"paper": -1.0}, {"n": 0}, {"digits": -1}, {"margin": -1.0},
    {"trainings": 0}, {"margin": float("inf")}, {"ci95": (60.0, 50.0)}, {"paper_n": -3}])
def test_what_cannot_be_judged_is_refused(wrong):
    with pytest.raises(InputError):
        judge(**{"value": 50.0, "paper": 50.0, "digits": 1, "n": 100, **wrong})


def test_margins_come_from_the_paper():
    assert (DEFAULT_MARGIN, LARGEST_MARGIN) == (2.4, 5.9)
    assert claimed_margin("table1", Q8, "AQuA") == 5.9  # 77.2 - 63.0 = 14.2
    assert claimed_margin("table1", Q4, "no such column") == DEFAULT_MARGIN
    assert claimed_margin("table9", Q4, "GSM8K") == DEFAULT_MARGIN  # no methods there
    assert claimed_margin("table1", Q4, "AIME2025", row="SPIN", against="WMSS") == DEFAULT_MARGIN  # both 20.0


# --- the order of the methods


@pytest.mark.parametrize(("first", "second", "tau"), [
    ([1, 2, 3], [1, 2, 3], 1.0),
    ([1, 2, 3], [3, 2, 1], -1.0),
    ([1, 2, 3, 4], [1, 2, 4, 3], 4 / 6),  # five pairs agree, one does not
    ([1, 1, 2], [1, 2, 3], 2 / math.sqrt(2 * 3)),  # two agree, one tied: 2 / sqrt(2 x 3)
    ([1, 1, 2, 2], [1, 2, 1, 2], 0.0),
    ([5, 5, 5], [1, 2, 3], None),
    ([1.0], [2.0], None),
])  # fmt: skip
def test_tau_b_by_hand(first, second, tau):
    found = kendall_tau_b(first, second)
    assert found is None if tau is None else found == pytest.approx(tau)


@pytest.mark.parametrize(("first", "second", "p"), [
    ([1, 2, 3], [1, 2, 3], Fraction(2, 6)),
    ([1, 2, 3], [2, 1, 3], Fraction(6, 6)),  # tau 1/3: every order of three is as far
    ([1, 2, 3, 4], [1, 2, 3, 4], Fraction(2, 24)),
    ([1, 2, 3, 4], [1, 2, 4, 3], Fraction(8, 24)),  # inversions 0..6 of four: 1 3 5 6 5 3 1
    ([1, 1, 2], [1, 2, 3], Fraction(4, 6)),  # the single one first or last: four of six orders
    ([5, 5, 5], [1, 2, 3], Fraction(1)),
])  # fmt: skip
def test_exact_p_by_hand(first, second, p):
    assert tau_p_value(first, second) == pytest.approx(float(p))


def test_counting_inversions_equals_trying_every_order():
    first, second = [3, 1, 4, 2, 5], [1, 2, 3, 4, 5]
    taus = [kendall_tau_b(order, second) for order in permutations(first)]
    extreme = sum(abs(tau) >= abs(kendall_tau_b(first, second)) - 1e-12 for tau in taus)
    assert tau_p_value(first, second) == pytest.approx(extreme / len(taus))


def test_many_rows_with_ties_are_drawn_from_a_named_stream():
    first, second = [1, 1, *range(2, 12)], list(range(12))
    p = tau_p_value(first, second, names=("t",))
    assert p == tau_p_value(first, second, names=("t",)) and 0 < p < 0.001


ROWS = ("SFT", "NEFTune", "WMSS")


def test_an_order_with_narrow_intervals():
    found = ordering(ROWS, [60.0, 65.0, 70.0], [(59.0, 61.0), (64.0, 66.0), (69.0, 71.0)], [64.2, 64.9, 69.1],
                     column="Math Avg.")
    assert found.tau == 1.0 and found.p == pytest.approx(2 / 6)
    assert found.tau95 == (1.0, 1.0) and found.leader_first == pytest.approx(1.0)
    assert "tau-b 1.00 over 3 methods" in found.text and "WMSS is first in 100 %" in found.text


def test_the_share_of_first_places_is_that_of_two_normals():
    # difference 2, each with standard deviation 1: P(N(2, sqrt 2) > 0) = 0.921
    found = ordering(("SFT", "WMSS"), [50.0, 52.0], [(48.04, 51.96), (50.04, 53.96)], [1.0, 2.0], column="x")
    assert found.leader_first == pytest.approx(0.921, abs=0.01)
    assert found == ordering(("SFT", "WMSS"), [50.0, 52.0], [(48.04, 51.96), (50.04, 53.96)], [1.0, 2.0], column="x")


def test_ties_and_a_missing_leader():
    same = ordering(ROWS, [50.0] * 3, [(50.0, 50.0)] * 3, [1.0, 2.0, 3.0], column="x")
    assert same.tau is None and same.p is None and same.leader_first == pytest.approx(1 / 3)
    assert "cannot be compared" in same.text and "measured first: SFT, NEFTune, WMSS" in same.text
    others = ordering(("SFT", "DPO"), [50.0, 51.0], [(49.0, 51.0), (50.0, 52.0)], [1.0, 2.0], column="x")
    assert others.leader_first is None and "WMSS" not in others.text
    assert ordering(("WMSS",), [50.0], [(49.0, 51.0)], [1.0], column="x").text == "a single row has no order"
    assert isinstance(same.as_dict()["rows"], list)


@pytest.mark.parametrize("wrong", [
    {"rows": ("SFT", "SFT")}, {"measured": [1.0]}, {"ci95": [(2.0, 3.0), (0.0, 3.0)]}, {"paper": [1.0, float("nan")]},
    {"rows": (), "measured": [], "ci95": [], "paper": []}])
def test_what_has_no_order_is_refused(wrong):
    settings = {"rows": ("SFT", "WMSS"), "measured": [1.0, 2.0], "ci95": [(0.0, 2.0), (1.0, 3.0)], "paper": [1.0, 2.0]}
    with pytest.raises(InputError):
        ordering(**{**settings, **wrong}, column="x")
