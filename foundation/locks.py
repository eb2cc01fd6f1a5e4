"""The lock file: which version of every external file the suite means, as hashes that were measured, never typed.

`files` maps the files of a data root to their sha256; `hub` maps each hub repository to its type, its commit and the
sha256 of its files. Commit and hashes of the hub are null until the first fetch writes them. A null is no check yet.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from foundation.errors import InputError, PrerequisiteError, StorageError
from foundation.files import storage_error, write_atomic
from foundation.records import verify_sha256

SHIPPED_LOCK = Path(__file__).with_name("lock.json")
LOCK_PATH = Path(os.environ.get("WMSS_LOCK") or SHIPPED_LOCK)
"""WMSS_LOCK names another one, for a checkout that cannot be written; until it exists the shipped one is read."""
RepoType = Literal["dataset", "model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HubEntry:
    """What the lock file knows of one hub repository; None where nothing was fetched yet."""

    type: RepoType
    revision: str | None
    files: Mapping[str, str | None]


def expected_sha256(file: str, lock: Path = LOCK_PATH) -> str | None:
    """Return the recorded sha256 of a data-root file, or None where none is recorded."""
    return _read(lock)["files"].get(file)


def check_data_file(data_root: Path, file: str, lock: Path = LOCK_PATH, *,
                    source: str = "docs/data.md says who publishes it") -> Path:
    """Return the path of a data-root file after checking that it is there and is the recorded one.

    Args:
        data_root: the user's folder.
        file: relative to it.
        lock: the lock file.
        source: where the file can be got, for the message.

    Raises:
        PrerequisiteError: it is missing.
        InputError: its content differs from the recorded hash.
    """
    path, expected = data_root / file, expected_sha256(file, lock)
    if not path.is_file():
        known = f" (sha256 {expected})" if expected else ""
        raise PrerequisiteError(f"data file {path}{known} is missing; name the folder that holds {file} with "
                                f"--data-root DIR or WMSS_DATA_ROOT. Where to get it: {source}")
    if expected is not None:
        verify_sha256(path, expected)
    return path


def hub_entry(repo_id: str, lock: Path = LOCK_PATH) -> HubEntry | None:
    """Return what is recorded of a hub repository, or None if the lock file does not name it."""
    entry = _read(lock)["hub"].get(repo_id)
    if entry is None:
        return None
    return HubEntry(type=entry["type"], revision=entry["revision"], files=dict(entry["files"]))


def record_hub_revision(repo_id: str, *, repo_type: RepoType, revision: str, lock: Path = LOCK_PATH) -> None:
    """Write the commit of a hub repository into the lock file, where it was null.

    Raises:
        InputError, StorageError: as for `record_hub_file`.
    """
    _record(repo_id, repo_type, revision, {}, lock)


def record_hub_file(
    repo_id: str, filename: str, *, repo_type: RepoType, revision: str, sha256: str, lock: Path = LOCK_PATH
) -> None:
    """Write commit and hash of a fetched hub file into the lock file, where they were null.

    Raises:
        InputError: another commit or hash is already recorded; neither is ever overwritten.
        StorageError: the lock file cannot be written.
    """
    _record(repo_id, repo_type, revision, {filename: sha256}, lock)


def _record(repo_id: str, repo_type: RepoType, revision: str, hashes: dict[str, str], lock: Path) -> None:
    try:
        with _exclusive(lock):
            _write(repo_id, repo_type, revision, hashes, lock)
    except StorageError as error:
        raise StorageError(f"{error}. The environment variable WMSS_LOCK names a lock file elsewhere; it begins as a "
                           f"copy of {SHIPPED_LOCK}") from error


def _write(repo_id: str, repo_type: RepoType, revision: str, hashes: dict[str, str], lock: Path) -> None:
    content = _read(lock)
    entry = content["hub"].setdefault(repo_id, {"type": repo_type, "revision": None, "files": {}})
    known = {"revision": entry["revision"], **{f"sha256 of {name}": entry["files"].get(name) for name in hashes}}
    new = {"revision": revision, **{f"sha256 of {name}": value for name, value in hashes.items()}}
    for what, value in new.items():
        if known[what] not in (None, value):
            raise InputError(f"{lock}: {repo_id} has the {what} {known[what]}, fetched was {value}; "
                             "to move to another version set the entry to null")
    if known == new:
        return
    entry["revision"] = revision
    entry["files"].update(hashes)
    write_atomic(lock, json.dumps(content, indent=2) + "\n")


def _read(lock: Path) -> dict[str, Any]:
    try:
        content = json.loads(lock.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if lock == LOCK_PATH != SHIPPED_LOCK:
            return _read(SHIPPED_LOCK)
        raise PrerequisiteError(f"the lock file {lock} is missing; restore it from the repository") from error
    except ValueError as error:
        raise InputError(f"the lock file {lock} is not JSON ({error}); restore it from the repository") from error
    if not (isinstance(content, dict) and isinstance(content.get("files"), dict)
            and isinstance(content.get("hub"), dict)):
        raise InputError(f"the lock file {lock} lacks 'files' or 'hub'; restore it from the repository")
    return content


@contextlib.contextmanager
def _exclusive(lock: Path) -> Iterator[None]:
    """Let one process at a time read and rewrite. The folder is locked: the file itself is replaced by the write."""
    try:
        if lock == LOCK_PATH:
            lock.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(lock.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise storage_error(error, lock) or error from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
