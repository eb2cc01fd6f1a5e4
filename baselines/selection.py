"""WD-DS: from two models' entropies to the examples worth training on (paper section 4.2, Eq. 8 and 9).

Each example weighs `alpha * [-dH]_+ + beta * H + gamma * [dH]_+` with `dH = H_strong - H_weak`: consolidation,
current difficulty, recoverable regression. As many indices as the pool has examples are drawn with replacement in
proportion to the weights, and duplicates are removed. Reads and writes nothing; needs NumPy alone.
"""

# N examples of the pool

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from baselines.declare import setting
from foundation.errors import InputError
from foundation.seeds import stream

Floats: TypeAlias = npt.NDArray[np.float64]
Ids: TypeAlias = npt.NDArray[np.int64]
Entropies: TypeAlias = Sequence[float | None] | npt.NDArray[np.floating]
Weighting: TypeAlias = Literal["eq9", "official_termnorm", "eq9_termnorm"]
Difficulty: TypeAlias = Literal["strong", "weak"]

WEIGHTINGS: tuple[Weighting, ...] = get_args(Weighting)
DIFFICULTIES: tuple[Difficulty, ...] = get_args(Difficulty)
_NAMED_AT_MOST = 10  # indices listed in an error before "and k more"


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """How WD-DS weighs and draws examples; the paper's values (E.5, B.6) are the defaults.

    Attributes:
        alpha: weight of the consolidation term `[-dH]_+`.
        beta: weight of the difficulty term.
        gamma: weight of the regression term `[dH]_+`.
        weighting: the formula (A-60). "eq9": Eq. 9 as printed. "eq9_termnorm": Eq. 9, each term divided by its sum.
            "official_termnorm": the public code's, where terms are divided by their sums, alpha stands before the
            weak model's entropy, beta before `[-dH]_+`, gamma before `[dH]_+`.
        difficulty: whose entropy the difficulty term takes (A-61); "official_termnorm" takes the weak model's always.
        dedup: whether repeated draws are removed (A-62).
        degenerate: what happens when every weight is 0 (A-66): a uniform draw with a warning, or an error.
    """

    alpha: float = setting(0.1, place="App. B.6", paper="wmss.alpha")
    beta: float = setting(0.8, place="App. B.6", paper="wmss.beta")
    gamma: float = setting(0.1, place="App. B.6", paper="wmss.gamma")
    weighting: Weighting = setting("eq9", ambiguity="A-60")
    difficulty: Difficulty = setting("strong", ambiguity="A-61")
    dedup: bool = setting(True, ambiguity="A-62")
    degenerate: Literal["uniform", "error"] = setting("uniform", ambiguity="A-66")

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "gamma"):
            value = getattr(self, name)
            if not 0.0 <= value < float("inf"):
                raise InputError(f"selection {name} is {value}; it must be a finite number >= 0")
        if self.weighting not in WEIGHTINGS:
            raise InputError(f"selection weighting {self.weighting!r} is unknown; choose one of: "
                             f"{', '.join(WEIGHTINGS)}")
        if self.difficulty not in DIFFICULTIES:
            raise InputError(f"selection difficulty {self.difficulty!r} is unknown; choose one of: "
                             f"{', '.join(DIFFICULTIES)}")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SelectionResult:
    """The drawn examples and what is worth knowing about the draw.

    Attributes:
        ids: int64 positions in the pool, in training order: unique and shuffled, or all draws in draw order.
        probabilities_N: float64, the distribution they were drawn from.
        unique_fraction: different examples drawn / N.
        expected_unique_fraction: its expectation under `probabilities_N`.
        unique_fractions_by_weighting: for each formula the unique fraction of one draw from the same entropies, each
            with a random stream of its own, so that it changes nothing in `ids`.
        warnings: what the reader of the result should know.
    """

    ids: Ids
    probabilities_N: Floats
    unique_fraction: float
    expected_unique_fraction: float
    unique_fractions_by_weighting: Mapping[Weighting, float]
    warnings: tuple[str, ...] = ()


def weights(strong_entropy_N: Entropies, weak_entropy_N: Entropies, selection: Selection) -> Floats:
    """Return each example's unnormalised weight (Eq. 9 or the variant `selection` names), float64.

    Args:
        strong_entropy_N: (N,) mean token entropies of the strong model, in nats (Eq. 7).
        weak_entropy_N: (N,) the same of the weak model.
        selection: coefficients and formula.

    Raises:
        InputError: an empty pool, different lengths, or an entropy that is missing, not finite or negative.
    """
    strong_N, weak_N = _entropies(strong_entropy_N, weak_entropy_N)
    change_N = strong_N - weak_N  # Eq. 8
    consolidation_N = np.maximum(-change_N, 0.0)
    regression_N = np.maximum(change_N, 0.0)
    difficulty_N = strong_N if selection.difficulty == "strong" else weak_N
    alpha, beta, gamma = selection.alpha, selection.beta, selection.gamma
    if selection.weighting == "eq9":
        return alpha * consolidation_N + beta * difficulty_N + gamma * regression_N
    if selection.weighting == "eq9_termnorm":
        return alpha * _share(consolidation_N) + beta * _share(difficulty_N) + gamma * _share(regression_N)
    # Departs from paper: the public code's roles of alpha and beta, and its normalisation by term.
    return alpha * _share(weak_N) + beta * _share(consolidation_N) + gamma * _share(regression_N)


def select(strong_entropy_N: Entropies, weak_entropy_N: Entropies, selection: Selection,
           generator: np.random.Generator) -> SelectionResult:
    """Draw N examples with replacement in proportion to their weights and, unless told not to, remove duplicates.

    The generator alone decides the draw and then the order (A-63: unique ids are sorted, then shuffled). If every
    weight is 0 the draw is uniform and the result says so (A-66).

    Args:
        strong_entropy_N: (N,) mean token entropies of the strong model, in nats (Eq. 7).
        weak_entropy_N: (N,) the same of the weak model.
        selection: coefficients, formula and handling of duplicates.
        generator: the selection's own random stream; it is advanced.

    Raises:
        InputError: an empty pool, different lengths, or an entropy that is missing, not finite or negative.
    """
    probabilities_N, warnings = _probabilities(weights(strong_entropy_N, weak_entropy_N, selection))
    if warnings and selection.degenerate == "error":
        raise InputError(f"all {len(probabilities_N)} selection weights are 0: nothing to prefer one example by; "
                         "set wdds.degenerate=uniform, or other coefficients")
    drawn_N = _draw(probabilities_N, generator)
    unique = np.unique(drawn_N)  # sorted
    fractions: dict[Weighting, float] = {}
    for weighting in WEIGHTINGS:
        variant = replace(selection, weighting=weighting)
        variant_N, _ = _probabilities(weights(strong_entropy_N, weak_entropy_N, variant))
        fractions[weighting] = _unique_fraction(_draw(variant_N, stream("wdds", "unique_fraction", weighting)))
    return SelectionResult(
        ids=generator.permutation(unique) if selection.dedup else drawn_N,
        probabilities_N=probabilities_N,
        unique_fraction=len(unique) / len(drawn_N),
        expected_unique_fraction=expected_unique_fraction(probabilities_N),
        unique_fractions_by_weighting=fractions,
        warnings=warnings,
    )


def expected_unique_fraction(probabilities_N: Floats) -> float:
    """Return the expected share of different examples among N draws: `(1/N) sum_i [1 - (1 - p_i)^N]`."""
    p_N = np.asarray(probabilities_N, dtype=np.float64)
    with np.errstate(divide="ignore"):  # p = 1: log1p(-1) = -inf, and the term is 1 as it should be
        return float(np.mean(-np.expm1(len(p_N) * np.log1p(-p_N))))


def _draw(probabilities_N: Floats, generator: np.random.Generator) -> Ids:
    drawn_N = generator.choice(len(probabilities_N), size=len(probabilities_N), replace=True, p=probabilities_N)
    return drawn_N.astype(np.int64, copy=False)


def _unique_fraction(drawn_N: Ids) -> float:
    return len(np.unique(drawn_N)) / len(drawn_N)


def _probabilities(weights_N: Floats) -> tuple[Floats, tuple[str, ...]]:
    total = weights_N.sum()
    if total > 0.0:
        return weights_N / total, ()
    uniform_N = np.full(len(weights_N), 1.0 / len(weights_N))
    return uniform_N, (f"all {len(weights_N)} selection weights are 0: examples are drawn uniformly (A-66)",)


def _share(term_N: Floats) -> Floats:
    """Return a term divided by its sum; a term that is 0 everywhere stays 0."""
    total = term_N.sum()
    return term_N / total if total > 0.0 else term_N


def _entropies(strong_entropy_N: Entropies, weak_entropy_N: Entropies) -> tuple[Floats, Floats]:
    """Return both as float64 arrays of one length, every value finite and >= 0."""
    arrays = {"strong": np.asarray(strong_entropy_N, dtype=np.float64),  # None becomes NaN
              "weak": np.asarray(weak_entropy_N, dtype=np.float64)}
    for name, entropy_N in arrays.items():
        if entropy_N.ndim != 1:
            raise InputError(f"{name} entropies have shape {entropy_N.shape}; expected one number per example")
    strong_N, weak_N = arrays["strong"], arrays["weak"]
    if len(strong_N) != len(weak_N):
        shorter, longer = sorted(arrays, key=lambda name: len(arrays[name]))
        missing = range(len(arrays[shorter]), len(arrays[longer]))
        raise InputError(f"there are {len(strong_N)} strong and {len(weak_N)} weak entropies; {shorter} entropies "
                         f"are missing for examples {_listed(missing)}")
    if len(strong_N) == 0:
        raise InputError("the pool is empty: there is no entropy to select by")
    for name, entropy_N in arrays.items():
        bad = np.flatnonzero(~(np.isfinite(entropy_N) & (entropy_N >= 0.0)))
        if len(bad):
            raise InputError(f"{name} entropies must be finite and >= 0; missing, not finite or negative for examples "
                             f"{_listed(bad.tolist())}; compute the entropies again")
    return strong_N, weak_N


def _listed(indices: Sequence[int]) -> str:
    shown = ", ".join(str(index) for index in indices[:_NAMED_AT_MOST])
    rest = len(indices) - _NAMED_AT_MOST
    return f"{shown} and {rest} more" if rest > 0 else shown
