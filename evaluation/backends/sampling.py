"""Sampling as a choice of the largest perturbed logit, each sequence with a random stream of its own (Gumbel-max).

`argmax(log p + g)` with independent standard Gumbel g is a draw from p; so a sample depends on its own seed and its own
logits, never on who else is in the batch, and generation itself stays greedy.
"""

from __future__ import annotations

import torch
from transformers import LogitsProcessor

from evaluation.backends.interface import Sampling

# B sequences, V vocabulary

_STEPS = 16  # drawn at once: one call of the generator for several tokens


class GumbelMax(LogitsProcessor):
    """Turns logits into perturbed log-probabilities whose largest is the sample."""

    def __init__(self, sampling: Sampling, seeds: list[int]) -> None:
        """Take the settings and one seed a sequence, in batch order."""
        self.sampling = sampling
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.drawn: torch.Tensor | None = None
        self.step = 0

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Return perturbed scores, shape (B, V)."""
        logits_BV = scores.float() / self.sampling.temperature
        logits_BV = _nucleus(_top_k(logits_BV, self.sampling.top_k), self.sampling.top_p)
        return logits_BV + self._gumbel(logits_BV)  # type: ignore[return-value]

    def _gumbel(self, logits_BV: torch.Tensor) -> torch.Tensor:
        if self.step % _STEPS == 0:
            shape = (_STEPS, logits_BV.shape[1])
            uniform = torch.stack([torch.rand(shape, generator=generator) for generator in self.generators], dim=1)
            self.drawn = -torch.log(-torch.log(uniform.clamp_(1e-20, 1 - 1e-7))).to(logits_BV.device)
        assert self.drawn is not None
        gumbel_BV = self.drawn[self.step % _STEPS]
        self.step += 1
        return gumbel_BV


def _top_k(logits_BV: torch.Tensor, k: int) -> torch.Tensor:
    if k == 0 or k >= logits_BV.shape[1]:
        return logits_BV
    smallest_B1 = logits_BV.topk(k, dim=1).values[:, -1:]
    return logits_BV.masked_fill(logits_BV < smallest_B1, float("-inf"))


def _nucleus(logits_BV: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keep the smallest set of tokens whose probability reaches top_p."""
    if top_p >= 1:
        return logits_BV
    ordered, order = logits_BV.sort(dim=1, descending=True)
    before = ordered.softmax(dim=1).cumsum(dim=1) - ordered.softmax(dim=1)
    return logits_BV.masked_fill((before >= top_p).scatter(1, order, before >= top_p), float("-inf"))
