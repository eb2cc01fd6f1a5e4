"""What went wrong at the hub, in words that say what to do about it. No message ever holds a token.

Exit codes are those of `foundation.errors`: a full or read-only cache is a StorageError, everything else that the hub
refuses or cannot do is a PrerequisiteError.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundation.errors import PrerequisiteError, StorageError, SuiteError, UnreachableError
from foundation.files import storage_error
from foundation.locks import RepoType

# A signed address of a storage server holds, after its question mark, what lets anybody download for an hour.
_QUERY = re.compile(r"(https?://[^\s'\"?]+)\?[^\s'\"]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked of the hub. `pinned` is the commit that the lock file holds, None where it holds none."""

    repo_id: str
    repo_type: RepoType
    what: str
    pinned: str | None
    lock: Path

    def __str__(self) -> str:
        return f"cannot fetch {self.what} of the hub {self.repo_type} {self.repo_id}"


def explained(error: Exception, asked: Asked) -> SuiteError:
    """Return the user's error for one of the client's: gated, revoked, not there, unreachable, no room for it."""
    from huggingface_hub import constants, errors

    if isinstance(error, RuntimeError) and os.strerror(errno.ENOSPC) in str(error):
        error = OSError(errno.ENOSPC, str(error))
    if isinstance(error, OSError) and (full := storage_error(error, Path(constants.HF_HUB_CACHE))) is not None:
        return StorageError(f"{full} (HF_HOME names the folder of the hub's cache)")
    # In the client a gated repository is a special case of one that is not found: it comes first.
    if isinstance(error, errors.GatedRepoError):
        return PrerequisiteError(_gated(asked, constants.ENDPOINT))
    if isinstance(error, errors.RevisionNotFoundError):
        return PrerequisiteError(_revoked(asked))
    if isinstance(error, errors.RepositoryNotFoundError):
        return PrerequisiteError(f"{asked}: {_missing(error, asked)}")
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return PrerequisiteError(f"{asked}: the repository has no such file at commit {asked.pinned or 'main'} "
                                 f"({said(error)}). It may have been renamed: see {page(asked, constants.ENDPOINT)}")
    if (refusal := _refused(error, asked)) is not None:
        return PrerequisiteError(f"{asked}: {refusal}")
    return UnreachableError(_unreachable(error, asked))


def page(asked: Asked, endpoint: str) -> str:
    """Return the address of a repository's page."""
    return f"{endpoint}/{'datasets/' if asked.repo_type == 'dataset' else ''}{asked.repo_id}"


def said(error: BaseException) -> str:
    """Return an error of the client in one line, without tokens and without what signs an address."""
    from huggingface_hub import get_token

    text = " ".join(f"{type(error).__name__}: {str(error).strip()}".split())
    if (token := get_token()) is not None:
        text = text.replace(token, "***")
    return _QUERY.sub(r"\1", text)


def _gated(asked: Asked, endpoint: str) -> str:
    from huggingface_hub import get_token

    where = page(asked, endpoint)
    if get_token() is None:
        return (f"{asked}: it is gated, and no token was found. To get access: log in at {where} and accept the terms "
                f"there, make a token that may read at {endpoint}/settings/tokens, and set HF_TOKEN to it or run "
                "`hf auth login`; then rerun")
    return (f"{asked}: it is gated, and the token that was found (HF_TOKEN or `hf auth login`) has no access to it. "
            f"Log in at {where} as the token's owner and accept the terms there (some owners answer by hand, after "
            "a while); a fine-grained token must also be allowed to read gated repositories")


def _revoked(asked: Asked) -> str:
    if asked.pinned is None:
        return f"{asked}: the repository has no revision main; it may be empty"
    return (f"{asked}: {asked.lock} pins revision {asked.pinned}, which the hub no longer has (withdrawn, or its "
            "history was rewritten). A machine that fetched it before still has it: set HF_HOME to its cache. To move "
            f'to the newest revision, set "revision" and all files of {asked.repo_id} there to null and fetch again: '
            "results then belong to another version, and steps that start from it run anew")


def _missing(error: Any, asked: Asked) -> str:
    from huggingface_hub import constants

    return (f"there is no such repository at {constants.ENDPOINT}, or it is private ({said(error)}). Check the name "
            f"and that it is a {asked.repo_type}; for a private one set HF_TOKEN to a token that may read it")


def _refused(error: Exception, asked: Asked) -> str | None:
    """Return what to do where the hub answered, but not with the file."""
    from huggingface_hub import get_token

    chain: Any = error
    while chain is not None and getattr(chain, "response", None) is None:
        chain = chain.__cause__
    status = None if chain is None else chain.response.status_code
    if status == 401 and get_token() is None:  # the hub's answer to a name that it does not know
        return _missing(chain, asked)
    if status == 401:
        return (f"the hub does not accept the token that was found ({said(chain)}): it may have expired. Make a new "
                "one, and set HF_TOKEN to it or run `hf auth login`; for what is public, unset HF_TOKEN")
    if status == 403:
        return (f"the hub refuses access ({said(chain)}); give a token that may read this repository: HF_TOKEN or "
                "`hf auth login`")
    if status == 429 or (status is not None and status >= 500):
        return f"the hub is busy or out of order ({said(chain)}); rerun later: what was fetched is kept"
    return None


def _unreachable(error: Exception, asked: Asked) -> str:
    from huggingface_hub import constants

    instead = ("name a folder with the data files: --data-root DIR or WMSS_DATA_ROOT" if asked.repo_type == "dataset"
               else "fetch it on a machine that reaches the hub and set HF_HOME to that cache")
    return f"{asked} from {constants.ENDPOINT}: {said(error)}; rerun when the network works, or {instead}"
