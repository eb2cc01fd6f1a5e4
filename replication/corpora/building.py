"""From source files to a pool: batches out, verdicts in, a journal between, one file at the end.

In the folder that the user names: `pool.jsonl`, `report.json`, `report.txt`, and while it is not finished `work/` with
a journal for each source. A run that was killed at any point goes on there, and ends with the same bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from foundation.errors import ArtifactError, InputError, StorageError
from foundation.files import canonical_json, sha256_file, storage_error, write_atomic
from replication.corpora import code_rules, math_rules
from replication.corpora.batches import NO_TEXT, Batch, Judged, in_order, read_batches
from replication.corpora.code_rules import CodeRules
from replication.corpora.journal import Journal
from replication.corpora.processes import MathProcesses
from replication.corpora.report import CorpusReport, SourceReport, as_text
from replication.data.pool import MALFORMED, PoolReport, stop_if_malformed

FORMAT_VERSION = 1  # raise it with every change that can move a byte of a pool
_EARLY = 1000  # records after which a source is judged as a whole
_FEW = 100
_BATCH = {"math": 64, "code": 8}
_COMMIT_BATCHES = 16
_STRUCTURE = (NO_TEXT, math_rules.FORMAT, math_rules.NO_FIELD, code_rules.FORMAT, code_rules.NO_FIELD)

Kind = Literal["math", "code"]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """What is built. `held_out` maps normalised questions that are left out to their test set's title."""

    kind: Kind
    sources: tuple[Path, ...]
    limit: int | None = None
    held_out: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if not self.sources:
            raise InputError("no source file is named; give --source FILE.jsonl.zst (repeatable)")
        for path in self.sources:
            if not path.is_file() or not os.access(path, os.R_OK):
                raise InputError(f"source file {path} does not exist, or may not be read")
        names = [path.name for path in self.sources]
        if len(set(names)) < len(names):
            raise InputError(f"name each source file once; got {', '.join(names)}")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"--limit {self.limit} must be at least 1")


def build(corpus: Corpus, out: Path, *, workers: int | None = None,
          on_progress: Progress = lambda source, read, kept: None) -> dict[str, Any]:
    """Write a pool and its report into `out`; return the report's JSON form.

    Args:
        corpus: what to build.
        out: the folder; a finished pool of the same request in it is left as it is.
        workers: processes (math) or programs (code) at a time; None for the number of cores. Changes no byte.
        on_progress: told the source's name and the records read and kept of it, now and then.

    Raises:
        InputError: a source is damaged or of another form, or `out` holds other work.
        PrerequisiteError: a package or an isolation is missing.
        StorageError: the disk is full or refuses. Finished work is kept: run the same command again.
    """
    workers = workers or len(os.sched_getaffinity(0))
    if workers < 1:
        raise InputError(f"--workers {workers} must be at least 1")
    try:
        with _owned(out), _judge(corpus, workers) as (judge, settings):
            return _build(corpus, out, judge, settings, workers, on_progress)
    except OSError as error:
        raise storage_error(error, out) or error from error


def _build(corpus: Corpus, out: Path, judge: Callable[[Batch], Judged], settings: Mapping[str, Any], workers: int,
           on_progress: Progress) -> dict[str, Any]:
    identity = _identity(corpus, settings)
    hashes = [sha256_file(path) for path in corpus.sources]
    finished = _finished(out, identity, hashes)
    if finished is not None:
        return finished
    journals = []
    left = corpus.limit
    for number, (path, sha256) in enumerate(zip(corpus.sources, hashes, strict=True)):
        journal = Journal(out / "work", number, path.name, identity | {"sha256": sha256})
        _filter(corpus, path, journal, judge, workers, left, on_progress)
        left = None if left is None else left - journal.read
        journals.append(journal)
    return _publish(corpus, out, journals, hashes, settings, identity)


@contextlib.contextmanager
def _judge(corpus: Corpus, workers: int) -> Iterator[tuple[Callable[[Batch], Judged], dict[str, Any]]]:
    if corpus.kind == "math":
        from evaluation.graders.math import grader_versions

        versions = {name: value for name, value in grader_versions().items() if name != "grader"}
        with MathProcesses(corpus.held_out) as processes:
            yield processes, versions | {"limit_seconds": math_rules.LIMIT_SECONDS}
    else:
        with CodeRules(corpus.held_out, workers=workers) as rules:
            yield rules, rules.settings()


def _identity(corpus: Corpus, settings: Mapping[str, Any]) -> dict[str, Any]:
    held_out = corpus.held_out or {}
    return {"format": FORMAT_VERSION, "kind": corpus.kind, "limit": corpus.limit, "settings": dict(settings),
            "held_out": _digest(canonical_json(dict(held_out))) if held_out else None}


def _digest(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


def _filter(corpus: Corpus, path: Path, journal: Journal, judge: Callable[[Batch], Judged], workers: int,
            limit: int | None, on_progress: Progress) -> None:
    """Go through what is left of one source."""
    if journal.finished:
        return
    batches = read_batches(path, records=_BATCH[corpus.kind], skip=journal.read, limit=limit)
    results = in_order(judge, batches, workers)
    with journal, contextlib.closing(results):
        waiting, count = Judged(), 0
        for judged in results:
            waiting.add(judged)
            count += 1
            if count == _COMMIT_BATCHES:
                journal.commit(waiting)
                waiting, count = Judged(), 0
                on_progress(path.name, journal.read, journal.kept)
                if journal.read >= _EARLY:
                    _refuse_changed_form(journal, path)
        journal.commit(waiting)
        if journal.read == 0 and limit != 0:
            raise InputError(f"{path} holds no records; fetch it again")
        _refuse_changed_form(journal, path)
        journal.commit(Judged(), finished=True)
    on_progress(path.name, journal.read, journal.kept)


def _refuse_changed_form(journal: Journal, path: Path) -> None:
    """Raise InputError for a source whose records are of another form, before hours go into dropping them all."""
    if journal.read >= _FEW or len(journal.malformed) == journal.read:
        stop_if_malformed(journal.malformed, journal.read)
    structure = {reason: journal.dropped[reason] for reason in _STRUCTURE if journal.dropped[reason]}
    looked_at = journal.read - len(journal.malformed) - journal.dropped[code_rules.NO_TESTS]
    if journal.read >= _FEW and looked_at and sum(structure.values()) == looked_at:
        counts = "; ".join(f"{count} of {journal.read}: {reason}" for reason, count in structure.items())
        raise InputError(f"{path} does not hold records of the form that docs/data.md describes ({counts}); fetch the "
                         "published file, or name another one")


def _publish(corpus: Corpus, out: Path, journals: Sequence[Journal], hashes: Sequence[str],
             settings: Mapping[str, Any], identity: Mapping[str, Any]) -> dict[str, Any]:
    pool = out / "pool.jsonl"
    _join(pool, f"am-{corpus.kind}", journals)
    checked = tuple(dict.fromkeys((corpus.held_out or {}).values()))
    sources = tuple(SourceReport(name=journal.source, sha256=sha256, pool=_pool_report(journal, checked))
                    for journal, sha256 in zip(journals, hashes, strict=True))
    row = CorpusReport(kind=corpus.kind, sources=sources, pool_sha256=sha256_file(pool), limit=corpus.limit,
                       settings=settings).to_row() | {"identity": dict(identity)}
    write_atomic(out / "report.txt", as_text(row))
    write_atomic(out / "report.json", json.dumps(row, indent=1) + "\n")
    shutil.rmtree(out / "work")
    return row


def _pool_report(journal: Journal, checked: tuple[str, ...]) -> PoolReport:
    dropped = dict(journal.dropped) | ({MALFORMED: len(journal.malformed)} if journal.malformed else {})
    return PoolReport(read=journal.read, kept=journal.kept, dropped=dropped, malformed=tuple(journal.malformed),
                      checked_against=checked)


def _join(pool: Path, prefix: str, journals: Sequence[Journal]) -> None:
    """Write all rows into one file, atomically, each with its running number as its id."""
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(dir=pool.parent, prefix=f".{pool.name}.")
        with os.fdopen(handle, "wb") as file:
            number = 0
            for journal in journals:
                for row in journal.rows():
                    file.write(f'{{"id": "{prefix}-{number}", '.encode() + row[1:])
                    number += 1
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, pool)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise storage_error(error, pool) or error from error


def _finished(out: Path, identity: Mapping[str, Any], hashes: Sequence[str]) -> dict[str, Any] | None:
    """Return the report of a pool that is already there and whole; what a kill left beside it is removed."""
    path = out / "report.json"
    if not path.is_file():
        return None
    try:
        row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path} is damaged ({error}); remove {out} and build again") from error
    if row.get("identity") != json.loads(json.dumps(identity)) or [s["sha256"] for s in row["sources"]] != hashes:
        raise InputError(f"{out} holds a pool of another request (other sources, limit or versions); name another "
                         "--out, or remove this folder")
    pool = out / "pool.jsonl"
    if not pool.is_file() or sha256_file(pool) != row["pool_sha256"]:
        raise ArtifactError(f"{pool} is not the file that {path} describes; remove {out} and build again")
    shutil.rmtree(out / "work", ignore_errors=True)
    return row


@contextlib.contextmanager
def _owned(out: Path) -> Iterator[None]:
    """Hold the folder for this process alone."""
    try:
        (out / "work").mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("w")
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"--out {out} is not a folder") from error
    except OSError as error:
        raise storage_error(error, out) or StorageError(
            f"cannot write {out}: {error.strerror}; name a folder you may write to") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"another process is building in {out}; wait for it, or name another --out") from error
        yield
