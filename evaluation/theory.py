"""The paper's theory measured on a pair of checkpoints: where its conditions hold, and what happens where they do not.

For every supervised token with target y, d = z_strong - z_weak and margins m_k(z) = z[y] - z[k] (Eq. 12, 23):

- Theorem 1/8: if m_k(weak) <= m_k(strong) for all k, that is, if no d[k] exceeds d[y], mixing does not lower the
  negative mass, sum_{k != y} P(k) = 1 - P(y) (Eq. 13, 33).
- Corollary 2/7: for a hard negative k (d[k] < d[y]), P_mix(k) >= P_strong(k) if
  log P_mix(y) - log P_strong(y) >= -(1 - lambda) (d[y] - d[k]) (Eq. 14, 29); by Eq. 32 exactly then.
- Lemma 6: for a hard negative P(k) / P(y) is larger under the mixture; Lemmas 4 and 5: the identities behind it.
- Branch gradients (Eq. 22): the strong branch gets lambda * g with g = P_mix - e_y; SFT would give P_strong - e_y.
- Eq. 16, 17, 63: alpha, the squared ratio of centred norms, and lambda_cross = 1 / (1 + sqrt(alpha)).

log P_mix(y) is concave in lambda, which the paper does not use. So P_mix(y) is never below both P_weak(y) and
P_strong(y): the negative mass can exceed the strong model's only where P_weak(y) < P_strong(y), for lambda up to some
value, and the share of such tokens never rises with lambda. It may fall below both, which is counted as well.

Logits are compared as they were computed (float32 unless the hidden states are float64); everything after that is
float64. Negative masses are compared by their log-odds, which do not cancel
near P(y) = 1; a conclusion fails, and a mass grows, where it does so by more than TOLERANCE.
"""

# N supervised tokens, C tokens of one chunk, V vocabulary, D hidden size

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluation.logit_stats import centered_squares, check_targets, logit_chunks, ratio_estimate
from evaluation.statistics import wilson
from foundation.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    Side = tuple[Tensor, Tensor]
    """Hidden states (N, D) and head (V, D) of a model."""

TOLERANCE = 1e-9  # in nats of log-odds or log-probability; float64 leaves about 1e-12
GRID_MARK = "@"
GRID_QUANTITIES = ("mass_grows", "negative_mass_mix", "residual_norm_mix", "strong_gradient_exceeds_sft")
"""Also measured at every lambda of a grid, then named `<quantity>@<lambda>`."""

# quantity -> (numerator, denominator) among the per-token values; "tokens" counts tokens
MEANS = (
    "condition", "has_hard_negative", "hard_share", "p_target_weak", "p_target_strong", "p_target_mix",
    "weak_less_confident", "log_ratio_target", "mass_grows", "negative_mass_strong", "negative_mass_mix",
    "mix_above_both", "residual_norm_sft", "residual_norm_mix", "strong_branch_norm", "weak_branch_norm",
    "strong_gradient_exceeds_sft", "hessian_trace_strong", "hessian_trace_mix", "centered_norm_weak",
    "centered_norm_strong",
)
COUNTS = ("theorem_violations", "lemma6_violations", "corollary_violations", "corollary_converse_violations",
          "below_both_violations")
"""Summed over all tokens (or pairs of token and negative): 0 wherever the theory is right and the code too."""
LARGEST = ("lemma4_error", "lemma5_error")
RATIOS = {
    "grows_where_condition_holds": ("grows_with_condition", "condition"),
    "grows_where_condition_fails": ("grows_without_condition", "no_condition"),
    "grows_where_weak_less_confident": ("mass_grows", "weak_less_confident"),
    "hard_mass_share": ("hard_mass", "negative_mass_strong"),
    "corollary_condition_share": ("corollary_condition", "hard_pairs"),
    "hard_pairs_amplified": ("hard_amplified", "hard_pairs"),
    "negatives_amplified": ("amplified", "negative_pairs"),
    "residual_growth": ("residual_norm_mix", "residual_norm_sft"),
    "strong_gradient_growth": ("strong_branch_norm", "residual_norm_sft"),
    "centered_norm_ratio": ("centered_norm_strong", "centered_norm_weak"),
}
_UNBOUNDED = {"log_ratio_target", "residual_norm_sft", "residual_norm_mix", "strong_branch_norm", "weak_branch_norm",
              "centered_norm_weak", "centered_norm_strong", "residual_growth", "strong_gradient_growth",
              "centered_norm_ratio", *COUNTS, *LARGEST}
DRIFT = ("mean_shift", "null_norm", "centered_change_norm", "null_square", "change_square", "centered_norm_pre",
         "centered_norm_post", "centered_norm_change")
"""Stage III, of each token; changes are post minus pre."""


class _Mass(NamedTuple):
    """What a model's negatives weigh, each (C,): log-odds of their mass, ||P - e_y||^2, trace of diag(P) - P P^T."""

    odds_C: Tensor
    square_C: Tensor
    trace_C: Tensor

    @property
    def negative_C(self) -> Tensor:
        """1 - P(y), without cancelling near P(y) = 1."""
        return self.odds_C.sigmoid()

    @property
    def log_target_C(self) -> Tensor:
        """The log-probability of the target."""
        return -_softplus(self.odds_C)


def pair_statistics(weak: Side, strong: Side, targets_N: Tensor, mix_weight: float, *, grid: Sequence[float] = (),
                    chunk_tokens: int | None = None, softcap: float | None = None) -> dict[str, Tensor]:
    """Return every per-token quantity of the module's theory, each (N,), float64 on the CPU.

    Yes-or-no quantities are 0 or 1; `*_pairs`, `amplified` and the like count (token, negative) pairs of a token.

    Args:
        weak: hidden states (N, D) and head (V, D) of the weak model.
        strong: the same of the strong model; its D may differ.
        targets_N: (N,) target ids.
        mix_weight: lambda, the weight of the strong logits (Eq. 5).
        grid: further lambdas, at which only GRID_QUANTITIES are measured, in the same pass.
        chunk_tokens: tokens whose logits are held at once.
        softcap: see `logit_chunks`.

    Raises:
        InputError: a lambda outside [0, 1], different vocabularies, or a target outside the vocabulary.
    """
    import torch

    for value in (mix_weight, *grid):
        if not 0 <= value <= 1:
            raise InputError(f"lambda is {value}; a mixing weight must lie in [0, 1]")
    check_targets(targets_N, len(weak[0]), len(weak[1]))
    found: dict[str, list[Tensor]] = {}
    for rows, (weak_CV, strong_CV) in logit_chunks([weak, strong], chunk_tokens=chunk_tokens, softcap=softcap):
        chunk = _chunk(weak_CV.double(), strong_CV.double(), targets_N[rows].unsqueeze(1), mix_weight, grid)
        for name, values_C in chunk.items():
            found.setdefault(name, []).append(values_C.double().cpu())
    return {name: torch.cat(parts) for name, parts in found.items()}


def _chunk(weak_CV: Tensor, strong_CV: Tensor, target_C1: Tensor, mix_weight: float,
           grid: Sequence[float]) -> dict[str, Tensor]:
    import torch

    # z - z[y], the negated margins: what the mixtures of a grid need no more than
    weak_margin_CV, strong_margin_CV = (z_CV - z_CV.gather(1, target_C1) for z_CV in (weak_CV, strong_CV))
    weak, strong = (_mass(margin_CV.clone(), target_C1) for margin_CV in (weak_margin_CV, strong_margin_CV))
    mixed_CV = mix_weight * strong_CV + (1 - mix_weight) * weak_CV
    mix = _mass(mixed_CV - mixed_CV.gather(1, target_C1), target_C1)
    gap_CV = weak_margin_CV - strong_margin_CV  # Delta m_k, 0 at the target
    values = _theorem(weak, strong, mix, gap_CV)
    strong_log_CV, mix_log_CV = strong_CV.log_softmax(dim=1), mixed_CV.log_softmax(dim=1)
    values |= _hard_negatives(strong_log_CV, mix_log_CV, gap_CV, target_C1, mix_weight)
    values |= _lemmas(weak_margin_CV, strong_margin_CV, mixed_CV, mix_log_CV, target_C1, mix_weight)
    values |= {"residual_norm_sft": strong.square_C.sqrt(), "hessian_trace_strong": strong.trace_C,
               "hessian_trace_mix": mix.trace_C, "centered_norm_weak": centered_squares(weak_CV).sqrt(),
               "centered_norm_strong": centered_squares(strong_CV).sqrt()}
    values |= _branches(mix, strong, mix_weight)
    for other in grid:
        at = _mass(torch.lerp(weak_margin_CV, strong_margin_CV, other), target_C1)
        at_grid = {"mass_grows": at.odds_C > strong.odds_C + TOLERANCE, "negative_mass_mix": at.negative_C,
                   **_branches(at, strong, other)}
        values |= {f"{name}{GRID_MARK}{other:g}": at_grid[name] for name in GRID_QUANTITIES}
    return values


def _mass(margin_CV: Tensor, target_C1: Tensor) -> _Mass:
    """Weigh the negatives by one exponential over the vocabulary; `margin_CV`, z - z[y], is used up."""
    import torch

    top_C1 = margin_CV.scatter_(1, target_C1, -math.inf).amax(dim=1, keepdim=True)
    weight_CV = margin_CV.sub_(top_C1).exp_()
    total_C, top_C = weight_CV.sum(dim=1), top_C1.squeeze(1)
    odds_C = total_C.log() + top_C
    negative_C = odds_C.sigmoid()
    # sum over negatives of P(k)^2, from their shares of the negative mass
    squares_C = torch.linalg.vector_norm(weight_CV, dim=1).div_(total_C).mul_(negative_C).square_()
    return _Mass(odds_C, negative_C**2 + squares_C, negative_C * (2 - negative_C) - squares_C)


def _softplus(values_C: Tensor) -> Tensor:
    """Return log(1 + exp(x)), which torch's own rounds off above its threshold."""
    import torch

    return torch.logaddexp(values_C, torch.zeros_like(values_C))


def _theorem(weak: _Mass, strong: _Mass, mix: _Mass, gap_CV: Tensor) -> dict[str, Tensor]:
    """Theorem 1/8: condition, conclusion, and how often the conclusion holds without the condition."""
    condition_C = (gap_CV >= 0).all(dim=1)
    grows_C = mix.odds_C > strong.odds_C + TOLERANCE
    ends = weak.odds_C.minimum(strong.odds_C), weak.odds_C.maximum(strong.odds_C)
    return {
        "condition": condition_C, "no_condition": ~condition_C,
        "theorem_violations": condition_C & (mix.odds_C < strong.odds_C - TOLERANCE),
        "mass_grows": grows_C, "grows_with_condition": grows_C & condition_C,
        "grows_without_condition": grows_C & ~condition_C,
        "weak_less_confident": weak.odds_C > strong.odds_C,
        "mix_above_both": mix.odds_C < ends[0] - TOLERANCE, "below_both_violations": mix.odds_C > ends[1] + TOLERANCE,
        "p_target_weak": weak.log_target_C.exp(), "p_target_strong": strong.log_target_C.exp(),
        "p_target_mix": mix.log_target_C.exp(), "log_ratio_target": mix.log_target_C - strong.log_target_C,
        "negative_mass_strong": strong.negative_C, "negative_mass_mix": mix.negative_C,
    }


def _hard_negatives(strong_log_CV: Tensor, mix_log_CV: Tensor, gap_CV: Tensor, target_C1: Tensor,
                    mix_weight: float) -> dict[str, Tensor]:
    """Corollary 2/7 and Eq. 12, counted over (token, negative) pairs; the target itself is no pair."""
    vocabulary = gap_CV.shape[1]
    hard_CV = gap_CV > 0
    grown_CV = mix_log_CV - strong_log_CV
    slack_CV = grown_CV.gather(1, target_C1) + (1 - mix_weight) * gap_CV
    hard_C = hard_CV.sum(dim=1)
    allowed_CV, amplified_CV = hard_CV & (slack_CV >= 0), grown_CV >= 0
    target_amplified_C = amplified_CV.gather(1, target_C1).squeeze(1)
    return {
        "hard_pairs": hard_C, "negative_pairs": hard_C.new_full(hard_C.shape, vocabulary - 1),
        "hard_share": hard_C.double() / (vocabulary - 1), "has_hard_negative": hard_C > 0,
        "hard_mass": (strong_log_CV.exp() * hard_CV).sum(dim=1), "corollary_condition": allowed_CV.sum(dim=1),
        "hard_amplified": (hard_CV & amplified_CV).sum(dim=1),
        "amplified": amplified_CV.sum(dim=1) - target_amplified_C.long(),
        "corollary_violations": (allowed_CV & (grown_CV < -TOLERANCE)).sum(dim=1),
        "corollary_converse_violations": (hard_CV & (slack_CV < -TOLERANCE) & amplified_CV).sum(dim=1),
    }


def _lemmas(weak_CV: Tensor, strong_CV: Tensor, mixed_CV: Tensor, mix_log_CV: Tensor, target_C1: Tensor,
            mix_weight: float) -> dict[str, Tensor]:
    """Lemmas 4 (log-odds), 5 (margins mix) and 6 (relative increase), on negated margins of weak and strong model."""
    mixed_CV = mixed_CV - mixed_CV.gather(1, target_C1)
    expected_CV = (1 - mix_weight) * weak_CV + mix_weight * strong_CV
    odds_CV = mix_log_CV - mix_log_CV.gather(1, target_C1)
    return {
        "lemma4_error": odds_CV.sub_(mixed_CV).abs_().amax(dim=1),
        "lemma5_error": expected_CV.sub_(mixed_CV).abs_().amax(dim=1),
        "lemma6_violations": ((weak_CV > strong_CV) & (mixed_CV < strong_CV - TOLERANCE)).sum(dim=1),
    }


def _branches(mix: _Mass, strong: _Mass, mix_weight: float) -> dict[str, Tensor]:
    """Gradient norms in logit space (Eq. 22); SFT's is that of the strong model alone."""
    norm_C = mix.square_C.sqrt()
    return {"residual_norm_mix": norm_C, "strong_branch_norm": mix_weight * norm_C,
            "weak_branch_norm": (1 - mix_weight) * norm_C,
            "strong_gradient_exceeds_sft": mix_weight * norm_C > strong.square_C.sqrt() * (1 + TOLERANCE)}


def drift_statistics(pre: Side, post: Side, *, chunk_tokens: int | None = None,
                     softcap: float | None = None) -> dict[str, Tensor]:
    """Return every one of DRIFT for every token, (N,), float64 on the CPU: the null space of Eq. 74 against the rest.

    The change of the logits is split into its mean over the vocabulary, along the all-ones direction that the softmax
    does not see (`null_norm` = sqrt(V) * |mean shift|), and the centred rest (`centered_change_norm`).

    Args:
        pre: hidden states and head of the strong model before WD-JT.
        post: the same after it.
        chunk_tokens: tokens whose logits are held at once.
        softcap: see `logit_chunks`.

    Raises:
        InputError: different vocabularies or numbers of tokens.
    """
    import torch

    found: dict[str, list[Tensor]] = {name: [] for name in DRIFT}
    for _, (pre_CV, post_CV) in logit_chunks([pre, post], chunk_tokens=chunk_tokens, softcap=softcap):
        change_CV = post_CV.double() - pre_CV.double()
        shift_C, centred_C = change_CV.mean(dim=1), centered_squares(change_CV)
        null_C = change_CV.shape[1] * shift_C**2
        before_C, after_C = centered_squares(pre_CV).sqrt(), centered_squares(post_CV).sqrt()
        chunk = (shift_C, null_C.sqrt(), centred_C.sqrt(), null_C, null_C + centred_C, before_C, after_C,
                 after_C - before_C)
        for name, values_C in zip(DRIFT, chunk, strict=True):
            found[name].append(values_C.cpu())
    return {name: torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64) for name, parts in found.items()}


# ------------------------------------------------------------------------------------------------- over the sample


def pair_rows(ids: Sequence[str], counts: Sequence[int], values: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Return one row per example: `{id, tokens, <quantity>: sum over its tokens}` (LARGEST: the largest of them)."""
    parts = {name: values_N.split(list(counts)) for name, values_N in values.items()}
    return [{"id": name, "tokens": count,
             **{quantity: float(part[i].amax() if quantity in LARGEST else part[i].sum())
                for quantity, part in parts.items()}}
            for i, (name, count) in enumerate(zip(ids, counts, strict=True)) if count]


def pair_summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return `{quantity: {value, ci95, n_tokens, n_examples}}` of a pair: means, ratios, counts and the crossover.

    Means are over tokens, RATIOS ratios of sums (None where the denominator is 0: no token meets the condition, say),
    COUNTS sums without an interval. Intervals are 95 %, clustered by example; that of a share lies in [0, 1] and is
    Wilson's where all tokens agree, so that it is never of width 0.

    Raises:
        InputError: no row.
    """
    if not rows:
        raise InputError("no supervised token was measured; give examples with a completion")
    grid = [name for name in rows[0] if GRID_MARK in name]
    drift = [name for name in DRIFT if name in rows[0] and not name.endswith("_square")]
    found = {name: _entry(rows, name, "tokens", name.split(GRID_MARK)[0] not in _UNBOUNDED) for name in (*MEANS, *grid)}
    found |= {name: _entry(rows, *parts, name not in _UNBOUNDED) for name, parts in RATIOS.items()}
    if drift:
        found |= {name: _entry(rows, name, "tokens", False) for name in drift}
        found["null_share"] = _entry(rows, "null_square", "change_square", True)
    found |= {name: _plain(rows, math.fsum(row[name] for row in rows)) for name in COUNTS}
    found |= {name: _plain(rows, max(row[name] for row in rows)) for name in LARGEST}
    return found | crossover(found["centered_norm_ratio"])


def _entry(rows: Sequence[Mapping[str, Any]], top: str, bottom: str, bounded: bool) -> dict[str, Any]:
    bottoms = [row[bottom] for row in rows]
    if not any(bottoms):
        return _plain(rows, None)
    value, ci95 = ratio_estimate([row[top] for row in rows], bottoms)
    return _plain(rows, value) | {"ci95": _within_bounds(value, ci95, sum(map(bool, bottoms))) if bounded else ci95}


def _within_bounds(value: float, ci95: tuple[float, float] | None, examples: int) -> tuple[float, float] | None:
    """Return the interval of a share: within [0, 1], and Wilson's for so many examples where all tokens agree."""
    if ci95 is None or value in (0, 1):
        return wilson(round(value) * examples, examples) if value in (0, 1) else None
    return max(0.0, ci95[0]), min(1.0, ci95[1])


def _plain(rows: Sequence[Mapping[str, Any]], value: float | None) -> dict[str, Any]:
    return {"value": value, "ci95": None, "n_tokens": sum(row["tokens"] for row in rows), "n_examples": len(rows)}


def crossover(ratio: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return alpha (Eq. 16) and lambda_cross (Eq. 17, 63) with the intervals that the ratio's interval gives them.

    Args:
        ratio: an estimate of `||z~_strong|| / ||z~_weak||`, that is, of sqrt(alpha).
    """
    value = ratio["value"]
    alpha_ci95 = cross_ci95 = None
    if ratio["ci95"] is not None:
        low, high = max(0.0, ratio["ci95"][0]), ratio["ci95"][1]
        alpha_ci95, cross_ci95 = (low**2, high**2), (1 / (1 + high), 1 / (1 + low))
    return {"alpha": {**ratio, "value": value**2, "ci95": alpha_ci95},
            "lambda_cross": {**ratio, "value": lambda_cross(value**2), "ci95": cross_ci95}}


def lambda_cross(alpha: float) -> float:
    """Return `1 / (1 + sqrt(alpha))`, the weight above which the strong branch dominates (Eq. 63).

    Raises:
        InputError: alpha is negative.
    """
    if alpha < 0:
        raise InputError(f"alpha is {alpha}; a ratio of squared sensitivities is not negative")
    return 1 / (1 + math.sqrt(alpha))


def sensitivity_summary(rows: Sequence[Mapping[str, Any]], mix_weight: float) -> dict[str, dict[str, Any]]:
    """Return Assumption 11 as measured: alpha = g^T K_strong g / g^T K_weak g of single tokens, and what follows.

    `alpha_measured` is the geometric mean over tokens, `alpha_above_one` the share of tokens where the strong branch is
    the more sensitive one, `strong_share` the mean of E_strong / (E_strong + E_weak) at this lambda (Eq. 59).

    Args:
        rows: one per token, `{id, weak, strong}`, the quadratic forms g^T K_i g; a token whose residual is 0 under
            float32 says nothing and is left out.
        mix_weight: lambda.
    """
    told = [row for row in rows if row["weak"] > 0 and row["strong"] > 0]
    if not told:
        return {}
    units, (strong, weak) = [1.0] * len(told), (mix_weight**2, (1 - mix_weight) ** 2)
    logs = [math.log(row["strong"]) - math.log(row["weak"]) for row in told]
    shares = [1 / (1 + weak / strong * math.exp(-one)) if strong else 0.0 for one in logs]
    means = {"alpha_above_one": [float(one > 0) for one in logs], "strong_share": shares}
    found = {}
    for name, values in means.items():
        value, ci95 = ratio_estimate(values, units)
        found[name] = {"value": value, "ci95": ci95, "n_tokens": len(told), "n_examples": len(told)}
    middle, ends = ratio_estimate([one / 2 for one in logs], units)
    root = {"value": math.exp(middle), "ci95": None if ends is None else (math.exp(ends[0]), math.exp(ends[1])),
            "n_tokens": len(told), "n_examples": len(told)}
    return found | {f"{name}_measured": entry for name, entry in crossover(root).items()}
