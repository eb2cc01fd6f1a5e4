"""The losses of mixed_cross_entropy.py on matrix units: bf16 operands, float32 sums, one kernel between the products.

Six products of (tokens, vocabulary, hidden size) cannot be avoided when both sides are trained: logits, gradient of the
hidden states and gradient of the head, for each side. A frozen weak side needs four, one side alone three. What is
around them is kept to the least: both sides' logits are summed by the second product itself, in float32; one pass turns
them into losses and the residual `P_mix - e_y` in bf16; the head gradients are added up inside their products. No head
is converted more than once a call, and nothing waits for the device between chunks.

It is used for bf16 tensors, or under bf16 autocast, where `mixed_cross_entropy.PATH` asks for it. It is off by
default: it has never run on a GPU, only on the CPU and, for the Triton kernel, in Triton's interpreter. `make
gpu-check` times it against the default path, and holds both against float64 (docs/gpu-check.md).

Memory beyond inputs and gradients: 6 bytes x chunk x vocabulary; under autocast also a bf16 copy of each head; with
`accumulate="float32"` and bf16 heads also the difference between float32 and bf16 gradients.
"""

# T token positions, N supervised tokens, C tokens of one chunk, V vocabulary, D hidden size

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from foundation.errors import InputError

_BUFFER_BYTES = 900 * 2**20  # a chunk's float32 logits and bf16 residual: 1,024 tokens at a vocabulary of 151,936
_SOFTMAX_BYTES = 256 * 2**20  # rows normalised at once without Triton
_SCRATCH_BYTES = 256 * 2**20  # a product's slice where it cannot be added up in place

_BF16 = torch.bfloat16


@dataclass(frozen=True, kw_only=True, slots=True)
class HalfPath:
    """How the loss is computed in bf16."""

    softmax: Literal["torch", "triton"]
    """What turns a chunk's logits into losses and residual."""
    accumulate: Literal["float32", "parameter"] = "parameter"
    """Dtype in which a head's gradient is added up over chunks: float32, or the head's own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Side:
    hidden_ND: Tensor
    head_VD: Tensor
    weight: float
    hidden_gradient_ND: Tensor | None
    head_gradient_VD: Tensor | None


def suits(tensors: Sequence[Tensor]) -> bool:
    """Say whether these inputs may be computed in bf16: all are bf16, or autocast says so and none is float64."""
    device = tensors[0].device.type
    if torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == _BF16:
        return all(tensor.dtype != torch.float64 for tensor in tensors)
    return all(tensor.dtype == _BF16 for tensor in tensors)


def loss_and_gradients(
    path: HalfPath, labels_N: Tensor, hidden_ND: Sequence[Tensor], heads_VD: Sequence[Tensor],
    weights: Sequence[float], wants: Sequence[tuple[bool, bool]], chunk_tokens: int | None,
) -> tuple[Tensor, list[tuple[Tensor | None, Tensor | None]]]:
    """Return the token-sum loss, float32, and each side's gradients of hidden states and head, where wanted.

    Args:
        path: how it is computed.
        labels_N: (N,) ids of the supervised tokens, already checked.
        hidden_ND: each side's hidden states of these tokens, (N, D).
        heads_VD: each side's head, (V, D).
        weights: each side's share of the mixed logits.
        wants: for each side, whether hidden states and head need a gradient.
        chunk_tokens: tokens of a chunk; by default as many as fit some 900 MB of buffers.
    """
    sides = [_side(path, *side, len(labels_N)) for side in zip(hidden_ND, heads_VD, weights, wants, strict=True)]
    vocabulary, any_wanted = len(heads_VD[0]), any(any(pair) for pair in wants)
    chunk = _chunk_tokens(chunk_tokens, vocabulary, len(labels_N))
    losses_N = torch.empty(len(labels_N), dtype=torch.float32, device=labels_N.device)
    logits_CV = torch.empty(chunk, vocabulary, dtype=torch.float32, device=labels_N.device)
    residual_CV = torch.empty_like(logits_CV, dtype=_BF16) if any_wanted else None
    softmax = {"torch": _torch_softmax, "triton": _triton_softmax}[path.softmax]
    for start in range(0, len(labels_N), chunk):
        rows = slice(start, min(start + chunk, len(labels_N)))
        count = rows.stop - rows.start
        for index, side in enumerate(sides):
            _add_product(logits_CV[:count], side.hidden_ND[rows], side.head_VD.t(), side.weight, overwrite=index == 0)
        residual = None if residual_CV is None else residual_CV[:count]
        softmax(logits_CV[:count], labels_N[rows], losses_N[rows], residual)
        if residual is not None:
            for side in sides:
                _add_gradients(side, residual, rows)
    return losses_N.sum(), [(side.hidden_gradient_ND, side.head_gradient_VD) for side in sides]


def token_entropy(hidden_TD: Tensor, head_VD: Tensor, chunk_tokens: int | None) -> Tensor:
    """Return each position's predictive entropy in nats, (T,) float32, its logits from a bf16 product in float32."""
    hidden_TD, head_VD = hidden_TD.to(_BF16), head_VD.to(_BF16)
    chunk = _chunk_tokens(chunk_tokens, len(head_VD), len(hidden_TD))
    entropy_T = torch.empty(len(hidden_TD), dtype=torch.float32, device=hidden_TD.device)
    logits_CV = torch.empty(chunk, len(head_VD), dtype=torch.float32, device=hidden_TD.device)
    for start in range(0, len(hidden_TD), chunk):
        rows = slice(start, min(start + chunk, len(hidden_TD)))
        _add_product(logits_CV[: rows.stop - start], hidden_TD[rows], head_VD.t(), 1.0, overwrite=True)
        for part in _parts(rows.stop - start, len(head_VD)):
            log_p = torch.log_softmax(logits_CV[part], dim=1)
            torch.exp(log_p, out=logits_CV[part])
            entropy_T[rows][part] = log_p.mul_(logits_CV[part]).sum(dim=1).neg_()
    return entropy_T


def _parts(rows: int, vocabulary: int) -> Iterator[slice]:
    """Yield slices of rows that are normalised at once."""
    step = max(4, _SOFTMAX_BYTES // (4 * vocabulary))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def _side(path: HalfPath, hidden_ND: Tensor, head_VD: Tensor, weight: float, wants: tuple[bool, bool],
          tokens: int) -> _Side:
    accumulated = torch.float32 if path.accumulate == "float32" else head_VD.dtype
    allocate = torch.empty_like if tokens else torch.zeros_like  # the first chunk overwrites
    return _Side(
        hidden_ND=hidden_ND.to(_BF16), head_VD=head_VD.to(_BF16), weight=weight,
        hidden_gradient_ND=torch.empty_like(hidden_ND, memory_format=torch.contiguous_format) if wants[0] else None,
        head_gradient_VD=(allocate(head_VD, dtype=accumulated, memory_format=torch.contiguous_format)
                          if wants[1] else None))


def _chunk_tokens(asked: int | None, vocabulary: int, tokens: int) -> int:
    if asked is not None and asked < 1:
        raise InputError(f"chunk_tokens is {asked}; it must be at least 1")
    return max(1, min(asked or max(128, _BUFFER_BYTES // (6 * vocabulary) // 128 * 128), tokens))


def _add_gradients(side: _Side, residual_CV: Tensor, rows: slice) -> None:
    """Add what the residual of the tokens `rows` contributes to this side's gradients (Eq. 22)."""
    if side.head_gradient_VD is not None:
        _add_product(side.head_gradient_VD, residual_CV.t(), side.hidden_ND[rows], side.weight,
                     overwrite=rows.start == 0)
    if side.hidden_gradient_ND is not None:
        _add_product(side.hidden_gradient_ND[rows], residual_CV, side.head_VD, side.weight, overwrite=True)


def _torch_softmax(logits_CV: Tensor, labels_C: Tensor, losses_C: Tensor, residual_CV: Tensor | None) -> None:
    """Fill the tokens' losses and, if given, their residual `softmax - e_y`; the logits may be overwritten."""
    for part in _parts(*logits_CV.shape):
        log_p, labels_P1 = torch.log_softmax(logits_CV[part], dim=1), labels_C[part].unsqueeze(1)
        losses_C[part] = log_p.gather(1, labels_P1).squeeze(1).neg_()
        if residual_CV is not None:
            minus_one = log_p.new_full((1, 1), -1.0).expand_as(labels_P1)
            residual_CV[part] = torch.exp(log_p, out=logits_CV[part]).scatter_add_(1, labels_P1, minus_one)


def _triton_softmax(logits_CV: Tensor, labels_C: Tensor, losses_C: Tensor, residual_CV: Tensor | None) -> None:
    from baselines.triton_softmax import loss_and_residual

    loss_and_residual(logits_CV, labels_C, losses_C, residual_CV)


def _add_product(sum_MN: Tensor, left_MK: Tensor, right_KN: Tensor, factor: float, *, overwrite: bool) -> None:
    """Add `factor * left @ right` of bf16 matrices to `sum_MN` (or overwrite it), computed in float32."""
    beta = 0 if overwrite else 1
    if not sum_MN.is_cuda:  # no such product elsewhere: bf16 values are exact in float32
        total = sum_MN.float().addmm_(left_MK.float(), right_KN.float(), beta=beta, alpha=factor)
        sum_MN.copy_(total)
    elif sum_MN.dtype == left_MK.dtype:
        sum_MN.addmm_(left_MK, right_KN, beta=beta, alpha=factor)
    elif adds_in_place(sum_MN.device):
        torch.addmm(sum_MN, left_MK, right_KN, out_dtype=sum_MN.dtype, beta=beta, alpha=factor, out=sum_MN)
    else:
        _add_in_slices(sum_MN, left_MK, right_KN, factor, overwrite=overwrite)


def _add_in_slices(sum_MN: Tensor, left_MK: Tensor, right_KN: Tensor, factor: float, *, overwrite: bool) -> None:
    """Do the same by way of a scratch buffer, over slices of whichever side is longer."""
    along = 0 if len(sum_MN) > sum_MN.shape[1] else 1
    step = max(1, _SCRATCH_BYTES // (4 * sum_MN.shape[1 - along]))
    for start in range(0, sum_MN.shape[along], step):
        part = slice(start, start + step)
        own, left, right = ((sum_MN[part], left_MK[part], right_KN) if along == 0 else
                            (sum_MN[:, part], left_MK, right_KN[:, part]))
        product = torch.mm(left, right, out_dtype=sum_MN.dtype)
        if overwrite:
            torch.mul(product, factor, out=own)
        else:
            own.add_(product, alpha=factor)


@cache
def adds_in_place(device: torch.device) -> bool:
    """Say whether this torch adds a product of bf16 matrices to a float32 one in place, tried once on a small one."""
    left, right = (torch.ones(16, 16, dtype=_BF16, device=device) for _ in range(2))
    total = torch.ones(16, 16, device=device)
    try:
        torch.addmm(total, left, right, out_dtype=torch.float32, beta=1, alpha=0.5, out=total)
    except (RuntimeError, TypeError):
        return False
    return bool((total == 9).all())
