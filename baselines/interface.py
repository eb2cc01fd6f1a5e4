"""The interface of a method: phases declared as data, and a loss that is a pure function.

    class MyMethod(Method):
        title = "Mine"
        def phases(self):                           # optional: by default one more epoch from M1 over the pool
            yield Train(strong=WARMUP, out="M2")
        def loss(self, batch, strong, other):       # tensors in, the sum over the supervised tokens out
            return chunked_loss(strong, lambda logits_CV, rows: ...)

A method knows nothing of files, model names, benchmarks or schedulers. The suite turns its phases into steps, runs
the shared warm-up, gives each phase its checkpoints and its data, and evaluates what comes out. docs/new-method.md
walks through an example.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from baselines.declare import setting
from baselines.phases import BASE, WARMUP, Distil, Hint, Pair, Phase, Sample, Score, Select, Subset, Train

if TYPE_CHECKING:
    import torch

__all__ = ["BASE", "WARMUP", "Batch", "Branch", "Distil", "Hint", "Method", "Pair", "Pairs", "Phase", "Sample", "Score",
           "Select", "StoredLogits", "Subset", "Train", "Variant", "loss_identity", "setting"]

# N supervised tokens of a micro-batch, B its examples (or pairs), D hidden size, V vocabulary, K stored logits a token


class Branch(NamedTuple):
    """One model's view of the supervised tokens: what its logits are made of, before they are made.

    Logits are `hidden_ND @ head_VD.T`; a loss gets them chunk by chunk from `baselines.chunked.chunked_loss`, and a
    small experiment may ask for all of them.
    """

    hidden_ND: torch.Tensor
    head_VD: torch.Tensor

    def logits_NV(self) -> torch.Tensor:
        """Return the full logits, shape (N, V), in float32."""
        return (self.hidden_ND @ self.head_VD.to(self.hidden_ND.dtype).T).float()


class StoredLogits(NamedTuple):
    """A teacher's largest logits at each supervised token, from disk."""

    ids_NK: torch.Tensor
    logits_NK: torch.Tensor
    """Relative to the token's largest: softmax does not care."""
    tail_N: torch.Tensor
    """Log of the softened probability outside the K (at the temperature the phase names)."""
    stored_N: torch.Tensor
    """False where the teacher stored nothing (the end token that the suite appends)."""


class Batch(NamedTuple):
    """The supervised tokens of a micro-batch. Prompt and padding never reach a loss."""

    labels_N: torch.Tensor
    """The token to predict."""
    example_N: torch.Tensor
    """Which of the B examples a token belongs to; tokens of one example are adjacent."""
    length_B: torch.Tensor
    """L: attended tokens of an example, prompt included."""
    seeds_B: list[int] | None
    """Seed of each example's own noise at this visit, whatever the micro-batch or the process; None: no noise, the
    model is not in training."""
    teacher: StoredLogits | None = None


class Pairs(NamedTuple):
    """Log-probabilities of two replies to each prompt, summed over completion tokens and end token; no length norm."""

    policy_chosen_B: torch.Tensor
    policy_rejected_B: torch.Tensor
    reference_chosen_B: torch.Tensor
    reference_rejected_B: torch.Tensor


@dataclass(frozen=True, slots=True)
class Variant:
    """A named row of a method beside its default one: `title` as printed, `changes` as on the command line."""

    title: str
    changes: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Method:
    """A post-training method. Subclasses are frozen dataclasses: their fields are the method's settings."""

    title: ClassVar[str]
    """As printed in the tables."""
    objective: ClassVar[str] = ""
    """One line, for the list of methods."""
    version: ClassVar[int] = 1
    """Raised by whoever changes what the loss computes."""
    variants: ClassVar[Mapping[str, Variant]] = {}
    """Rows that a table can ask for by `<method>-<name>`."""
    sections: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Names under which `--set` finds settings that sit in fields of the method: section -> fields."""

    def __init_subclass__(cls) -> None:
        """Named rows and sections belong to the class that declares them: a subclass of a method begins without."""
        super().__init_subclass__()
        for name in ("variants", "sections"):
            if name not in vars(cls):
                setattr(cls, name, {})

    def loss_settings(self) -> dict[str, Any]:
        """Return the fields that the loss depends on: trainings that agree in them (and in their data) are one."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def phases(self) -> Iterator[Phase]:
        """Yield what happens after the shared warm-up: by default one more epoch from M1 over the pool."""
        yield Train(strong=WARMUP, out="M2")

    def result(self) -> str:
        """Return the name of the checkpoint that is evaluated: by default what the last training keeps."""
        return [phase.out for phase in self.phases() if isinstance(phase, Train)][-1]

    def loss(self, batch: Batch, strong: Branch, other: Branch | None) -> torch.Tensor:
        """Return the sum of the losses over the N supervised tokens, a scalar; the trainer divides by N_B (A-07).

        Args:
            batch: what is known of the tokens.
            strong: the branch that is trained.
            other: the phase's weak or reference branch, if it names one.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no loss; write `def loss(self, batch, strong, "
                                  "other)`, or inherit one: `class ...(SFT)` with `from baselines.sft import SFT`")

    def pair_loss(self, pairs: Pairs) -> torch.Tensor:
        """Return each pair's loss, shape (B,); for phases that train on pairs. The trainer takes the mean."""
        raise NotImplementedError(f"{type(self).__name__} trains on pairs but defines no pair_loss")

    def embed(self, embeddings_BSD: torch.Tensor, mask_BS: torch.Tensor, seeds_B: list[int]) -> torch.Tensor:
        """Return the strong branch's input embeddings as training shall see them (training only); here unchanged."""
        return embeddings_BSD


def loss_identity(method: Method) -> dict[str, Any]:
    """Return what tells a training's loss apart: `loss_settings`, and every field declared after it was written.

    An inherited `loss_settings` cannot know what a subclass adds; without this, two values of a new setting would
    pass for the same training.
    """
    mro = type(method).__mro__
    author = next(i for i, cls in enumerate(mro) if "loss_settings" in vars(cls))
    later = {name for cls in mro[:author] for name in inspect.get_annotations(cls)}
    return {f.name: getattr(method, f.name) for f in fields(method) if f.name in later} | method.loss_settings()
