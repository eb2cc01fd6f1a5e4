"""Records of a data file somebody else wrote, each with its line, and what is wrong with those that cannot be read.

One reader for the layouts in which the paper's data come: JSON lines (also under a .json name, also compressed), one
JSON array, parquet. `foundation.files.read_jsonl` is for files the suite wrote itself, where any fault is an error;
here a broken line is a value, so that the caller can count it or stop, as its contract says.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from foundation.compressed import opened
from foundation.errors import InputError, PrerequisiteError
from foundation.files import sha256_file

_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Record:
    """One JSON object and the line at which it begins (in parquet: its row), counted from 1."""

    line: int
    row: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Malformed:
    """A record that cannot be used, and why."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


def read_records(path: Path) -> Iterator[Record | Malformed]:
    """Yield the records of a .jsonl, .json, .parquet file, the first two also as .gz or .zst, in file order.

    Blank lines are skipped. A JSON array with a syntax error has no next record to go on with, so it stops.

    Raises:
        InputError: the file is a broken array, or its compression is damaged or cut off.
        PrerequisiteError: reading it needs a package that is not installed.
    """
    if path.suffix == ".parquet":
        yield from _parquet_records(path)
        return
    with opened(path) as file:
        if _is_array(file):
            yield from _array_records(path, file)
        else:
            yield from _line_records(path, file)


def verify_sha256(path: Path, expected: str) -> None:
    """Check a file's content against a recorded hash.

    Raises:
        InputError: it differs.
    """
    found = sha256_file(path)
    if found != expected:
        raise InputError(
            f"{path} is not the recorded file: sha256 expected {expected}, found {found} ({path.stat().st_size} bytes; "
            "it may be truncated or another version). Restore the file, or set its entry in the lock file "
            "(foundation/lock.json) to null to accept another version"
        )


def _is_array(file: IO[bytes]) -> bool:
    """Tell by the first character, since AQuA's upstream .json is really JSON lines."""
    peeked: bytes = cast("io.BufferedReader", file).peek(64)
    return peeked.lstrip().startswith(b"[")


def _line_records(path: Path, file: IO[bytes]) -> Iterator[Record | Malformed]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            yield parse_line(str(path), number, line)


def parse_line(file: str, number: int, line: bytes) -> Record | Malformed:
    """Return the JSON object of one line, or what is wrong with it; `file` names where it stands."""
    try:
        value = json.loads(line.decode("utf-8"))
    # ValueError covers broken JSON, broken UTF-8 and integers of absurd length; the other, absurd nesting.
    except (ValueError, RecursionError) as error:
        return Malformed(file, number, f"not a JSON line ({error}); the file may be truncated")
    return _object(file, number, value)


def _object(file: str, number: int, value: Any) -> Record | Malformed:
    if isinstance(value, dict):
        return Record(number, value)
    return Malformed(file, number, f"expected a JSON object, found {type(value).__name__}")


def _array_records(path: Path, file: IO[bytes]) -> Iterator[Record | Malformed]:
    """Decode element by element, because `json.load` would lose the lines."""
    try:
        text = file.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error})") from error
    decoder, line, counted = json.JSONDecoder(), 1, 0
    position = _after_space(text, text.index("[") + 1)
    if text[position : position + 1] == "]":
        _refuse_rest(path, text, position + 1)
        return
    while True:
        line, counted = line + text.count("\n", counted, position), position
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise _broken_array(path, line, f"{error}") from error
        yield _object(str(path), line, value)
        position = _after_space(text, position)
        separator = text[position : position + 1]
        if separator == "]":
            _refuse_rest(path, text, position + 1)
            return
        if separator != ",":
            raise _broken_array(path, text.count("\n", 0, position) + 1, "expected ',' or ']'")
        position = _after_space(text, position + 1)


def _after_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _refuse_rest(path: Path, text: str, position: int) -> None:
    position = _after_space(text, position)
    if position != len(text):
        raise _broken_array(path, text.count("\n", 0, position) + 1, "text after the end of the array")


def _broken_array(path: Path, line: int, reason: str) -> InputError:
    return InputError(f"{path}:{line}: broken JSON array ({reason}); the file may be truncated: fetch it again")


def _parquet_records(path: Path) -> Iterator[Record | Malformed]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise PrerequisiteError(f"reading {path} needs pyarrow: `pip install pyarrow`") from error
    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable parquet file ({error}); fetch it again") from error
    for number, row in enumerate(rows, start=1):
        yield Record(number, row)
