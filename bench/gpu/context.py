"""What a part is given: a device, a size, an end, and a file that always holds what has been measured so far."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foundation.files import write_atomic


class SkippedPart(Exception):
    """A part that this machine cannot run; the message says what is missing."""


@dataclass(kw_only=True)
class Context:
    """A part's surroundings."""

    device: str
    """`cuda` or `cpu`."""
    small: bool
    """Small shapes that only show how it runs."""
    out: Path
    """Where results are kept, whole after every `put`."""
    seconds: float
    """How long the part may take, from when it was made."""
    now: Callable[[], float] = time.monotonic
    result: dict[str, Any] = field(default_factory=dict)
    began: float = 0.0

    def __post_init__(self) -> None:
        """Start the clock."""
        self.began = self.now()

    def remaining(self) -> float:
        """Return the seconds that are left."""
        return self.seconds - (self.now() - self.began)

    def put(self, name: str, value: Any) -> None:
        """Keep a result."""
        self.result[name] = value
        write_atomic(self.out, json.dumps(self.result, indent=1, default=str))

    def say(self, text: str) -> None:
        """Print a line at once."""
        print(f"    {text}", flush=True)

    def room_for(self, what: str, seconds: float) -> bool:
        """Say whether there is time left for something; if not, it is recorded as cut and said."""
        if self.remaining() > seconds:
            return True
        self.cut(what)
        return False

    def cut(self, what: str) -> None:
        """Record that something was not measured, or not to its end, for lack of time."""
        self.say(f"cut: {what} ({max(self.remaining(), 0):.0f} s of {self.seconds:.0f} s left)")
        self.put("cut", [*self.result.get("cut", []), what])
