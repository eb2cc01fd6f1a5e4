"""SFT: supervised fine-tuning, the anchor of every gain (paper Eq. 1).

    L_SFT = - (1 / N_B) * sum over supervised tokens t of  log P_theta(y_t | c_t)

Epoch 1 from the base gives M1, the warm-up that all methods share; epoch 2 continues from M1 and is the SFT row.
With `two_epoch = single` (A-03) both epochs are one schedule from the base.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from baselines.interface import BASE, WARMUP, Batch, Branch, Method, Phase, Train, Variant, setting

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class SFT(Method):
    """Plain cross-entropy on the completion tokens."""

    title = "SFT"
    objective = "token-mean cross-entropy on the completion (Eq. 1)"
    variants: ClassVar = {"single": Variant("SFT (single schedule)", {"sft.two_epoch": "single"})}

    two_epoch: Literal["restart", "single"] = setting("restart", ambiguity="A-03")

    def loss_settings(self) -> dict[str, Any]:
        """None: how the epochs are scheduled is not the loss's business."""
        return {}

    def phases(self) -> Iterator[Phase]:
        """One more epoch from M1 (restart), or two epochs from M0 in one schedule (single)."""
        if self.two_epoch == "restart":
            yield Train(strong=WARMUP, out="M2")
        else:
            yield Train(strong=BASE, out="M2", epochs=2)

    def loss(self, batch: Batch, strong: Branch, other: Branch | None = None) -> torch.Tensor:
        """Eq. 1, summed over tokens; the trainer divides by N_B (A-07)."""
        from baselines.mixed_cross_entropy import cross_entropy

        return cross_entropy(strong.hidden_ND, strong.head_VD, batch.labels_N)
