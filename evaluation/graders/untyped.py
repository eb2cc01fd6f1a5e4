r"""Grading where no benchmark says of which type the answer is: the type follows from the gold answer and the options.

Options make a choice; so does a gold that is one letter A to E. A bare number is compared as a number, and an answer
that is no number (`2^5`, `\sqrt{16}`) as an expression with it. Everything else is an expression.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.graders.latex import normalise
from evaluation.graders.math import MathGrader, Verdict
from evaluation.problem import CHOICE_LETTERS, AnswerType, Problem

_INTEGER = re.compile(r"[+-]?(?:\d+|\d{1,3}(?:,\d{3})+)")
_DECIMAL = re.compile(r"[+-]?(?:\d+|\d{1,3}(?:,\d{3})+)?\.\d+")
_LETTER = re.compile(r"[A-E]")
_WRAPPED_LETTER = re.compile(r"\(?\s*([A-Ja-j])\s*[).]?")
_LABEL = re.compile(r"\s*\(?([A-J])[).:]\s*(\S.*)", re.DOTALL)
_NOT_A_NUMBER = "not one number"


def untyped_problem(identity: str, gold: str, options: Any = None) -> Problem:
    """Return a problem of the type that gold and options imply.

    Args:
        identity: the item's id.
        gold: bare LaTeX (no dollar signs, no box).
        options: absent, or letters ("ABCD"), a list of texts or letters, or a mapping from letters to texts.

    Raises:
        ValueError: the options cannot be read.
    """
    texts = option_list(options)
    gold = gold.strip()
    letter = _WRAPPED_LETTER.fullmatch(normalise(gold).replace("\\text{", "").replace("}", "")) if texts else None
    return Problem(id=identity, question="", gold=letter[1].upper() if letter else gold, options=texts,
                   answer_type=_answer_type(gold, texts))


def _answer_type(gold: str, options: tuple[str, ...]) -> AnswerType:
    if options or _LETTER.fullmatch(gold):
        return "choice"
    if _INTEGER.fullmatch(gold):
        return "integer"
    return "number" if _DECIMAL.fullmatch(gold) else "expression"


def option_list(options: Any) -> tuple[str, ...]:
    """Return the options' texts in the order of their letters; of bare letters, the letters themselves.

    Raises:
        ValueError: not letters, a list or a mapping, or not lettered A, B, C, ... without a gap.
    """
    if options is None or options == "" or options == [] or options == {}:
        return ()
    if isinstance(options, str):
        options = re.sub(r"[\s,;/()]", "", options).upper()
        if options != CHOICE_LETTERS[:len(options)]:
            raise ValueError(f"options {options[:20]!r} are not the letters A, B, C, ... in order")
        return tuple(options)
    if isinstance(options, Mapping):
        return _of_mapping(options)
    if isinstance(options, Sequence) and all(isinstance(option, str | int | float) for option in options):
        return _of_list([str(option) for option in options])
    raise ValueError(f"options should be letters, a list or a mapping, found {type(options).__name__}")


def _of_mapping(options: Mapping[Any, Any]) -> tuple[str, ...]:
    named = {str(key).strip("() .").upper(): str(value) for key, value in options.items()}
    letters = CHOICE_LETTERS[:len(named)]
    if len(named) != len(options) or set(named) != set(letters):
        raise ValueError(f"options are named {', '.join(sorted(named))[:60]}, expected A, B, C, ... without a gap")
    return tuple(named[letter] for letter in letters)


def _of_list(texts: list[str]) -> tuple[str, ...]:
    if len(texts) > len(CHOICE_LETTERS):
        raise ValueError(f"{len(texts)} options, at most {len(CHOICE_LETTERS)} can be lettered")
    labels = [_LABEL.fullmatch(text) for text in texts]
    if all(label and label[1] == letter for label, letter in zip(labels, CHOICE_LETTERS, strict=False)):
        return tuple(label[2].strip() for label in labels if label)
    return tuple(texts)


def grade_untyped(grader: MathGrader, problem: Problem, text: str) -> Verdict:
    """Grade a text against a problem from `untyped_problem`.

    Raises:
        GoldError: the gold answer does not parse.
    """
    verdict = grader.grade(problem, text)
    if problem.answer_type not in ("integer", "number") or verdict.reason != _NOT_A_NUMBER:
        return verdict
    as_expression = Problem(id=problem.id, question="", gold=problem.gold, answer_type="expression")
    other = grader.grade(as_expression, text)
    return other if other.extracted == verdict.extracted else verdict
