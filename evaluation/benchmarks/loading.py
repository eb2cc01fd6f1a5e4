"""What a benchmark is, and how its files become problems: all of them, or an error that says what is missing.

An evaluation set is never shrunk in silence: a broken line, a missing field or a wrong count stops.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from evaluation.problem import CHOICE_LETTERS, AnswerType, Problem
from foundation.errors import InputError, PrerequisiteError
from foundation.records import Malformed, Record, read_records, verify_sha256

_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_INTEGER = re.compile(r"-?\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """What a parser takes from one row. `source_id` is the data set's own id where it has one."""

    question: str
    gold: str
    options: tuple[str, ...] = ()
    source_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One evaluation set: what it is called, how many problems it has, where they lie and how a row is read.

    `name` is the command-line name, `title` the paper's column. `file` is relative to the data root. `hub_repo` is
    None where no hub copy of the paper's set is known. `parse` raises ValueError, with the reason, for a bad row.
    """

    name: str
    title: str
    domain: Literal["math"]
    answer_type: AnswerType
    expected_count: int
    file: str
    hub_repo: str | None
    hub_files: tuple[str, ...]
    max_new_tokens: int
    parse: Callable[[dict[str, Any]], Parsed]


def load_benchmark(benchmark: Benchmark, data_root: Path, expected_sha256: str | None = None) -> list[Problem]:
    """Return every problem of a benchmark from the user's folder, in file order; ids are `<name>-<position>` from 0.

    Raises:
        PrerequisiteError: the file is not there.
        InputError: it is not the recorded file, cannot be read, or does not hold exactly the expected problems.
    """
    path = data_root / benchmark.file
    if not path.is_file():
        known = f" (sha256 {expected_sha256})" if expected_sha256 else ""
        raise PrerequisiteError(f"{benchmark.title}: data file {path}{known} is missing. {how_to_get(benchmark)}")
    if expected_sha256 is not None:
        verify_sha256(path, expected_sha256)
    return load_files(benchmark, [path])


def load_files(benchmark: Benchmark, paths: Sequence[Path]) -> list[Problem]:
    """Return the problems of a benchmark from files that together hold it (a hub copy may be split).

    Raises:
        InputError: as for `load_benchmark`.
    """
    parsed = list(_parse_all(benchmark, paths))
    where = ", ".join(str(path) for path in paths)
    if not parsed:
        raise InputError(f"{benchmark.title}: {where} holds no problems; an empty benchmark has no score")
    _refuse_repeated_ids(benchmark, where, (item.source_id for item in parsed))
    if len(parsed) != benchmark.expected_count:
        raise InputError(
            f"{benchmark.title}: {where} holds {len(parsed)} problems, expected {benchmark.expected_count}; "
            f"the file is incomplete or another version. {how_to_get(benchmark)}"
        )
    return [
        Problem(id=f"{benchmark.name}-{position}", question=item.question, gold=item.gold,
                answer_type=benchmark.answer_type, options=item.options)
        for position, item in enumerate(parsed)
    ]


def how_to_get(benchmark: Benchmark) -> str:
    """Return the sentence that tells a user where the data come from."""
    root = f"Name the folder that holds {benchmark.file} with --data-root DIR or WMSS_DATA_ROOT"
    if benchmark.hub_repo is None:
        return f"{root}; no hub copy of this exact set is known, the paper's code repository has it"
    return (f"{root}, or give no data root: it is then fetched from the hub "
            f"(dataset {benchmark.hub_repo}: {', '.join(benchmark.hub_files)})")


def _parse_all(benchmark: Benchmark, paths: Sequence[Path]) -> Iterator[Parsed]:
    for path in paths:
        for record in read_records(path):
            if isinstance(record, Malformed):
                raise InputError(f"{benchmark.title}: {record}")
            yield _parse_one(benchmark, path, record)


def _parse_one(benchmark: Benchmark, path: Path, record: Record) -> Parsed:
    try:
        parsed = benchmark.parse(record.row)
        _check(parsed, benchmark.answer_type)
    except ValueError as error:
        raise InputError(f"{benchmark.title}: {path}:{record.line}: {error}") from error
    return parsed


def _check(parsed: Parsed, answer_type: AnswerType) -> None:
    if not parsed.question.strip() or not parsed.gold:
        raise ValueError("the question or the gold answer is empty")
    if answer_type == "integer" and not _INTEGER.fullmatch(parsed.gold):
        raise ValueError(f"gold answer {parsed.gold!r} is not an integer")
    if answer_type == "number" and not _NUMBER.fullmatch(parsed.gold):
        raise ValueError(f"gold answer {parsed.gold!r} is not a number")
    if answer_type == "choice" and parsed.gold not in tuple(CHOICE_LETTERS[: len(parsed.options)]):
        raise ValueError(f"gold answer {parsed.gold!r} is not one of the {len(parsed.options)} options' letters")


def _refuse_repeated_ids(benchmark: Benchmark, where: str, ids: Iterable[str | None]) -> None:
    seen: set[str] = set()
    for source_id in ids:
        if source_id in seen:
            raise InputError(f"{benchmark.title}: {where} holds the id {source_id!r} twice; fetch the file again")
        if source_id is not None:
            seen.add(source_id)
