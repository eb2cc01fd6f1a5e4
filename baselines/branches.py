"""The module that is trained: a strong branch, and the weak or reference one of a phase, as one PreTrainedModel.

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
from baselines.batches import IGNORED, TEACHER_PREFIX
from baselines.interface import Batch, Branch, Method, StoredLogits
from baselines.noise import example_seeds
from foundation.errors import InputError

# B examples, S positions, N supervised tokens, D hidden size, V vocabulary


def load_causal_lm(checkpoint: Path, param_dtype: str = "fp32_master") -> PreTrainedModel:
    """Load a checkpoint folder with its master weights in fp32, or in bf16 for `bf16_pure` (A-06)."""
    dtype = torch.bfloat16 if param_dtype == "bf16_pure" else torch.float32
    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype, local_files_only=True)


def hidden_and_head(model: Any, ids_BS: torch.Tensor, mask_BS: torch.Tensor,
                        embeddings_BSD: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the last hidden states, shape (B, S, D), and the head's weight, shape (V, D): logits are not made."""
    plain = model.get_base_model() if hasattr(model, "peft_config") else model
    inputs = {"input_ids": ids_BS} if embeddings_BSD is None else {"inputs_embeds": embeddings_BSD}
    hidden_BSD = plain.base_model(**inputs, attention_mask=mask_BS, use_cache=False).last_hidden_state
    return hidden_BSD, plain.get_output_embeddings().weight


class BranchedModel(PreTrainedModel):
    """A strong branch and perhaps a weak or a reference one, with the method's loss as its forward pass.

    `forward` returns the loss of the micro-batch already divided by the global batch's token count
    (`num_items_in_batch`) or example count (A-07).
    """

    config_class = PretrainedConfig
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    def __init__(self, method: Method, strong: PreTrainedModel, weak: PreTrainedModel | None = None,
                 *, reference: PreTrainedModel | None = None, freeze_weak: bool = False, noise_seed: int = 0,
                 reduction: str = "token_mean") -> None:
        """Bind the branches; a reference is frozen, and so is the weak branch under `freeze_weak`.

        Raises:
            InputError: the branches have different vocabularies, or there are both a weak and a reference one.
        """
        super().__init__(strong.config)
        if weak is not None and reference is not None:
            raise InputError(f"{method.title}: a phase names a weak or a reference model, not both")
        for role, other in (("weak", weak), ("reference", reference)):
            if other is not None and _vocabulary(other) != _vocabulary(strong):
                raise InputError(
                    f"the {role} model has a vocabulary of {_vocabulary(other)} tokens, the strong one of "
                    f"{_vocabulary(strong)}; their logits are compared token by token (Eq. 5), so both must share one "
                    "tokenizer"
                )
        self.method, self.reduction, self.noise_seed = method, reduction, noise_seed
        self.perturbs = type(method).embed is not Method.embed
        self.strong, self.weak, self.reference = strong, weak, reference
        self._tied_weights_keys = {}
        for role, branch in (("strong", strong), ("weak", weak), ("reference", reference)):
            self._tied_weights_keys |= {} if branch is None else _tied_keys(role, branch)
        if weak is not None and freeze_weak:
            weak.requires_grad_(False)
        if reference is not None:
            reference.requires_grad_(False)

    def get_input_embeddings(self) -> nn.Module:
        """Return the strong branch's embedding (the trainer asks for it)."""
        return self.strong.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """Return the strong branch's head (the trainer asks for it)."""
        return self.strong.get_output_embeddings()

    def tie_weights(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: each branch tied its own weights when it was loaded (A-73)."""

    def train(self, mode: bool = True) -> BranchedModel:
        """Set the mode of what is trained; a reference stays in evaluation mode."""
        super().train(mode)
        if self.reference is not None:
            self.reference.eval()
        return self

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor,
                row: torch.Tensor | None = None, num_items_in_batch: torch.Tensor | int | None = None,
                **more: Any) -> torch.Tensor:
        """Return the loss of a micro-batch; shapes (B, S). A batch without supervised tokens gives a zero.

        `row` is each example's position in the training order (the seed of its noise); `teacher_*` are the columns of
        StoredLogits for the supervised tokens, in order.
        """
        teacher = None
        if TEACHER_PREFIX + "ids_NK" in more:
            teacher = StoredLogits(*(more[TEACHER_PREFIX + name] for name in StoredLogits._fields))
        rows = list(range(len(input_ids))) if row is None else row.tolist()
        seeds_B = example_seeds(self.noise_seed, rows) if self.training else None
        embeddings_BSD = None
        if self.perturbs and seeds_B is not None:
            embeddings_BSD = self.method.embed(self.get_input_embeddings()(input_ids), attention_mask, seeds_B)
        supervised_BS = labels[:, 1:].ne(IGNORED)
        strong = _supervised(hidden_and_head(self.strong, input_ids, attention_mask, embeddings_BSD), supervised_BS)
        other = self._other(input_ids, attention_mask, supervised_BS)
        batch = Batch(labels[:, 1:][supervised_BS], supervised_BS.nonzero()[:, 0], attention_mask.sum(dim=1), seeds_B,
                      teacher)
        if self.reduction == "token_mean":
            total = self.method.loss(batch, strong, other)
            return total / (max(len(batch.labels_N), 1) if num_items_in_batch is None else num_items_in_batch)
        losses = [self._example_mean(batch, strong, other, b) for b in range(len(input_ids))]
        return torch.stack(losses).sum() / (len(losses) if num_items_in_batch is None else num_items_in_batch)

    def _other(self, ids_BS: torch.Tensor, mask_BS: torch.Tensor, supervised_BS: torch.Tensor) -> Branch | None:
        if self.reference is not None:
            with torch.no_grad():
                return _supervised(hidden_and_head(self.reference, ids_BS, mask_BS), supervised_BS)
        return None if self.weak is None else _supervised(hidden_and_head(self.weak, ids_BS, mask_BS), supervised_BS)

    def _example_mean(self, batch: Batch, strong: Branch, other: Branch | None, b: int) -> torch.Tensor:
        own_N = batch.example_N == b
        teacher = batch.teacher
        alone = Batch(batch.labels_N[own_N], torch.zeros_like(batch.example_N[own_N]), batch.length_B[b : b + 1],
                      None if batch.seeds_B is None else batch.seeds_B[b : b + 1],
                      None if teacher is None else StoredLogits(*(column[own_N] for column in teacher)))
        total = self.method.loss(alone, Branch(strong.hidden_ND[own_N], strong.head_VD),
                                 None if other is None else Branch(other.hidden_ND[own_N], other.head_VD))
        return total / max(len(alone.labels_N), 1)


def _supervised(model: tuple[torch.Tensor, torch.Tensor], supervised_BS: torch.Tensor) -> Branch:
    """Drop the last position (it predicts nothing) and keep the hidden states that predict a supervised token."""
    hidden_BSD, head_VD = model
    return Branch(hidden_BSD[:, :-1][supervised_BS], head_VD)


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
