"""The theory on logits: hand-made cases of each condition, a plain computation, and the theorem under random search."""

from __future__ import annotations

import math

import pytest
import torch

from evaluation.theory import (
    COUNTS,
    GRID_QUANTITIES,
    LARGEST,
    MEANS,
    RATIOS,
    crossover,
    drift_statistics,
    lambda_cross,
    pair_rows,
    pair_statistics,
    pair_summary,
    sensitivity_summary,
)
from foundation.errors import InputError

GRID = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def side(logits):
    """Hidden states and a head whose product is exactly these logits."""
    logits = torch.as_tensor(logits, dtype=torch.float64)
    return logits, torch.eye(logits.shape[1], dtype=torch.float64)


def measure(weak, strong, targets, mix_weight=0.5, **options):
    found = pair_statistics(side(weak), side(strong), torch.tensor(targets), mix_weight, **options)
    return {name: values.tolist() for name, values in found.items()}


def random_logits(tokens, vocabulary, seed, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(tokens, vocabulary, generator=generator, dtype=torch.float64) for _ in range(2)]


# ------------------------------------------------------------------------------------------ Theorem 1, by hand


def test_the_condition_holds_where_every_margin_shrinks():
    """Margins of the strong model (2, 3), of the weak one (0.5, 1.5): at 0.5 the mixture's are (1.25, 2.25)."""
    found = measure([[1, 0.5, -0.5]], [[2, 0, -1]], [0])
    strong, mix = math.exp(-2) + math.exp(-3), math.exp(-1.25) + math.exp(-2.25)
    assert found["condition"] == [1] and found["mass_grows"] == [1] and found["theorem_violations"] == [0]
    assert found["negative_mass_strong"][0] == pytest.approx(strong / (1 + strong))
    assert found["negative_mass_mix"][0] == pytest.approx(mix / (1 + mix))
    assert found["p_target_mix"][0] == pytest.approx(1 / (1 + mix))
    assert found["hard_share"] == [1] and found["hard_mass"][0] == pytest.approx(strong / (1 + strong))


def test_one_margin_that_does_not_shrink_breaks_the_condition():
    """The weak model separates token 2 by 4, the strong one by 3; the mass grows all the same."""
    found = measure([[1, 0.5, -3]], [[2, 0, -1]], [0])
    assert found["condition"] == [0] and found["no_condition"] == [1]
    assert found["hard_pairs"] == [1] and found["hard_share"] == [0.5]
    assert found["grows_without_condition"] == [1]


def test_a_weak_model_that_is_surer_lowers_the_mass():
    """D.6: the intended amplification is reversed."""
    found = measure([[5, 0, 0]], [[1, 0, 0]], [0])
    for name in ("condition", "mass_grows", "has_hard_negative", "weak_less_confident"):
        assert found[name] == [0], name


def test_equal_models_meet_the_condition_and_change_nothing():
    found = measure([[3, 1, 0]], [[3, 1, 0]], [0])
    assert found["condition"] == [1] and found["mass_grows"] == found["has_hard_negative"] == [0]
    assert found["theorem_violations"] == [0] and found["log_ratio_target"] == [pytest.approx(0, abs=1e-12)]


def test_a_shift_of_the_weak_logits_changes_no_comparison():
    weak, strong = random_logits(40, 6, seed=3)
    plain, shifted = (measure(w, strong, [1] * 40) for w in (weak, weak + 7.0))
    for name in ("condition", "mass_grows", "hard_pairs", "mix_above_both", *COUNTS):
        assert plain[name] == shifted[name], name


def test_masses_are_told_apart_where_the_probabilities_round_to_one():
    """P(y) is 1 - 1e-22 under the strong model: 1 - P cancels, log-odds do not."""
    found = measure([[49, 0, 0]], [[50, 0, 0]], [0])
    assert found["p_target_strong"] == [1.0] and found["mass_grows"] == [1]
    assert found["negative_mass_strong"][0] == pytest.approx(2 * math.exp(-50), rel=1e-9)
    assert found["residual_norm_sft"][0] == pytest.approx(math.sqrt(6) * math.exp(-50), rel=1e-9)


# ------------------------------------------------------------------------------------------ against plain formulas


def plain_pair(weak, strong, y, lam):
    """One token, as the paper writes it, loops and all."""
    p = [z.softmax(dim=0).tolist() for z in (weak, strong, lam * strong + (1 - lam) * weak)]
    margins = [(z[y] - z).tolist() for z in (weak, strong)]
    negatives = [k for k in range(len(weak)) if k != y]
    hard = [k for k in negatives if margins[0][k] < margins[1][k]]
    limit = {k: math.exp(-(1 - lam) * (margins[1][k] - margins[0][k])) for k in hard}
    norm = [math.sqrt(sum((q - (k == y)) ** 2 for k, q in enumerate(one))) for one in p]
    return {
        "condition": float(all(margins[0][k] <= margins[1][k] for k in negatives)),
        "mass_grows": float(1 - p[2][y] > 1 - p[1][y]), "hard_pairs": len(hard),
        "hard_share": len(hard) / len(negatives), "has_hard_negative": float(bool(hard)),
        "hard_mass": sum(p[1][k] for k in hard), "weak_less_confident": float(p[0][y] < p[1][y]),
        "corollary_condition": sum(p[2][y] / p[1][y] >= limit[k] for k in hard),
        "hard_amplified": sum(p[2][k] >= p[1][k] for k in hard),
        "amplified": sum(p[2][k] >= p[1][k] for k in negatives), "negative_pairs": len(negatives),
        "p_target_weak": p[0][y], "p_target_strong": p[1][y], "p_target_mix": p[2][y],
        "residual_norm_sft": norm[1], "residual_norm_mix": norm[2], "strong_branch_norm": lam * norm[2],
        "weak_branch_norm": (1 - lam) * norm[2], "strong_gradient_exceeds_sft": float(lam * norm[2] > norm[1]),
        "hessian_trace_mix": sum(q * (1 - q) for q in p[2]),
        "mix_above_both": float(p[2][y] > max(p[0][y], p[1][y])),
        "centered_norm_weak": (weak - weak.mean()).norm().item(),
    }


@pytest.mark.parametrize("mix_weight", [0.2, 0.5, 0.9])
def test_every_quantity_equals_the_plain_computation(mix_weight):
    weak, strong = random_logits(60, 5, seed=1)
    targets = [i % 5 for i in range(60)]
    found = measure(weak, strong, targets, mix_weight, chunk_tokens=7)
    for i, y in enumerate(targets):
        for name, expected in plain_pair(weak[i], strong[i], y, mix_weight).items():
            assert found[name][i] == pytest.approx(expected, abs=1e-12), (name, i)


def test_the_branches_share_the_gradient_as_autograd_finds_it():
    """Eq. 22, and the trace of Eq. 65 as autograd's Hessian has it."""
    weak, strong = random_logits(1, 6, seed=8)
    leaves = [z.clone().requires_grad_() for z in (weak, strong)]
    torch.nn.functional.cross_entropy(0.3 * leaves[1] + 0.7 * leaves[0], torch.tensor([2])).backward()
    found = measure(weak, strong, [2], 0.3)
    assert found["weak_branch_norm"][0] == pytest.approx(leaves[0].grad.norm().item())
    assert found["strong_branch_norm"][0] == pytest.approx(leaves[1].grad.norm().item())
    hessian = torch.autograd.functional.hessian(
        lambda z: torch.nn.functional.cross_entropy(z, torch.tensor([2])), 0.3 * strong + 0.7 * weak)
    assert found["hessian_trace_mix"][0] == pytest.approx(hessian.squeeze().diagonal().sum().item())


@pytest.mark.parametrize("chunk_tokens", [1, 9, 500])
def test_chunks_change_nothing(chunk_tokens):
    weak, strong = random_logits(30, 8, seed=2)
    whole, chunked = (measure(weak, strong, [3] * 30, grid=GRID, chunk_tokens=c) for c in (30, chunk_tokens))
    for name, values in whole.items():
        assert chunked[name] == pytest.approx(values, rel=1e-10, abs=1e-12), name


# ------------------------------------------------------------------------------------------ random search


@pytest.mark.parametrize("vocabulary", [2, 3, 10])
@pytest.mark.parametrize("mix_weight", [0.0, 0.3, 0.5, 0.99, 1.0])
def test_the_theory_is_never_violated(vocabulary, mix_weight):
    """A third of the tokens is bent so that the condition holds; float32 logits, as a model gives them."""
    weak, strong = (z.float() for z in random_logits(3000, vocabulary, seed=vocabulary, scale=6.0))
    targets = torch.randint(vocabulary, (3000,), generator=torch.Generator().manual_seed(5))
    change = strong - weak
    change[::3].scatter_(1, targets[::3, None], change[::3].amax(dim=1, keepdim=True))
    strong = weak + change
    found = measure(weak.double(), strong.double(), targets.tolist(), mix_weight)
    assert sum(found["condition"]) > 500
    assert {name: sum(found[name]) for name in COUNTS} == dict.fromkeys(COUNTS, 0)
    assert max(max(found[name]) for name in LARGEST) < 1e-11


def test_a_wrong_mixture_would_be_found(monkeypatch):
    """The violation counters can count: pass off a mixture that moves away from the weak model."""
    import evaluation.theory as theory

    weak, strong = random_logits(200, 4, seed=4)
    real = theory._theorem
    monkeypatch.setattr(theory, "_theorem", lambda w, s, mix, gap: real(
        w, s, mix._replace(odds_C=2 * s.odds_C - mix.odds_C), gap))
    assert sum(measure(weak, strong, [0] * 200)["theorem_violations"]) > 0


def test_the_mass_grows_only_where_the_weak_model_is_less_confident_and_never_more_often_at_a_larger_lambda():
    """log P_mix(y) is concave in lambda."""
    weak, strong = random_logits(2000, 6, seed=6)
    found = measure(weak, strong, [0] * 2000, grid=GRID)
    shares = [sum(found[f"mass_grows@{value:g}"]) for value in GRID]
    assert shares == sorted(shares, reverse=True) and shares[-1] == 0 and shares[0] > shares[-2] > 0
    assert found["mass_grows@0"] == found["weak_less_confident"]
    assert all(low >= high for low, high in zip(found["weak_less_confident"], found["mass_grows"], strict=True))
    assert 0 < sum(found["mix_above_both"]) < 2000


def test_the_grid_agrees_with_the_single_mixing_weight():
    weak, strong = random_logits(50, 6, seed=7)
    found = measure(weak, strong, [0] * 50, 0.25, grid=GRID)
    for name in GRID_QUANTITIES:
        assert found[f"{name}@0.25"] == pytest.approx(found[name], rel=1e-12)


# ------------------------------------------------------------------------------------------ over the sample


def test_the_summary_names_every_quantity_with_its_interval():
    weak, strong = random_logits(30, 6, seed=9)
    values = pair_statistics(side(weak), side(strong), torch.zeros(30, dtype=torch.long), 0.5, grid=(0.1, 0.5))
    rows = pair_rows(["a", "b", "c"], [5, 20, 5], values)
    found = pair_summary(rows)
    assert set(found) == {*MEANS, *RATIOS, *COUNTS, *LARGEST, "alpha", "lambda_cross",
                          *(f"{name}@{value}" for name in GRID_QUANTITIES for value in (0.1, 0.5))}
    assert found["hard_share"]["value"] == pytest.approx(values["hard_share"].mean().item())
    assert found["hard_pairs_amplified"]["value"] == pytest.approx(
        (values["hard_amplified"].sum() / values["hard_pairs"].sum()).item())
    low, high = found["mass_grows"]["ci95"]
    assert low < found["mass_grows"]["value"] < high
    assert (found["condition"]["n_tokens"], found["condition"]["n_examples"]) == (30, 3)


def test_a_share_among_no_tokens_has_no_value():
    values = pair_statistics(side([[5, 0, 0]]), side([[1, 0, 0]]), torch.tensor([0]), 0.5)
    found = pair_summary(pair_rows(["a"], [1], values))
    assert found["grows_where_condition_holds"]["value"] is None
    assert found["grows_where_condition_fails"]["value"] == 0


def test_the_interval_of_a_share_is_a_share_and_has_a_width():
    weak, strong = [[1.0, 0.5, -0.5]] * 12, [[2.0, 0.0, -1.0]] * 12
    found = pair_summary(pair_rows(list("abc"), [4] * 3, pair_statistics(
        side(weak), side(strong), torch.zeros(12, dtype=torch.long), 0.5)))
    assert found["condition"]["value"] == 1 and found["condition"]["ci95"] == pytest.approx((0.4385, 1), abs=1e-4)
    assert found["theorem_violations"] == {"value": 0, "ci95": None, "n_tokens": 12, "n_examples": 3}


def test_no_token_is_refused():
    with pytest.raises(InputError, match="no supervised token"):
        pair_summary([])


def test_the_crossover_is_the_papers():
    """Eq. 16 and 17: 1240.10 over 1191.33 gives alpha 1.08 and 0.490."""
    found = crossover({"value": 1240.10 / 1191.33, "ci95": (1.0, 1.1), "n_tokens": 1, "n_examples": 1})
    assert found["alpha"]["value"] == pytest.approx(1.08, abs=5e-3)
    assert found["lambda_cross"]["value"] == pytest.approx(0.490, abs=5e-4)
    assert found["lambda_cross"]["ci95"] == (pytest.approx(1 / 2.1), pytest.approx(0.5))


def test_above_the_crossover_the_strong_branch_dominates():
    """Eq. 62 and 63."""
    for alpha in (0.5, 1.0, 4.0):
        at = lambda_cross(alpha)
        assert (at + 0.01) ** 2 * alpha > (1 - at - 0.01) ** 2 and (at - 0.01) ** 2 * alpha < (1 - at + 0.01) ** 2


def test_measured_sensitivities_give_a_geometric_mean_and_skip_what_says_nothing():
    rows = [{"id": "a", "weak": 1.0, "strong": 8.0}, {"id": "b", "weak": 2.0, "strong": 1.0},
            {"id": "c", "weak": 0.0, "strong": 0.0}]
    found = sensitivity_summary(rows, 0.5)
    assert found["alpha_measured"]["value"] == pytest.approx(2) and found["alpha_above_one"]["value"] == 0.5
    assert found["lambda_cross_measured"]["value"] == pytest.approx(1 / (1 + math.sqrt(2)))
    assert found["strong_share"]["value"] == pytest.approx((8 / 9 + 1 / 3) / 2)
    assert found["alpha_measured"]["n_tokens"] == 2 and sensitivity_summary(rows[2:], 0.5) == {}


@pytest.mark.parametrize("mix_weight, grid", [(1.2, ()), (0.5, (-0.1,))])
def test_a_mixing_weight_outside_its_range_is_refused(mix_weight, grid):
    with pytest.raises(InputError, match="lambda"):
        measure([[1, 0]], [[0, 1]], [0], mix_weight, grid=grid)


# ------------------------------------------------------------------------------------------ Stage III


def test_a_pure_shift_is_all_null_space():
    pre, _ = random_logits(10, 7, seed=10)
    found = drift_statistics(side(pre), side(pre - 1.5))
    assert found["mean_shift"].tolist() == pytest.approx([-1.5] * 10)
    assert found["null_norm"].tolist() == pytest.approx([1.5 * math.sqrt(7)] * 10)
    assert found["centered_change_norm"].max() < 1e-9 and found["centered_norm_change"].abs().max() < 1e-9


def test_the_change_splits_by_pythagoras():
    pre, post = random_logits(10, 7, seed=11)
    found = drift_statistics(side(pre), side(post), chunk_tokens=3)
    torch.testing.assert_close(found["null_norm"] ** 2 + found["centered_change_norm"] ** 2,
                               (post - pre).square().sum(dim=1))
    torch.testing.assert_close(found["change_square"], (post - pre).square().sum(dim=1))
    torch.testing.assert_close(found["centered_norm_post"], (post - post.mean(dim=1, keepdim=True)).norm(dim=1))
