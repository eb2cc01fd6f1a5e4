"""Logit statistics (App. B.4): against a plain float64 computation on full logits, and what their intervals mean."""

from __future__ import annotations

import math

import pytest
import torch

from evaluation.logit_stats import (
    TOKEN_STATISTICS,
    example_rows,
    logit_chunks,
    paired_change,
    ratio_estimate,
    summary,
    token_statistics,
)
from foundation.errors import InputError


def sample(tokens=23, hidden=8, vocabulary=37, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    hidden_ND = torch.randn(tokens, hidden, generator=generator) * scale
    head_VD = torch.randn(vocabulary, hidden, generator=generator)
    return hidden_ND, head_VD, torch.randint(vocabulary, (tokens,), generator=generator)


def naive(hidden_ND, head_VD, targets_N):
    logits = hidden_ND.double() @ head_VD.double().T
    target = logits[torch.arange(len(logits)), targets_N]
    others = torch.ones_like(logits, dtype=torch.bool)
    others[torch.arange(len(logits)), targets_N] = False
    background = torch.stack([row[keep].mean() for row, keep in zip(logits, others, strict=True)])
    p = logits.softmax(dim=1)
    return {"target_logit": target, "background_mean": background, "gap": target - background,
            "std": logits.std(dim=1, correction=0), "mean": logits.mean(dim=1),
            "centered_norm": (logits - logits.mean(dim=1, keepdim=True)).norm(dim=1), "max_logit": logits.amax(dim=1),
            "min_logit": logits.amin(dim=1), "l2_norm": logits.norm(dim=1), "entropy": -(p * p.log()).sum(dim=1),
            "max_prob": p.amax(dim=1)}


def test_every_statistic_equals_the_plain_computation_on_full_logits():
    found, expected = token_statistics(*sample()), naive(*sample())
    assert set(found) == set(expected) == set(TOKEN_STATISTICS)
    for name in TOKEN_STATISTICS:
        torch.testing.assert_close(found[name], expected[name], rtol=2e-5, atol=2e-5, msg=name)


def test_float64_hidden_states_are_measured_in_float64():
    hidden_ND, head_VD, targets_N = sample()
    found = token_statistics(hidden_ND.double(), head_VD, targets_N)
    for name, expected in naive(hidden_ND, head_VD, targets_N).items():
        torch.testing.assert_close(found[name], expected, rtol=1e-11, atol=1e-11, msg=name)


@pytest.mark.parametrize("chunk_tokens", [1, 7, 22, 23, 1000])
def test_the_chunk_size_moves_nothing_beyond_rounding(chunk_tokens):
    whole, chunked = token_statistics(*sample()), token_statistics(*sample(), chunk_tokens=chunk_tokens)
    for name in TOKEN_STATISTICS:
        torch.testing.assert_close(chunked[name], whole[name], rtol=1e-5, atol=1e-5, msg=name)


def test_no_more_than_a_chunk_of_logits_is_ever_made():
    hidden_ND, head_VD, _ = sample(tokens=50)
    assert [len(logits) for _, (logits,) in logit_chunks([(hidden_ND, head_VD)], chunk_tokens=16)] == [16, 16, 16, 2]


def test_a_shift_of_all_logits_changes_only_what_the_softmax_does_not_see():
    """Eq. 48: the centred norm is shift-invariant, and is sqrt(V) times the standard deviation."""
    hidden_ND, head_VD, targets_N = sample()
    shifted_ND = torch.cat([hidden_ND, torch.full((len(hidden_ND), 1), 5.0)], dim=1)
    shifted_VD = torch.cat([head_VD, torch.ones(len(head_VD), 1)], dim=1)
    before, after = token_statistics(*sample()), token_statistics(shifted_ND, shifted_VD, targets_N)
    for name in ("gap", "std", "centered_norm", "entropy", "max_prob"):
        torch.testing.assert_close(after[name], before[name], rtol=1e-4, atol=1e-4, msg=name)
    for name in ("target_logit", "background_mean", "mean", "max_logit", "min_logit"):
        torch.testing.assert_close(after[name] - before[name], torch.full_like(before[name], 5.0), rtol=1e-4, atol=0)
    torch.testing.assert_close(before["centered_norm"], before["std"] * math.sqrt(len(head_VD)))


def test_a_small_spread_around_a_large_mean_survives_float32():
    logits = 1000 + torch.randn(4, 64, generator=torch.Generator().manual_seed(0)) / 64
    found = token_statistics(logits, torch.eye(64), torch.zeros(4, dtype=torch.long))
    torch.testing.assert_close(found["std"], logits.double().std(dim=1, correction=0), rtol=1e-3, atol=0)


def test_huge_logits_keep_entropy_and_probability_finite():
    logits = torch.tensor([[5e4, 0.0, -5e4], [3.0, 3.0, 3.0]])
    found = token_statistics(logits, torch.eye(3), torch.tensor([0, 1]))
    assert found["entropy"].tolist() == pytest.approx([0, math.log(3)]) and found["max_prob"][0] == 1


def test_softcap_bounds_the_logits():
    hidden_ND, head_VD, targets_N = sample(scale=100)
    assert token_statistics(hidden_ND, head_VD, targets_N, softcap=30.0)["max_logit"].max() <= 30


@pytest.mark.parametrize("targets, said", [([0, 37], "outside"), ([0], "one id per token")])
def test_targets_that_do_not_fit_are_refused(targets, said):
    hidden_ND, head_VD, _ = sample(tokens=2)
    with pytest.raises(InputError, match=said):
        token_statistics(hidden_ND, head_VD, torch.tensor(targets))


def test_models_of_different_vocabularies_are_refused():
    hidden_ND, head_VD, _ = sample(tokens=2)
    with pytest.raises(InputError, match="one model family"):
        list(logit_chunks([(hidden_ND, head_VD), (hidden_ND, head_VD[:-1])]))


# ------------------------------------------------------------------------------------------------- over the sample


def rows_of(counts=(3, 10, 5, 5), seed=0):
    values = token_statistics(*sample(tokens=sum(counts), seed=seed))
    return example_rows([f"e{i}" for i in range(len(counts))], counts, values), values


def test_the_sample_mean_is_over_tokens_and_the_extremes_over_all_of_them():
    rows, values = rows_of()
    found = summary(rows)
    for name in TOKEN_STATISTICS:
        assert found[name]["value"] == pytest.approx(values[name].mean().item())
        assert found[name]["ci95"][0] < found[name]["value"] < found[name]["ci95"][1]
    assert found["highest_logit"]["value"] == values["max_logit"].max() and found["highest_logit"]["ci95"] is None
    assert found["lowest_logit"]["value"] == values["min_logit"].min()
    assert (found["mean"]["n_tokens"], found["mean"]["n_examples"]) == (23, 4)


def test_the_interval_does_not_take_tokens_of_one_example_for_independent():
    """Repeating every token of an example tells nothing new: the interval stays as it was."""
    tops, bottoms = [3.0, 8.0, 1.0, 4.0], [2.0, 5.0, 2.0, 3.0]
    once, often = ratio_estimate(tops, bottoms), ratio_estimate([9 * t for t in tops], [9 * b for b in bottoms])
    assert once[0] == pytest.approx(often[0]) and once[1] == pytest.approx(often[1])


def test_equal_weights_give_students_interval_of_the_example_means():
    _, (low, high) = ratio_estimate([1.0, 2.0, 3.0, 4.0], [1.0] * 4)
    assert (low, high) == pytest.approx((2.5 - 3.182446 * 1.290994 / 2, 2.5 + 3.182446 * 1.290994 / 2), abs=1e-5)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    generator = torch.Generator().manual_seed(1)
    covered = 0
    for _ in range(400):
        own = torch.randn(20, generator=generator)
        counts = torch.randint(1, 30, (20,), generator=generator)
        low, high = ratio_estimate((own * counts).tolist(), counts.double().tolist())[1]
        covered += low <= 0 <= high
    assert 0.88 <= covered / 400 <= 0.99


def test_one_example_has_no_interval_and_none_is_refused():
    assert ratio_estimate([4.0], [2.0]) == (2.0, None)
    with pytest.raises(InputError, match="nothing to average"):
        summary([])


def test_a_change_is_paired_and_its_percentage_is_the_papers():
    """Table 7: -1.90 of 2.87 is printed as -66.2 %, a minimum from -26.63 to -35.75 as +34.2 %."""
    before = [{"id": "a", "tokens": 2, "mean": 2.87, "lowest_logit": -26.625},
              {"id": "b", "tokens": 1, "mean": 2.87, "lowest_logit": -3}]
    after = [{**before[0], "mean": 0.97, "lowest_logit": -35.75}, {**before[1], "mean": 0.97}]
    change = paired_change(before, after, "mean")
    assert (change["delta"], change["percent"]) == (pytest.approx(-1.90), pytest.approx(-66.2, abs=0.01))
    assert change["delta_ci95"] == (pytest.approx(-1.90), pytest.approx(-1.90)), "the same change in every example"
    assert paired_change(before, after, "lowest_logit")["percent"] == pytest.approx(34.27, abs=0.01)


def test_a_change_between_different_samples_is_refused():
    rows, _ = rows_of()
    with pytest.raises(InputError, match="same examples"):
        paired_change(rows, rows[1:], "mean")
