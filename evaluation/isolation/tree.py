"""The processes of a sandbox as the machine outside sees them, read from /proc."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tree uses now: resident memory, processes and threads, and processor seconds of all that live."""

    memory_bytes: int
    processes: int
    cpu_seconds: float


def children(pid: int) -> list[int]:
    """Return the direct children of a process."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
        return found
    return found


def descendants(pid: int) -> list[int]:
    """Return all below a process. In a pid namespace orphans fall to its init, so none escapes this list."""
    found, waiting = [], [pid]
    while waiting:
        below = children(waiting.pop())
        found += below
        waiting += below
    return found


def usage(pid: int) -> Usage:
    """Measure the tree below a process; what ends meanwhile counts as nothing."""
    memory = processes = 0
    seconds = 0.0
    for member in descendants(pid):
        try:
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        memory += int(fields[21]) * _PAGE
        processes += int(fields[17])
        seconds += sum(map(int, fields[11:15])) / _TICKS
    return Usage(memory, processes, seconds)
