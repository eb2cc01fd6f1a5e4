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
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from baselines.interface import BASE, Batch, Branch, Method, Phase, Score, Select, Train, Variant, setting
from baselines.phases import POOL, checkpoint_name, snapshot_name
from baselines.selection import Selection
from baselines.settings import EntropySettings, JointTraining
from foundation.errors import InputError

if TYPE_CHECKING:
    import torch

_WD_JT = {"wmss.modules": "wd_jt"}


@dataclass(frozen=True, kw_only=True)
class WMSS(Method):
    """WD-DS and WD-JT, each of which can be left out (Table 2)."""

    title = "WMSS"
    objective = "cross-entropy of lambda * z_strong + (1 - lambda) * z_weak (Eq. 5, 6) on examples drawn by Eq. 9"
    sections: ClassVar = {"wdjt": ("joint",), "wdds": ("selection", "entropy")}
    variants: ClassVar = {
        "wd-ds": Variant("+ WD-DS", {"wmss.modules": "wd_ds"}),
        "wd-jt": Variant("+ WD-JT", _WD_JT),
        "frozen": Variant("WD-JT (frozen weak side)", {**_WD_JT, "wdjt.freeze_weak": "true"}),
        "step-matched": Variant("WMSS (step-matched)", {"wmss.steps": "refill"}),
        "weak-branch": Variant("WMSS (weak branch)", {"wdjt.export": "weak"}),
        "official": Variant("WMSS (official)", {"wdds.weighting": "official_termnorm", "wdds.dedup": "false",
                                                "wdjt.format": "official_stage3"}),
    }

    modules: Literal["both", "wd_ds", "wd_jt"] = setting("both", place="Table 2")
    joint: JointTraining = field(default_factory=JointTraining)
    selection: Selection = field(default_factory=Selection)
    entropy: EntropySettings = field(default_factory=EntropySettings)
    iterations: int = setting(1, ambiguity="A-83", prolongs=True)
    """K of Algorithm 1."""
    steps: Literal["as_is", "refill"] = setting("as_is", ambiguity="A-67")
    """A shorter epoch over the active set, or repeated up to the full epoch's updates."""
    weak_checkpoint: int | None = setting(None, place="App. B.5")
    """Weak side of the first iteration: None the base, or the update of the warm-up (of the paper's 218)."""
    weak_init: Literal["m_t_minus_1", "cotrained_weak"] = setting("m_t_minus_1", ambiguity="A-80")

    def __post_init__(self) -> None:
        """Refuse K < 1, and a weak checkpoint that is none (InputError)."""
        if self.iterations < 1:
            raise InputError(f"wmss.iterations (K) is {self.iterations}; it must be at least 1")
        if self.weak_checkpoint is not None:
            snapshot_name(self.weak_checkpoint)
        if self.joint.export == "weak" and (self.joint.freeze_weak or self.modules == "wd_ds"):
            raise InputError("wdjt.export is weak, but no weak branch is trained (wdjt.freeze_weak = "
                             f"{str(self.joint.freeze_weak).lower()}, wmss.modules = {self.modules}); set it to strong")
        if self.weak_init == "cotrained_weak" and self.joint.freeze_weak and self.iterations > 1:
            raise InputError("wmss.weak_init is cotrained_weak, but wdjt.freeze_weak is true: no weak branch is "
                             "trained; change one of the two")

    def loss_settings(self) -> dict[str, Any]:
        """Only lambda: how the data were chosen is not the loss's business."""
        return {} if self.modules == "wd_ds" else {"mix_weight": self.joint.mix_weight}

    def phases(self) -> Iterator[Phase]:
        """Algorithm 1 after phase 1: score, select, train the pair; K times."""
        for t in range(1, self.iterations + 1):
            weak, strong, out = self._weak_side(t), checkpoint_name(t), checkpoint_name(t + 1)
            data = POOL
            if self.modules != "wd_jt":
                data = f"active-{t}"
                yield Score(of=weak, entropy=self.entropy)
                yield Score(of=strong, entropy=self.entropy)
                yield Select(strong=strong, weak=weak, selection=self.selection, draw=t, out=data)
            if self.modules == "wd_ds":
                yield Train(strong=strong, out=out, data=data, step_matched=self.steps == "refill")
            else:
                yield Train(strong=strong, weak=weak, out=out, weak_out=f"weak-{t + 1}", data=data, joint=self.joint,
                            step_matched=self.steps == "refill")

    def _weak_side(self, t: int) -> str:
        if t == 1:
            return BASE if self.weak_checkpoint is None else snapshot_name(self.weak_checkpoint)
        return f"weak-{t}" if self.weak_init == "cotrained_weak" else checkpoint_name(t - 1)

    def result(self) -> str:
        """The last strong branch, or the weak one (A-70, A-74)."""
        weak = self.joint.export == "weak" and self.modules != "wd_ds"
        return f"weak-{self.iterations + 1}" if weak else checkpoint_name(self.iterations + 1)

    def loss(self, batch: Batch, strong: Branch, weak: Branch | None) -> torch.Tensor:
        """Eq. 6 on Eq. 5's logits, summed over tokens; gradients reach both branches (Eq. 22)."""
        from baselines.mixed_cross_entropy import cross_entropy, mixed_cross_entropy

        if weak is None:  # WD-DS alone: plain SFT on the active set
            return cross_entropy(strong.hidden_ND, strong.head_VD, batch.labels_N)
        return mixed_cross_entropy(
            strong.hidden_ND, weak.hidden_ND, strong.head_VD, weak.head_VD, batch.labels_N, self.joint.mix_weight
        )
