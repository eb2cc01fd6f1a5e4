"""The corpora as sources of a training run: a finished pool of the data root, or the AM corpus' files filtered now.

`am` is `corpora/math/` or `corpora/code/` of the data root, as `python -m replication.corpora` writes it there; where
that is missing, the files `am_deepseek_r1_distilled/*.jsonl*` are filtered in the step's own folder, which is kept
across kills. `logic` is `corpora/logic/`: it needs a teacher, so that it is never made on the way.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from foundation.errors import ArtifactError, InputError, PrerequisiteError
from foundation.files import sha256_file, storage_error
from foundation.seeds import stream

CORPUS_SOURCES = (("am",), ("logic",))
_AM_FILES = "am_deepseek_r1_distilled/*.jsonl*"


def copy_pool(source: str, domain: str, data_root: Path, output: Path, scratch: Path, *, limit: int | None, seed: int,
              on_progress: Callable[[float], None] = lambda fraction: None) -> dict[str, Any]:
    """Write `pool.jsonl` (a seeded sample of at most `limit` examples) and `report.json`; return a step's notes.

    Args:
        source: `am` or `logic`.
        domain: math, code or logic; says which pool of the AM corpus.
        data_root: the user's folder.
        output: where the step's files go.
        scratch: a folder that is kept across kills.
        limit: examples at most; None for all.
        seed: of the sample.
        on_progress: told the fraction done.

    Raises:
        InputError: an unknown combination, an empty pool, or source files that cannot be used.
        PrerequisiteError: neither a pool nor source files are in the data root.
        ArtifactError: the pool is not the one its report describes.
        StorageError: the disk is full or refuses.
    """
    if (source == "logic") != (domain == "logic"):
        raise InputError(f"training source {source!r} has no {domain} pool; `am` has math and code, `logic` has logic")
    folder = data_root / "corpora" / domain
    report = _finished(folder) if (folder / "report.json").is_file() else None
    if report is None:
        folder = scratch / "corpus"
        report = _filtered(source, domain, data_root, folder, on_progress)
    kept = int(report["pool"]["kept"])
    if kept == 0:
        raise InputError(f"no training example is left of {report['pool']['read']} read "
                         f"(dropped: {report['pool']['dropped']})")
    count = _copy_sample(folder / "pool.jsonl", output / "pool.jsonl", kept, limit, seed)
    (output / "report.json").write_text(json.dumps(report["pool"], indent=1) + "\n", encoding="utf-8")
    return {"examples": count, "generated": False, "report": report["pool"]}


def _finished(folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    pool = folder / "pool.jsonl"
    if not pool.is_file() or sha256_file(pool) != row["pool_sha256"]:
        raise ArtifactError(f"{pool} is not the file that report.json beside it describes; build it again "
                            "(python -m replication.corpora)")
    return row


def _filtered(source: str, domain: str, data_root: Path, folder: Path,
              on_progress: Callable[[float], None]) -> dict[str, Any]:
    from replication.corpora.building import Corpus, build

    files = tuple(sorted(path for path in data_root.glob(_AM_FILES) if path.is_file()))
    if source == "logic" or not files:
        needed = "" if source == "logic" else f", or the corpus' files at {data_root / _AM_FILES}"
        raise PrerequisiteError(f"the {domain} pool is missing: {data_root / 'corpora' / domain}/pool.jsonl{needed}; "
                                f"`python -m replication.corpora {domain} --help` says how to build it")
    places = {path.name: place for place, path in enumerate(files)}
    return build(Corpus(kind="math" if domain == "math" else "code", sources=files), folder,
                 on_progress=lambda name, read, kept: on_progress(places[name] / len(files)))


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
