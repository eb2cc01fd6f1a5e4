"""SFT: supervised fine-tuning, the anchor of every gain (paper Eq. 1).

    L_SFT = - (1 / N_B) * sum over supervised tokens t of  log P_theta(y_t | c_t)

Epoch 1 from the base gives M1, the warm-up that all methods share; epoch 2 continues from M1 and is the SFT row.
With `two_epoch = single` (A-03) both epochs are one schedule from the base. More `epochs` (Table 6, Figures 3 and 4)
each begin a schedule of their own, as the iterations of WMSS do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from baselines.interface import BASE, Batch, Branch, Method, Phase, Train, Variant, setting
from baselines.phases import checkpoint_name
from foundation.errors import InputError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class SFT(Method):
    """Plain cross-entropy on the completion tokens."""

    title = "SFT"
    objective = "token-mean cross-entropy on the completion (Eq. 1)"
    variants: ClassVar = {"single": Variant("SFT (single schedule)", {"sft.two_epoch": "single"})}

    two_epoch: Literal["restart", "single"] = setting("restart", ambiguity="A-03")
    epochs: int = setting(2, place="App. E.5", paper="train.epochs", prolongs=True)
    """The warm-up included."""

    def __post_init__(self) -> None:
        """Refuse fewer than two epochs: one is the warm-up (InputError)."""
        if self.epochs < 2:
            raise InputError(f"sft.epochs is {self.epochs}; it must be at least 2, the first is the warm-up M1")

    def loss_settings(self) -> dict[str, Any]:
        """None: how the epochs are scheduled is not the loss's business."""
        return {}

    def phases(self) -> Iterator[Phase]:
        """More epochs from M1, one by one (restart), or all from M0 in one schedule (single)."""
        if self.two_epoch == "single":
            yield Train(strong=BASE, out=self.result(), epochs=self.epochs)
            return
        for epoch in range(1, self.epochs):
            yield Train(strong=checkpoint_name(epoch), out=checkpoint_name(epoch + 1))

    def result(self) -> str:
        """The last epoch's checkpoint."""
        return checkpoint_name(self.epochs)

    def loss(self, batch: Batch, strong: Branch, other: Branch | None = None) -> torch.Tensor:
        """Eq. 1, summed over tokens; the trainer divides by N_B (A-07)."""
        from baselines.mixed_cross_entropy import cross_entropy

        return cross_entropy(strong.hidden_ND, strong.head_VD, batch.labels_N)
