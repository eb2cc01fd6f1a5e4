"""What the audit reports: a figure or sentence of the paper that does not come out, with its arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from replication.audit.quantities import Quantity, fixed, shown, unit

KINDS: dict[str, str] = {
    "grim": "a percentage that no number of right answers among the stated problems gives",
    "average": "a printed average outside the averages that its printed parts allow",
    "difference": "a printed difference, ratio or relative change outside what its printed parts allow",
    "count": "a count or share that does not follow from the printed counts",
    "text": "a figure of the text that differs from the table it refers to",
    "contradiction": "one quantity that two places print differently; what may explain it is named",
    "differs": "one quantity of two runs that are not the same (means of three trainings, other checkpoints): it may "
               "well differ, and does",
    "wording": "two passages that describe one thing differently; they were read, and nothing was computed",
    "claim": "a sentence that the printed figures do not bear out as worded",
    "recomputed": "a figure that plain recomputation does not give, though the rounding of its parts, or cutting off "
                  "further digits, does",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One fact: where it stands, the printed value, and the arithmetic beside it."""

    kind: str
    """One of KINDS."""
    table: str
    """`table1` to `table12`, or `text` for the running text and the figures."""
    row: str
    column: str
    value: float | None
    """As printed; None where a sentence, not a figure, is the subject."""
    arithmetic: str
    n: int | None = None
    """Answers that the percentage is taken over, where that matters."""
    model: str | None = None
    place: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as a JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: under which kind it counts, and what was found (None: it comes out)."""

    kind: str
    finding: Finding | None = None
    computed: bool = True
    """False for what was only read: it has no way to come out, and counts as no check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """The place of a printed figure."""

    table: str
    row: str
    column: str
    place: str
    model: str | None = None

    def found(self, kind: str, value: float | None, arithmetic: str, n: int | None = None) -> Finding:
        """Return a finding at this place."""
        return Finding(kind=kind, table=self.table, row=self.row, column=self.column, value=value, n=n,
                       arithmetic=arithmetic, model=self.model, place=self.place)


def rounds_to(value: Fraction, printed: Fraction, digits: int) -> bool:
    """Say whether a value rounds to the printed one, a tie either way."""
    return abs(value - printed) <= unit(digits) / 2


def recompute(kind: str, where: Where, printed: Fraction, digits: int, quantity: Quantity) -> Check:
    """Check a printed figure against its parts: it comes out, rounding or cut digits give it ("recomputed"), or not."""
    if rounds_to(quantity.plain, printed, digits):
        return Check(kind)
    half = unit(digits) / 2
    if quantity.atomic:  # one figure printed twice: nothing was computed that rounding could have moved
        said = f"printed {fixed(printed, digits)}; {quantity.text} where it is taken from"
        said += f"; differs by {shown(printed - quantity.plain, 4)}"
        return Check(kind, where.found(kind, float(printed), said))
    possible = quantity.low - half <= printed <= quantity.high + half
    said = (f"printed {fixed(printed, digits)}; recomputed {quantity.recomputed}; differs by "
            f"{shown(printed - quantity.plain, 4)}; with each part within half a unit of its last digit the result "
            f"lies in {quantity.interval}, which {'includes' if possible else 'excludes'} a value printed as "
            f"{fixed(printed, digits)}")
    cut = printed < quantity.plain < printed + unit(digits)
    if cut:
        said += f"; cutting off further digits gives {fixed(printed, digits)}"
    return Check(kind, where.found("recomputed" if possible or cut else kind, float(printed), said))


def differing(checks: Iterable[Check]) -> Iterator[Finding]:
    """Yield what was found."""
    for check in checks:
        if check.finding is not None:
            yield check.finding
