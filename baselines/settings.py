"""Settings of training that every method shares (App. E.5), one field per decision; for the ids A-nn see
`python -m replication.paper --assumptions`.

The values come from the scale and from the command line (`--set train.lr_schedule=cosine`); nothing here has a
default where the paper fixes a value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from baselines.declare import setting
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
    clip_norm: float = 1.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    weight_decay: float = 0.0
    """A-05: the paper is silent; Hugging Face defaults."""
    optimizer: Literal["adamw", "rmsprop"] = "adamw"
    """E.5; RMSprop is SPIN's original (A-30)."""
    param_dtype: Literal["fp32_master", "bf16_pure"] = "fp32_master"
    """A-06."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the forward and backward pass (autocast); the paper is silent, its public code uses bfloat16."""
    micro_batch: int = field(default=16, metadata=NOT_IDENTITY)
    """Examples per forward pass of a process; must divide the global batch. It is lowered where several processes
    could not share an update evenly, and after memory ran out."""
    gradient_checkpointing: bool = field(default=False, metadata=NOT_IDENTITY)
    zero_stage: Literal[0, 2, 3] = field(default=0, metadata=NOT_IDENTITY)
    """What DeepSpeed shares out when several processes train: nothing, optimizer state and gradients, weights too."""
    padding_free: bool = field(default=False, metadata=NOT_IDENTITY)
    """Lay the examples of a micro-batch end to end instead of padding them to one length. The examples of an update
    stay the same; what perturbs embeddings by row (NEFTune) and pairs of replies are padded all the same."""
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = field(default="auto", metadata=NOT_IDENTITY)
    """Kernel of the attention; auto: FlashAttention 2 where it is installed and computing is in bfloat16 on a GPU."""
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
class Departures:
    """Where a phase leaves the shared protocol; None: it does not."""

    learning_rate: float | None = None
    global_batch: int | None = None
    clip_norm: float | None = None
    warmup_ratio: float | None = None
    optimizer: Literal["adamw", "rmsprop"] | None = None

    def declared(self) -> dict[str, Any]:
        """Return the settings that differ, by their names in TrainingSettings."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}

    def applied(self, shared: TrainingSettings) -> TrainingSettings:
        """Return the shared settings with these changes; the micro-batch is cut to a divisor of the new batch."""
        batch = self.global_batch or shared.global_batch
        micro = next(m for m in range(min(shared.micro_batch, batch), 0, -1) if batch % m == 0)
        return replace(shared, micro_batch=micro, **self.declared())


@dataclass(frozen=True, kw_only=True, slots=True)
class LoRA:
    """Low-rank adapters, the only parameters that are trained (E.6, SSB)."""

    rank: int
    alpha: int
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

    def __post_init__(self) -> None:
        """Refuse ranks below 1 and an empty list of modules (InputError)."""
        _require(self.rank >= 1, "the LoRA rank", self.rank, "at least 1")
        _require(len(self.targets) >= 1, "the number of LoRA target modules", len(self.targets), "at least 1")


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

    entropy: Literal["paper", "official"] = setting("paper", ambiguity="A-64")
    """Training prompt and mask, or the public code's (no system prompt, unshifted, up to 8192 tokens)."""
    dtype: Literal["fp32", "model"] = setting("fp32", ambiguity="A-65")
    """Of the softmax; `model` only matters under bfloat16."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JointTraining:
    """WD-JT (Eq. 5, 6; A-70 to A-75)."""

    mix_weight: float = setting(0.5, place="App. B.6", paper="wmss.lambda")
    """lambda, the weight of the strong logits (E.5, B.6)."""
    freeze_weak: bool = setting(False, ambiguity="A-70")
    clip: Literal["joint", "per_branch"] = setting("joint", ambiguity="A-71")
    weak_learning_rate: float | None = setting(None, ambiguity="A-72", options=("a rate of its own",))
    """None shares the strong branch's."""
    keep_tied: bool = setting(True, ambiguity="A-73")
    """Tied embeddings stay tied in each branch."""
    export: Literal["strong", "weak"] = setting("strong", ambiguity="A-74", identity=False)
    """The branch that is evaluated; a training keeps both."""
    format: Literal["as_sft", "official_stage3"] = setting("as_sft", ambiguity="A-75")
    """The public code's stage 3 trains on the full sequence, without a system prompt."""

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
