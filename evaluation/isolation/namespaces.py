"""Isolation by util-linux's `unshare`, for machines without bubblewrap: the same namespaces and the same view.

`unshare` makes the namespaces; the first process inside (inside/start.py) builds the read-only root, enters it, forbids
further user namespaces, drops every capability and installs the seccomp filter before anything untrusted runs.
"""

from __future__ import annotations

import base64
import shutil

from evaluation.isolation.limits import Limits
from evaluation.isolation.seccomp import filter_program
from evaluation.isolation.view import View

NAME = "namespaces"
HINT = "util-linux's unshare and setpriv, and a kernel that allows user namespaces, are needed"

_PLACES = ("/mnt", "/media", "/srv", "/opt", "/tmp", "/var", "/sys", "/dev/shm")  # where the new root can be built


def program() -> str | None:
    """Return unshare's path, None where it or setpriv is not installed."""
    return shutil.which("unshare") if shutil.which("setpriv") else None


def command() -> list[str]:
    """Return the command that puts what follows it into new namespaces; the root is built inside, by `plan`."""
    return [shutil.which("setpriv") or "setpriv", "--pdeathsig", "KILL", program() or "unshare", "--user", "--mount",
            "--pid", "--net", "--ipc", "--uts", "--cgroup", "--map-root-user", "--fork", "--kill-child=KILL", "--"]


def plan(view: View, limits: Limits) -> dict[str, object]:
    """Return what the first process needs to build the root."""
    code = filter_program()
    sources = [source for source, _ in view.binds]
    place = next(path for path in _PLACES if not any((source + "/").startswith(path + "/") for source in sources))
    return {"place": place, "binds": view.binds, "links": view.links, "scratch_bytes": limits.scratch_mib << 20,
            "seccomp": None if code is None else base64.b64encode(code).decode()}


def missing_layers() -> list[str]:
    """Name the layers of protection that this kind lacks on this machine."""
    return [] if filter_program() is not None else ["seccomp"]
