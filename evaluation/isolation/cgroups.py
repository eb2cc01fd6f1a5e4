"""Control groups: the kernel's own bound on the memory and processes of a whole tree (versions 1 and 2).

Used where this user may make groups; elsewhere the sandbox watches the tree itself, and says so.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import time
from functools import lru_cache
from pathlib import Path

from evaluation.isolation.limits import Limits

_ROOT = Path("/sys/fs/cgroup")
_OWN_PROCESSES = 2  # of the isolation itself, in each tree: the one outside, and the namespace's init
_ENTER = 'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit 125; shift; done; shift; exec "$@"'
_numbers = itertools.count()


_unused: list[Path] = []  # folders to be removed as soon as the kernel lets them go


def _remove_unused() -> None:
    for folder in [_unused.pop() for _ in range(len(_unused))]:
        try:
            folder.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            _unused.append(folder)


@atexit.register
def _remove_last() -> None:
    deadline = time.monotonic() + 2
    while _unused and time.monotonic() < deadline:
        _remove_unused()
        time.sleep(0.01)


def _remove_abandoned(parent: Path) -> None:
    """Remove what a killed run of the suite left."""
    for folder in parent.glob("graded-*-*"):
        if not Path("/proc", folder.name.split("-")[1]).exists():
            with contextlib.suppress(OSError):
                folder.rmdir()


class Group:
    """One group for one tree; `close` removes it once it is empty."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self._folders = folders

    def entering(self, command: list[str]) -> list[str]:
        """Return a command that enters the group and becomes `command`.

        The kernel lets a process in only after some 10 ms of waiting: let the new process wait, not its owner.
        """
        return ["/bin/sh", "-c", _ENTER, "sh", *dict.fromkeys(map(str, self._folders.values())), "--", *command]

    @property
    def out_of_memory(self) -> bool:
        """Whether the kernel killed a process of the group for memory."""
        folder = self._folders["memory"]
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError, ValueError):
                counts = dict(line.split()[:2] for line in (folder / name).read_text().splitlines())
                return int(counts.get("oom_kill", 0)) > 0
        return False

    def close(self) -> None:
        """Remove the group. The last process may count for a moment after its death: then the next one removes it."""
        _unused.extend(dict.fromkeys(self._folders.values()))
        _remove_unused()


def make_group(limits: Limits) -> Group | None:
    """Make a group with these limits; None where that is not possible."""
    parents = _parents()
    if parents is None:
        return None
    name = f"graded-{os.getpid()}-{next(_numbers)}"
    folders = {controller: parent / name for controller, parent in parents.items()}
    group = Group(folders)
    try:
        for folder in dict.fromkeys(folders.values()):
            folder.mkdir()
        _write_limits(folders, limits)
    except OSError:
        group.close()
        return None
    return group


def _write_limits(folders: dict[str, Path], limits: Limits) -> None:
    memory, bound = folders["memory"], str(limits.memory_mib << 20)
    second = (memory / "memory.limit_in_bytes").exists()
    names = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes") if second else ("memory.max",)
    for name in names:
        if (memory / name).exists():
            (memory / name).write_text(bound)
    for name, value in (("memory.swap.max", "0"), ("memory.oom.group", "1")):
        if (memory / name).exists():
            (memory / name).write_text(value)
    (folders["pids"] / "pids.max").write_text(str(limits.processes + _OWN_PROCESSES))


@lru_cache(maxsize=1)
def _parents() -> dict[str, Path] | None:
    """Find, for both controllers, a folder in which groups can be made."""
    for candidate in itertools.chain(_version_1(), _version_2()):
        probe = [folder / f"graded-probe-{os.getpid()}" for folder in dict.fromkeys(candidate.values())]
        try:
            for folder in probe:
                folder.mkdir()
            found = {"memory": candidate["memory"] / probe[0].name, "pids": candidate["pids"] / probe[0].name}
            _write_limits(found, Limits())
            for parent in set(candidate.values()):
                _remove_abandoned(parent)
            return candidate
        except OSError:
            continue
        finally:
            for folder in probe:
                with contextlib.suppress(OSError):
                    folder.rmdir()
    return None


def _own() -> dict[str, str]:
    """Return this process's group per controller ("" for version 2)."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        return {name: path for line in lines for _, names, path in [line.split(":", 2)] for name in names.split(",")}
    return {}


def _version_1() -> list[dict[str, Path]]:
    own = _own()
    if "memory" not in own or "pids" not in own:
        return []
    groups = [{name: _ROOT / name / own[name].lstrip("/") for name in ("memory", "pids")},
              {name: _ROOT / name for name in ("memory", "pids")}]
    return [group for group in groups if all(folder.is_dir() for folder in group.values())]


def _version_2() -> list[dict[str, Path]]:
    """This process's group and the ones above it: a group that holds processes can often have siblings only."""
    own = _own().get("")
    if own is None:
        return []
    start = _ROOT / own.lstrip("/")
    return [{"memory": folder, "pids": folder} for folder in (start, *start.parents)
            if folder == _ROOT or _ROOT in folder.parents]
