"""Reader of the AM-DeepSeek-R1-Distilled-1.4M record format, the source of the paper's pools (App. E.2, E.3).

One JSON object a line, `messages` with a user and an assistant turn, each with an `info`. This only reads; which
records enter a pool is decided elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundation.files import canonical_json
from foundation.records import Malformed, Record, read_records

_THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class AmRecord:
    """One record. `response` is the whole assistant text, `think` and `answer` its two parts (None if it has none).

    `source`, `reference_answer` and `test_case` come from the first message's info; a structured test case is kept
    as JSON text. `absent` names those of these fields that the first message's info does not even have.
    """

    line: int
    question: str
    response: str
    think: str | None
    answer: str | None
    source: str | None
    reference_answer: str | None
    test_case: str | None
    absent: tuple[str, ...] = ()


class NoText(ValueError):
    """A record without a user or an assistant message, or with an empty one: of the right form, but of no use."""


def read_am_corpus(path: Path) -> Iterator[AmRecord | Malformed]:
    """Yield the records of a .jsonl, .jsonl.gz or .jsonl.zst file one by one; broken ones with file, line, reason.

    Raises:
        InputError: the compressed file is damaged.
        PrerequisiteError: a .zst file without the zstandard package.
    """
    for record in read_records(path):
        if isinstance(record, Malformed):
            yield record
            continue
        try:
            yield parse_record(record)
        except ValueError as error:
            yield Malformed(str(path), record.line, str(error))


def parse_record(record: Record) -> AmRecord:
    """Return one record of the corpus.

    Raises:
        NoText: it lacks a message that says something.
        ValueError: it does not have the corpus' form.
    """
    messages = record.row.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise ValueError("has no list of messages")
    user, assistant = _turn(messages, "user"), _turn(messages, "assistant")
    question, response = _content(user, "user"), _content(assistant, "assistant")
    # The reference answer is the first message's, whoever speaks there (as in the paper's code).
    about, reply = _info(messages[0]), _info(assistant)
    return AmRecord(
        line=record.line,
        question=question,
        response=response,
        think=_part(reply.get("think_content"), _THINK, response),
        answer=_part(reply.get("answer_content"), _ANSWER, response),
        source=_text(about.get("source")),
        reference_answer=_text(about.get("reference_answer")),
        test_case=_text(about.get("test_case")),
        absent=tuple(name for name in ("source", "reference_answer", "test_case") if name not in about),
    )


def _turn(messages: list[dict[str, Any]], role: str) -> dict[str, Any]:
    for message in messages:
        if message.get("role") == role:
            return message
    raise NoText(f"has no {role} message")


def _content(message: dict[str, Any], role: str) -> str:
    content = message.get("content")
    if not isinstance(content, str):
        raise ValueError(f"the {role} message's content should be text, found {type(content).__name__}")
    if not content.strip():
        raise NoText(f"the {role} message has no text")
    return content


def _info(message: dict[str, Any]) -> dict[str, Any]:
    info = message.get("info")
    if info is None:
        return {}
    if not isinstance(info, dict):
        raise ValueError(f"info should be an object, found {type(info).__name__}")
    return info


def _part(given: Any, pattern: re.Pattern[str], response: str) -> str | None:
    """Some copies lack the parts in `info`; they are then cut out of the text."""
    if isinstance(given, str):
        return given
    match = pattern.search(response)
    return match[1] if match else None


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return canonical_json(value)
