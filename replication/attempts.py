"""How long a step took, with the attempts that were interrupted: kept beside what they left, until it is published."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

from foundation.errors import StorageError
from foundation.files import write_atomic

FILE = "attempts.json"
EVERY_SECONDS = 5.0
"""How often the seconds are written down: as much may be lost with a process that is killed."""


class Attempts:
    """The seconds of each attempt at a step, the running one last."""

    def __init__(self, building: Path) -> None:
        """Begin an attempt in the step's folder under construction."""
        self.path = building / FILE
        self.before = _read(self.path)
        self.started = self.written = time.monotonic()

    def seconds(self) -> list[float]:
        """Return the seconds of each attempt until now."""
        return [*self.before, time.monotonic() - self.started]

    def keep(self) -> None:
        """Write the seconds down; a disk that is full must not end what still runs."""
        with contextlib.suppress(OSError, StorageError):
            write_atomic(self.path, json.dumps(self.seconds()) + "\n")

    def tick(self) -> None:
        """Write the seconds down if that was long ago."""
        if time.monotonic() - self.written >= EVERY_SECONDS:
            self.keep()
            self.written = time.monotonic()


def _read(path: Path) -> list[float]:
    """Return what interrupted attempts left; what is unreadable counts as nothing."""
    try:
        return [float(seconds) for seconds in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []
