"""The interface of a method: phases declared as data, and a loss that is a pure function.

A method knows nothing of files, model names, benchmarks or schedulers. The suite turns its phases into steps, runs
the shared warm-up, gives each phase its checkpoints and its data, and evaluates what comes out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from baselines.selection import Selection
from baselines.settings import EntropySettings, JointTraining

if TYPE_CHECKING:
    import torch

# T supervised-or-not positions of a micro-batch, already shifted; D hidden size; V vocabulary


def checkpoint_name(epoch: int) -> str:
    """Return the paper's name of a checkpoint: M0 the base, M1 after the SFT warm-up, M2 after the next phase."""
    return f"M{epoch}"


BASE = checkpoint_name(0)
WARMUP = checkpoint_name(1)


class Branch(NamedTuple):
    """One model's view of a micro-batch: what its logits are made of, before they are made.

    Logits are `hidden_TD @ head_VD.T`; a loss that needs them whole asks `logits_TV()`, the lean ones never do.
    """

    hidden_TD: torch.Tensor
    head_VD: torch.Tensor

    def logits_TV(self) -> torch.Tensor:
        """Return the full logits, shape (T, V)."""
        return self.hidden_TD @ self.head_VD.T


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """Compute the length-normalised entropy (Eq. 7) of each pool example under a checkpoint."""

    of: str
    entropy: EntropySettings = field(default_factory=EntropySettings)


@dataclass(frozen=True, kw_only=True, slots=True)
class Select:
    """Draw the active set from the entropies of two checkpoints (Eq. 8, 9)."""

    strong: str
    weak: str
    selection: Selection
    draw: int = 0
    """Number of the draw: each iteration of K > 1 has its own random stream (A-81)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    """Train `strong` (and `weak`, when there is one) and keep the strong branch under the name `out`."""

    strong: str
    out: str
    weak: str | None = None
    data: str = "pool"
    """`pool`: every example once an epoch; `active`: what the last Select drew."""
    epochs: int = 1
    joint: JointTraining | None = None
    """How a pair is trained; None for a single model."""
    step_matched: bool = False
    """Repeat the active set until there are as many updates as the whole pool would give (A-67)."""


Phase = Score | Select | Train


@dataclass(frozen=True, kw_only=True)
class Method:
    """A post-training method. Subclasses are frozen dataclasses: their fields are the method's settings."""

    title: ClassVar[str]
    """As printed in the tables."""
    version: ClassVar[int] = 1
    """Raised by whoever changes what the loss computes."""

    def loss_settings(self) -> dict[str, Any]:
        """Return the fields that the loss depends on: trainings that agree in them (and in their data) are one."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def phases(self) -> Iterator[Phase]:
        """Yield what happens after the shared warm-up: by default one more epoch from M1 over the pool."""
        yield Train(strong=WARMUP, out="M2")

    def loss(self, labels_T: torch.Tensor, strong: Branch, weak: Branch | None) -> torch.Tensor:
        """Return the sum of the losses over the supervised tokens (labels other than -100), a scalar."""
        raise NotImplementedError(f"{type(self).__name__} defines no loss")
