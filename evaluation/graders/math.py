"""The grader of math and multiple-choice answers: text in, verdict out.

Every verdict depends on the problem, the text and the finish reason alone, never on what was graded before.

An answer that cannot be parsed within the worker's limits, twice, is wrong (the answer's fault: its reason says so). A
comparison of two parsed sides that comes to no end, twice, is a grader failure: never scored 0, never left out.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.metadata import version
from types import TracebackType
from typing import Literal

from evaluation.graders.choice import compare_choice, extract_choice
from evaluation.graders.comparison import Decision, compare_expressions, compare_numbers, gold_leaves, gold_shape
from evaluation.graders.extraction import Extraction, extract
from evaluation.graders.fast import plain_integer
from evaluation.graders.latex import oversize
from evaluation.graders.numbers import gold_number
from evaluation.graders.quick import surely_different, surely_parses
from evaluation.graders.worker import SymbolicResult, SymbolicWorker
from evaluation.problem import CHOICE_LETTERS, Problem
from foundation.errors import GoldError, GraderError

GRADER_VERSION = 2  # raise it with every change that can move a verdict

Outcome = Literal["correct", "wrong", "no_answer", "grader_failure"]
_DIFFERENT = SymbolicResult("different", "compare")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one answer; `extracted` and `rule` tell which piece of the text was graded, and why that one.

    `settled` is False when a limit of the machine had a part in it: such a verdict is never cached.
    """

    outcome: Outcome
    extracted: str | None
    rule: str | None
    reason: str
    seconds: float
    settled: bool = True

    @property
    def correct(self) -> bool:
        """Whether the answer is right."""
        return self.outcome == "correct"


def grader_versions() -> dict[str, str | int]:
    """Return what a stored verdict must name: the grader's own version and those of the packages it stands on."""
    return {"grader": GRADER_VERSION} | {name: version(name) for name in
                                         ("math-verify", "sympy", "latex2sympy2_extended")}


class MathGrader:
    """Context manager; the symbolic worker starts when the first answer needs it, and ends with the block."""

    def __init__(self, worker: SymbolicWorker | None = None, *, fast_paths: bool = True) -> None:
        """Make a grader; `fast_paths` changes how long verdicts take, never what they are."""
        self._worker = worker or SymbolicWorker()
        self._fast = fast_paths

    def __enter__(self) -> MathGrader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._worker.close()

    def grade(self, problem: Problem, text: str, finish_reason: str = "stop") -> Verdict:
        """Grade one text.

        Args:
            problem: the question with its gold answer.
            text: all the model wrote.
            finish_reason: "length" marks a text that was cut off: nothing but a box or a closed answer block counts.

        Raises:
            GoldError: the gold answer does not parse for its type.
            GraderError: the problem asks for a program.
        """
        if problem.answer_type == "code":
            raise GraderError(f"{problem.id} asks for a program: those are graded by running them, not here")
        started = time.perf_counter()
        truncated = finish_reason == "length"
        if self._fast and problem.answer_type == "integer":
            plain, expected = plain_integer(text, truncated=truncated), _gold_integer(problem)
            if plain is not None and expected is not None:
                same = int(plain.answer) == expected
                decision = Decision(same, "equal number" if same else "another number")
                return _verdict(decision, plain, truncated, started)
        return self._grade(problem, text, truncated, started)

    def _grade(self, problem: Problem, text: str, truncated: bool, started: float) -> Verdict:
        if problem.answer_type == "choice":
            extraction = extract_choice(text, truncated=truncated)
        else:
            extraction = extract(text, truncated=truncated, numeric=problem.answer_type != "expression")
        if extraction is None or not extraction.answer.strip():
            reason = "truncated before an answer" if truncated else "no answer found"
            return Verdict("no_answer", None, None, reason, time.perf_counter() - started)
        return _verdict(self._compare(problem, extraction), extraction, truncated, started)

    def _compare(self, problem: Problem, extraction: Extraction) -> Decision:
        if problem.answer_type == "choice":
            _gold_letter(problem)
            return compare_choice(problem.gold, problem.options, extraction, self._symbolic)
        if problem.answer_type == "expression":
            return compare_expressions(problem.gold, extraction.answer, self._symbolic)
        if (problem.answer_type == "integer" and _gold_integer(problem) is None) or gold_number(problem.gold) is None:
            raise _gold_error(problem, f"is not one {problem.answer_type}")
        return compare_numbers(problem.gold, extraction.answer)

    def _symbolic(self, gold: str, answer: str) -> SymbolicResult:
        if self._fast and surely_different(gold, answer):
            return _DIFFERENT
        return self._worker.compare(gold, answer)

    def check_gold(self, problem: Problem) -> None:
        """Refuse a gold answer that does not parse for its type.

        Raises:
            GoldError: with the problem's id and gold.
            GraderError: the symbolic worker does not start.
        """
        if problem.answer_type == "code":
            return  # a reference program is checked by running it (`python -m evaluation verify`)
        if problem.answer_type == "choice":
            _gold_letter(problem)
        elif problem.answer_type == "integer":
            if _gold_integer(problem) is None:
                raise _gold_error(problem, "is not one integer")
        elif problem.answer_type == "number":
            if gold_number(problem.gold) is None:
                raise _gold_error(problem, "is not one number")
        else:
            self._check_expression(problem)

    def _check_expression(self, problem: Problem) -> None:
        text, shape = gold_shape(problem.gold)
        bound = oversize(text)
        if not text or bound is not None:
            raise _gold_error(problem, bound or "is empty")
        for leaf in gold_leaves(shape):
            if self._fast and surely_parses(leaf):
                continue
            status = self._worker.parse(leaf).status
            if status != "parsed":
                raise _gold_error(problem, f"does not parse as an expression ({status})")


def _verdict(decision: Decision, extraction: Extraction, truncated: bool, started: float) -> Verdict:
    outcome: Outcome = "grader_failure" if decision.same is None else "correct" if decision.same else "wrong"
    reason = decision.reason + (" (truncated)" if truncated and outcome != "correct" else "")
    return Verdict(outcome, extraction.answer[:4096], extraction.rule, reason, time.perf_counter() - started,
                   decision.settled)


def _gold_error(problem: Problem, what: str) -> GoldError:
    return GoldError(f"gold answer {problem.gold!r} of problem {problem.id!r} {what}; correct it in the data, or leave "
                     "the problem out and say so: it cannot be graded")


def _gold_letter(problem: Problem) -> None:
    letters = CHOICE_LETTERS[:len(problem.options)] if problem.options else CHOICE_LETTERS
    if len(problem.gold) != 1 or problem.gold not in letters:
        raise _gold_error(problem, f"is not one of the letters {letters}")


def _gold_integer(problem: Problem) -> int | None:
    quantity = gold_number(problem.gold)
    return int(quantity.value) if quantity is not None and quantity.value.denominator == 1 else None
