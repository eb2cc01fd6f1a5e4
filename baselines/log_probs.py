"""Log-probabilities of given tokens without a full logit tensor: what preference losses are made of.

    log P(y_t | c_t) = z_t[y_t] - logsumexp(z_t)

Unlike cross-entropy's, the gradient of each token is only known once the loss over whole replies is. So the backward
pass makes the logits again, chunk by chunk; where all tokens fit one chunk, their probabilities are kept instead.
Arithmetic is float32 (float64 if the hidden states are), as in mixed_cross_entropy.py.

The preference trainer's library has a kernel for this, in Triton. Its stand-in for the CPU scores prompt and padding
too and makes every logit twice, which costs a tenth of an update: there, this one takes its place.
"""

# B sequences, S positions, N tokens, C tokens of one chunk, V vocabulary, D hidden size

from __future__ import annotations

import functools
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from trl.trainer.utils import FusedCausalLMOutput, add_fused_lm_head

from baselines.batches import IGNORED
from baselines.branches import hidden_and_head

_CHUNK_BYTES = 64 * 2**20  # of one float32 logit buffer


def token_log_probs(hidden_ND: Tensor, head_VD: Tensor, labels_N: Tensor, *, chunk_tokens: int | None = None) -> Tensor:
    """Return each token's log-probability, shape (N,), differentiable in hidden states and head.

    Args:
        hidden_ND: (N, D) last hidden states, already shifted to the labels; floating.
        head_VD: (V, D) output weights.
        labels_N: (N,) target ids in [0, V).
        chunk_tokens: tokens per chunk; by default as many as fit 64 MiB of logits.
    """
    if chunk_tokens is None:
        chunk_tokens = max(16, _CHUNK_BYTES // (4 * len(head_VD)))
    log_probs: Tensor = _TokenLogProbs.apply(hidden_ND, head_VD, labels_N, chunk_tokens, torch.is_grad_enabled())
    return log_probs


def add_log_prob_head(model: PreTrainedModel) -> None:
    """Make `model(input_ids=..., attention_mask=..., labels=..., fused_lm_head=True).log_probs` cheap, on any device.

    The result has shape (B, S - 1), the log-probability of each next token, and 0 where the label is ignored. It stays
    one call of the model, as distributed wrappers need. Without `fused_lm_head` the model is what it was.
    """
    add_fused_lm_head(model)  # log-probabilities alone; the trainer's own call also asks for metrics
    library = model.forward

    @functools.wraps(type(model).forward)  # `generate` looks at the signature
    def forward(self: PreTrainedModel, *args: Any, fused_lm_head: bool = False, labels: Tensor | None = None,
                **kwargs: Any) -> Any:
        if not fused_lm_head or args or labels is None or not _is_plain_cpu_head(self):
            return library(*args, fused_lm_head=fused_lm_head, labels=labels, **kwargs)
        hidden_BSD, head_VD = hidden_and_head(self, kwargs["input_ids"], kwargs["attention_mask"])
        scored_BS = labels[:, 1:].ne(IGNORED)
        log_probs_N = token_log_probs(hidden_BSD[:, :-1][scored_BS], head_VD, labels[:, 1:][scored_BS])
        log_probs_BS = log_probs_N.new_zeros(scored_BS.shape).masked_scatter(scored_BS, log_probs_N)
        return FusedCausalLMOutput(log_probs=log_probs_BS)

    model.forward = MethodType(forward, model)


def _is_plain_cpu_head(model: PreTrainedModel) -> bool:
    """Say whether the head is one whole matrix in memory: no bias, no cap on logits, not split by ZeRO-3 (`ds_id`)."""
    head = model.get_output_embeddings()
    return (head.weight.device.type == "cpu" and type(head.weight) is torch.nn.Parameter and head.bias is None
            and not hasattr(head.weight, "ds_id")
            and getattr(model.config.get_text_config(), "final_logit_softcapping", None) is None)


class _TokenLogProbs(torch.autograd.Function):
    """The probabilities of a single chunk outlive the forward pass; those of several are made again."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, head_VD: Tensor, labels_N: Tensor, chunk_tokens: int,
                grad_enabled: bool) -> Tensor:
        """Walk over the chunks."""
        dtype = torch.float64 if hidden_ND.dtype == torch.float64 else torch.float32
        result_N = hidden_ND.new_empty(len(hidden_ND), dtype=dtype)
        kept_CV = None
        with torch.autocast(hidden_ND.device.type, enabled=False):
            head = head_VD.to(hidden_ND.dtype)
            for rows in _chunks(len(hidden_ND), chunk_tokens):
                log_p_CV = torch.log_softmax((hidden_ND[rows] @ head.T).to(dtype), dim=1)
                result_N[rows] = log_p_CV.gather(1, labels_N[rows].unsqueeze(1)).squeeze(1)
                if grad_enabled and any(ctx.needs_input_grad[:2]) and len(hidden_ND) <= chunk_tokens:
                    kept_CV = log_p_CV.exp_()
        ctx.chunk_tokens, ctx.dtype = chunk_tokens, dtype
        ctx.save_for_backward(hidden_ND, head_VD, labels_N, kept_CV)
        return result_N

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient_N: Tensor) -> tuple[Tensor | None, ...]:
        """Form `(e_y - P) * gradient` of each token and multiply it into the two gradients."""
        hidden_ND, head_VD, labels_N, kept_CV = ctx.saved_tensors
        wants_hidden, wants_head = ctx.needs_input_grad[:2]
        hidden_gradient_ND = torch.zeros_like(hidden_ND, dtype=ctx.dtype) if wants_hidden else None
        head_gradient_VD = torch.zeros_like(head_VD, dtype=ctx.dtype) if wants_head else None
        with torch.autocast(hidden_ND.device.type, enabled=False):
            head = head_VD.to(hidden_ND.dtype)
            for rows in _chunks(len(hidden_ND), ctx.chunk_tokens):
                p_CV = kept_CV
                if p_CV is None:
                    p_CV = torch.softmax((hidden_ND[rows] @ head.T).to(ctx.dtype), dim=1)
                gradient_C1 = gradient_N[rows].to(ctx.dtype).unsqueeze(1)
                residual_CV = (p_CV * -gradient_C1).scatter_add_(1, labels_N[rows].unsqueeze(1), gradient_C1)
                residual_CV = residual_CV.to(hidden_ND.dtype)
                if hidden_gradient_ND is not None:
                    hidden_gradient_ND[rows] = residual_CV @ head
                if head_gradient_VD is not None:
                    head_gradient_VD += residual_CV.T @ hidden_ND[rows]
        return (None if hidden_gradient_ND is None else hidden_gradient_ND.to(hidden_ND.dtype),
                None if head_gradient_VD is None else head_gradient_VD.to(head_VD.dtype), None, None, None)


def _chunks(tokens: int, chunk_tokens: int) -> list[slice]:
    return [slice(start, min(start + chunk_tokens, tokens)) for start in range(0, tokens, chunk_tokens)]
