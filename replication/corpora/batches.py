"""Batches of raw lines of a corpus, and what becomes of one: the unit of parallel work.

Lines stay bytes until a worker looks at them, so that reading keeps up with many workers. Batches depend on the file
alone, never on the number of workers.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol

from foundation.compressed import opened
from foundation.records import Malformed, parse_line
from replication.data.am_corpus import AmRecord, NoText, parse_record

NO_TEXT = "no user or no assistant text"
LONGEST_LINE = 32 << 20
_BATCH_BYTES = 4 << 20
_AHEAD = 3  # batches per worker between reading and writing


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive records of one file as (line number, line); None stands for a line that is too long to be one."""

    file: str
    lines: tuple[tuple[int, bytes | None], ...]

    def single(self) -> Iterator[Batch]:
        """Yield its records as batches of one."""
        return (Batch(self.file, (line,)) for line in self.lines)


@dataclass(slots=True)
class Judged:
    """What became of records: rows of the pool as JSON text without their id, and why the others are not in it."""

    read: int = 0
    kept: list[str] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    malformed: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: Judged) -> None:
        """Append what became of the records that follow."""
        self.read += other.read
        self.kept += other.kept
        self.dropped += other.dropped
        self.malformed += other.malformed


class Rules(Protocol):
    """What decides on a record."""

    def reason(self, record: AmRecord) -> str | None:
        """Return why the record is left out, or None if it belongs to the pool."""

    def row(self, record: AmRecord) -> dict[str, Any]:
        """Return the pool's row of a record that belongs to it, without its id."""


def judge(batch: Batch, rules: Rules) -> Judged:
    """Apply rules to the records of a batch."""
    result = Judged(read=len(batch.lines))
    for number, line in batch.lines:
        record = _record(batch.file, number, line)
        if isinstance(record, Malformed):
            result.malformed.append((number, record.reason))
            continue
        reason = NO_TEXT if record is None else rules.reason(record)
        if reason is not None:
            result.dropped[reason] += 1
        elif record is not None:
            result.kept.append(json.dumps(rules.row(record), ensure_ascii=False))
    return result


def _record(file: str, number: int, line: bytes | None) -> AmRecord | Malformed | None:
    if line is None:
        return Malformed(file, number, f"a line of more than {LONGEST_LINE >> 20} MiB")
    parsed = parse_line(file, number, line)
    if isinstance(parsed, Malformed):
        return parsed
    try:
        return parse_record(parsed)
    except NoText:
        return None
    except ValueError as error:
        return Malformed(file, number, str(error))


def read_batches(path: Path, *, records: int, skip: int = 0, limit: int | None = None) -> Iterator[Batch]:
    """Yield a file's lines that are not blank, in batches of so many (fewer where they are long).

    Args:
        path: .jsonl, also as .gz or .zst.
        records: lines per batch.
        skip: lines at the beginning to leave out.
        limit: lines to take at most, those left out included; None for all.

    Raises:
        InputError: the compressed file is damaged.
        PrerequisiteError: a .zst file without the zstandard package.
    """
    lines: list[tuple[int, bytes | None]] = []
    size = 0
    with opened(path) as file:
        for number, line in islice(_lines(file), skip, limit):
            lines.append((number, line))
            size += len(line or b"")
            if len(lines) == records or size >= _BATCH_BYTES:
                yield Batch(path.name, tuple(lines))
                lines, size = [], 0
    if lines:
        yield Batch(path.name, tuple(lines))


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes | None]]:
    number = 0
    while line := file.readline(LONGEST_LINE):
        number += 1
        if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = file.readline(LONGEST_LINE)
            yield number, None
        elif line.strip():
            yield number, line


def in_order(work: Callable[[Batch], Judged], batches: Iterable[Batch],
             workers: int) -> Generator[Judged, None, None]:
    """Yield what `work` makes of each batch, in their order, `workers` at a time and few ahead of the reader."""
    pending = iter(batches)
    executor = ThreadPoolExecutor(workers)
    window: deque[Future[Judged]] = deque()
    try:
        window.extend(executor.submit(work, batch) for batch in islice(pending, _AHEAD * workers))
        while window:
            yield window.popleft().result()
            window.extend(executor.submit(work, batch) for batch in islice(pending, 1))
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
