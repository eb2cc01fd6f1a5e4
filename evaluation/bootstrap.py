"""Two-level paired bootstrap: how far a difference between two methods depends on the questions and on the seeds.

The error over questions says nothing about a new training run. Where a method was trained several times, each draw
takes training seeds with replacement, then questions with replacement, the same ones for both methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from foundation.errors import InputError
from foundation.seeds import stream

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

DRAWS = 10_000
_CHUNK = 500  # draws held at once: 500 x 1,572 counts


class BootstrapDifference(NamedTuple):
    """Mean difference (first minus second), its 95 % percentile interval, and what it was drawn from."""

    difference: float
    ci95: tuple[float, float]
    seeds: int
    questions: int
    draws: int


def paired_bootstrap(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]], *, names: Sequence[str | int],
                     same_seeds: bool = True, draws: int = DRAWS) -> BootstrapDifference:
    """Return the interval of a difference between two methods over training seeds and questions.

    Args:
        first: scores of the first method, one row per training seed, one column per question.
        second: the same of the second, on the same questions in the same order.
        names: name the comparison, and with it the random stream; the same names give the same interval.
        same_seeds: row i of both comes from the same training seed, so that seeds are drawn in pairs.
        draws: bootstrap draws.

    Raises:
        InputError: no seed or question, rows of different lengths, or unequal numbers of seeds that should be pairs.
    """
    import numpy as np

    a, b = _table(first, "first"), _table(second, "second")
    if a.shape[1] != b.shape[1]:
        raise InputError(f"scores on {a.shape[1]} and {b.shape[1]} questions: both must be on the same ones")
    if same_seeds and a.shape[0] != b.shape[0]:
        raise InputError(f"{a.shape[0]} and {b.shape[0]} training seeds cannot be paired; give the same seeds for both")
    generator = stream("bootstrap", *names)
    questions = a.shape[1]
    found = []
    for begun in range(0, draws, _CHUNK):
        size = min(_CHUNK, draws - begun)
        weights_a = _weights(generator, a.shape[0], size)
        weights_b = weights_a if same_seeds else _weights(generator, b.shape[0], size)
        means = weights_a @ a - weights_b @ b
        found.append((means * _weights(generator, questions, size)).sum(axis=1))
    low, high = np.quantile(np.concatenate(found), (0.025, 0.975))
    return BootstrapDifference(float(a.mean() - b.mean()), (float(low), float(high)), a.shape[0], questions, draws)


def _weights(generator: np.random.Generator, units: int, size: int) -> npt.NDArray[np.float64]:
    """Return how large a share each unit has in each draw: shape (size, units), rows sum to 1."""
    return generator.multinomial(units, [1 / units] * units, size=size) / units


def _table(scores: Sequence[Sequence[float]], which: str) -> npt.NDArray[np.float64]:
    import numpy as np

    lengths = {len(row) for row in scores}
    if len(lengths) != 1 or 0 in lengths:
        raise InputError(f"the {which} method's scores need at least one seed, each with the same questions; found "
                         f"rows of {sorted(lengths)} questions")
    table = np.asarray(scores, dtype=float)
    if not ((table >= 0) & (table <= 1)).all():
        raise InputError(f"a score of the {which} method lies outside [0, 1]: give proportions, not percents")
    return table
