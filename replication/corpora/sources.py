"""The corpora as sources of a training run: a finished pool of the data root, or the AM corpus filtered on the way.

`am` is `corpora/math/` or `corpora/code/` of the data root, as `python -m replication.corpora` writes it there; where
that is missing, the corpus' two files in `am_deepseek_r1_distilled/` of the data root, else those of the hub, are
filtered in the step's own folder, which is kept across kills. `logic` is `corpora/logic/`: it needs a teacher, so that
it is never made on the way.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundation import hub, locks
from foundation.errors import ArtifactError, InputError, PrerequisiteError
from foundation.files import sha256_file, storage_error
from foundation.seeds import stream

CORPUS_SOURCES = (("am",), ("logic",))
AM_REPO = "a-m-team/AM-DeepSeek-R1-Distilled-1.4M"
_AM_FOLDER = "am_deepseek_r1_distilled"
_AM_NAMES = ("am_0.5M.jsonl", "am_0.9M.jsonl")
_ENDINGS = (".zst", "", ".gz")


@dataclass(frozen=True, slots=True)
class Origin:
    """What a pool would be made from: the identity of its content, and whether it is the whole of the corpus."""

    identity: tuple[tuple[str, str], ...]
    whole: bool = True
    root: Path | None = None
    """The data root that has it; None: the hub."""


def find(source: str, domain: str, data_root: Path | None, *, hashing: bool) -> Origin | None:
    """Find what the pool of a domain would be made from; None where there is nothing.

    Args:
        source: `am` or `logic`.
        domain: math, code or logic.
        data_root: the user's folder, or None. What it lacks the hub has, for the AM corpus only.
        hashing: whether corpus files may be hashed (seconds a GB) and the hub be asked; without, they have no identity.

    Raises:
        ArtifactError: the report of a finished pool cannot be read.
        PrerequisiteError: the hub cannot be reached.
    """
    report = None if data_root is None else _read_report(data_root / "corpora" / domain)
    if report is not None:
        whole = report.get("limit") is None and (report.get("identity") or {}).get("held_out") is None
        return Origin(((f"corpora/{domain}/pool.jsonl", str(report["pool_sha256"])),), whole, data_root)
    if source != "am":
        return None
    if data_root is not None and (files := _am_files(data_root)):
        return Origin(tuple((path.name, sha256_file(path)) for path in files) if hashing else (), root=data_root)
    entry = locks.hub_entry(AM_REPO)
    known = None if entry is None else entry.revision
    commit = hub.pinned_revision(AM_REPO, "dataset") if hashing else known
    return Origin(((f"hub:{AM_REPO}", commit),) if commit else ())


def how_to_get(source: str, domain: str, data_root: Path | None) -> str:
    """Say what to do where `find` finds nothing."""
    root = "DIR" if data_root is None else data_root
    teacher = " (it is distilled from a teacher, so that it is not made on the way)" if source == "logic" else ""
    return (f"the {domain} pool is missing{teacher}: `python -m replication.corpora {domain} --out {root}/corpora/"
            f"{domain} ...` builds it (--help), then name the folder with --data-root {root}")


def _am_files(data_root: Path) -> tuple[Path, ...]:
    """Both files of the corpus, compressed or not; none where one is missing (samples are not the corpus)."""
    found = [next((path for end in _ENDINGS if (path := data_root / _AM_FOLDER / (name + end)).is_file()), None)
             for name in _AM_NAMES]
    return tuple(path for path in found if path is not None) if None not in found else ()


def copy_pool(source: str, domain: str, data_root: Path | None, output: Path, scratch: Path, *, limit: int | None,
              seed: int, revision: str | None = None, workers: int | None = None,
              on_progress: Callable[[float], None] = lambda fraction: None) -> dict[str, Any]:
    """Write `pool.jsonl` (a seeded sample of at most `limit` examples) and `report.json`; return a step's notes.

    Args:
        source: `am` or `logic`.
        domain: math, code or logic; says which pool of the AM corpus.
        data_root: the user's folder; None for the hub.
        output: where the step's files go.
        scratch: a folder that is kept across kills.
        limit: examples at most; None for all.
        seed: of the sample.
        revision: commit of the hub's corpus; None: what the lock file says, or the newest.
        workers: processes that filter; None for the number of cores. Changes no byte.
        on_progress: told the fraction done.

    Raises:
        InputError: an unknown combination, an empty pool, or source files that cannot be used.
        PrerequisiteError: neither a pool nor source files are in the data root, or the hub cannot be reached.
        ArtifactError: the pool is not the one its report describes.
        StorageError: the disk is full or refuses.
    """
    if (source == "logic") != (domain == "logic"):
        raise InputError(f"training source {source!r} has no {domain} pool; `am` has math and code, `logic` has logic")
    folder = scratch if data_root is None else data_root / "corpora" / domain
    report = _finished(folder)
    if report is None:
        folder = scratch / "corpus"
        report = _filtered(source, domain, data_root, folder, revision, workers, on_progress)
    kept = int(report["pool"]["kept"])
    if kept == 0:
        raise InputError(f"no training example is left of {report['pool']['read']} read "
                         f"(dropped: {report['pool']['dropped']})")
    count = _copy_sample(folder / "pool.jsonl", output / "pool.jsonl", kept, limit, seed)
    (output / "report.json").write_text(json.dumps(report["pool"], indent=1) + "\n", encoding="utf-8")
    return {"examples": count, "generated": False, "report": report["pool"]}


def _read_report(folder: Path) -> dict[str, Any] | None:
    path = folder / "report.json"
    if not path.is_file():
        return None
    try:
        row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        row["pool_sha256"], row["pool"]["kept"]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is damaged ({type(error).__name__}: {error}); build the pool again "
                            "(python -m replication.corpora)") from error
    return row


def _finished(folder: Path) -> dict[str, Any] | None:
    row = _read_report(folder)
    pool = folder / "pool.jsonl"
    if row is not None and (not pool.is_file() or sha256_file(pool) != row["pool_sha256"]):
        raise ArtifactError(f"{pool} is not the file that report.json beside it describes; build it again "
                            "(python -m replication.corpora)")
    return row


def _filtered(source: str, domain: str, data_root: Path | None, folder: Path, revision: str | None,
              workers: int | None, on_progress: Callable[[float], None]) -> dict[str, Any]:
    from replication.corpora.building import Corpus, build

    files, fetched = _am_files(data_root) if data_root is not None and source == "am" else (), 0.0
    if data_root is None and source == "am":
        entry = locks.hub_entry(AM_REPO)
        names = sorted(entry.files) if entry is not None else [f"{name}.zst" for name in _AM_NAMES]
        files = tuple(hub.fetch_all(AM_REPO, names, repo_type="dataset", revision=revision,
                                    on_progress=lambda fraction: on_progress(fraction / 2)))
        fetched = 0.5
    if not files:
        raise PrerequisiteError(how_to_get(source, domain, data_root))
    places = {path.name: place for place, path in enumerate(files)}
    return build(Corpus(kind="math" if domain == "math" else "code", sources=files), folder, workers=workers,
                 on_progress=lambda name, read, kept: on_progress(
                     fetched + (1 - fetched) * places[name] / len(files)))


def _copy_sample(pool: Path, target: Path, kept: int, limit: int | None, seed: int) -> int:
    """Copy the chosen lines, in their order, without holding the pool in memory; return how many."""
    chosen = None
    if limit is not None and limit < kept:
        chosen = {int(i) for i in stream("pool-limit", seed).choice(kept, size=limit, replace=False)}
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(handle, "wb") as copy, pool.open("rb") as lines:
            if chosen is None:
                shutil.copyfileobj(lines, copy)
            else:
                copy.writelines(line for place, line in enumerate(lines) if place in chosen)
            copy.flush()
            os.fsync(copy.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise storage_error(error, target) or error from error
    return kept if chosen is None else len(chosen)
