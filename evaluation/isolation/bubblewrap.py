"""Isolation by bubblewrap: new user, mount, pid, net, ipc, uts and cgroup namespaces, and a seccomp filter.

The root is a read-only tmpfs with the interpreter bound into it; /tmp is a private tmpfs of bounded size; /proc shows
the tree's own processes; no capability is left and no further user namespace can be made.
"""

from __future__ import annotations

import os
import shutil

from evaluation.isolation.limits import Limits
from evaluation.isolation.seccomp import filter_program
from evaluation.isolation.view import View

NAME = "bubblewrap"
HINT = "install it with: apt-get install bubblewrap (or your system's package of that name)"


def program() -> str | None:
    """Return bubblewrap's path, None where it is not installed."""
    return shutil.which("bwrap")


def command(view: View, limits: Limits, seccomp_descriptor: int | None) -> list[str]:
    """Return the command that puts what follows it into isolation.

    Args:
        view: the files to show.
        limits: only the scratch size matters here; the rest is set inside.
        seccomp_descriptor: an open file with the filter, which the command reads; None leaves the filter out.
    """
    scratch = str(limits.scratch_mib << 20)
    arguments = [program() or "bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent",
                 "--new-session", "--uid", "65534", "--gid", "65534", "--hostname", "isolated", "--cap-drop", "ALL"]
    for source, place in view.binds:
        arguments += ["--ro-bind", source, place]
    for target, place in view.links:
        arguments += ["--symlink", target, place]
    # As root, the isolated user is still the kernel's user 0, who owns what lies in /proc/sys: hence read-only.
    arguments += ["--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev", "--remount-ro", "/dev",
                  "--size", str(8 << 20), "--tmpfs", "/dev/shm", "--size", scratch, "--tmpfs", "/tmp",
                  "--remount-ro", "/", "--chdir", "/tmp"]
    if seccomp_descriptor is not None:
        arguments += ["--seccomp", str(seccomp_descriptor)]
    return [*arguments, "--"]


def missing_layers() -> list[str]:
    """Name the layers of protection that this kind lacks on this machine."""
    return [] if filter_program() is not None else ["seccomp"]


def seccomp_file() -> int | None:
    """Open the filter as a file in memory that a child can inherit; None where there is none."""
    code = filter_program()
    if code is None:
        return None
    descriptor = os.memfd_create("filter")
    os.write(descriptor, code)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
