"""NEFTune: cross-entropy on input embeddings with uniform noise (Jain et al. 2024; paper App. E.6).

    X'_i = X_i + n_i,   n_i ~ Uniform(-a_i, a_i) i.i.d.,   a_i = alpha / sqrt(L_i * d)
    L    = - (1 / N_B) * sum over supervised tokens t of  log P_theta(y_t | X'_i)

L_i counts the attended tokens of example i, d is the embedding width. Noise is drawn anew at each visit, in training
only; padding gets none. `length = padded` is the library's hook instead: it takes the padded width for L and also
perturbs padding (A-20). Where a model scales its embeddings (Gemma), noise comes after scaling (A-21).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from baselines.interface import BASE, WARMUP, Batch, Branch, Method, Phase, Train, Variant, setting

if TYPE_CHECKING:
    import torch

# B examples, S positions, D embedding width, N supervised tokens


@dataclass(frozen=True, kw_only=True)
class NEFTune(Method):
    """SFT with noisy embeddings."""

    title = "NEFTune"
    objective = "cross-entropy with Uniform(-a, a) noise on input embeddings, a = alpha / sqrt(L d)"
    variants: ClassVar = {"padded": Variant("NEFTune (padded)", {"neftune.length": "padded"})}

    alpha: float = setting(5.0, place="App. E.6", paper="neftune.alpha")
    length: Literal["per_example", "padded"] = setting("per_example", ambiguity="A-20")
    init: Literal["sft_epoch1", "base"] = setting("sft_epoch1", ambiguity="A-04")

    def loss_settings(self) -> dict[str, Any]:
        """Noise scale and its length."""
        return {"alpha": self.alpha, "length": self.length}

    def phases(self) -> Iterator[Phase]:
        """One more epoch from M1, or two from M0 (A-04)."""
        trainer = {"neftune_noise_alpha": self.alpha} if self.length == "padded" else {}
        if self.init == "sft_epoch1":
            yield Train(strong=WARMUP, out="M2", trainer=trainer)
        else:
            yield Train(strong=BASE, out="M2", epochs=2, trainer=trainer)

    def embed(self, embeddings_BSD: torch.Tensor, mask_BS: torch.Tensor, seeds_B: list[int]) -> torch.Tensor:
        """Add each example's noise to its attended tokens."""
        if self.length == "padded" or self.alpha == 0:
            return embeddings_BSD
        return embeddings_BSD + embedding_noise(embeddings_BSD, mask_BS, seeds_B, self.alpha)

    def loss(self, batch: Batch, strong: Branch, other: Branch | None = None) -> torch.Tensor:
        """Eq. 1 on what the perturbed embeddings gave."""
        from baselines.mixed_cross_entropy import cross_entropy

        return cross_entropy(strong.hidden_ND, strong.head_VD, batch.labels_N)


def embedding_noise(embeddings_BSD: torch.Tensor, mask_BS: torch.Tensor, seeds_B: list[int],
                    alpha: float) -> torch.Tensor:
    """Return the noise, shape (B, S, D): bound alpha / sqrt(L_i D) on the L_i attended tokens, 0 elsewhere."""
    import torch

    from baselines.noise import uniform

    noise_BSD = torch.zeros_like(embeddings_BSD)
    width = embeddings_BSD.shape[-1]
    for b, seed in enumerate(seeds_B):
        attended_S = mask_BS[b].bool()
        length = int(attended_S.sum())
        noise_BSD[b, attended_S] = uniform((length, width), seed, embeddings_BSD) * (alpha / (length * width) ** 0.5)
    return noise_BSD
