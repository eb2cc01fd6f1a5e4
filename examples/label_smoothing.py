"""Label smoothing (Szegedy et al. 2016): a share epsilon of the target's probability goes to the whole vocabulary.

    L = - (1 / N_B) * sum over supervised tokens t of  (1 - epsilon) * log P(y_t) + (epsilon / V) * sum_v log P(v)

    make compare METHOD=examples/label_smoothing.py:LabelSmoothing
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy

from baselines.chunked import chunked_loss
from baselines.interface import Batch, Branch, Method
from foundation.errors import InputError


@dataclass(frozen=True, kw_only=True)
class LabelSmoothing(Method):
    """One more epoch from the warm-up, against softened targets."""

    title = "Label smoothing"
    epsilon: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        if not 0 <= self.epsilon < 1:
            raise InputError(f"label-smoothing.epsilon is {self.epsilon}; it must be in [0, 1)")

    def loss(self, batch: Batch, strong: Branch, other: Branch | None) -> Tensor:
        """The sum over the supervised tokens; logits come in chunks, shape (C, V)."""
        def chunk(logits_CV: Tensor, rows: slice) -> Tensor:
            return cross_entropy(logits_CV, batch.labels_N[rows], reduction="sum", label_smoothing=self.epsilon)

        return chunked_loss(strong, chunk)
