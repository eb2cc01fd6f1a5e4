"""The module that is trained: a strong branch, and the weak one where a method has it, as one PreTrainedModel.

One module means one optimizer, one engine and one clip norm see both branches (A-71), and the loss is computed
inside one forward call, as DDP and ZeRO-3 need.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from baselines import distributed
from baselines.interface import Branch, Method
from foundation.errors import InputError

# B examples, S positions, T = B * (S - 1) shifted positions, D hidden size, V vocabulary
IGNORED = -100


def load_causal_lm(checkpoint: Path, param_dtype: str = "fp32_master") -> PreTrainedModel:
    """Load a checkpoint folder with its master weights in fp32, or in bf16 for `bf16_pure` (A-06)."""
    dtype = torch.bfloat16 if param_dtype == "bf16_pure" else torch.float32
    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype, local_files_only=True)


def hidden_and_head(model: PreTrainedModel, ids_BS: torch.Tensor, mask_BS: torch.Tensor) -> Branch:
    """Return the last hidden states, shape (B, S, D), and the head's weight, shape (V, D): logits are not made."""
    hidden_BSD = model.base_model(input_ids=ids_BS, attention_mask=mask_BS, use_cache=False).last_hidden_state
    return Branch(hidden_BSD, model.get_output_embeddings().weight)


class BranchedModel(PreTrainedModel):
    """A strong branch and perhaps a weak one, with the method's loss as its forward pass.

    `forward` returns the loss of the micro-batch already divided by the global batch's token count
    (`num_items_in_batch`) or example count (A-07).
    """

    config_class = PretrainedConfig
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    def __init__(self, method: Method, strong: PreTrainedModel, weak: PreTrainedModel | None = None,
                 *, freeze_weak: bool = False, reduction: str = "token_mean") -> None:
        """Bind the branches.

        Raises:
            InputError: the branches have different vocabularies.
        """
        super().__init__(strong.config)
        if weak is not None and _vocabulary(weak) != _vocabulary(strong):
            raise InputError(
                f"the weak model has a vocabulary of {_vocabulary(weak)} tokens, the strong one of "
                f"{_vocabulary(strong)}; WD-JT mixes logits token by token (Eq. 5), so both must share one tokenizer"
            )
        self.method, self.reduction = method, reduction
        self.strong, self.weak = strong, weak
        self._tied_weights_keys = _tied_keys("strong", strong) | (_tied_keys("weak", weak) if weak else {})
        if weak is not None and freeze_weak:
            weak.requires_grad_(False)

    def get_input_embeddings(self) -> nn.Module:
        """Return the strong branch's embedding (the trainer asks for it)."""
        return self.strong.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """Return the strong branch's head (the trainer asks for it)."""
        return self.strong.get_output_embeddings()

    def tie_weights(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: each branch tied its own weights when it was loaded (A-73)."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor,
                num_items_in_batch: torch.Tensor | int | None = None, **_: Any) -> torch.Tensor:
        """Return the loss of a micro-batch; shapes (B, S). A batch without supervised tokens gives a zero."""
        strong = hidden_and_head(self.strong, input_ids, attention_mask)
        weak = None if self.weak is None else hidden_and_head(self.weak, input_ids, attention_mask)
        if self.reduction == "token_mean":
            total = self.method.loss(labels[:, 1:].reshape(-1), _flat(strong), None if weak is None else _flat(weak))
            return total / (labels[:, 1:].ne(IGNORED).sum() if num_items_in_batch is None else num_items_in_batch)
        losses = [
            self.method.loss(labels[b, 1:], _flat(strong, b), None if weak is None else _flat(weak, b))
            / labels[b, 1:].ne(IGNORED).sum().clamp(min=1)
            for b in range(labels.shape[0])
        ]
        return torch.stack(losses).sum() / (len(losses) if num_items_in_batch is None else num_items_in_batch)


def _flat(branch: Branch, row: int | None = None) -> Branch:
    """Drop the last position (it predicts nothing) and flatten to (T, D); `row` picks one example."""
    hidden_BSD = branch.hidden_TD if row is None else branch.hidden_TD[row : row + 1]
    return Branch(hidden_BSD[:, :-1].reshape(-1, hidden_BSD.shape[-1]), branch.head_VD)


def _vocabulary(model: PreTrainedModel) -> int:
    return distributed.full_shape(model.get_output_embeddings().weight)[0]


def is_tied(model: PreTrainedModel) -> bool:
    """Say whether the head and the input embedding are one tensor."""
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


def untie(model: PreTrainedModel) -> None:
    """Give the head its own copy of a tied weight, and say so in the config so that it is exported (A-73)."""
    if is_tied(model):
        head = model.get_output_embeddings()
        with distributed.gathered(head.weight):
            head.weight = nn.Parameter(head.weight.detach().clone())
        model.config.tie_word_embeddings = False


def _tied_keys(prefix: str, model: PreTrainedModel) -> dict[str, str]:
    """Name the head's weight as an alias of the embedding's, so that a trainer checkpoint stores it once."""
    if not is_tied(model):
        return {}
    names = {id(p): n for n, p in model.named_parameters()}
    embedding = f"{prefix}.{names[id(model.get_input_embeddings().weight)]}"
    head = next(n for n, m in model.named_modules() if m is model.get_output_embeddings())
    return {f"{prefix}.{head}.weight": embedding}
