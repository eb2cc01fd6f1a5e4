"""The paper's figure beside the measured one: consistent, different, or cannot tell; and the order of the methods.

Only figures of the same model, data and scale may be compared: the caller sees to that.

The paper's figure is itself a sample: one training, scored on the same questions. Which questions it got right is not
published, so the two are compared as if on separate questions. Scores on the same questions go together, so this
interval is wider than a paired one would be: it errs towards "cannot tell". What its own interval covers is what the
verdict covers: of one training the questions only; of several (`trainings`) also how far they lie apart.

- different: the 95 % interval of the difference, widened by the rounding of the paper's figure, excludes 0.
- consistent: that interval lies within the margin. The margin is a difference that would matter: the gain over SFT that
  the paper claims in that column (`claimed_margin`), since figures that differ by as much would not support the same
  conclusion. It is at most 5.9 points, the largest average gain of Table 1, so that a large claim is not confirmed more
  easily than a small one; for a column without a claim it is the smallest such gain, 2.4 points.
- cannot tell: neither. The smallest difference that these questions show with 80 % power says why.

Figures that are no shares (logits, seconds, changes in per cent) have no claimed gain that their difference could be
held against: without a margin they are different or cannot be told from the paper's, never consistent. Without an
interval the difference is all that is said.

Percentages and percentage points for shares. References: R. G. Newcombe, Statistics in Medicine 17 (1998) 873, method
10 (unpaired); D. J. Schuirmann (1987), equivalence by two one-sided tests, here at the stricter 95 % interval;
M. G. Kendall (1945), tau-b.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any, Literal

from evaluation.statistics import Z95, mean_of_proportions_interval, smallest_detectable_difference, wilson
from foundation.errors import InputError
from foundation.seeds import stream
from replication.paper import TABLES, published

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Counts = npt.NDArray[np.int64]

Verdict = Literal["consistent", "different", "cannot tell"]
Interval = tuple[float, float]

_GAINS = [gain for model in TABLES["table1"].values for group in ("Math", "Code")
          if (gain := published("table1", model, "WMSS", f"{group} Avg. change")) is not None]
DEFAULT_MARGIN = min(_GAINS)
"""Points: the smallest average gain of WMSS over SFT in Table 1 (2.4, Code Avg. of Qwen3-8B-Base)."""
LARGEST_MARGIN = max(_GAINS)
"""Points: the largest such gain (5.9, Math Avg. of Qwen3-8B-Base)."""
_POWER = 0.8416212335729143  # the normal quantile of 80 %
_ENUMERATED = 9  # rows with ties whose orders are all tried; beyond, a named stream draws them
_DRAWS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The verdict on one cell; points and per cent, measured minus paper."""

    verdict: Verdict
    difference: float
    ci95: Interval | None
    """Of the difference, widened by the paper's rounding; None where no uncertainty is known."""
    margin: float | None
    """None: no difference is known that would matter; "consistent" is then no possible verdict."""
    detectable: float | None
    """Smallest difference found with 80 % power at 5 % two-sided; None where no uncertainty is known."""
    text: str

    def as_dict(self) -> dict[str, Any]:
        """Return the judgement as a result file stores it."""
        return {**asdict(self), "ci95": None if self.ci95 is None else list(self.ci95)}


def judge(value: float, paper: float, *, digits: int, n: int | None = None, paper_n: int | None = None,
          ci95: Interval | None = None, paper_ci95: Interval | None = None, margin: float | None = None,
          trainings: int = 1, share: bool = True, unit: str = "points") -> Judgement:
    """Compare a measured figure with the paper's: a share of right answers, or any other number with its interval.

    Args:
        value: measured, unrounded; a share in per cent.
        paper: as printed; a share in per cent.
        digits: decimals it is printed with.
        n: questions behind `value`, a share of right answers.
        paper_n: questions behind `paper`; as many as n where not given.
        ci95: interval of `value`; used instead of n.
        paper_ci95: interval of `paper`; `average_interval` makes it. As wide as `ci95` where nothing is given.
        margin: difference that would matter, in `unit`; DEFAULT_MARGIN where not given, for a share.
        trainings: trainings that `value` averages; `ci95` of several covers how far they lie apart.
        share: whether both are percentages of right answers.
        unit: what differences are in.

    Raises:
        InputError: a share outside 0..100, no questions, questions of what is no share, an interval that does not hold
            its figure, a negative count of decimals or margin, or no training.
    """
    _check_figures(value, paper, share, n or paper_n)
    _check_settings(digits, margin, trainings)
    limits = (_limits("measured", value, n, ci95), _limits("paper's", paper, paper_n or n, paper_ci95))
    width = DEFAULT_MARGIN if margin is None and share else margin
    own, theirs = limits
    if own is None:
        return Judgement(verdict="cannot tell", difference=value - paper, ci95=None, margin=width, detectable=None,
                         text=f"{_figures_text(value, paper, digits, unit)}; no interval is known")
    if theirs is None:
        theirs = (paper - (value - own[0]), paper + (own[1] - value))
    half_unit = 0.5 * 10**-digits
    low = value - paper - math.hypot(value - own[0], theirs[1] - paper) - half_unit
    high = value - paper + math.hypot(own[1] - value, paper - theirs[0]) + half_unit
    spread = None if n is None or ci95 is not None else (n, paper_n or n)
    detectable = half_unit + _detectable(value, paper, spread, (low + half_unit, high - half_unit))
    verdict: Verdict = ("different" if low > 0 or high < 0 else
                        "consistent" if width is not None and -width <= low and high <= width else "cannot tell")
    text = _figures_text(value, paper, digits, unit, (low, high))
    text += _reason_text(verdict, (low, high), width, detectable, max(digits, 1), unit)
    text += (f"; the interval covers the questions and the spread of {trainings} trainings"
             if trainings > 1 and ci95 is not None else
             "; the spread from training to training is not in the interval")
    return Judgement(verdict=verdict, difference=value - paper, ci95=(low, high), margin=width, detectable=detectable,
                     text=text)


def _check_figures(value: float, paper: float, share: bool, questions: int | None) -> None:
    for name, figure in (("measured", value), ("paper's", paper)):
        if share and not 0 <= figure <= 100:
            raise InputError(f"the {name} figure {figure} is no percentage: give per cent, within 0..100")
        if not math.isfinite(figure):
            raise InputError(f"the {name} figure is {figure}: only numbers can be compared")
    if not share and questions is not None:
        raise InputError(f"{questions} questions behind a figure that is no share of them: give its interval (ci95)")


def _check_settings(digits: int, margin: float | None, trainings: int) -> None:
    if digits < 0 or trainings < 1:
        raise InputError(f"digits = {digits} must not be negative, trainings = {trainings} must be at least 1")
    if margin is not None and not 0 <= margin < math.inf:
        raise InputError(f"margin = {margin} must be a number, 0 or more")


def _limits(name: str, value: float, n: int | None, ci95: Interval | None) -> Interval | None:
    """Return the limits of one figure, None where nothing is known of its uncertainty."""
    if ci95 is not None:
        if not ci95[0] <= value <= ci95[1]:
            raise InputError(f"the interval {list(ci95)} of the {name} figure does not hold {value}")
        return ci95
    return None if n is None else share_interval(value, n)


def share_interval(percent: float, n: int) -> Interval:
    """Return the 95 % Wilson interval of a percentage of n questions, in per cent; widened to hold a rounded figure.

    Raises:
        InputError: no question, or a figure outside 0..100.
    """
    if n < 1 or not 0 <= percent <= 100:
        raise InputError(f"{percent} % of {n} questions: give a percentage within 0..100 and at least one question")
    low, high = wilson(round(percent * n / 100), n)
    return min(100 * low, percent), max(100 * high, percent)


def average_interval(scores: Sequence[tuple[float, int]]) -> Interval:
    """Return the 95 % interval of an average of percentages, each (per cent, questions), in per cent (MOVER).

    Raises:
        InputError: no benchmark, one without questions, or a figure outside 0..100.
    """
    for percent, n in scores:
        share_interval(percent, n)  # refuses what is no percentage
    low, high = mean_of_proportions_interval([(round(percent * n / 100), n) for percent, n in scores])
    mean = math.fsum(percent for percent, _ in scores) / len(scores)
    return min(100 * low, mean), max(100 * high, mean)


def _detectable(value: float, paper: float, questions: tuple[int, int] | None, interval: Interval) -> float:
    """Return the smallest difference found with 80 % power, as on separate questions, in points."""
    if questions is None:
        return (Z95 + _POWER) / (2 * Z95) * (interval[1] - interval[0])
    first, second = questions
    # one right and one wrong answer are added to each, so that 0 % and 100 % keep an uncertainty
    p = (value * first + paper * second + 200) / 100 / (first + second + 4)
    return 100 * smallest_detectable_difference(1, p, rho=0.0) * math.sqrt((1 / first + 1 / second) / 2)


def _figures_text(value: float, paper: float, digits: int, unit: str, interval: Interval | None = None) -> str:
    said = f"measured {value:.{digits}f}, paper {paper:.{digits}f}: differs by {value - paper:+.{digits}f}"
    said += f" {unit}" * bool(unit)
    return said if interval is None else f"{said} [{interval[0]:+.{digits}f}, {interval[1]:+.{digits}f}]"


def _reason_text(verdict: Verdict, interval: Interval, margin: float | None, detectable: float, digits: int,
                 unit: str) -> str:
    """Say why; a verdict without a margin speaks of 0 alone."""
    unit = f" {unit}" * bool(unit)
    if verdict == "different":
        near = margin is not None and max(map(abs, interval)) <= margin
        return "; 0 lies outside the interval" + (f", which lies within {margin:.{digits}f}{unit}" if near else "")
    if verdict == "consistent":
        return f"; any difference beyond {margin:.{digits}f}{unit} is excluded"
    kept = ("0 is not excluded, and no margin is known within which it would not matter" if margin is None else
            f"neither 0 nor a difference of {margin:.{digits}f}{unit} is excluded")
    return f"; {kept}: the smallest difference such intervals would show is {detectable:.{digits}f}{unit}"


def claimed_margin(table: str, model: str, column: str, *, row: str = "WMSS", against: str = "SFT") -> float:
    """Return the margin of a column's cells in points: the difference of two rows that the paper prints there.

    LARGEST_MARGIN where that is larger; DEFAULT_MARGIN where the paper does not print both rows, or prints them equal.
    """
    own, other = (published(table, model, name, column) for name in (row, against))
    if own is None or other is None or own == other:
        return DEFAULT_MARGIN
    return min(LARGEST_MARGIN, round(abs(own - other), 6))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordering:
    """How far the methods come in the paper's order in one column."""

    column: str
    rows: tuple[str, ...]
    measured: tuple[float, ...]
    paper: tuple[float, ...]
    tau: float | None
    """Kendall's tau-b; None where all values of a side are equal or there are fewer than two rows."""
    p: float | None
    """Two-sided: the share of all orders with a tau as far from 0."""
    tau95: Interval | None
    """Central 95 % of tau over the draws within the cells' intervals."""
    leader_first: float | None
    """Share of the draws in which the leader is first (ties shared)."""
    text: str

    def as_dict(self) -> dict[str, Any]:
        """Return the ordering as a result file stores it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def ordering(rows: Sequence[str], measured: Sequence[float], ci95: Sequence[Interval], paper: Sequence[float], *,
             column: str, leader: str = "WMSS", names: Sequence[str | int] = ()) -> Ordering:
    """Compare the order of the methods in one column with the paper's.

    The draws take each cell independently within its interval (a normal with the lower limit's spread below the value
    and the upper limit's above). Scores on the same questions go together, so that differences are in truth steadier.

    Args:
        rows: the methods' names.
        measured: their measured values.
        ci95: the intervals of these.
        paper: the paper's values.
        column: what is compared; names the random stream.
        leader: the row whose first place is asked about.
        names: further names of the random stream (table, model).

    Raises:
        InputError: lists of different lengths, a repeated row, a value that is no number, or an interval that does not
            hold its value.
    """
    _check_columns(rows, measured, ci95, paper)
    tau = kendall_tau_b(measured, paper)
    p = None if tau is None else tau_p_value(measured, paper, names=(*names, column))
    tau95 = leader_first = None
    if len(rows) > 1:
        draws = _draws(measured, ci95, ("ordering", *names, column))
        tau95 = _tau95(draws, paper) if tau is not None else None
        leader_first = _first_share(draws, list(rows).index(leader)) if leader in rows else None
    text = _ordering_text(rows, measured, tau, p, tau95, leader, leader_first)
    return Ordering(column=column, rows=tuple(rows), measured=tuple(measured), paper=tuple(paper), tau=tau, p=p,
                    tau95=tau95, leader_first=leader_first, text=text)


def _check_columns(rows: Sequence[str], measured: Sequence[float], ci95: Sequence[Interval],
                   paper: Sequence[float]) -> None:
    lengths = {len(rows), len(measured), len(ci95), len(paper)}
    if len(lengths) != 1 or not rows or len(set(rows)) != len(rows):
        raise InputError(f"an order needs each row once, with one value, interval and paper value; found rows "
                         f"{list(rows)} and lists of {len(measured)}, {len(ci95)} and {len(paper)}")
    for row, value, (low, high), printed in zip(rows, measured, ci95, paper, strict=True):
        if not (low <= value <= high and all(map(math.isfinite, (low, high, printed)))):
            raise InputError(f"row {row!r}: value {value}, interval [{low}, {high}], paper {printed}: the interval "
                             "must hold the value, and all be numbers")


def kendall_tau_b(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Kendall's tau-b of two lists of one length; None where all values of one are equal."""
    import numpy as np

    agreeing, untied = _concordance(np.asarray([first], dtype=float), second)
    untied_second = _concordance(np.asarray([second], dtype=float), second)[1]
    if not untied[0] or not untied_second[0]:
        return None
    return float(agreeing[0]) / math.sqrt(float(untied[0]) * float(untied_second[0]))


def _concordance(orders: npt.NDArray[np.float64], second: Sequence[float]) -> tuple[Counts, Counts]:
    """Return for each order (a row) its concordant minus discordant pairs with `second`, and its untied pairs."""
    import numpy as np

    reference = np.asarray(second, dtype=float)
    agreeing, untied = np.zeros((2, len(orders)), dtype=np.int64)
    for i in range(len(reference)):
        for j in range(i):
            sign = np.sign(orders[:, i] - orders[:, j]).astype(np.int64)
            agreeing += sign * int(np.sign(reference[i] - reference[j]))
            untied += np.abs(sign)
    return agreeing, untied


def tau_p_value(first: Sequence[float], second: Sequence[float], *, names: Sequence[str | int] = ()) -> float:
    """Return the two-sided permutation p-value of tau: the share of all orders with a tau as far from 0.

    Exact: by counting inversions where nothing is tied, by trying every order of up to 9 rows with ties. Beyond that
    10,000 orders are drawn from the stream of these names.
    """
    import numpy as np

    values, size = np.asarray(first, dtype=float), len(first)
    observed = abs(int(_concordance(values[None], second)[0][0]))
    if len(set(first)) == size == len(set(second)):
        pairs, ways = size * (size - 1) // 2, _inversions(size)
        return sum(count for k, count in enumerate(ways) if abs(pairs - 2 * k) >= observed) / math.factorial(size)
    if size <= _ENUMERATED:
        orders = values[np.asarray(list(permutations(range(size))))]
        return float((abs(_concordance(orders, second)[0]) >= observed).mean())
    generator = stream("tau permutations", *names)
    orders = generator.permuted(np.tile(values, (_DRAWS, 1)), axis=1)
    return float(((abs(_concordance(orders, second)[0]) >= observed).sum() + 1) / (_DRAWS + 1))


def _inversions(size: int) -> list[int]:
    """Return how many orders of `size` things have 0, 1, 2... inversions."""
    ways = [1]
    for step in range(2, size + 1):
        ways = [sum(ways[max(0, k - step + 1):k + 1]) for k in range(len(ways) + step - 1)]
    return ways


def _draws(measured: Sequence[float], ci95: Sequence[Interval], names: Sequence[str | int]) -> npt.NDArray[np.float64]:
    """Return draws of all cells within their intervals: shape (draws, rows)."""
    import numpy as np

    value = np.asarray(measured, dtype=float)
    low, high = np.asarray(ci95, dtype=float).T
    z = stream(*names).standard_normal((_DRAWS, len(value)))
    drawn: npt.NDArray[np.float64] = value + z / Z95 * np.where(z < 0, value - low, high - value)
    return drawn


def _first_share(draws: npt.NDArray[np.float64], index: int) -> float:
    best = draws == draws.max(axis=1, keepdims=True)
    return float((best[:, index] / best.sum(axis=1)).mean())


def _tau95(draws: npt.NDArray[np.float64], paper: Sequence[float]) -> Interval:
    """Return the central 95 % of tau over the draws; a draw without any difference counts as 0."""
    import numpy as np

    agreeing, untied = _concordance(draws, paper)
    pairs = _concordance(np.asarray([paper], dtype=float), paper)[1]
    low, high = np.quantile(agreeing / np.sqrt(np.maximum(untied, 1) * pairs), (0.025, 0.975))
    return float(low), float(high)


def _ordering_text(rows: Sequence[str], measured: Sequence[float], tau: float | None, p: float | None,
                   tau95: Interval | None, leader: str, leader_first: float | None) -> str:
    if len(rows) < 2:
        return "a single row has no order"
    if tau is None or p is None:
        said = "the order cannot be compared: all values of one side are equal"
    else:
        said = f"Kendall's tau-b {tau:.2f} over {len(rows)} methods (two-sided p {p:.3g})"
        if tau95 is not None:
            said += f"; within the cells' intervals tau lies in [{tau95[0]:.2f}, {tau95[1]:.2f}]"
    if leader_first is None:
        return said
    top = [row for row, value in zip(rows, measured, strict=True) if value == max(measured)]
    return (f"{said}; measured first: {', '.join(top)}; {leader} is first in {100 * leader_first:.0f} % of "
            f"{_DRAWS:,} draws within the cells' intervals")
