"""The shape of a training example, and the account of what was read, kept and dropped on the way to a pool."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from evaluation.problem import AnswerType
from foundation.errors import InputError
from foundation.records import Malformed

MALFORMED = "malformed"
MALFORMED_LIMIT = 0.01
_SHOWN = 5
_SEPARATORS = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One training example. `completion` is in the paper's tag format, `gold` is the bare answer.

    `answer_type` and `options` say how a rollout's answer is compared with the gold (evaluation.problem.Problem). A
    rollout of a programming task is tested instead: `row` holds the tests in the row format of the code benchmark that
    `style` names.
    """

    id: str
    question: str
    completion: str
    gold: str
    source: str
    answer_type: AnswerType = "expression"
    options: tuple[str, ...] = ()
    style: str = ""
    row: dict[str, Any] | None = None

    def to_row(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Example:
        """Build from the JSON form."""
        return cls(**dict(row) | {"options": tuple(row.get("options", ()))})


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolReport:
    """How many records were read and kept, and how many dropped for which reason; nothing goes uncounted.

    `checked_against` names the test sets whose questions were kept out.
    """

    read: int
    kept: int
    dropped: Mapping[str, int]
    malformed: tuple[Malformed, ...] = ()
    checked_against: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        counted = self.kept + sum(self.dropped.values())
        assert counted == self.read, f"{self.read} read, but {counted} kept or dropped"
        assert self.dropped.get(MALFORMED, 0) == len(self.malformed)

    def __add__(self, other: PoolReport) -> PoolReport:
        return PoolReport(
            read=self.read + other.read,
            kept=self.kept + other.kept,
            dropped=dict(Counter(self.dropped) + Counter(other.dropped)),
            malformed=self.malformed + other.malformed,
            checked_against=tuple(dict.fromkeys(self.checked_against + other.checked_against)),
        )

    def to_row(self) -> dict[str, Any]:
        """Return the JSON form; malformed records are named by file name, not by path, so that it travels."""
        malformed = [f"{item.file.rpartition('/')[2]}:{item.line}: {item.reason}" for item in self.malformed]
        return {"read": self.read, "kept": self.kept, "dropped": dict(sorted(self.dropped.items())),
                "malformed": malformed, "checked_against": list(self.checked_against)}


def tagged_completion(reasoning: str, answer: str) -> str:
    r"""Return a completion in the paper's format: reasoning in think tags, then the boxed answer in answer tags."""
    return f"<think>\n{reasoning}\n</think>\n<answer>\\boxed{{{answer}}}</answer>"


def normalised_question(question: str) -> str:
    """Return a question without case, punctuation and spacing, to find it again in another copy of a data set."""
    folded = unicodedata.normalize("NFKC", question).casefold()
    return _SEPARATORS.sub(" ", folded).strip()


def stop_if_malformed(malformed: Sequence[Malformed], read: int) -> None:
    """Refuse a file of which more than 1 % of the records cannot be used.

    Raises:
        InputError: with the first few, each by file, line and reason.
    """
    if len(malformed) <= MALFORMED_LIMIT * read:
        return
    shown = "".join(f"\n  {item}" for item in malformed[:_SHOWN])
    more = f"\n  and {len(malformed) - _SHOWN} more" if len(malformed) > _SHOWN else ""
    raise InputError(f"{len(malformed)} of {read} training records are malformed, more than {MALFORMED_LIMIT:.0%}; "
                     f"fetch the file again or repair these lines:{shown}{more}")
