"""The one shape of an evaluation problem, whatever benchmark it comes from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

AnswerType = Literal["integer", "number", "choice", "expression", "code"]
CHOICE_LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One question with its gold answer, as bare text (no dollar signs, no box).

    `answer_type` is fixed by the benchmark: `integer` (GSM8K, AIME...), `number` (may be a written decimal: MAWPS),
    `choice` (gold is a letter; `options` holds the texts of A, B, ... in order), `expression` (LaTeX: MATH500), `code`
    (gold is the reference program, empty where there is none). `source_id` is the benchmark's own id where it has ids
    that matter outside, `cluster` names what it shares with other problems (a passage).
    """

    id: str
    question: str
    gold: str
    answer_type: AnswerType
    options: tuple[str, ...] = ()
    source_id: str | None = None
    cluster: str | None = None

    def to_row(self) -> dict[str, Any]:
        """Return the JSON form, without the fields that are absent."""
        row = asdict(self) | {"options": list(self.options)}
        return {name: value for name, value in row.items() if value is not None}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Problem:
        """Build from the JSON form."""
        return cls(**(row | {"options": tuple(row["options"])}))
