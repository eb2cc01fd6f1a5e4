"""What a benchmark is, and how its files become problems: all of them, or an error that says what is missing.

An evaluation set is never shrunk in silence: a broken line, a missing field or a wrong count stops.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.problem import CHOICE_LETTERS, AnswerType, Problem
from foundation.errors import InputError, PrerequisiteError
from foundation.prompts import Domain, Style, system_prompt
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
    cluster: str | None = None


@dataclass(frozen=True, slots=True)
class Defect:
    """A fault of the published data that is known and kept, so that scores stay comparable.

    `kind` `repeated_id` is the only one that loading tolerates by name: any other repeated id is refused.
    """

    kind: str
    ids: tuple[str, ...]
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One evaluation set: what it is called, how many problems it has, where they lie and how a row is read.

    `name` is the command-line name, `title` the paper's column. `file` is relative to the data root. `hub_repo` is
    None where no hub copy of the paper's set is known. Revision and sha256 of both stand in the lock file. `parse`
    raises ValueError, with the reason, for a bad row. `version` says which edition of the set this is.
    """

    name: str
    title: str
    domain: Domain
    answer_type: AnswerType
    expected_count: int
    file: str
    hub_repo: str | None
    hub_files: tuple[str, ...]
    max_new_tokens: int
    parse: Callable[[dict[str, Any]], Parsed]
    version: str = ""
    known_defects: tuple[Defect, ...] = ()

    def system_prompt(self, style: Style) -> str:
        """Return the system prompt of the benchmark's domain, in a model's style (E.4)."""
        return system_prompt(style, self.domain)


def load_benchmark(benchmark: Benchmark, data_root: Path, expected_sha256: str | None = None) -> list[Problem]:
    """Return every problem of a benchmark from the user's folder, in file order; ids are `<name>-<position>` from 0.

    Raises:
        PrerequisiteError: the file is not there.
        InputError: it is not the recorded file, cannot be read, or does not hold exactly the expected problems.
    """
    return load_files(benchmark, [checked_path(benchmark, data_root, expected_sha256)])


def checked_path(benchmark: Benchmark, data_root: Path, expected_sha256: str | None) -> Path:
    """Return the path of a benchmark's file in the user's folder.

    Raises:
        PrerequisiteError: the file is not there.
        InputError: it is not the recorded file.
    """
    path = data_root / benchmark.file
    if not path.is_file():
        known = f" (sha256 {expected_sha256})" if expected_sha256 else ""
        raise PrerequisiteError(f"{benchmark.title}: data file {path}{known} is missing. {how_to_get(benchmark)}")
    if expected_sha256 is not None:
        verify_sha256(path, expected_sha256)
    return path


def load_files(benchmark: Benchmark, paths: Sequence[Path]) -> list[Problem]:
    """Return the problems of a benchmark from files that together hold it (a hub copy may be split).

    Raises:
        InputError: as for `load_benchmark`.
    """
    return [problem for problem, _ in load_rows(benchmark, paths)]


def load_rows(benchmark: Benchmark, paths: Sequence[Path]) -> list[tuple[Problem, dict[str, Any]]]:
    """Return the problems of a benchmark, each with the row it was read from.

    Raises:
        InputError: as for `load_benchmark`.
    """
    read = list(_parse_all(benchmark, paths))
    where = ", ".join(str(path) for path in paths)
    if not read:
        raise InputError(f"{benchmark.title}: {where} holds no problems; an empty benchmark has no score")
    _refuse_repeated_ids(benchmark, where, (item.source_id for item, _ in read))
    if len(read) != benchmark.expected_count:
        raise InputError(
            f"{benchmark.title}: {where} holds {len(read)} problems, expected {benchmark.expected_count}; "
            f"the file is incomplete or another version. {how_to_get(benchmark)}"
        )
    return [(_problem(benchmark, position, item), row) for position, (item, row) in enumerate(read)]


def _problem(benchmark: Benchmark, position: int, item: Parsed) -> Problem:
    # Samples made elsewhere name code and logic problems by the benchmark's own ids, mathematics by the question.
    source_id = None if benchmark.domain == "math" else item.source_id
    return Problem(id=f"{benchmark.name}-{position}", question=item.question, gold=item.gold, options=item.options,
                   answer_type=benchmark.answer_type, source_id=source_id, cluster=item.cluster)


def how_to_get(benchmark: Benchmark) -> str:
    """Return the sentence that tells a user where the data come from."""
    root = f"Name the folder that holds {benchmark.file} with --data-root DIR or WMSS_DATA_ROOT (layout: docs/data.md)"
    if benchmark.hub_repo is None:
        return f"{root}; no hub copy of this exact set is known, the paper's code repository has it"
    return (f"{root}, or give no data root: it is then fetched from the hub "
            f"(dataset {benchmark.hub_repo}: {', '.join(benchmark.hub_files)})")


def _parse_all(benchmark: Benchmark, paths: Sequence[Path]) -> Iterator[tuple[Parsed, dict[str, Any]]]:
    for path in paths:
        for record in read_records(path):
            if isinstance(record, Malformed):
                raise InputError(f"{benchmark.title}: {record}")
            yield _parse_one(benchmark, path, record), record.row


def _parse_one(benchmark: Benchmark, path: Path, record: Record) -> Parsed:
    try:
        parsed = benchmark.parse(record.row)
        _check(parsed, benchmark.answer_type)
    except ValueError as error:
        raise InputError(f"{benchmark.title}: {path}:{record.line}: {error}") from error
    return parsed


def _check(parsed: Parsed, answer_type: AnswerType) -> None:
    if not parsed.question.strip() or not (parsed.gold or answer_type == "code"):
        raise ValueError("the question or the gold answer is empty")
    if answer_type == "integer" and not _INTEGER.fullmatch(parsed.gold):
        raise ValueError(f"gold answer {parsed.gold!r} is not an integer")
    if answer_type == "number" and not _NUMBER.fullmatch(parsed.gold):
        raise ValueError(f"gold answer {parsed.gold!r} is not a number")
    if answer_type == "choice" and parsed.gold not in tuple(CHOICE_LETTERS[: len(parsed.options)]):
        raise ValueError(f"gold answer {parsed.gold!r} is not one of the {len(parsed.options)} options' letters")


def _refuse_repeated_ids(benchmark: Benchmark, where: str, ids: Iterable[str | None]) -> None:
    known = {name for defect in benchmark.known_defects if defect.kind == "repeated_id" for name in defect.ids}
    seen: set[str] = set()
    for source_id in ids:
        if source_id in seen and source_id not in known:
            raise InputError(f"{benchmark.title}: {where} holds the id {source_id!r} twice; fetch the file again")
        if source_id is not None:
            seen.add(source_id)
