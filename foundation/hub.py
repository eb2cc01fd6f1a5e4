"""Fetching from the Hugging Face hub, pinned: the first fetch records commit and sha256, every later one checks them.

Files go to the hub client's own cache (HF_HOME). Nothing is imported from the client before it is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from foundation.errors import PrerequisiteError
from foundation.files import sha256_file, storage_error
from foundation.locks import LOCK_PATH, RepoType, hub_entry, record_hub_file, record_hub_revision
from foundation.records import verify_sha256


def fetch(repo_id: str, filename: str, *, repo_type: RepoType, lock: Path = LOCK_PATH) -> Path:
    """Return the local path of a hub file, fetched at the recorded commit or, the first time, at the newest.

    Raises:
        PrerequisiteError: the hub cannot be reached, or does not give the file.
        InputError: the content differs from the recorded hash.
        StorageError: no space for it.
    """
    entry = hub_entry(repo_id, lock)
    pinned = entry.revision if entry else None
    expected = entry.files.get(filename) if entry else None
    path = _cached(repo_id, filename, repo_type, pinned) if pinned else None
    revision = pinned or ""
    if path is None:
        path, revision = _download(repo_id, filename, repo_type, pinned)
    if expected is not None:
        verify_sha256(path, expected)
    else:
        record_hub_file(repo_id, filename, repo_type=repo_type, revision=revision, sha256=sha256_file(path), lock=lock)
    return path


def pinned_revision(repo_id: str, repo_type: RepoType, lock: Path = LOCK_PATH) -> str:
    """Return the recorded commit of a repository; asks the hub for the newest and records it where there is none.

    Raises:
        PrerequisiteError: the hub cannot be reached.
    """
    entry = hub_entry(repo_id, lock)
    if entry is not None and entry.revision is not None:
        return entry.revision
    from huggingface_hub import HfApi

    try:
        revision = str(HfApi().repo_info(repo_id, repo_type=repo_type).sha)
    except _failures() as error:
        raise _unreachable(repo_id, "the newest commit", repo_type, error) from error
    record_hub_revision(repo_id, repo_type=repo_type, revision=revision, lock=lock)
    return revision


def _failures() -> tuple[type[Exception], ...]:
    """The client's errors by their own bases, so that a failed connection is met whatever HTTP library it rides on."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    return (EntryNotFoundError, *cast("tuple[type[Exception], ...]", HfHubHTTPError.__bases__))


def _cached(repo_id: str, filename: str, repo_type: RepoType, revision: str) -> Path | None:
    """A pinned file that is already here needs no network."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(str(hf_hub_download(repo_id, filename, repo_type=repo_type, revision=revision,
                                        local_files_only=True)))
    except LocalEntryNotFoundError:
        return None


def _download(repo_id: str, filename: str, repo_type: RepoType, pinned: str | None) -> tuple[Path, str]:
    from huggingface_hub import HfApi, constants, hf_hub_download

    try:
        # Asked first also for a pinned commit: without a network this fails at once, a download after 20 s of retries.
        revision = str(HfApi().repo_info(repo_id, repo_type=repo_type, revision=pinned).sha)
        return Path(str(hf_hub_download(repo_id, filename, repo_type=repo_type, revision=revision))), revision
    except _failures() as error:
        storage = storage_error(error, Path(constants.HF_HUB_CACHE)) if isinstance(error, OSError) else None
        raise storage or _unreachable(repo_id, filename, repo_type, error) from error


def _unreachable(repo_id: str, filename: str, repo_type: RepoType, error: Exception) -> PrerequisiteError:
    instead = (
        "without the hub, name a folder with the data files: --data-root DIR or WMSS_DATA_ROOT"
        if repo_type == "dataset"
        else "fetch it on a machine that reaches the hub and set HF_HOME to that cache (a gated model also needs its "
        "licence accepted and `hf auth login`)"
    )
    return PrerequisiteError(f"cannot fetch {filename} of the hub {repo_type} {repo_id}: "
                             f"{type(error).__name__}: {str(error).strip()}; {instead}")
