import random

import pytest

from evaluation import statistics as st
from evaluation.bootstrap import paired_bootstrap
from foundation.errors import InputError


@pytest.mark.parametrize(("correct", "low", "high"),
                         [(0, 0, 11.4), (3, 3.5, 25.6), (10, 19.2, 51.2), (15, 33.2, 66.8), (30, 88.6, 100)])
def test_wilson_gives_the_table_of_thirty_problems(correct, low, high):
    assert [round(100 * limit, 1) for limit in st.wilson(correct, 30)] == [low, high]


@pytest.mark.parametrize(("lost", "gained"), [(0, 6), (1, 8), (2, 10), (3, 12), (5, 15), (10, 23)])
def test_mcnemar_least_counts(lost, gained):
    assert st.mcnemar_exact(lost, gained) < 0.05 <= st.mcnemar_exact(lost, gained - 1)


def test_mcnemar_values():
    assert st.mcnemar_exact(0, 5) == 0.0625
    assert st.mcnemar_exact(0, 0) == 1
    assert st.mcnemar_exact(4, 4) == 1
    assert st.mcnemar_exact(3, 9) == st.mcnemar_exact(9, 3)


TABLE = {30: (25.6, 23.4, 15.3, 36.2), 40: (22.1, 20.3, 13.3, 31.3), 164: (10.9, 10.0, 6.6, 15.5),
         254: (8.8, 8.1, 5.3, 12.4), 378: (7.2, 6.6, 4.3, 10.2), 500: (6.3, 5.7, 3.8, 8.9), 1319: (3.9, 3.5, 2.3, 5.5)}


@pytest.mark.parametrize("n", TABLE)
def test_smallest_detectable_difference(n):
    found = [st.smallest_detectable_difference(n, p) for p in (0.5, 0.7, 0.9)]
    found.append(st.smallest_detectable_difference(n, 0.5, rho=0))
    assert [round(100 * value, 1) for value in found] == pytest.approx(TABLE[n], abs=0.1001)


def pairs(both, only_a, only_b, neither):
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return a, b


def test_newcombe_is_antisymmetric_and_never_degenerate():
    a, b = pairs(10, 7, 3, 20)
    low, high = st.paired_difference_interval(a, b)
    assert low < 4 / 40 < high
    assert st.paired_difference_interval(b, a) == pytest.approx((-high, -low))
    for cells in ((30, 0, 0, 0), (0, 0, 0, 30), (15, 0, 0, 15), (0, 30, 0, 0)):
        low, high = st.paired_difference_interval(*pairs(*cells))
        assert -1 <= low < high <= 1


def test_newcombe_without_correlation_is_the_square_root_of_summed_squares():
    a, b = pairs(10, 10, 10, 10)
    low, high = st.wilson(20, 40)
    expected = ((0.5 - low) ** 2 + (high - 0.5) ** 2) ** 0.5
    assert st.paired_difference_interval(a, b) == pytest.approx((-expected, expected))


def test_newcombe_covers_a_true_difference():
    generator = random.Random(3)
    hits = 0
    for _ in range(1500):
        kind = generator.choices(("both", "a", "b", "none"), (0.4, 0.2, 0.1, 0.3), k=60)
        a, b = [k in ("both", "a") for k in kind], [k in ("both", "b") for k in kind]
        low, high = st.paired_difference_interval(a, b)
        hits += low <= 0.1 <= high
    assert 0.93 <= hits / 1500 <= 0.98


def test_mean_of_proportions():
    assert st.mean_of_proportions_interval([(10, 30)]) == pytest.approx(st.wilson(10, 30))
    low, high = st.mean_of_proportions_interval([(10, 30), (400, 500), (900, 1319)])
    assert low < (10 / 30 + 0.8 + 900 / 1319) / 3 < high
    assert high - low < st.wilson(10, 30)[1] - st.wilson(10, 30)[0]
    low, high = st.mean_of_proportions_interval([(0, 30), (0, 40)])
    assert low == 0 < high


def test_paired_average_of_one_benchmark_is_mcnemar():
    result = st.paired_average_test([[1] * 9 + [-1] * 2 + [0] * 30])
    assert result.p == pytest.approx(st.mcnemar_exact(9, 2))
    assert result.difference == pytest.approx(7 / 41)
    assert result.test == "stratified_sign_flip_exact"
    assert result.ci95[0] < result.difference < result.ci95[1]


def test_paired_average_weighs_benchmarks_not_questions():
    result = st.paired_average_test([[1, 0], [0] * 98 + [-1] * 2])
    assert result.difference == pytest.approx((0.5 - 0.02) / 2)
    # Signs of (1/2, 1/100, 1/100): |sum| >= 0.48 for all eight.
    assert result.p == 1


def test_paired_average_large_uses_the_normal_form_close_to_the_exact_one():
    generator = random.Random(5)
    strata = [[generator.choices((-1, 0, 1), (0.1, 0.75, 0.15))[0] for _ in range(n)] for n in (30, 41, 254, 500, 1319)]
    large = st.paired_average_test(strata)
    assert large.test == "stratified_sign_flip_normal"
    assert st.paired_average_test(strata) == large
    one = [[1] * 60 + [-1] * 40 + [0] * 400]
    assert st._sign_flip_normal(one) == pytest.approx(st._sign_flip_exact(one), abs=0.02)


def test_paired_average_without_any_difference():
    result = st.paired_average_test([[0] * 30, [0] * 40])
    assert (result.difference, result.p) == (0, 1)
    assert result.ci95[0] < 0 < result.ci95[1]


def test_paired_average_keeps_its_level():
    generator = random.Random(11)
    strata = (30, 40)
    small = sum(st.paired_average_test([[generator.choices((-1, 0, 1), (0.2, 0.6, 0.2))[0] for _ in range(n)]
                                        for n in strata]).p < 0.05 for _ in range(600))
    assert small / 600 < 0.075


@pytest.mark.parametrize(("degrees", "t"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (10, 2.2281), (29, 2.0452),
                                            (30, 2.0423), (499, 1.9647), (1571, 1.9615)])
def test_student_table(degrees, t):
    assert st.student_t95(degrees) == pytest.approx(t, abs=6e-5)


def test_clustered_error_by_hand():
    # mean 1/2; deviations +1/2 +1/2 | -1/2 -1/2 | +1/2 -1/2: sums 1, -1, 0; sqrt(2) / 6 * sqrt(3 / 2) = sqrt(3) / 6
    found = st.clustered_mean([1, 1, 0, 0, 1, 0], ["a", "a", "b", "b", "c", "c"])
    assert (found.mean, found.questions, found.clusters) == (0.5, 6, 3)
    assert found.standard_error == pytest.approx(3**0.5 / 6)
    assert found.ci95 == (0, 1)  # 0.5 +- 4.3 * 0.289


def test_clusters_of_one_are_no_clusters_and_copies_add_nothing():
    scores = [1, 0, 0, 1, 1, 0, 1, 1, 0, 1]
    alone = st.clustered_mean(scores, range(10))
    assert alone.standard_error == pytest.approx((sum((s - 0.6) ** 2 for s in scores) / 90) ** 0.5)
    assert alone.ci95 == pytest.approx((0.6 - 2.2622 * alone.standard_error, 0.6 + 2.2622 * alone.standard_error),
                                       abs=1e-4)
    copied = st.clustered_mean(scores * 3, list(range(10)) * 3)
    assert copied.standard_error == pytest.approx(alone.standard_error)
    assert st.clustered_mean(scores * 3, range(30)).standard_error < alone.standard_error / 1.7


def test_a_clustered_interval_has_a_width_when_everything_is_right():
    assert st.clustered_mean([1] * 20, [i // 2 for i in range(20)]).ci95 == pytest.approx(st.wilson(10, 10))


def test_mean_interval_is_wilson_for_0_and_1_and_student_for_averages():
    assert st.mean_interval([1, 0, 0, 1]) == (0.5, st.wilson(2, 4))
    mean, (low, high) = st.mean_interval([0.45, 0.5, 0.55])
    assert mean == 0.5 and high - mean == pytest.approx(mean - low) == pytest.approx(4.3027 * 0.05 / 3**0.5, abs=1e-4)
    assert st.mean_interval([0.25, 0.5, 0.75])[1] == (0, 1)
    assert st.mean_interval([0.5] * 30)[1] == pytest.approx(st.wilson(15, 30))


def test_bootstrap_of_one_seed_agrees_with_the_paired_error():
    generator = random.Random(2)
    a = [float(generator.random() < 0.6) for _ in range(400)]
    b = [x if generator.random() < 0.8 else 1 - x for x in a]
    found = paired_bootstrap([a], [b], names=("a", "b"))
    differences = [x - y for x, y in zip(a, b, strict=True)]
    mean = sum(differences) / 400
    error = (sum((d - mean) ** 2 for d in differences) / 400 / 399) ** 0.5
    assert found.difference == pytest.approx(mean) and (found.questions, found.seeds, found.draws) == (400, 1, 10_000)
    assert found.ci95 == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=0.15 * error)


def test_bootstrap_sees_the_spread_over_seeds():
    a = [[1.0] * 80 + [0.0] * 20, [1.0] * 60 + [0.0] * 40, [1.0] * 40 + [0.0] * 60]
    b = [[1.0] * 50 + [0.0] * 50] * 3
    several = paired_bootstrap(a, b, names=("x",))
    averaged = paired_bootstrap([[sum(column) / 3 for column in zip(*a, strict=True)]], b[:1], names=("x",))
    assert several.difference == pytest.approx(0.1) == averaged.difference
    assert several.ci95[1] - several.ci95[0] > 1.5 * (averaged.ci95[1] - averaged.ci95[0])
    # three seeds that are the same method: drawing the others' seeds apart widens, drawing in pairs gives exactly 0
    assert paired_bootstrap(a, a, names=("x",)).ci95 == (0, 0)
    low, high = paired_bootstrap(a, a, names=("x",), same_seeds=False).ci95
    assert low < -0.1 and high > 0.1


def test_bootstrap_by_hand_and_by_name():
    # one question, two seeds with differences 1 and 0: draws give 1, 1/2, 0 with 1/4, 1/2, 1/4
    assert paired_bootstrap([[1.0], [0.0]], [[0.0], [0.0]], names=("hand",)).ci95 == (0, 1)
    rows = [[1.0, 0.0, 1.0, 1.0, 0.0]], [[0.0, 1.0, 0.0, 1.0, 0.0]]
    assert paired_bootstrap(*rows, names=("gsm8k",)) == paired_bootstrap(*rows, names=("gsm8k",))


def test_holm():
    assert st.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert st.holm([0.5, 0.9]) == [1, 1]
    assert st.holm([]) == []


@pytest.mark.parametrize("call", [
    lambda: st.wilson(0, 0), lambda: st.wilson(5, 3), lambda: st.wilson(-1, 3), lambda: st.mcnemar_exact(-1, 2),
    lambda: st.paired_difference_interval([], []), lambda: st.paired_difference_interval([True], []),
    lambda: st.mean_of_proportions_interval([]), lambda: st.mean_of_proportions_interval([(0, 0)]),
    lambda: st.paired_average_test([]), lambda: st.paired_average_test([[1], []]),
    lambda: st.mean_interval([]), lambda: st.mean_interval([61.0]), lambda: st.clustered_mean([], []),
    lambda: st.clustered_mean([1], []), lambda: st.clustered_mean([1, 0], ["a", "a"]), lambda: st.student_t95(0),
    lambda: paired_bootstrap([], [], names=()), lambda: paired_bootstrap([[]], [[]], names=()),
    lambda: paired_bootstrap([[1.0]], [[1.0, 0.0]], names=()), lambda: paired_bootstrap([[50.0]], [[1.0]], names=()),
    lambda: paired_bootstrap([[1.0]], [[1.0], [1.0]], names=()),
    lambda: st.paired_average_test([[2]]), lambda: st.holm([1.1]), lambda: st.smallest_detectable_difference(0, 0.5),
])
def test_nothing_to_measure_is_refused(call):
    with pytest.raises(InputError):
        call()
