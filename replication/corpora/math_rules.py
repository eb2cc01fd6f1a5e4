"""Which records of the AM corpus are the math pool (App. E.2; the rules in their order: docs/data.md, A-12).

1. a user and an assistant message that say something;
2. the reply is one think block, white space, then one answer block that holds a boxed expression;
3. the first message's info has a reference answer, and math-verify parses it (first match);
4. math-verify accepts the reply (LaTeX only, boxes first, first match, nothing without an anchor).

There is no filter of length, no removal of duplicates and none of test questions, unless asked for. The verdict is
math-verify's in every case. What is saved is work of which the outcome is known: its search for the box where
`boxes.lone_box` can tell, parsing and comparing what was parsed and compared before, and comparing plain numbers
(`_same_number`).

Time is bounded in processor seconds, so that a loaded machine gives the verdicts of an idle one.
"""

from __future__ import annotations

import re
import signal
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

from replication.corpora.boxes import lone_box
from replication.data.am_corpus import AmRecord
from replication.data.pool import normalised_question

FORMAT = "not one think block and one answer block with a box"
NO_FIELD = "the first message's info has no field reference_answer"
NO_REFERENCE = "no reference answer"
UNPARSED_REFERENCE = "reference answer does not parse"
NO_ANSWER = "answer does not parse"
DIFFERS = "answer differs from the reference"
LATE = "math-verify comes to no end"
IN_TEST_SET = "question stands in a test set"

LIMIT_SECONDS = 5.0  # of the processor, for one record; math-verify's own limits are 5 s of wall time each
_PATIENCE = 3  # the kernel ends a process that this many times the limit did not bring back (a step inside C code)
_KNOWN = 20_000
_RATIONAL = re.compile(r"(-?[1-9]\d{0,8}|0)|\\frac\{([1-9]\d{0,5})\}\{([1-9]\d{0,5})\}")
_DECIMAL = re.compile(r"\d{1,6}\.\d{1,4}")
_BETWEEN = re.compile(r"</think>\s*<answer>")


class _Late(BaseException):
    """The limit passed. Not an Exception: math-verify takes those for an answer that does not parse."""


class MathRules:
    """The rules, for one process, with bounded memory. `fast` changes the time that verdicts take, never what they are.

    `held_out` maps normalised questions that are left out to the title of their test set.
    """

    def __init__(self, held_out: Mapping[str, str] | None = None, *, fast: bool = True) -> None:
        self._held_out = held_out or {}
        self._fast = fast
        self._golds: OrderedDict[Hashable, list[Any]] = OrderedDict()
        self._answers: OrderedDict[Hashable, list[Any]] = OrderedDict()
        self._verdicts: OrderedDict[Hashable, str | None] = OrderedDict()

    def reason(self, record: AmRecord) -> str | None:
        """Return why the record is left out, or None."""
        reply = record.response.strip()
        if not well_formed(reply):
            return FORMAT
        if "reference_answer" in record.absent:
            return NO_FIELD
        if not record.reference_answer:
            return NO_REFERENCE
        try:
            reason = self._verdict(record.reference_answer, reply)
        except _Late:
            reason = LATE
        if reason is None and self._held_out:
            title = self._held_out.get(normalised_question(record.question))
            return f"{IN_TEST_SET} ({title})" if title else None
        return reason

    def row(self, record: AmRecord) -> dict[str, Any]:
        """Return the pool's row: the reply as it stands, its think block included."""
        return {"question": record.question.strip(), "completion": record.response.strip(),
                "gold": record.reference_answer, "source": record.source or "", "answer_type": "expression",
                "options": []}

    def _verdict(self, gold: str, reply: str) -> str | None:
        box = lone_box(reply) if self._fast else None
        if box is None:
            with _limited():
                return self._compare(gold, self._math.parse_reply(reply))
        content = box.removeprefix("\\boxed{")[:-1].strip()
        same = _same_number(gold, content)
        if same is not None:
            return None if same else DIFFERS
        return self._once(self._verdicts, (gold, box), lambda: self._compare_box(gold, box))

    def _compare_box(self, gold: str, box: str) -> str | None:
        with _limited():
            return self._compare(gold, self._once(self._answers, box, lambda: self._math.parse_box(box)))

    def _compare(self, gold: str, answer: list[Any]) -> str | None:
        parsed = self._once(self._golds, gold, lambda: self._math.parse_gold(gold))
        if not parsed:
            return UNPARSED_REFERENCE
        if self._math.accepts(parsed, answer):
            return None
        return DIFFERS if answer else NO_ANSWER

    @cached_property
    def _math(self) -> _MathVerify:
        return _MathVerify()

    def _once(self, known: OrderedDict[Hashable, Any], key: Hashable, find: Callable[[], Any]) -> Any:
        if not self._fast:
            return find()
        if key in known:
            known.move_to_end(key)
            return known[key]
        found = known[key] = find()
        if len(known) > _KNOWN:
            known.popitem(last=False)
        return found


class _MathVerify:
    """math-verify with the settings of the paper's code."""

    def __init__(self) -> None:
        import logging

        import math_verify
        from latex2sympy2_extended import NormalizationConfig
        from latex2sympy2_extended.math_normalization import normalize_latex
        from math_verify.parser import parse_latex_cached

        logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it warns that its own limits are off
        self._library, self._normalise, self._parse_latex = math_verify, normalize_latex, parse_latex_cached
        config = NormalizationConfig(nits=False, malformed_operators=False, basic_latex=True, boxed="all", units=True)
        self._targets = [math_verify.LatexExtractionConfig(
            normalization_config=config, boxed_match_priority=0, try_extract_without_anchor=False)]
        self._in_box = replace(config, boxed="last")

    def parse_gold(self, gold: str) -> list[Any]:
        return list(self._library.parse(gold, extraction_mode="first_match", parsing_timeout=None))

    def parse_reply(self, reply: str) -> list[Any]:
        return list(self._library.parse(reply, extraction_config=self._targets, extraction_mode="first_match",
                                        parsing_timeout=None))

    def parse_box(self, box: str) -> list[Any]:
        """Return what `parse_reply` returns for a reply whose answer is this box: the value, then its text."""
        try:
            text = self._normalise(box, config=self._in_box)
        except Exception:
            return []
        try:
            value = self._parse_latex(text)
        except Exception:
            value = None
        return [item for item in (value, text or None) if item is not None]

    def accepts(self, gold: list[Any], answer: list[Any]) -> bool:
        return bool(self._library.verify(gold, answer, timeout_seconds=None))


def _same_number(gold: str, answer: str) -> bool | None:
    r"""Say whether two plain numbers are the same to math-verify; None where they are not that plain.

    Plain are integers and `\frac{a}{b}`, the gold one also between dollars, and decimals that are written the same.
    """
    if gold == answer and _DECIMAL.fullmatch(gold):
        return True
    if len(gold) > 2 and gold[0] == gold[-1] == "$":
        gold = gold[1:-1]
    one, other = _RATIONAL.fullmatch(gold), _RATIONAL.fullmatch(answer)
    if one is None or other is None:
        return None
    over, under = int(one[1] or one[2]), int(one[3] or 1)
    return over * int(other[3] or 1) == int(other[1] or other[2]) * under


def well_formed(reply: str, *, box: bool = True) -> bool:
    r"""Say whether a reply matches `<think>.*?</think>\s*<answer>.*?\boxed{.*?}.*?</answer>`, in linear time.

    Without `box` the expression need not stand in the answer.
    """
    if not (reply.startswith("<think>") and reply.endswith("</answer>")):
        return False
    between = _BETWEEN.search(reply, len("<think>"))
    if between is None:
        return False
    end = between.end()
    if box:
        command = reply.find("\\boxed{", end)
        brace = reply.find("}", command + len("\\boxed{")) if command >= 0 else -1
        if brace < 0:
            return False
        end = brace + 1
    return end <= len(reply) - len("</answer>")


@contextmanager
def _limited() -> Iterator[None]:
    """Raise _Late after the limit; where that does not help, the kernel ends the process a little later."""
    before = signal.signal(signal.SIGVTALRM, _raise_late)
    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT_SECONDS)
    signal.setitimer(signal.ITIMER_PROF, _PATIENCE * LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGVTALRM, before)


def _raise_late(number: int, frame: Any) -> None:
    raise _Late
