"""Any token-level loss without a full logit tensor: the loss is written on a chunk of logits, the rest is done here.

Chunk after chunk of the supervised tokens, the logits are made, the given function turns them into a loss, and that
chunk's gradients of hidden states and head are formed at once and added up. Memory does not grow with the number of
tokens, and nothing is computed twice. Plain and mixed cross-entropy have a leaner kernel (mixed_cross_entropy.py).
"""

# N supervised tokens, C tokens of one chunk, V vocabulary, D hidden size

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from baselines.interface import Branch

ChunkLoss = Callable[[Tensor, slice], Tensor]
_CHUNK_BYTES = 64 * 2**20  # of one float32 logit buffer; autograd of a chunk holds a few of them


def chunked_loss(branch: Branch, chunk_loss: ChunkLoss, *, chunk_tokens: int | None = None) -> Tensor:
    """Return the sum over chunks of `chunk_loss(logits_CV, rows)`, differentiable in the branch.

    Args:
        branch: hidden states (N, D) and head (V, D) of the model that is trained.
        chunk_loss: gets float32 logits (C, V) and the slice of the N tokens they belong to; returns a scalar, the sum
            over its tokens. Called once a chunk, in order.
        chunk_tokens: tokens of a chunk; by default as many as fit 64 MiB of logits.

    Returns:
        A scalar, float32 (float64 if the hidden states are). Without any token it is 0 and its gradients are 0.
    """
    if chunk_tokens is None:
        chunk_tokens = max(16, _CHUNK_BYTES // (4 * len(branch.head_VD)))
    loss: Tensor = _Chunked.apply(branch.hidden_ND, branch.head_VD, chunk_loss, chunk_tokens, torch.is_grad_enabled())
    return loss


class _Chunked(torch.autograd.Function):
    """Gradients are formed in the forward pass, as in mixed_cross_entropy.py."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, head_VD: Tensor, chunk_loss: ChunkLoss, chunk_tokens: int,
                grad_enabled: bool) -> Tensor:
        """Walk over the chunks; keep the two gradients."""
        wants_hidden, wants_head = (grad_enabled and wanted for wanted in ctx.needs_input_grad[:2])
        dtype = torch.float64 if hidden_ND.dtype == torch.float64 else torch.float32
        hidden_gradient_ND = torch.zeros_like(hidden_ND, dtype=dtype) if wants_hidden else None
        head_gradient_VD = torch.zeros_like(head_VD, dtype=dtype) if wants_head else None
        total = hidden_ND.new_zeros((), dtype=dtype)
        with torch.autocast(hidden_ND.device.type, enabled=False):
            head = head_VD.to(hidden_ND.dtype)
            for start in range(0, len(hidden_ND), chunk_tokens):
                rows = slice(start, min(start + chunk_tokens, len(hidden_ND)))
                logits_CV = (hidden_ND[rows] @ head.T).to(dtype)
                loss, residual_CV = _one_chunk(chunk_loss, logits_CV, rows, wants_hidden or wants_head)
                total += loss
                if residual_CV is None:
                    continue
                residual_CV = residual_CV.to(hidden_ND.dtype)
                if hidden_gradient_ND is not None:
                    hidden_gradient_ND[rows] = residual_CV @ head
                if head_gradient_VD is not None:
                    head_gradient_VD += residual_CV.T @ hidden_ND[rows]
        ctx.save_for_backward(hidden_gradient_ND, head_gradient_VD)
        ctx.dtypes = hidden_ND.dtype, head_VD.dtype
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the kept gradients."""
        scaled = [None if gradient is None else (gradient * grad_loss).to(dtype)
                  for gradient, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)]
        return *scaled, None, None, None


def _one_chunk(chunk_loss: ChunkLoss, logits_CV: Tensor, rows: slice, wants: bool) -> tuple[Tensor, Tensor | None]:
    """Return a chunk's loss and its gradient with respect to the logits, `P - e_y` for cross-entropy."""
    if not wants:
        return chunk_loss(logits_CV, rows).detach(), None
    with torch.enable_grad():
        leaf_CV = logits_CV.detach().requires_grad_()
        loss = chunk_loss(leaf_CV, rows)
        (residual_CV,) = torch.autograd.grad(loss, leaf_CV)
    return loss.detach(), residual_CV
