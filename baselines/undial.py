"""UNDIAL, in three readings (paper App. E.1, E.6; Dong et al. 2024; A-25).

The paper describes noise on logits with sigma = 1; published UNDIAL has none and distils from a lowered teacher.

    logit_noise_full     z' = z + (sigma / sqrt(L_i)) * eps,   eps ~ N(0, I_V)             L = CE(softmax(z'), y)
    logit_noise_target   z' = z - (sigma / sqrt(L_i)) * eps * e_y,   eps ~ N(0, 1)         L = CE(softmax(z'), y)
    original             q = softmax(z_ref - beta * e_y)                                   L = - sum_v q(v) log P(v)

Each is summed over supervised tokens and divided by N_B. Noise is drawn anew at each visit, in training only. The
reference of `original` is the frozen model at the start of the phase (A-27).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from baselines.interface import BASE, WARMUP, Batch, Branch, Method, Phase, Train, Variant, setting

if TYPE_CHECKING:
    import torch

# N supervised tokens, C tokens of a chunk, V vocabulary, B examples


@dataclass(frozen=True, kw_only=True)
class UNDIAL(Method):
    """Cross-entropy with noise on the logits, or distillation from a teacher whose target logit is lowered."""

    title = "UNDIAL"
    objective = "cross-entropy on logits with noise of scale sigma / sqrt(L) (or: published UNDIAL, a lowered teacher)"
    variants: ClassVar = {
        "target": Variant("UNDIAL (target noise)", {"undial.variant": "logit_noise_target"}),
        "original": Variant("UNDIAL (original)", {"undial.variant": "original"}),
    }

    variant: Literal["logit_noise_full", "logit_noise_target", "original"] = setting("logit_noise_full",
                                                                                      ambiguity="A-25")
    sigma: float = setting(1.0, place="App. E.6", paper="undial.sigma")
    length: Literal["sequence", "completion"] = setting("sequence", ambiguity="A-26")
    sign: Literal["signed", "abs"] = setting("signed", ambiguity="A-25")
    beta: float = setting(1.0, ambiguity="A-29", options=("3.0",))
    teacher: Literal["phase_init", "base"] = setting("phase_init", ambiguity="A-27")
    init: Literal["sft_epoch1", "base"] = setting("sft_epoch1", ambiguity="A-04")

    def loss_settings(self) -> dict[str, Any]:
        """What the chosen reading uses."""
        if self.variant == "original":
            return {"variant": self.variant, "beta": self.beta}
        return {"variant": self.variant, "sigma": self.sigma, "length": self.length, "sign": self.sign}

    def phases(self) -> Iterator[Phase]:
        """One more epoch from M1, or two from M0 (A-04); `original` looks at a frozen reference."""
        start, epochs = (WARMUP, 1) if self.init == "sft_epoch1" else (BASE, 2)
        reference = None
        if self.variant == "original":
            reference = start if self.teacher == "phase_init" else BASE
        yield Train(strong=start, reference=reference, out="M2", epochs=epochs)

    def loss(self, batch: Batch, strong: Branch, reference: Branch | None = None) -> torch.Tensor:
        """The chosen reading, summed over tokens."""
        from torch.nn.functional import cross_entropy

        from baselines.chunked import chunked_loss

        def chunk(logits_CV: torch.Tensor, rows: slice) -> torch.Tensor:
            labels_C = batch.labels_N[rows]
            if self.variant == "original":
                assert reference is not None, "the original UNDIAL needs a reference"
                teacher_CV = (reference.hidden_ND[rows] @ reference.head_VD.to(reference.hidden_ND.dtype).T).float()
                return cross_entropy(logits_CV, lowered_teacher(teacher_CV, labels_C, self.beta), reduction="sum")
            return cross_entropy(self._perturbed(logits_CV, rows, batch), labels_C, reduction="sum")

        return chunked_loss(strong, chunk)

    def _perturbed(self, logits_CV: torch.Tensor, rows: slice, batch: Batch) -> torch.Tensor:
        """Return z', shape (C, V)."""
        import torch

        from baselines.noise import token_normals

        if self.sigma == 0 or batch.seeds_B is None:
            return logits_CV
        lengths_B = batch.length_B
        if self.length == "completion":
            lengths_B = torch.bincount(batch.example_N, minlength=len(batch.length_B))
        scale_C1 = self.sigma / lengths_B[batch.example_N[rows]].to(logits_CV.dtype).sqrt().unsqueeze(1)
        if self.variant == "logit_noise_full":
            return logits_CV + scale_C1 * token_normals(batch, rows, logits_CV.shape[1], logits_CV)
        eps_C1 = token_normals(batch, rows, 1, logits_CV)
        if self.sign == "abs":
            eps_C1 = eps_C1.abs()
        return logits_CV.scatter_add(1, batch.labels_N[rows].unsqueeze(1), -scale_C1 * eps_C1)


def lowered_teacher(reference_CV: torch.Tensor, labels_C: torch.Tensor, beta: float) -> torch.Tensor:
    """Return q = softmax(z_ref - beta e_y), shape (C, V)."""
    lowered_CV = reference_CV.clone()
    lowered_CV[range(len(labels_C)), labels_C] -= beta
    return lowered_CV.softmax(dim=-1)
