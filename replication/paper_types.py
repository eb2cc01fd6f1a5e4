"""The shapes in which the paper's figures are stored: tables, hyperparameters, claims of the text, assumptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Cell = float | int | str | bool | None
"""One printed figure, or a remark beside it. None: the paper prints a dash or a word where a number would stand."""

Rows = dict[str, dict[str, Cell]]
"""row -> column -> cell."""

Value = int | float | str | tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperTable:
    """One table of the paper: `values[model][row][column]`, the first model being the one other scales refer to."""

    id: str
    """`table1` to `table12`."""
    place: str
    """Where the table is discussed."""
    caption: str
    runs_per_cell: int | None
    """Training runs behind each figure; None where the paper does not say or where the table reports no training."""
    values: Mapping[str, Rows]
    note: str = ""
    """What a reader of the figures must know; empty where nothing is odd."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameter:
    """One setting the paper fixes."""

    name: str
    value: Value
    unit: str
    """Empty for plain numbers and names."""
    place: str
    """The section that prints it, e.g. `App. E.5`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextClaim:
    """One result that stands in the running text or in a figure, not in a table."""

    id: str
    place: str
    statement: str
    value: float
    unit: str
    approximate: bool = False
    """True where the paper itself writes about, more than, or within."""
    printed: str = ""
    """The figure with the digits it is printed with, e.g. `0.490`."""

    @property
    def text(self) -> str:
        """The figure as printed, with its `about`."""
        return f"{'about ' if self.approximate else ''}{self.printed or f'{self.value:g}'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumption:
    """One question the paper leaves open, the readings it admits, and the one taken here."""

    id: str
    question: str
    field: str | None
    """The setting that selects the reading; None where it is a rule of reporting or of the code."""
    options: tuple[str, ...]
    default: str
    """One of `options`."""
    reason: str
