"""WD-DS: the oracles of the specification (8.1) that concern weights and draws."""

import math

import numpy as np
import pytest

from baselines.selection import WEIGHTINGS, Selection, expected_unique_fraction, select, weights
from foundation.errors import InputError

WEAK = (1.0, 0.8, 0.5, 0.2)
STRONG = (0.6, 0.9, 0.5, 0.1)


def normalised(strong, weak, selection):
    weights_N = weights(strong, weak, selection)
    return weights_N / weights_N.sum()


def generator(seed=0):
    return np.random.default_rng(seed)


def random_entropies(size=200, seed=3):
    drawn = generator(seed).gamma(2.0, 0.3, size=(2, size))
    return drawn[0], drawn[1]


def test_weights_of_eq9_by_hand():
    assert weights(STRONG, WEAK, Selection()) == pytest.approx([0.52, 0.73, 0.40, 0.09])


@pytest.mark.parametrize(("weighting", "expected"), [
    ("eq9", [0.298851, 0.419540, 0.229885, 0.051724]),
    ("official_termnorm", [0.68, 0.132, 0.02, 0.168]),
    ("eq9_termnorm", [0.308571, 0.442857, 0.190476, 0.058095]),
])
def test_probabilities_of_the_three_formulas_by_hand(weighting, expected):
    selection = Selection(weighting=weighting)
    assert normalised(STRONG, WEAK, selection) == pytest.approx(expected, abs=1e-6)
    assert select(STRONG, WEAK, selection, generator()).probabilities_N == pytest.approx(expected, abs=1e-6)


def test_expected_unique_ids_by_hand():
    assert 4 * expected_unique_fraction(normalised(STRONG, WEAK, Selection())) == pytest.approx(2.484445, abs=1e-6)
    assert expected_unique_fraction(np.array([1.0, 0.0, 0.0])) == pytest.approx(1 / 3)


def test_uniform_weights_on_the_papers_pool_keep_63_percent():
    entropies = np.full(111_657, 0.5)
    result = select(entropies, entropies, Selection(), generator())
    assert result.unique_fraction == pytest.approx(0.632, abs=0.003)
    assert result.expected_unique_fraction == pytest.approx(0.632, abs=0.0005)
    assert len(result.ids) == round(result.unique_fraction * 111_657)
    assert all(fraction == pytest.approx(0.632, abs=0.003)
               for name, fraction in result.unique_fractions_by_weighting.items() if name != "eq9")


def test_unique_fraction_follows_its_expectation_under_uneven_weights():
    strong, weak = random_entropies(size=50_000)
    result = select(strong, weak, Selection(), generator(1))
    assert result.unique_fraction == pytest.approx(result.expected_unique_fraction, abs=0.005)
    assert result.unique_fractions_by_weighting["eq9"] == pytest.approx(result.expected_unique_fraction, abs=0.005)


def test_active_set_has_no_repeats_lies_in_the_pool_and_depends_on_the_seed_alone():
    strong, weak = random_entropies()
    first = select(strong, weak, Selection(), generator(7)).ids
    assert first.tolist() == select(strong, weak, Selection(), generator(7)).ids.tolist()
    assert first.tolist() != select(strong, weak, Selection(), generator(8)).ids.tolist()
    assert len(set(first.tolist())) == len(first)
    assert set(first.tolist()) <= set(range(200))
    assert first.tolist() != sorted(first.tolist())  # shuffled
    assert first.dtype == np.int64


def test_without_dedup_all_draws_are_kept_in_draw_order():
    strong, weak = random_entropies()
    kept = select(strong, weak, Selection(dedup=False), generator(7))
    unique = select(strong, weak, Selection(), generator(7))
    assert len(kept.ids) == 200
    assert set(kept.ids.tolist()) == set(unique.ids.tolist())
    assert kept.unique_fraction == unique.unique_fraction == len(unique.ids) / 200
    expected = generator(7).choice(200, size=200, p=kept.probabilities_N)
    assert kept.ids.tolist() == expected.tolist()


def test_diagnostics_cover_all_formulas_and_do_not_move_the_draw():
    strong, weak = random_entropies()
    result = select(strong, weak, Selection(), generator(7))
    assert set(result.unique_fractions_by_weighting) == set(WEIGHTINGS)
    again = select(strong, weak, Selection(), generator(99))
    assert again.unique_fractions_by_weighting == result.unique_fractions_by_weighting  # streams of their own


@pytest.mark.parametrize("weighting", ["eq9", "eq9_termnorm"])
def test_difficulty_alone_is_proportional_to_strong_entropy(weighting):
    strong, weak = random_entropies()
    selection = Selection(alpha=0.0, gamma=0.0, weighting=weighting)
    assert normalised(strong, weak, selection) == pytest.approx(strong / strong.sum())


def test_identical_models_make_alpha_and_gamma_irrelevant():
    strong, _ = random_entropies()
    reference = weights(strong, strong, Selection())
    assert weights(strong, strong, Selection(alpha=5.0, gamma=3.0)) == pytest.approx(reference)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("scale", [1e-3, 0.5, 40.0])
def test_scaling_all_entropies_changes_no_probability(weighting, scale):
    strong, weak = random_entropies()
    selection = Selection(weighting=weighting)
    assert normalised(scale * strong, scale * weak, selection) == pytest.approx(normalised(strong, weak, selection))


@pytest.mark.parametrize("weighting", ["eq9", "eq9_termnorm"])
def test_swapping_the_models_exchanges_alpha_and_gamma(weighting):
    strong, weak = random_entropies()
    forward = weights(strong, weak, Selection(alpha=0.3, gamma=0.2, weighting=weighting))
    swapped = weights(weak, strong, Selection(alpha=0.2, gamma=0.3, weighting=weighting, difficulty="weak"))
    assert swapped == pytest.approx(forward)


def test_difficulty_of_the_weak_model():
    assert weights(STRONG, WEAK, Selection(difficulty="weak")) == pytest.approx([0.84, 0.65, 0.40, 0.17])
    official = Selection(weighting="official_termnorm")
    assert weights(STRONG, WEAK, official) == pytest.approx(
        weights(STRONG, WEAK, Selection(weighting="official_termnorm", difficulty="weak")))


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_all_weights_zero_draws_uniformly_and_says_so(weighting):
    result = select([0.0] * 50, [0.0] * 50, Selection(weighting=weighting), generator())
    assert result.probabilities_N == pytest.approx(np.full(50, 0.02))
    assert len(result.warnings) == 1
    assert "uniform" in result.warnings[0]
    assert select(STRONG, WEAK, Selection(), generator()).warnings == ()


@pytest.mark.parametrize("bad", [math.nan, math.inf, None, -0.1])
def test_unusable_entropy_is_an_error_that_names_the_examples(bad):
    with pytest.raises(InputError, match=r"strong.*\b1, 3\b"):
        select([0.1, bad, 0.3, bad], WEAK, Selection(), generator())
    with pytest.raises(InputError, match=r"weak.*\b2\b"):
        weights(STRONG, [0.1, 0.2, bad, 0.4], Selection())


def test_long_lists_of_unusable_entropies_are_shortened():
    with pytest.raises(InputError, match=r"0, 1, 2.*and 90 more"):
        weights([math.nan] * 100, [0.1] * 100, Selection())


def test_entropies_missing_at_the_end_are_named():
    with pytest.raises(InputError, match=r"4 strong and 2 weak.*weak entropies are missing for examples 2, 3"):
        weights(STRONG, WEAK[:2], Selection())


def test_empty_pool_is_an_error():
    with pytest.raises(InputError, match="empty"):
        select([], [], Selection(), generator())


@pytest.mark.parametrize("settings", [
    {"alpha": -0.1}, {"beta": math.nan}, {"gamma": math.inf}, {"weighting": "eq10"}, {"difficulty": "mean"},
])
def test_invalid_settings_are_refused(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        Selection(**settings)
