"""Printed figures as exact intervals, and the arithmetic on them; no floats.

A figure printed as 13.3 stands for anything in [13.25, 13.35]: half a unit of its last digit to either side, ends
included, so that both ways of rounding a tie are covered. Sums, quotients and means of such figures carry the interval
of what they can be. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from replication.paper_tables import TABLES, decimals
from replication.paper_types import PaperTable, TextClaim
from replication.paper_values import HYPERPARAMETERS, TEXT_CLAIMS

HUNDRED = Fraction(100)


def exact(value: float) -> Fraction:
    """Return the decimal figure that a float was typed as: 0.1 is 1/10."""
    return Fraction(repr(value))


def unit(digits: int) -> Fraction:
    """Return one unit of the last of so many decimals."""
    return Fraction(1, 10**digits)


def shown(value: Fraction, digits: int = 3) -> str:
    """Return a fraction with at most so many decimals, half up; trailing zeros are left out, whole hundreds kept."""
    scaled = math.floor(abs(value) * 10**digits + Fraction(1, 2))
    whole, rest = divmod(scaled, 10**digits)
    decimals = f".{rest:0{digits}d}".rstrip("0") if rest else ""
    return f"{'-' if value < 0 and scaled else ''}{whole}{decimals}"


def fixed(value: Fraction, digits: int) -> str:
    """Return a fraction that has no more than so many decimals, with all of them: 20.0, 14.20."""
    scaled = abs(value) * 10**digits
    assert scaled.denominator == 1, f"{value} has more than {digits} decimals"
    whole, rest = divmod(int(scaled), 10**digits)
    return f"{'-' if value < 0 else ''}{whole}" + (f".{rest:0{digits}d}" if digits else "")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A figure or a result of figures: by plain recomputation, what rounding allows, and its arithmetic."""

    plain: Fraction
    low: Fraction
    high: Fraction
    text: str
    atomic: bool = True
    """False where `text` needs brackets beside another operator."""

    def __add__(self, other: Quantity) -> Quantity:
        return self._joined(other, "+", self.plain + other.plain, self.low + other.low, self.high + other.high)

    def __sub__(self, other: Quantity) -> Quantity:
        return self._joined(other, "-", self.plain - other.plain, self.low - other.high, self.high - other.low)

    def __mul__(self, other: Quantity) -> Quantity:
        corners = [a * b for a in (self.low, self.high) for b in (other.low, other.high)]
        return self._joined(other, "x", self.plain * other.plain, min(corners), max(corners))

    def __truediv__(self, other: Quantity) -> Quantity:
        assert other.low > 0 or other.high < 0, f"{other.text} may be zero"
        corners = [a / b for a in (self.low, self.high) for b in (other.low, other.high)]
        return self._joined(other, "/", self.plain / other.plain, min(corners), max(corners))

    def _joined(self, other: Quantity, sign: str, plain: Fraction, low: Fraction, high: Fraction) -> Quantity:
        left, right = (q.text if q.atomic else f"({q.text})" for q in (self, other))
        return Quantity(plain, low, high, f"{left} {sign} {right}", atomic=False)

    @property
    def recomputed(self) -> str:
        """The arithmetic with its result, and the interval where rounding leaves one."""
        return f"{self.text} = {shown(self.plain, 4)}" if not self.atomic else self.text

    @property
    def interval(self) -> str:
        """The interval in words."""
        return f"[{shown(self.low, 4)}, {shown(self.high, 4)}]"


def figure(value: float | Fraction, digits: int, text: str | None = None) -> Quantity:
    """Return the quantity behind a figure printed with so many decimals."""
    plain = value if isinstance(value, Fraction) else exact(value)
    half = unit(digits) / 2
    return Quantity(plain, plain - half, plain + half, text or fixed(plain, digits))


def constant(value: int) -> Quantity:
    """Return a number without rounding: a count, or the 100 of a percentage."""
    return Quantity(Fraction(value), Fraction(value), Fraction(value), f"{value:,}")


def mean(parts: Sequence[Quantity]) -> Quantity:
    """Return the unweighted mean of quantities that were rounded separately."""
    count = len(parts)
    text = f"({' + '.join(part.text if part.atomic else f'({part.text})' for part in parts)}) / {count}"
    plain, low, high = (sum(values, Fraction(0)) / count for values in
                        zip(*((part.plain, part.low, part.high) for part in parts), strict=True))
    return Quantity(plain, low, high, text, atomic=False)


def percent_change(new: Quantity, old: Quantity) -> Quantity:
    """Return 100 (new / old - 1)."""
    return (new / old - constant(1)) * constant(100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """What the audit reads: the tables, and the figures of the text. Tests pass changed ones."""

    tables: Mapping[str, PaperTable]
    claims: Mapping[str, TextClaim]

    def value(self, table: str, model: str, row: str, column: str) -> float | None:
        """Return the figure in a cell, None where a dash, a word or nothing is printed."""
        cell = self.tables[table].values[model][row].get(column)
        return float(cell) if isinstance(cell, int | float) and not isinstance(cell, bool) else None

    def cell(self, table: str, model: str, row: str, column: str) -> Quantity:
        """Return the quantity behind a cell that holds a figure."""
        value = self.value(table, model, row, column)
        assert value is not None, f"{table}, {model}, {row}, {column} holds no figure"
        return constant(int(value)) if table == "table12" else figure(value, decimals(table, column))

    def claim(self, name: str, decimals: int) -> Quantity:
        """Return the quantity behind a figure of the text, printed with so many decimals."""
        return figure(self.claims[name].value, decimals)


PAPER = Printed(tables=TABLES, claims=TEXT_CLAIMS)


def setting(name: str) -> Quantity:
    """Return a count that the paper fixes."""
    value = HYPERPARAMETERS[name].value
    assert isinstance(value, int), f"{name} is no count"
    return constant(value)
