"""Logit statistics over supervised tokens (paper App. B.4, Tables 6 and 7; Eq. 48), without a full logit tensor.

A token here is a supervised position: its logits z predict the target y. How the printed figures were read, from the
figures themselves (V = 151,936 at Qwen3-4B-Base, sqrt(V) = 389.8):

- Centred norm / Std is sqrt(V) in all three columns of Table 7, and L2 norm exceeds sqrt(V) * sqrt(mean^2 + Std^2)
  (1689 against 1288 after WD-JT): mean, Std, both norms, entropy and p_max are means over tokens of a token's own
  value. A standard deviation pooled over tokens would hold the spread of the means and break the first relation.
- Max and min logit are multiples of 1/4 and 1/8, the spacing of bfloat16 at that size: single logits, the extremes of
  the whole sample, no means. Here they are `highest_logit` and `lowest_logit`; the means over tokens of each token's
  extremes are `max_logit` and `min_logit`.
- Gap = target - background in both columns of Table 6, so all three are means over the same tokens.

Logits are float32 (float64 if the hidden states are), sums over the vocabulary and over tokens float64.
"""

# N supervised tokens, C tokens of one chunk, V vocabulary, D hidden size, E examples

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluation.statistics import student_t95
from foundation.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

TOKEN_STATISTICS = ("target_logit", "background_mean", "gap", "std", "mean", "centered_norm", "max_logit", "min_logit",
                    "l2_norm", "entropy", "max_prob")
"""Of each token; entropy in nats, all but entropy and max_prob in logit units."""
EXTREMES = {"highest_logit": ("max_logit", max), "lowest_logit": ("min_logit", min)}
"""Over all tokens of the sample: from which statistic of a token, and how."""
_CHUNK_BYTES = 32 * 2**20  # of one logit buffer; a handful of the same size live beside it


class Estimate(NamedTuple):
    """A mean over tokens, its 95 % interval clustered by example (None: no two examples), and what is behind."""

    value: float
    ci95: tuple[float, float] | None
    n_tokens: int
    n_examples: int


def logit_chunks(sides: Sequence[tuple[Tensor, Tensor]], *, chunk_tokens: int | None = None,
                 softcap: float | None = None) -> Iterator[tuple[slice, list[Tensor]]]:
    """Yield a slice of tokens and, for each side, their logits of shape (C, V): one chunk in memory at a time.

    Args:
        sides: (hidden states (N, D), head (V, D)) of each model, on the same N tokens; D may differ by side.
        chunk_tokens: tokens of a chunk; by default as many as fit 32 MiB of one side's logits.
        softcap: c of `c * tanh(z / c)`, for models that bound their logits.

    Raises:
        InputError: sides of different vocabularies or numbers of tokens, shapes that do not fit, no token in a chunk.
    """
    import torch

    first_hidden_ND, first_head_VD = sides[0]
    for hidden_ND, head_VD in sides:
        _check_side(hidden_ND, head_VD, len(first_hidden_ND), len(first_head_VD))
    dtype = torch.float64 if any(hidden.dtype == torch.float64 for hidden, _ in sides) else torch.float32
    if chunk_tokens is None:
        chunk_tokens = max(4, _CHUNK_BYTES // (dtype.itemsize * len(first_head_VD)))
    if chunk_tokens < 1:
        raise InputError(f"chunk_tokens is {chunk_tokens}; it must be at least 1")
    with torch.no_grad(), torch.autocast(first_hidden_ND.device.type, enabled=False):
        heads = [head_VD.to(dtype) for _, head_VD in sides]
        for start in range(0, len(first_hidden_ND), chunk_tokens):
            rows = slice(start, min(start + chunk_tokens, len(first_hidden_ND)))
            logits = [hidden_ND[rows].to(dtype) @ head.T for (hidden_ND, _), head in zip(sides, heads, strict=True)]
            yield rows, logits if softcap is None else [softcap * torch.tanh(z / softcap) for z in logits]


def _check_side(hidden_ND: Tensor, head_VD: Tensor, tokens: int, vocabulary: int) -> None:
    if hidden_ND.ndim != 2 or head_VD.ndim != 2 or hidden_ND.shape[1] != head_VD.shape[1]:
        raise InputError(f"hidden states {tuple(hidden_ND.shape)} and head {tuple(head_VD.shape)} do not fit; expected "
                         "(tokens, hidden size) and (vocabulary, hidden size)")
    if len(head_VD) != vocabulary or len(hidden_ND) != tokens:
        raise InputError(f"one model gives {len(hidden_ND)} tokens over a vocabulary of {len(head_VD)}, another "
                         f"{tokens} over {vocabulary}; logits are compared entry by entry, so take both checkpoints "
                         "from one model family, on the same tokens")


def check_targets(targets_N: Tensor, tokens: int, vocabulary: int) -> None:
    """Refuse targets that are not one id in [0, V) per token.

    Raises:
        InputError: a wrong number of targets, an id out of range, or a vocabulary of one (no background).
    """
    if targets_N.ndim != 1 or len(targets_N) != tokens:
        raise InputError(f"targets of shape {tuple(targets_N.shape)} for {tokens} tokens; give one id per token")
    if vocabulary < 2:
        raise InputError(f"a vocabulary of {vocabulary} has no non-target token")
    if tokens and not 0 <= int(targets_N.min()) <= int(targets_N.max()) < vocabulary:
        raise InputError(f"target ids reach from {int(targets_N.min())} to {int(targets_N.max())}, outside the "
                         f"vocabulary of {vocabulary}")


def token_statistics(hidden_ND: Tensor, head_VD: Tensor, targets_N: Tensor, *, chunk_tokens: int | None = None,
                     softcap: float | None = None) -> dict[str, Tensor]:
    """Return every one of TOKEN_STATISTICS for every token, shape (N,), float64 on the CPU (App. B.4, Eq. 48).

    Args:
        hidden_ND: (N, D) last hidden states that predict the targets.
        head_VD: (V, D) output weights.
        targets_N: (N,) target ids.
        chunk_tokens: tokens whose logits are held at once; the result does not depend on it beyond float rounding.
        softcap: see `logit_chunks`.

    Raises:
        InputError: shapes that do not fit, or a target outside the vocabulary.
    """
    import torch

    check_targets(targets_N, len(hidden_ND), len(head_VD))
    result = {name: torch.empty(len(hidden_ND), dtype=torch.float64) for name in TOKEN_STATISTICS}
    for rows, (logits_CV,) in logit_chunks([(hidden_ND, head_VD)], chunk_tokens=chunk_tokens, softcap=softcap):
        for name, values_C in _chunk_statistics(logits_CV, targets_N[rows]).items():
            result[name][rows] = values_C.cpu()
    return result


def _chunk_statistics(logits_CV: Tensor, targets_C: Tensor) -> dict[str, Tensor]:
    import torch

    vocabulary = logits_CV.shape[1]
    target_C = logits_CV.gather(1, targets_C.unsqueeze(1)).squeeze(1).double()
    sum_C = logits_CV.sum(dim=1, dtype=torch.float64)
    low_C1, high_C1 = torch.aminmax(logits_CV, dim=1, keepdim=True)
    square_C = centered_squares(logits_CV)
    mean_C, background_C = sum_C / vocabulary, (sum_C - target_C) / (vocabulary - 1)
    below_CV = logits_CV - high_C1
    weight_CV = below_CV.exp()
    total_C = weight_CV.sum(dim=1, dtype=torch.float64)
    entropy_C = total_C.log() - (weight_CV * below_CV).sum(dim=1, dtype=torch.float64) / total_C
    return {
        "target_logit": target_C, "background_mean": background_C, "gap": target_C - background_C,
        "std": (square_C / vocabulary).sqrt(), "mean": mean_C, "centered_norm": square_C.sqrt(),
        "max_logit": high_C1.squeeze(1), "min_logit": low_C1.squeeze(1),
        "l2_norm": (square_C + vocabulary * mean_C**2).sqrt(), "entropy": entropy_C, "max_prob": 1 / total_C,
    }


def centered_squares(values_CV: Tensor) -> Tensor:
    """Return the squared centred norm of each row, `||z - mean||^2` (Eq. 48), float64, shape (C,)."""
    import torch

    mean_C1 = values_CV.sum(dim=1, dtype=torch.float64, keepdim=True) / values_CV.shape[1]
    rounded_C1 = mean_C1.to(values_CV.dtype)
    squares_C = (values_CV - rounded_C1).square().sum(dim=1, dtype=torch.float64)
    # what rounding the mean added
    return (squares_C - values_CV.shape[1] * (mean_C1 - rounded_C1).square().squeeze(1)).clamp(min=0)


# ------------------------------------------------------------------------------------------------- over the sample


def example_rows(ids: Sequence[str], counts: Sequence[int], values: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Return one row per example, `{id, tokens, <statistic>: mean over its tokens}`, with its extreme logits.

    Args:
        ids: of the examples.
        counts: supervised tokens of each, in the order of the values.
        values: per statistic, (N,) values of the tokens.
    """
    parts = {name: values_N.split(list(counts)) for name, values_N in values.items()}
    rows: list[dict[str, Any]] = []
    for i, (name_of_example, count) in enumerate(zip(ids, counts, strict=True)):
        if count:
            row = {name: float(part[i].mean()) for name, part in parts.items()}
            row |= {extreme: float(choose(parts[source][i].tolist()))
                    for extreme, (source, choose) in EXTREMES.items() if source in parts}
            rows.append({"id": name_of_example, "tokens": count, **row})
    return rows


def ratio_estimate(tops: Sequence[float], bottoms: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """Return sum(tops) / sum(bottoms) over examples and its 95 % interval, the examples being the units.

    With an example's sum over its tokens and its number of tokens, that is the mean over tokens with an interval
    clustered by example. SE^2 = C / (C - 1) * sum (top - ratio * bottom)^2 / (sum bottom)^2, Student's t with C - 1
    degrees of freedom, C counting the examples whose bottom is not 0. One such example has no interval.

    Raises:
        InputError: lists of different lengths, or bottoms that sum to 0.
    """
    if len(tops) != len(bottoms):
        raise InputError(f"{len(tops)} numerators and {len(bottoms)} denominators: each example needs one of both")
    total = math.fsum(bottoms)
    if total == 0:
        raise InputError(f"nothing to average: the denominators of {len(bottoms)} examples sum to 0")
    ratio = math.fsum(tops) / total
    units = sum(1 for bottom in bottoms if bottom)
    if units < 2:
        return ratio, None
    squares = math.fsum((top - ratio * bottom) ** 2 for top, bottom in zip(tops, bottoms, strict=True))
    half = student_t95(units - 1) * math.sqrt(squares * units / (units - 1)) / abs(total)
    return ratio, (ratio - half, ratio + half)


def token_mean(rows: Sequence[Mapping[str, Any]], name: str) -> Estimate:
    """Return the mean of a statistic over all tokens of the examples, with its interval clustered by example.

    Raises:
        InputError: no token at all.
    """
    counts = [row["tokens"] for row in rows]
    value, ci95 = ratio_estimate([row[name] * row["tokens"] for row in rows], counts)
    return Estimate(value, ci95, sum(counts), len(rows))


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return `{statistic: {value, ci95, n_tokens, n_examples}}` of the sample.

    All are means over tokens, except `highest_logit` and `lowest_logit`, which have no interval.

    Raises:
        InputError: no row.
    """
    found = {name: token_mean(rows, name) for name in TOKEN_STATISTICS}
    tokens, examples = next(iter(found.values()))[2:]
    found |= {name: Estimate(choose(row[name] for row in rows), None, tokens, examples)
              for name, (_, choose) in EXTREMES.items()}
    return {name: estimate._asdict() for name, estimate in found.items()}


def paired_change(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Return the change of a token mean between two checkpoints on the same examples, with paired 95 % intervals.

    Returns:
        `{delta, delta_ci95, percent, percent_ci95}`; percent is 100 * delta / before, as the paper prints it (a more
        negative minimum is a positive percentage), and None where the value before is 0. The extremes have no interval.

    Raises:
        InputError: the rows are not of the same examples and tokens.
    """
    if [(row["id"], row["tokens"]) for row in before] != [(row["id"], row["tokens"]) for row in after]:
        raise InputError("the two checkpoints were not measured on the same examples and tokens; give both the same "
                         "pool, seed and length limit")
    if name in EXTREMES:
        choose = EXTREMES[name][1]
        old, new = (choose(row[name] for row in rows) for rows in (before, after))
        return {"delta": new - old, "delta_ci95": None, "percent": 100 * (new - old) / old if old else None,
                "percent_ci95": None}
    sums = [[row[name] * row["tokens"] for row in rows] for rows in (before, after)]
    differences = [new - old for old, new in zip(*sums, strict=True)]
    delta, delta_ci95 = ratio_estimate(differences, [row["tokens"] for row in before])
    if math.fsum(sums[0]) == 0:
        return {"delta": delta, "delta_ci95": delta_ci95, "percent": None, "percent_ci95": None}
    share, share_ci95 = ratio_estimate(differences, sums[0])
    percent_ci95 = None if share_ci95 is None else (100 * share_ci95[0], 100 * share_ci95[1])
    return {"delta": delta, "delta_ci95": delta_ci95, "percent": 100 * share, "percent_ci95": percent_ci95}
