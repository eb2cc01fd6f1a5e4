"""Reads JSON lines of unknown origin: every line that is not blank becomes an item, whatever is wrong with it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from foundation.errors import InputError

_ID = re.compile(rb'"(?:id|task_id|doc_id)"\s*:\s*("(?:[^"\\]|\\.){1,200}"|-?\d{1,18})')
_ID_WINDOW = 4096


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its JSON object, or what is wrong with it and, where it can be seen, its id."""

    number: int
    row: dict[str, Any] | None
    identity: Any = None
    trouble: str = ""


def read_lines(path: str) -> Iterator[Line]:
    """Yield the lines of a file, or of the standard input for "-".

    Raises:
        InputError: the file cannot be opened.
    """
    if path == "-":
        yield from _lines(sys.stdin.buffer)
        return
    try:
        with Path(path).open("rb") as file:
            yield from _lines(file)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; name a file of JSON lines") from error


def _lines(file: IO[bytes]) -> Iterator[Line]:
    for number, content in enumerate(file, start=1):
        if content.strip():
            yield _line(number, content)


def _line(number: int, content: bytes) -> Line:
    if number == 1:
        content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        return _broken(number, content, f"invalid UTF-8 (byte {content[error.start]:#04x} at {error.start})")
    try:
        row = json.loads(text, strict=False)  # a raw null byte or tab inside a string is still its character
    except RecursionError:
        return _broken(number, content, "JSON nested too deep")
    except ValueError as error:
        return _broken(number, content, f"not a JSON line ({error}); it may be truncated")
    if not isinstance(row, dict):
        return _broken(number, b"", f"expected a JSON object, found {type(row).__name__}")
    return Line(number, row)


def _broken(number: int, content: bytes, trouble: str) -> Line:
    found = _ID.search(content[:_ID_WINDOW])
    identity: Any = None
    if found:
        try:
            identity = json.loads(found[1].decode("utf-8"))
        except ValueError:
            identity = None
    return Line(number, None, identity, f"line {number}: {trouble}")
