"""Typed comparison of an extracted answer with the gold answer: integer, number or expression.

Numbers are compared as exact fractions. Expressions are compared by shape (`structure.py`); a leaf by its text, then as
an exact quantity, and only then symbolically in the worker. Nothing is compared within a tolerance, but for golds that
can only be roundings (`numbers.matches_gold`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from evaluation.graders.latex import MAX_CHARACTERS, compact, normalise, oversize
from evaluation.graders.numbers import (
    canonical_unit,
    gold_number,
    is_name,
    matches_gold,
    number_in,
    parse_quantity,
    units_conflict,
)
from evaluation.graders.structure import Shape, plain_words, read
from evaluation.graders.worker import SymbolicResult

Compare = Callable[[str, str], SymbolicResult]

_TRAILING_UNIT = re.compile(r"\s*(?:\\text\{([^{}]*)\}\s*(?:\^\s*\{?\s*([23])\s*\}?)?|°|%)$")
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
# An operation left to be done restates the question; it answers nothing unless gold itself is written so.
_UNDONE = re.compile(r"\\(?:sum|int|prod|lim|iint|oint|max|min|gcd|lcm|det)(?![a-zA-Z])|\?")
_OPTION = re.compile(r"\(([A-J])\)|([A-J])")
_OPTION_THEN_VALUE = re.compile(r"\(([A-J])\)(?:\s[^()]*)?")


@dataclass(frozen=True, slots=True)
class Decision:
    """`same` is None when the grader failed to decide; `reason` says how the decision was reached.

    `settled` is False when a limit of the machine (time, memory) had a part in it.
    """

    same: bool | None
    reason: str
    settled: bool = True


class Undecided(Exception):
    """A comparison that came to no end. `fault` says whose: the answer's or the grader's."""

    def __init__(self, reason: str, fault: str) -> None:
        super().__init__(reason)
        self.fault = fault


@lru_cache(maxsize=8192)
def gold_shape(gold: str) -> tuple[str, Shape]:
    """Return a gold answer's normalised text and shape."""
    text = normalise(gold)
    return text, read(text)


def compare_numbers(gold: str, answer: str) -> Decision:
    """Compare an answer with an integer or number gold."""
    if len(answer) > MAX_CHARACTERS:
        return Decision(False, f"answer longer than {MAX_CHARACTERS} characters")
    quantity = number_in(answer)
    if quantity is None:
        return Decision(False, "not one number")
    gold_quantity = gold_number(gold)
    if gold_quantity is not None and units_conflict(gold_quantity.unit, quantity.unit):
        return Decision(False, "another unit")
    return Decision(True, "equal number") if matches_gold(gold, quantity.value) else Decision(False, "another number")


def compare_expressions(gold: str, answer: str, symbolic: Compare) -> Decision:
    """Compare an answer with an expression gold."""
    if len(answer) > MAX_CHARACTERS:
        return Decision(False, f"answer longer than {MAX_CHARACTERS} characters")
    gold_text, shape = gold_shape(gold)
    text = normalise(answer)
    if not text:
        return Decision(False, "empty answer")
    if compact(text) == compact(gold_text):
        return Decision(True, "same text")
    if _UNDONE.search(text) and not _UNDONE.search(gold_text):
        return Decision(False, "an operation left undone")
    bound = oversize(text)
    if bound is not None:
        return Decision(False, f"answer refused before parsing: {bound}")
    try:
        same = _Comparison(symbolic).shapes(shape, read(text))
    except RecursionError:
        return Decision(False, "answer refused before parsing: nested too deep")
    except Undecided as undecided:
        return Decision(False if undecided.fault == "answer" else None, str(undecided), settled=False)
    return Decision(same, "equal expression" if same else "another expression")


class _Comparison:
    """One comparison of two shapes; `symbolic` settles the leaves that text and fractions cannot."""

    def __init__(self, symbolic: Compare) -> None:
        self.symbolic = symbolic

    def shapes(self, gold: Shape, answer: Shape) -> bool:
        if answer.kind == "equation" and gold.kind != "equation":
            return self._chain(gold, answer)
        if gold.kind == "equation":
            return self._equation(gold, answer)
        if gold.kind == "text":
            return self._text(gold, answer)
        if gold.kind != answer.kind:
            return False
        if gold.kind == "leaf":
            return self.leaves(gold.text, answer.text)
        if gold.kind == "based":
            return gold.text == answer.text and gold.mark == answer.mark
        if (gold.mark != answer.mark and gold.kind != "list") or len(gold.parts) != len(answer.parts):
            return False
        if gold.kind in ("list", "union"):
            return self._unordered(gold.parts, answer.parts)
        return all(self.shapes(one, other) for one, other in zip(gold.parts, answer.parts, strict=True))

    def _text(self, gold: Shape, answer: Shape) -> bool:
        r"""Words are compared as words; an option letter, gold `\text{(C)}`, also as the bare letter."""
        written = answer.text if answer.kind in ("text", "leaf") else ""
        option = _OPTION.fullmatch(gold.text.strip())
        if option:
            bare = _TEXT.sub(r"\1", written).strip()
            found = _OPTION.fullmatch(bare) or _OPTION_THEN_VALUE.fullmatch(bare)
            return found is not None and found[found.lastindex or 0] == option[option.lastindex or 0]
        return bool(written) and plain_words(gold.text) == plain_words(written)

    def _unordered(self, gold: tuple[Shape, ...], answer: tuple[Shape, ...]) -> bool:
        left = list(answer)
        for one in gold:
            match = next((other for other in left if one == other), None)
            if match is None:
                match = next((other for other in left if self.shapes(one, other)), None)
            if match is None:
                return False
            left.remove(match)
        return True

    def _chain(self, gold: Shape, answer: Shape) -> bool:
        """A value written as a chain: `x = 5`, `2 + 3 = 5`. Every member must be gold, but a name in front."""
        first, *members = answer.parts
        if not is_name(first.text):
            members = [read(first.text), *members]
        return all(self.shapes(gold, member) for member in members)

    def _equation(self, gold: Shape, answer: Shape) -> bool:
        """Gold `x = 5` also as `5`; gold `5x + 2y = 4` as any multiple of it."""
        named = is_name(gold.parts[0].text) and len(gold.parts) == 2
        if answer.kind != "equation":
            return named and self.shapes(gold.parts[1], answer)
        if named and is_name(answer.parts[0].text):
            return compact(gold.parts[0].text) == compact(answer.parts[0].text) and all(
                self.shapes(gold.parts[1], member) for member in answer.parts[1:])
        if len(gold.parts) != 2 or len(answer.parts) != 2:
            return False
        sides = [side.text for side in (*gold.parts, *answer.parts)]
        if not all(sides):
            return False
        return self._ask(f"EQ {sides[0]} = {sides[1]}", f"EQ {sides[2]} = {sides[3]}")

    def leaves(self, gold: str, answer: str) -> bool:
        """Compare two values."""
        if compact(gold) == compact(answer):
            return True
        one, other = parse_quantity(gold), parse_quantity(answer)
        if one is not None and other is not None:
            return one.value == other.value and not units_conflict(one.unit, other.unit)
        (gold, gold_unit), (answer, answer_unit) = _split_unit(gold), _split_unit(answer)
        if units_conflict(gold_unit, answer_unit):
            return False
        return bool(gold) and bool(answer) and (compact(gold) == compact(answer) or self._ask(gold, answer))

    def _ask(self, gold: str, answer: str) -> bool:
        result = self.symbolic(gold, answer)
        if result.status in ("equal", "different", "unparsed_answer"):
            return result.status == "equal"
        if result.status == "unparsed_gold":  # words among values: only their text counts
            return False
        fault = "answer" if result.stage == "answer" else "grader"
        raise Undecided(f"{result.status} at {result.stage} in the symbolic worker, twice", fault)


def _split_unit(text: str) -> tuple[str, str]:
    match = _TRAILING_UNIT.search(text)
    if match is None or match.start() == 0:
        return text, ""
    words = match[1] if match[1] is not None else match[0]
    return text[:match.start()].strip(), canonical_unit(words, match[2])


def gold_leaves(shape: Shape) -> list[str]:
    """Return the leaves of a gold that need the symbolic parser."""
    if shape.kind == "leaf":
        text = _split_unit(shape.text)[0]
        return [] if parse_quantity(shape.text) or parse_quantity(text) else [text]
    return [leaf for part in shape.parts for leaf in gold_leaves(part)]
