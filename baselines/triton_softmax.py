"""One Triton kernel between the products of half_precision.py: float32 logits in, losses and bf16 residual out.

A program walks over one token's row twice: first the largest logit and the sum of exponentials together (online
softmax), then `softmax - e_y`. That reads 8 and writes 2 bytes a logit; the loss falls out of the first walk. A logit
that is NaN or +inf makes the token's loss NaN, as with torch, so that training stops on it.

Imported only where it is asked for: Triton comes with torch's CUDA builds. TRITON_INTERPRET=1, set before the import,
runs the kernel on the CPU, which is how the tests prove it.
"""

# C tokens of one chunk, V vocabulary

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 4096  # logits at a time: enough loads in flight for 8 warps of a program
_WARPS = 8


@triton.jit
def _softmax_row(  # type: ignore[no-untyped-def]
    logits, labels, losses, residual, row_stride, residual_stride,
    VOCABULARY: tl.constexpr, WANTS_RESIDUAL: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)  # row * stride exceeds 32 bits in large chunks
    own = logits + row * row_stride
    label = tl.load(labels + row)
    largest = tl.full((), -float("inf"), tl.float32)
    total = tl.full((), 0.0, tl.float32)
    for start in range(0, VOCABULARY, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        values = tl.load(own + columns, mask=columns < VOCABULARY, other=-float("inf"))
        larger = tl.maximum(largest, tl.max(values, axis=0))
        total = total * tl.exp(largest - larger) + tl.sum(tl.exp(values - larger), axis=0)
        largest = larger
    log_total = tl.log(total)
    # the largest logit is taken off first, as torch does: a large one would swallow the logarithm
    tl.store(losses + row, log_total - (tl.load(own + label) - largest))
    if WANTS_RESIDUAL:
        out = residual + row * residual_stride
        for start in range(0, VOCABULARY, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            values = tl.load(own + columns, mask=columns < VOCABULARY, other=-float("inf"))
            p = tl.exp(values - largest - log_total)
            p = tl.where(columns == label, p - 1.0, p)
            tl.store(out + columns, p.to(residual.dtype.element_ty), mask=columns < VOCABULARY)


def loss_and_residual(logits_CV: Tensor, labels_C: Tensor, losses_C: Tensor, residual_CV: Tensor | None) -> None:
    """Fill `losses_C` with each token's cross-entropy and `residual_CV`, if given, with `softmax - e_y`.

    Args:
        logits_CV: (C, V) float32, each row contiguous; only read.
        labels_C: (C,) int64 ids in [0, V).
        losses_C: (C,) float32, overwritten.
        residual_CV: (C, V), each row contiguous, of the dtype to write; None: the losses alone.
    """
    assert logits_CV.stride(1) == 1 and (residual_CV is None or residual_CV.stride(1) == 1)
    if len(labels_C) == 0:
        return
    out = logits_CV if residual_CV is None else residual_CV
    _softmax_row[(len(labels_C),)](
        logits_CV, labels_C, losses_C, out, logits_CV.stride(0), out.stride(0), VOCABULARY=logits_CV.shape[1],
        WANTS_RESIDUAL=residual_CV is not None, BLOCK=min(_BLOCK, triton.next_power_of_2(logits_CV.shape[1])),
        num_warps=_WARPS)
