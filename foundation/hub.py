"""Fetching from the Hugging Face hub, pinned: the first fetch records commit and sha256, every later one checks them.

Files go to the hub client's own cache (HF_HOME), which shows a file only when it is whole. A connection that is cut
goes on where it broke; a process that is killed begins the file in work again, and finished files are kept. Nothing is
imported from the client before it is needed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from foundation.errors import InputError, StorageError
from foundation.files import sha256_file
from foundation.hub_errors import Asked, explained
from foundation.locks import LOCK_PATH, RepoType, hub_entry, record_hub_file, record_hub_revision

ATTEMPTS = 3
"""At a file whose connection broke in a way that the client does not resume by itself."""
ABANDONED_SECONDS = 3600
"""Since a partial file was last written: a download that lives writes every few seconds."""
_BROKEN = ("ReadError", "ReadTimeout", "RemoteProtocolError", "WriteError")
_SHA256 = re.compile("[0-9a-f]{64}")


def fetch(repo_id: str, filename: str, *, repo_type: RepoType, lock: Path = LOCK_PATH, revision: str | None = None,
          on_progress: Callable[[float], None] | None = None) -> Path:
    """Return the local path of a hub file, fetched at the recorded commit or, the first time, at the newest.

    With `revision`, what is fetched does not depend on the lock file, which on another machine may hold nothing yet,
    or may be one that cannot be written.

    Args:
        repo_id: `owner/name`.
        filename: within the repository.
        repo_type: model or dataset.
        lock: the lock file.
        revision: the commit that is meant, where the caller knows it.
        on_progress: told the fraction of this file that is here; None: the client shows a bar of its own.

    Raises:
        PrerequisiteError: the hub cannot be reached, or does not give the file; the message says how to get it.
        InputError: the content differs from the recorded hash; it was then removed from the cache. Or another commit
            than `revision` is recorded.
        StorageError: no space for it.
    """
    entry = hub_entry(repo_id, lock)
    pinned = _agreed(repo_id, entry.revision if entry else None, revision, lock)
    asked = Asked(repo_id=repo_id, repo_type=repo_type, what=filename, pinned=pinned, lock=lock)
    expected = entry.files.get(filename) if entry else None
    path = _cached(asked) if pinned else None
    commit = pinned or ""
    if path is None:
        path, commit = _download(asked, on_progress)
    found = sha256_file(path)
    if (should_be := expected or _published_sha256(path) or found) != found:
        raise _refused(path, asked, should_be, found, recorded=expected is not None)
    if expected is None:
        with contextlib.suppress(*(() if revision is None else (StorageError,))):
            record_hub_file(repo_id, filename, repo_type=repo_type, revision=commit, sha256=found, lock=lock)
    return path


def _agreed(repo_id: str, recorded: str | None, asked: str | None, lock: Path) -> str | None:
    if recorded is not None and asked is not None and recorded != asked:
        raise InputError(f"{lock} of this machine ({socket.gethostname()}) records commit {recorded} of {repo_id}, the "
                         f"step is of commit {asked}: the checkouts differ; copy the lock file of the machine that the "
                         "command was given on")
    return recorded or asked


def fetch_all(repo_id: str, filenames: Sequence[str], *, repo_type: RepoType, lock: Path = LOCK_PATH,
              revision: str | None = None, on_progress: Callable[[float], None] | None = None) -> list[Path]:
    """Return the local paths of several files of a repository, in their order; `on_progress` speaks of all together.

    Raises:
        PrerequisiteError, InputError, StorageError: as for `fetch`.
    """
    def part(done: int) -> Callable[[float], None] | None:
        if on_progress is None:
            return None
        return lambda fraction: on_progress((done + fraction) / len(filenames))

    return [fetch(repo_id, name, repo_type=repo_type, lock=lock, revision=revision, on_progress=part(done))
            for done, name in enumerate(filenames)]


def pinned_revision(repo_id: str, repo_type: RepoType, lock: Path = LOCK_PATH) -> str:
    """Return the recorded commit of a repository; asks the hub for the newest and records it where there is none.

    Raises:
        PrerequisiteError: the hub cannot be reached, or has no such repository.
    """
    entry = hub_entry(repo_id, lock)
    if entry is not None and entry.revision is not None:
        return entry.revision
    from huggingface_hub import HfApi

    try:
        revision = str(HfApi().repo_info(repo_id, repo_type=repo_type).sha)
    except _failures() as error:
        raise explained(error, Asked(repo_id=repo_id, repo_type=repo_type, what="the newest commit", pinned=None,
                                     lock=lock)) from error
    record_hub_revision(repo_id, repo_type=repo_type, revision=revision, lock=lock)
    return revision


def _failures() -> tuple[type[Exception], ...]:
    """The client's errors by their own bases, so that a failed connection is met whatever HTTP library it rides on."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    # RuntimeError is how the storage library below the client (xet) fails.
    return (EntryNotFoundError, RuntimeError, *cast("tuple[type[Exception], ...]", HfHubHTTPError.__bases__))


def _cached(asked: Asked) -> Path | None:
    """A pinned file that is already here needs no network."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(str(hf_hub_download(asked.repo_id, asked.what, repo_type=asked.repo_type, revision=asked.pinned,
                                        local_files_only=True)))
    except LocalEntryNotFoundError:
        return None


def _download(asked: Asked, on_progress: Callable[[float], None] | None) -> tuple[Path, str]:
    from huggingface_hub import HfApi, hf_hub_download

    _remove_abandoned(asked)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            # Asked first also for a pinned commit: without a network this fails at once, a download after 20 s.
            revision = str(HfApi().repo_info(asked.repo_id, repo_type=asked.repo_type, revision=asked.pinned).sha)
            with _quiet():
                path = hf_hub_download(asked.repo_id, asked.what, repo_type=asked.repo_type, revision=revision,
                                       tqdm_class=None if on_progress is None else _bar(on_progress))
            return Path(str(path)), revision
        except _failures() as error:
            if attempt == ATTEMPTS or not _passing(error):
                raise explained(error, asked) from error
            time.sleep(attempt)
    raise AssertionError("the last attempt returns or raises")


def _passing(error: Exception) -> bool:
    """Whether the same request may well succeed in a moment: the connection broke, or the server had a fault."""
    response = getattr(error, "response", None)
    return type(error).__name__ in _BROKEN or (response is not None and response.status_code >= 500)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the client's log of broken connections off the screen: it repeats addresses that hold a signature."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _bar(on_progress: Callable[[float], None]) -> type[Any]:
    """Return the bar that the client moves: it shows nothing and passes the fraction on."""
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **settings | {"disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            self.n += n or 0
            if self.total:
                on_progress(min(1.0, self.n / self.total))
            return None

    return Bar


def _repository_folder(asked: Asked) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"{asked.repo_type}s--{asked.repo_id.replace('/', '--')}"


def _remove_abandoned(asked: Asked) -> None:
    """Delete what killed downloads left: the client never goes on with it, and a shard is several gigabytes."""
    with contextlib.suppress(OSError):
        for part in (_repository_folder(asked) / "blobs").glob("*.incomplete"):
            if time.time() - part.stat().st_mtime > ABANDONED_SECONDS:
                part.unlink()


def _published_sha256(path: Path) -> str | None:
    """Return the sha256 under which the hub stores a large file: the client names its copy so and does not check."""
    name = path.resolve().name
    return name if _SHA256.fullmatch(name) else None


def _refused(path: Path, asked: Asked, expected: str, found: str, *, recorded: bool) -> InputError:
    """Remove a file with the wrong content, so that nobody reads it; return the error."""
    size = path.stat().st_size
    try:
        link = path
        while link.is_symlink():  # a snapshot is a link to a blob, which may be a link to a store that caches share
            target = link.parent / os.readlink(link)
            link.unlink()
            link = target
        link.unlink(missing_ok=True)
        left = "It was removed from the cache: rerun to fetch it again"
    except OSError as error:
        left = f"It could not be removed from the cache ({error.strerror}): delete {path}"
    who = f"{asked.lock} records" if recorded else "the hub announces"
    accept = f"; to accept another version, set its entry in {asked.lock} to null" if recorded else ""
    return InputError(f"{asked.what} of the hub {asked.repo_type} {asked.repo_id} is not the recorded file: sha256 "
                      f"expected {expected} ({who}), found {found} ({size} bytes). {left}. If it comes the same again, "
                      f"a proxy or mirror (HF_ENDPOINT) may serve something else{accept}")
