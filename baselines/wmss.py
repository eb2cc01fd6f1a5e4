"""WMSS: weak agents make strong agents stronger (paper sections 4.1 to 4.3, Algorithm 1).

    z_mix = lambda * z_strong + (1 - lambda) * z_weak                                   (Eq. 5)
    L_mix = - (1 / N_B) * sum over supervised tokens t of  log softmax(z_mix)_{y_t}     (Eq. 6)

Both branches are updated, the strong one is kept. WD-DS chooses the examples: it draws |D| of them with
p_i ~ alpha [-dH_i]_+ + beta H(strong; i) + gamma [dH_i]_+ (Eq. 9) and removes duplicates. With K = 1 the weak side is
the base M0, the strong side the warm-up M1; iteration t uses M_{t-1} and M_t (A-80).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from baselines.interface import Branch, Method, Phase, Score, Select, Train, checkpoint_name
from baselines.selection import Selection
from baselines.settings import EntropySettings, JointTraining
from foundation.errors import InputError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class WMSS(Method):
    """WD-DS and WD-JT, each of which can be left out (Table 2)."""

    title = "WMSS"
    joint: JointTraining = field(default_factory=JointTraining)
    selection: Selection | None = field(default_factory=Selection)
    """None: WD-JT on the full pool (Table 2, "+ WD-JT")."""
    entropy: EntropySettings = field(default_factory=EntropySettings)
    iterations: int = 1
    """K of Algorithm 1 (A-83)."""
    steps: Literal["as_is", "refill"] = "as_is"
    """A-67: a shorter epoch over the active set, or repeated up to the full epoch's updates."""

    def __post_init__(self) -> None:
        """Refuse K < 1."""
        if self.iterations < 1:
            raise InputError(f"wmss.iterations (K) is {self.iterations}; it must be at least 1")

    def loss_settings(self) -> dict[str, Any]:
        """Only lambda: how the data were chosen is not the loss's business."""
        return {"mix_weight": self.joint.mix_weight}

    def phases(self) -> Iterator[Phase]:
        """Algorithm 1 after phase 1: score, select, train the pair; K times."""
        for t in range(1, self.iterations + 1):
            weak, strong, out = checkpoint_name(t - 1), checkpoint_name(t), checkpoint_name(t + 1)
            if self.selection is not None:
                yield Score(of=weak, entropy=self.entropy)
                yield Score(of=strong, entropy=self.entropy)
                yield Select(strong=strong, weak=weak, selection=self.selection, draw=t)
            data = "pool" if self.selection is None else "active"
            yield Train(strong=strong, weak=weak, out=out, data=data, joint=self.joint,
                        step_matched=self.steps == "refill")

    def loss(self, labels_T: torch.Tensor, strong: Branch, weak: Branch | None) -> torch.Tensor:
        """Eq. 6 on Eq. 5's logits, summed over tokens; gradients reach both branches (Eq. 22)."""
        from baselines.mixed_cross_entropy import mixed_cross_entropy

        assert weak is not None, "WD-JT needs a weak branch"
        return mixed_cross_entropy(
            strong.hidden_TD, weak.hidden_TD, strong.head_VD, weak.head_VD, labels_T, self.joint.mix_weight
        )
