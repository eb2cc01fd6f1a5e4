"""Steps of the methods that look at a model's own replies: subset, rollouts, verdicts, pairs, hints, stored logits.

Rollouts are sampled once per (checkpoint, prompts, sampling settings) and graded once; whoever needs the same ones
shares the step. RAISE `version` of a kind whenever what its action computes changes (replication/steps.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from baselines.settings import DataSettings, TrainingSettings
from baselines.user_methods import Handle
from evaluation.backends.interface import Engine
from foundation.prompts import PromptFormat
from replication.steps import GRADING_LIBRARIES, NOT_IDENTITY, TRAINING_LIBRARIES, Step


@dataclass(frozen=True, kw_only=True)
class Snapshot(Step):
    """One more checkpoint of a training, as a checkpoint of its own: a moment inside its epoch, or its weak branch."""

    kind = "snapshot"
    action = "replication.actions.training:snapshot"
    of: Step
    which: str
    """`weak`, or `ck-50` to `ck-200`."""

    @property
    def label(self) -> str:
        """Name the checkpoint."""
        return f"checkpoint {self.which} of {self.of.label}"


@dataclass(frozen=True, kw_only=True)
class DrawSubset(Step):
    """A seeded subset of the pool's positions, shared by all methods of one size (E.2)."""

    kind = "subset"
    action = "replication.actions.rollouts:draw_subset"
    pool: Step
    size: int
    seed: int

    @property
    def label(self) -> str:
        """Name the size."""
        return f"subset of {self.size}"


@dataclass(frozen=True, kw_only=True)
class SampleReplies(Step):
    """Sampled replies of a checkpoint to pool prompts, or to hinted ones."""

    kind = "rollouts"
    action = "replication.actions.rollouts:sample_replies"
    libraries = ("torch", "transformers")
    checkpoint: Step
    pool: Step
    subset: Step | None = None
    hints: Step | None = None
    prompt: PromptFormat
    n: int
    temperature: float
    top_k: int
    top_p: float
    max_tokens: int
    max_new_tokens: int | None
    batch_size: int
    compute_dtype: str
    seed: int
    backend: str = "hf"
    """Part of the identity: backends draw from streams of their own."""
    engine: Engine = field(default=Engine(), metadata=NOT_IDENTITY)
    of: str = field(default="", metadata=NOT_IDENTITY)

    @property
    def label(self) -> str:
        """Name the checkpoint and the sampling."""
        hinted = " to hinted prompts" if self.hints is not None else ""
        return f"rollouts of {self.of}{hinted} (n={self.n}, T={self.temperature:g})"


@dataclass(frozen=True, kw_only=True)
class GradeReplies(Step):
    """Verdicts on sampled replies against the pool's golds."""

    kind = "rollout-grades"
    action = "replication.actions.rollouts:grade_replies"
    libraries = GRADING_LIBRARIES
    replies: Step
    pool: Step
    grader_version: int
    unsafe_code_execution: bool = field(default=False, metadata=NOT_IDENTITY)
    """Run programs even where no isolation works; the verdicts' notes say so."""

    @property
    def label(self) -> str:
        """Name the rollouts."""
        return f"grade {self.replies.label}"


@dataclass(frozen=True, kw_only=True)
class MakePairs(Step):
    """(chosen, rejected) pairs of token ids."""

    kind = "pairs"
    action = "replication.actions.rollouts:make_pairs"
    checkpoint: Step
    """Whose tokenizer encodes prompts and completions."""
    replies: Step
    grades: Step | None
    pool: Step
    prompt: PromptFormat
    data: DataSettings
    rule: str
    incorrect: str
    drop_correct: bool

    @property
    def label(self) -> str:
        """Name the rule."""
        return f"pairs ({self.rule})"


@dataclass(frozen=True, kw_only=True)
class MakeHints(Step):
    """Hinted prompts: the problem with one right and one wrong rollout (SSB)."""

    kind = "hints"
    action = "replication.actions.rollouts:make_hints"
    replies: Step
    grades: Step
    pool: Step
    incorrect: str
    seed: int
    template: str
    """The hint's text; part of what is computed (A-53)."""

    @property
    def label(self) -> str:
        """Name the method's word for it."""
        return "hints"


@dataclass(frozen=True, kw_only=True)
class StoreTargets(Step):
    """The teacher's right replies and its largest logits on them, as token columns."""

    kind = "targets"
    action = "replication.actions.rollouts:store_targets"
    libraries = ("torch", "transformers")
    teacher: Step
    replies: Step
    grades: Step
    hints: Step
    pool: Step
    prompt: PromptFormat
    data: DataSettings
    top_k: int
    temperature: float
    student_prompt: str
    terminator: str
    compute_dtype: str
    batch_tokens: int

    @property
    def label(self) -> str:
        """Name the number of logits."""
        return f"teacher's top-{self.top_k} logits"


@dataclass(frozen=True, kw_only=True)
class TrainPairs(Step):
    """One training phase on pairs; keeps the policy."""

    kind = "train-pairs"
    action = "replication.actions.training:train_on_pairs"
    libraries = TRAINING_LIBRARIES
    method: str
    method_version: int
    method_source: str | None
    loss_settings: dict[str, Any]
    loss_of: Handle = field(metadata=NOT_IDENTITY)
    strong: Step
    reference: Step
    pairs: Step
    epochs: int
    prompt: PromptFormat
    training: TrainingSettings
    seed: int
    out: str = field(default="M2", metadata=NOT_IDENTITY)
    title: str = field(default="", metadata=NOT_IDENTITY)

    @property
    def label(self) -> str:
        """Name the method and the checkpoint it makes."""
        return f"train {self.title} ({self.out})"
