"""The one shape of an evaluation problem, whatever benchmark it comes from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

AnswerType = Literal["integer", "number", "choice", "expression"]
CHOICE_LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One question with its gold answer, as bare text (no dollar signs, no box).

    `answer_type` is fixed by the benchmark: `integer` (GSM8K, AIME...), `number` (may be a written decimal: MAWPS),
    `choice` (gold is a letter; `options` holds the texts of A, B, ... in order), `expression` (LaTeX: MATH500).
    """

    id: str
    question: str
    gold: str
    answer_type: AnswerType
    options: tuple[str, ...] = ()

    def to_row(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self) | {"options": list(self.options)}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Problem:
        """Build from the JSON form."""
        return cls(**(row | {"options": tuple(row["options"])}))
