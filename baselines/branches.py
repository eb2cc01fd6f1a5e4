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
from transformers.utils import is_flash_attn_2_available

from baselines import distributed
from baselines.batches import IGNORED, TEACHER_PREFIX
from baselines.interface import Batch, Branch, Method, StoredLogits
from baselines.noise import example_seeds
from baselines.settings import TrainingSettings
from foundation.errors import InputError, PrerequisiteError

# B examples, S positions, N supervised tokens, D hidden size, V vocabulary; rows laid end to end are one example of
# S positions to the model


def load_causal_lm(checkpoint: Path, param_dtype: str = "fp32_master", attention: str | None = None) -> PreTrainedModel:
    """Load a checkpoint folder with its master weights in fp32, or in bf16 for `bf16_pure` (A-06).

    `attention` names the kernel (`attention_kernel`); None leaves the choice to the library.
    """
    dtype = torch.bfloat16 if param_dtype == "bf16_pure" else torch.float32
    chosen = {} if attention is None else {"attn_implementation": attention}
    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype, local_files_only=True, **chosen)


def attention_kernel(training: TrainingSettings) -> str | None:
    """Return the attention kernel for a training: FlashAttention 2 where it can be had, else None, the library's own.

    Raises:
        PrerequisiteError: the settings name FlashAttention 2, and it is not installed, or there is no CUDA GPU.
        InputError: they name it for computing in float32, which it does not know.
    """
    half = training.compute_dtype == "bfloat16" or training.param_dtype == "bf16_pure"
    present = torch.cuda.is_available() and is_flash_attn_2_available()
    if training.attention == "auto":
        return "flash_attention_2" if half and present else None
    if training.attention == "flash_attention_2":
        if not present:
            raise PrerequisiteError("train.attention=flash_attention_2 needs a CUDA GPU and the package flash-attn; "
                                    "pip install flash-attn --no-build-isolation, or set train.attention=auto")
        if not half:
            raise InputError("train.attention=flash_attention_2 computes in half precision, train.compute_dtype is "
                             "float32; set train.compute_dtype=bfloat16 or train.attention=sdpa")
    return training.attention


def hidden_and_head(model: Any, ids_BS: torch.Tensor, mask_BS: torch.Tensor | None,
                    embeddings_BSD: torch.Tensor | None = None,
                    positions_BS: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the last hidden states, shape (B, S, D), and the head's weight, shape (V, D): logits are not made.

    Rows laid end to end come with their positions instead of a mask.
    """
    plain = model.get_base_model() if hasattr(model, "peft_config") else model
    inputs = {"input_ids": ids_BS} if embeddings_BSD is None else {"inputs_embeds": embeddings_BSD}
    if positions_BS is not None:
        inputs["position_ids"] = positions_BS
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

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor, attention_mask: torch.Tensor | None = None,
                position_ids: torch.Tensor | None = None, row: torch.Tensor | None = None,
                num_items_in_batch: torch.Tensor | int | None = None, **more: Any) -> torch.Tensor:
        """Return the loss of a micro-batch; shapes (B, S). A batch without supervised tokens gives a zero.

        Examples are either padded, with an `attention_mask`, or laid end to end, (1, S), with `position_ids` that
        begin at 0 with each. `row` is each example's position in the training order (the seed of its noise);
        `teacher_*` are the columns of StoredLogits for the supervised tokens, in order.
        """
        assert (attention_mask is None) != (position_ids is None), "rows are padded, or laid end to end"
        teacher = None
        if TEACHER_PREFIX + "ids_NK" in more:
            teacher = StoredLogits(*(more[TEACHER_PREFIX + name] for name in StoredLogits._fields))
        example_BS, length_B = _examples(input_ids, attention_mask, position_ids)
        rows = list(range(len(length_B))) if row is None else row.tolist()
        seeds_B = example_seeds(self.noise_seed, rows) if self.training else None
        embeddings_BSD = None
        if self.perturbs and seeds_B is not None:
            assert attention_mask is not None, "embeddings are perturbed row by row: such batches are padded"
            embeddings_BSD = self.method.embed(self.get_input_embeddings()(input_ids), attention_mask, seeds_B)
        supervised_BS = labels[:, 1:].ne(IGNORED)
        strong = _supervised(hidden_and_head(self.strong, input_ids, attention_mask, embeddings_BSD, position_ids),
                             supervised_BS)
        other = self._other(input_ids, attention_mask, position_ids, supervised_BS)
        batch = Batch(labels[:, 1:][supervised_BS], example_BS[:, 1:][supervised_BS], length_B, seeds_B, teacher)
        if self.reduction == "token_mean":
            total = self.method.loss(batch, strong, other)
            return total / (max(len(batch.labels_N), 1) if num_items_in_batch is None else num_items_in_batch)
        losses = [self._example_mean(batch, strong, other, b) for b in range(len(length_B))]
        return torch.stack(losses).sum() / (len(losses) if num_items_in_batch is None else num_items_in_batch)

    def _other(self, ids_BS: torch.Tensor, mask_BS: torch.Tensor | None, positions_BS: torch.Tensor | None,
               supervised_BS: torch.Tensor) -> Branch | None:
        branch = self.weak if self.reference is None else self.reference
        if branch is None:
            return None
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.reference is None):
            found = hidden_and_head(branch, ids_BS, mask_BS, positions_BS=positions_BS)
            return _supervised(found, supervised_BS)

    def _example_mean(self, batch: Batch, strong: Branch, other: Branch | None, b: int) -> torch.Tensor:
        own_N = batch.example_N == b
        teacher = batch.teacher
        alone = Batch(batch.labels_N[own_N], torch.zeros_like(batch.example_N[own_N]), batch.length_B[b : b + 1],
                      None if batch.seeds_B is None else batch.seeds_B[b : b + 1],
                      None if teacher is None else StoredLogits(*(column[own_N] for column in teacher)))
        total = self.method.loss(alone, Branch(strong.hidden_ND[own_N], strong.head_VD),
                                 None if other is None else Branch(other.hidden_ND[own_N], other.head_VD))
        return total / max(len(alone.labels_N), 1)


def _examples(ids_BS: torch.Tensor, mask_BS: torch.Tensor | None,
              positions_BS: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each position's example, shape (B, S), and the attended tokens of each example."""
    if positions_BS is None:
        assert mask_BS is not None
        return torch.arange(len(ids_BS), device=ids_BS.device).unsqueeze(1).expand_as(ids_BS), mask_BS.sum(dim=1)
    example_BS = positions_BS.eq(0).cumsum(dim=1) - 1
    return example_BS, torch.bincount(example_BS[0])


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
