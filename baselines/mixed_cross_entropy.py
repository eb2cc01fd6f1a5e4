"""Cross-entropy of mixed logits (WD-JT), of plain logits (SFT), and entropy (WD-DS), without a full logit tensor.

The three functions take hidden states and head weights instead of logits. They walk over the supervised tokens in
chunks: one buffer of (chunk, vocabulary) is filled with logits, turned into probabilities, then into the residual
`P_mix - e_y`, and multiplied at once into the gradients of hidden states and heads. So the gradients are ready when
the forward pass ends, and memory does not grow with the number of tokens. Paper: section 4.1 (Eq. 5 and 6), Eq. 7.

Arithmetic is float32 whatever the inputs' dtype (float64 if any input is): logits, log-sum-exp, loss, and the sums
that make up the gradients, which are rounded to the inputs' dtype only when backward hands them out. With
half-precision inputs on a CUDA device the residual alone is rounded to that dtype, to use its matrix units.

bf16 on matrix units, with larger chunks and perhaps a Triton kernel, is half_precision.py's: `PATH` chooses it.

Not supported: second derivatives through autograd, `torch.func`, and labels or heads split over devices.
"""

# T token positions, N supervised tokens, C tokens of one chunk, V vocabulary, D hidden size (may differ by side)

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from baselines import half_precision
from baselines.half_precision import HalfPath
from foundation.errors import InputError

IGNORED_LABEL = -100
_CHUNK_BYTES = 160 * 2**20  # the logit buffer; a smaller one costs time, a larger one buys little
_SOFTMAX_BYTES = {"cpu": 8 * 2**20}  # rows normalised at once: what the last-level cache holds
_CAST_BYTES = 32 * 2**20  # slices of a half-precision head that are converted at once

Reduction = Literal["sum", "mean"]

PATH: HalfPath | None = None
"""How cross-entropy of bf16 inputs (or under bf16 autocast) is computed: None, as everywhere, here; else by
half_precision.py. To be set once `make gpu-check` has measured it on a GPU; it changes results by bf16 rounding."""


@contextmanager
def computed_by(path: HalfPath | None) -> Iterator[None]:
    """Use a path inside a `with` block, to compare paths."""
    global PATH
    before, PATH = PATH, path
    try:
        yield
    finally:
        PATH = before


def mixed_cross_entropy(
    strong_hidden_TD: Tensor, weak_hidden_TD: Tensor, strong_head_VD: Tensor, weak_head_VD: Tensor, labels_T: Tensor,
    mix_weight: float, *, reduction: Reduction = "sum", chunk_tokens: int | None = None,
) -> Tensor:
    """Return the cross-entropy of `lambda * z_strong + (1 - lambda) * z_weak` against the labels (Eq. 5 and 6).

    Differentiable in the four floating tensors; only those that require a gradient cost one. With `mix_weight` 1
    (or 0) the weak (strong) side is not computed at all: its gradient is exactly 0 and the result is that of
    `cross_entropy` on the other side, bit for bit.

    Args:
        strong_hidden_TD: (T, D) last hidden states of the strong model, already shifted to the labels; floating.
        weak_hidden_TD: (T, D') the same of the weak model; its hidden size may differ.
        strong_head_VD: (V, D) output weights of the strong model.
        weak_head_VD: (V, D') output weights of the weak model.
        labels_T: (T,) target ids in [0, V), integer; -100 marks positions outside the loss.
        mix_weight: lambda in [0, 1], the weight of the strong side.
        reduction: "sum" over supervised tokens, or their "mean" (0 when there is none).
        chunk_tokens: tokens per chunk; by default as many as fit a buffer of some 160 MB.

    Returns:
        A scalar, float32 (float64 if an input is). Without any supervised token it is 0 and its gradients are 0.

    Raises:
        InputError: different vocabularies, a mix weight outside [0, 1], shapes that do not fit, a label out of range.
    """
    lambda_ = float(mix_weight)
    if not 0.0 <= lambda_ <= 1.0:
        raise InputError(f"mix_weight (lambda) is {mix_weight}; it must lie in [0, 1]")
    if strong_head_VD.shape[:1] != weak_head_VD.shape[:1]:
        raise InputError(
            f"the vocabularies differ: the strong head has {tuple(strong_head_VD.shape)[:1]} rows, the weak head "
            f"{tuple(weak_head_VD.shape)[:1]}; mixing logits needs one tokenizer and one vocabulary")
    _check_side("strong", strong_hidden_TD, strong_head_VD, labels_T)
    _check_side("weak", weak_hidden_TD, weak_head_VD, labels_T)
    tensors = (strong_hidden_TD, strong_head_VD, weak_hidden_TD, weak_head_VD)
    return _reduced_loss(labels_T, (lambda_, 1.0 - lambda_), tensors, reduction, chunk_tokens)


def cross_entropy(
    hidden_TD: Tensor, head_VD: Tensor, labels_T: Tensor, *, reduction: Reduction = "sum",
    chunk_tokens: int | None = None,
) -> Tensor:
    """Return the cross-entropy of one model's logits against the labels: SFT's loss (Eq. 1), by the same kernel.

    Args:
        hidden_TD: (T, D) last hidden states, already shifted to the labels; floating.
        head_VD: (V, D) output weights.
        labels_T: (T,) target ids in [0, V), integer; -100 marks positions outside the loss.
        reduction: "sum" over supervised tokens, or their "mean" (0 when there is none).
        chunk_tokens: tokens per chunk; by default as many as fit a buffer of some 160 MB.

    Returns:
        A scalar, float32 (float64 if an input is), differentiable in `hidden_TD` and `head_VD`.

    Raises:
        InputError: shapes that do not fit, or a label out of range.
    """
    _check_side("model's", hidden_TD, head_VD, labels_T)
    return _reduced_loss(labels_T, (1.0,), (hidden_TD, head_VD), reduction, chunk_tokens)


@torch.no_grad()
def token_entropy(hidden_TD: Tensor, head_VD: Tensor, *, chunk_tokens: int | None = None) -> Tensor:
    """Return each position's predictive entropy in nats, `-sum_v P(v) log P(v)`: the inner sum of Eq. 7.

    Args:
        hidden_TD: (T, D) last hidden states of the positions that predict a completion token; floating.
        head_VD: (V, D) output weights.
        chunk_tokens: tokens per chunk; by default as many as fit a buffer of some 160 MB.

    Returns:
        (T,) entropies, float32, without a gradient.

    Raises:
        InputError: shapes that do not fit.
    """
    _check_side("model's", hidden_TD, head_VD, None)
    halved = PATH is not None and half_precision.suits((hidden_TD, head_VD))
    with torch.autocast(hidden_TD.device.type, enabled=False):
        if halved:
            return half_precision.token_entropy(hidden_TD, head_VD, chunk_tokens)
        dtype = _compute_dtype((hidden_TD, head_VD))
        side = _Side(hidden_TD, head_VD, 1.0, dtype, wants_hidden=False, wants_head=False)
        entropy_T = hidden_TD.new_empty(len(hidden_TD), dtype=dtype)
        for rows, logits_CV in _logit_chunks([side], len(hidden_TD), chunk_tokens):
            entropy_C = entropy_T[rows]
            for part in _softmax_parts(logits_CV):
                log_p = torch.log_softmax(logits_CV[part], dim=1)
                torch.exp(log_p, out=logits_CV[part])
                torch.sum(log_p.mul_(logits_CV[part]), dim=1, out=entropy_C[part])
        return entropy_T.neg_().float()


class _Side:
    """One model's share of the mixture: its supervised hidden states, its head, and the gradients gathered so far."""

    def __init__(self, hidden_ND: Tensor, head_VD: Tensor, weight: float, dtype: torch.dtype, *,
                 wants_hidden: bool, wants_head: bool) -> None:
        # Half-precision matrix units with float32 results exist on CUDA only; elsewhere operands are converted.
        fused = head_VD.is_cuda and head_VD.dtype == hidden_ND.dtype and head_VD.dtype != dtype
        self.operand_dtype = head_VD.dtype if fused else dtype
        self.weight = weight
        self.dtype = dtype
        self.head_VD = head_VD
        self.hidden_ND = hidden_ND.to(self.operand_dtype)
        self.hidden_gradient_ND = torch.empty_like(self.hidden_ND, dtype=dtype) if wants_hidden else None
        # Every chunk adds to all rows; the first one overwrites, so zeros are needed only when there is no chunk.
        allocate = torch.empty_like if len(hidden_ND) else torch.zeros_like
        self.head_gradient_VD = (
            allocate(head_VD, dtype=dtype, memory_format=torch.contiguous_format) if wants_head else None)

    def head_parts(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield the head in the operands' dtype: whole when its products need no conversion, else slice by slice."""
        vocabulary, hidden_size = self.head_VD.shape
        step = vocabulary if self.head_VD.dtype == self.dtype else max(1, _CAST_BYTES // (4 * hidden_size))
        for start in range(0, vocabulary, step):
            part = slice(start, min(start + step, vocabulary))
            yield part, self.head_VD[part].to(self.operand_dtype)

    def add_logits(self, logits_CV: Tensor, rows: slice, *, overwrite: bool) -> None:
        """Add this side's weighted logits of the tokens `rows` (Eq. 5)."""
        for part, head_PD in self.head_parts():
            _add_product(logits_CV[:, part], self.hidden_ND[rows], head_PD.t(), self.weight, overwrite=overwrite)

    def add_gradients(self, residual_CV: Tensor, rows: slice, *, overwrite: bool) -> None:
        """Add what the residual `P_mix - e_y` of the tokens `rows` contributes to this side's gradients (Eq. 22)."""
        if self.hidden_gradient_ND is None and self.head_gradient_VD is None:
            return
        for part, head_PD in self.head_parts():
            residual_CP = residual_CV[:, part].to(self.operand_dtype)
            if self.head_gradient_VD is not None:
                _add_product(self.head_gradient_VD[part], residual_CP.t(), self.hidden_ND[rows], self.weight,
                             overwrite=overwrite)
            if self.hidden_gradient_ND is not None:
                _add_product(self.hidden_gradient_ND[rows], residual_CP, head_PD, self.weight,
                             overwrite=part.start == 0)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Token-sum cross-entropy of a weighted sum of logits; gradients are formed in the forward pass."""

    @staticmethod
    def forward(ctx: Any, labels_T: Tensor, weights: tuple[float, ...], chunk_tokens: int | None,
                grad_enabled: bool, *tensors: Tensor) -> Tensor:
        """Return the loss; `tensors` is hidden states and head of each side in turn."""
        wants = [grad_enabled and wanted for wanted in ctx.needs_input_grad[4:]]
        path = PATH if half_precision.suits(tensors) else None  # kept: backward may run outside of autocast
        loss, ctx.gradients = _loss_and_gradients(labels_T, weights, chunk_tokens, tensors, wants, path)
        if any(wants):
            ctx.weights, ctx.chunk_tokens, ctx.wants, ctx.path = weights, chunk_tokens, wants, path
            ctx.save_for_backward(labels_T, *tensors)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients found in the forward pass and give them away (recomputed if asked a second time)."""
        labels_T, *tensors = ctx.saved_tensors
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            _, gradients = _loss_and_gradients(labels_T, ctx.weights, ctx.chunk_tokens, tensors, ctx.wants, ctx.path)
        for index, tensor in enumerate(tensors):  # one at a time, so that a converted copy replaces its original
            gradient = gradients[index]
            if gradient is not None:
                gradients[index] = gradient.mul_(grad_loss).to(tensor.dtype)
            elif ctx.wants[index]:
                gradients[index] = torch.zeros_like(tensor)
            del gradient
        return None, None, None, None, *gradients


def _reduced_loss(labels_T: Tensor, weights: tuple[float, ...], tensors: tuple[Tensor, ...], reduction: str,
                  chunk_tokens: int | None) -> Tensor:
    if reduction not in ("sum", "mean"):
        raise InputError(f"reduction {reduction!r} is unknown; choose one of: sum, mean")
    loss = _ChunkedCrossEntropy.apply(labels_T, weights, chunk_tokens, torch.is_grad_enabled(), *tensors)
    if reduction == "sum":
        return loss
    return loss / labels_T.ne(IGNORED_LABEL).sum().clamp(min=1)


def _loss_and_gradients(
    labels_T: Tensor, weights: tuple[float, ...], chunk_tokens: int | None, tensors: Sequence[Tensor],
    wants: Sequence[bool], path: HalfPath | None,
) -> tuple[Tensor, list[Tensor | None]]:
    """Return the token-sum loss and, for each of `tensors` that wants one, its gradient in the compute dtype.

    A tensor of a side with weight 0 gets None: nothing is computed for it.
    """
    dtype = _compute_dtype(tensors)
    gradients: list[Tensor | None] = [None] * len(tensors)
    sides: dict[int, _Side] = {}
    with torch.autocast(labels_T.device.type, enabled=False):
        rows_N = labels_T.ne(IGNORED_LABEL).nonzero().squeeze(1)
        labels_N = _select(labels_T, rows_N).long()
        _check_labels(labels_N, len(tensors[1]))
        if path is not None:
            loss = _half_precision(path, labels_N, rows_N, weights, chunk_tokens, tensors, wants, gradients)
            return loss, gradients
        for index, weight in enumerate(weights):
            hidden_TD, head_VD = tensors[2 * index : 2 * index + 2]
            if weight != 0.0:
                sides[index] = _Side(_select(hidden_TD, rows_N), head_VD, weight, dtype,
                                     wants_hidden=wants[2 * index], wants_head=wants[2 * index + 1])
        loss = _run_chunks(list(sides.values()), labels_N, chunk_tokens, any(wants))
        for index, side in sides.items():
            gradients[2 * index] = _unselect(side.hidden_gradient_ND, rows_N, len(labels_T))
            gradients[2 * index + 1] = side.head_gradient_VD
    return loss, gradients


def _half_precision(
    path: HalfPath, labels_N: Tensor, rows_N: Tensor, weights: tuple[float, ...], chunk_tokens: int | None,
    tensors: Sequence[Tensor], wants: Sequence[bool], gradients: list[Tensor | None],
) -> Tensor:
    """Return the loss by way of half_precision.py and put the active sides' gradients into `gradients`."""
    active = [index for index, weight in enumerate(weights) if weight != 0.0]
    loss, found = half_precision.loss_and_gradients(
        path, labels_N, [_select(tensors[2 * i], rows_N) for i in active], [tensors[2 * i + 1] for i in active],
        [weights[i] for i in active], [(wants[2 * i], wants[2 * i + 1]) for i in active], chunk_tokens)
    for i, (hidden_gradient_ND, head_gradient_VD) in zip(active, found, strict=True):
        gradients[2 * i] = _unselect(hidden_gradient_ND, rows_N, len(tensors[2 * i]))
        gradients[2 * i + 1] = head_gradient_VD
    return loss


def _run_chunks(sides: list[_Side], labels_N: Tensor, chunk_tokens: int | None, wants_gradients: bool) -> Tensor:
    losses_N = torch.empty(len(labels_N), dtype=sides[0].dtype, device=labels_N.device)
    minus_one = losses_N.new_full((1, 1), -1.0)
    for rows, logits_CV in _logit_chunks(sides, len(labels_N), chunk_tokens):
        labels_C1, losses_C = labels_N[rows].unsqueeze(1), losses_N[rows]
        for part in _softmax_parts(logits_CV):
            log_p = torch.log_softmax(logits_CV[part], dim=1)
            losses_C[part] = log_p.gather(1, labels_C1[part]).squeeze(1)
            if wants_gradients:
                torch.exp(log_p, out=logits_CV[part])
        if wants_gradients:
            residual_CV = logits_CV.scatter_add_(1, labels_C1, minus_one.expand_as(labels_C1))  # P_mix - e_y
            for side in sides:
                side.add_gradients(residual_CV, rows, overwrite=rows.start == 0)
    return -losses_N.sum()


def _logit_chunks(sides: list[_Side], tokens: int, chunk_tokens: int | None) -> Iterator[tuple[slice, Tensor]]:
    """Yield the tokens' rows and their mixed logits, in one buffer that each chunk overwrites."""
    head_VD, dtype = sides[0].head_VD, sides[0].dtype
    if chunk_tokens is None:
        chunk_tokens = max(16, _CHUNK_BYTES // (len(head_VD) * dtype.itemsize) // 16 * 16)
    elif chunk_tokens < 1:
        raise InputError(f"chunk_tokens is {chunk_tokens}; it must be at least 1")
    buffer_CV = head_VD.new_empty(min(chunk_tokens, tokens), len(head_VD), dtype=dtype)
    for start in range(0, tokens, chunk_tokens):
        rows = slice(start, min(start + chunk_tokens, tokens))
        logits_CV = buffer_CV[: rows.stop - rows.start]
        for side in sides:
            side.add_logits(logits_CV, rows, overwrite=side is sides[0])
        yield rows, logits_CV


def _softmax_parts(logits_CV: Tensor) -> Iterator[slice]:
    """Yield slices of rows small enough to stay in cache while they are normalised."""
    rows, vocabulary = logits_CV.shape
    limit = _SOFTMAX_BYTES.get(logits_CV.device.type, _CAST_BYTES)
    step = max(4, limit // (vocabulary * logits_CV.element_size()))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def _add_product(sum_MN: Tensor, left_MK: Tensor, right_KN: Tensor, factor: float, *, overwrite: bool) -> None:
    """Add `factor * left @ right` to `sum_MN` (or overwrite it) in the precision of `sum_MN`."""
    if left_MK.dtype == sum_MN.dtype:
        sum_MN.addmm_(left_MK, right_KN, beta=0 if overwrite else 1, alpha=factor)
        return
    product_MN = torch.mm(left_MK, right_KN, out_dtype=sum_MN.dtype)
    if overwrite:
        torch.mul(product_MN, factor, out=sum_MN)
    else:
        sum_MN.add_(product_MN, alpha=factor)


def _select(tensor: Tensor, rows_N: Tensor) -> Tensor:
    return tensor if len(rows_N) == len(tensor) else tensor.index_select(0, rows_N)


def _unselect(gradient_ND: Tensor | None, rows_N: Tensor, tokens: int) -> Tensor | None:
    """Return the gradient at every position: zeros where nothing is supervised."""
    if gradient_ND is None or len(rows_N) == tokens:
        return gradient_ND
    return gradient_ND.new_zeros(tokens, gradient_ND.shape[1]).index_copy_(0, rows_N, gradient_ND)


def _compute_dtype(tensors: Sequence[Tensor]) -> torch.dtype:
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def _check_side(name: str, hidden_TD: Tensor, head_VD: Tensor, labels_T: Tensor | None) -> None:
    if hidden_TD.ndim != 2 or head_VD.ndim != 2 or hidden_TD.shape[1] != head_VD.shape[1]:
        raise InputError(f"the {name} hidden states {tuple(hidden_TD.shape)} and head {tuple(head_VD.shape)} do not "
                         "fit; expected (tokens, hidden size) and (vocabulary, hidden size)")
    if not hidden_TD.is_floating_point() or not head_VD.is_floating_point():
        raise InputError(f"the {name} hidden states ({hidden_TD.dtype}) and head ({head_VD.dtype}) must be floating")
    if labels_T is None:
        return
    if labels_T.ndim != 1 or len(labels_T) != len(hidden_TD):
        raise InputError(f"labels of shape {tuple(labels_T.shape)} do not fit {len(hidden_TD)} {name} hidden states; "
                         "expected one label per token, without a batch dimension")
    if labels_T.is_floating_point() or labels_T.dtype == torch.bool:
        raise InputError(f"labels are {labels_T.dtype}; they must be integers")


def _check_labels(labels_N: Tensor, vocabulary: int) -> None:
    if len(labels_N) == 0:
        return
    lowest, highest = (int(bound) for bound in torch.stack(torch.aminmax(labels_N)).tolist())
    if lowest < 0 or highest >= vocabulary:
        raise InputError(f"label {lowest if lowest < 0 else highest} is outside the vocabulary of {vocabulary}; "
                         f"use {IGNORED_LABEL} for positions outside the loss")
