"""Settings of training that every method shares (App. E.5), one field per decision; for the ids A-nn see
`python -m replication.paper --assumptions`.

The values come from the scale and from the command line (`--set train.lr_schedule=cosine`); nothing here has a
default where the paper fixes a value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from foundation.errors import InputError

NOT_IDENTITY: dict[str, Any] = {"identity": False}  # fields that cannot change a result beyond float rounding


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSettings:
    """Optimisation of one phase (E.5; A-01 to A-06, A-71, A-72)."""

    learning_rate: float
    """Peak; the paper's is 1e-5."""
    global_batch: int
    """Examples per update (A-01); the last partial batch is dropped."""
    warmup_ratio: float = 0.1
    lr_schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Shape after the warm-up (A-02)."""
    two_epoch: Literal["restart", "single"] = field(default="restart", metadata=NOT_IDENTITY)
    """Whether SFT's second epoch starts a new optimizer and schedule (A-03); told to a step by start and epochs."""
    clip_norm: float = 1.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    weight_decay: float = 0.0
    """A-05: the paper is silent; Hugging Face defaults."""
    param_dtype: Literal["fp32_master", "bf16_pure"] = "fp32_master"
    """A-06."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the forward and backward pass (autocast); the paper is silent, its public code uses bfloat16."""
    micro_batch: int = field(default=16, metadata=NOT_IDENTITY)
    """Examples per forward pass of a process; must divide the global batch. It is lowered where several processes
    could not share an update evenly."""
    gradient_checkpointing: bool = field(default=False, metadata=NOT_IDENTITY)
    zero_stage: Literal[0, 2, 3] = field(default=0, metadata=NOT_IDENTITY)
    """What DeepSpeed shares out when several processes train: nothing, optimizer state and gradients, weights too."""
    checkpoint_every: int | None = field(default=None, metadata=NOT_IDENTITY)
    """Updates between resumable checkpoints; None: a training that was killed starts again."""

    def __post_init__(self) -> None:
        """Refuse values that cannot train.

        Raises:
            InputError: which setting, its value and what is allowed.
        """
        _require(0 < self.learning_rate < 1, "train.learning_rate", self.learning_rate, "between 0 and 1")
        _require(self.global_batch >= 1, "train.global_batch", self.global_batch, "at least 1")
        _require(0 <= self.warmup_ratio < 1, "train.warmup_ratio", self.warmup_ratio, "in [0, 1)")
        _require(self.clip_norm > 0, "train.clip_norm", self.clip_norm, "positive")
        for name in ("adam_beta1", "adam_beta2"):
            _require(0 <= getattr(self, name) < 1, f"train.{name}", getattr(self, name), "in [0, 1)")
        _require(0 < self.adam_epsilon < 1, "train.adam_epsilon", self.adam_epsilon, "between 0 and 1")
        _require(0 <= self.weight_decay < 1, "train.weight_decay", self.weight_decay, "in [0, 1)")
        if self.checkpoint_every is not None:
            _require(self.checkpoint_every >= 1, "train.checkpoint_every", self.checkpoint_every, "at least 1")
        _require(1 <= self.micro_batch <= self.global_batch and self.global_batch % self.micro_batch == 0,
                 "train.micro_batch", self.micro_batch, f"a divisor of the global batch, {self.global_batch}")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSettings:
    """How examples become token ids."""

    max_length: int = 4096
    """Tokens of prompt and completion together (E.5)."""
    overlength: Literal["truncate_right", "drop"] = "truncate_right"
    """A-11."""
    tokenise: Literal["separate", "joint"] = "separate"
    """A-16."""

    def __post_init__(self) -> None:
        """Refuse a limit nothing fits in.

        Raises:
            InputError: the limit is below 8 tokens.
        """
        _require(self.max_length >= 8, "data.max_length", self.max_length, "at least 8")


@dataclass(frozen=True, kw_only=True, slots=True)
class LossSettings:
    """What the loss averages, and over which tokens."""

    reduction: Literal["token_mean", "example_mean"] = "token_mean"
    """A-07: over the tokens of the whole global batch, or each example's mean first."""
    mask: Literal["completion", "full_sequence"] = "completion"
    """A-08, A-75."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EntropySettings:
    """The entropy pass of WD-DS (Eq. 7)."""

    variant: Literal["paper", "official"] = "paper"
    """A-64: training prompt and mask, or the public code's (no system prompt, unshifted, up to 8192 tokens)."""
    dtype: Literal["fp32", "model"] = "fp32"
    """A-65: of the softmax; `model` only matters under bfloat16."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JointTraining:
    """WD-JT (Eq. 5, 6; A-70 to A-75)."""

    mix_weight: float = 0.5
    """lambda, the weight of the strong logits (E.5, B.6)."""
    freeze_weak: bool = False
    """A-70."""
    clip: Literal["joint", "per_branch"] = "joint"
    """A-71."""
    weak_learning_rate: float | None = None
    """A-72: None shares the strong branch's."""
    keep_tied: bool = True
    """A-73: tied embeddings stay tied in each branch."""
    export: Literal["strong", "weak"] = "strong"
    """A-74: the branch that is kept."""
    format: Literal["as_sft", "official_stage3"] = "as_sft"
    """A-75: the public code's stage 3 trains on the full sequence, without a system prompt."""

    def __post_init__(self) -> None:
        """Refuse a lambda that is not a weight.

        Raises:
            InputError: lambda is NaN or outside [0, 1].
        """
        _require(0 <= self.mix_weight <= 1, "wdjt.mix_weight (lambda)", self.mix_weight, "in [0, 1]")
        if self.weak_learning_rate is not None:
            _require(0 < self.weak_learning_rate < 1, "wdjt.weak_learning_rate", self.weak_learning_rate,
                     "between 0 and 1")


def _require(condition: bool, name: str, value: float, allowed: str) -> None:
    if not condition or math.isnan(value):
        raise InputError(f"{name} is {value}; it must be {allowed}")
