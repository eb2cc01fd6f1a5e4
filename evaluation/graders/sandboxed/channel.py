"""Lines of JSON between a process in isolation and its owner, on descriptors that print and input do not touch."""

from __future__ import annotations

import json
import os
from typing import Any


class Channel:
    """Takes standard input and output over: the program itself reads nothing and writes to nowhere."""

    def __init__(self) -> None:
        self._requests = os.fdopen(os.dup(0), "rb", buffering=1 << 16)
        self._replies = os.dup(1)
        null = os.open("/dev/null", os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        os.close(null)

    def read(self) -> Any:
        """Return the next message; the process ends when the owner has gone."""
        line = self._requests.readline()
        if not line:
            os._exit(0)
        return json.loads(line)

    def write(self, message: object, prefix: bytes = b"") -> None:
        """Send one message."""
        self.write_line(prefix + json.dumps(message, separators=(",", ":")).encode())

    def write_line(self, line: bytes) -> None:
        """Send one line."""
        data = line + b"\n"
        while data:
            data = data[os.write(self._replies, data):]


def describe(error: BaseException) -> list[str]:
    """Return the name of an error's type and its message, short, whatever the program made of them."""
    try:
        text = str(error)[:300]
    except BaseException:
        text = ""
    return [type(error).__name__[:80], text]


def last_error(trace: str) -> str:
    """Return the error at the end of a printed traceback, in one line: its message may have many."""
    lines = trace.rpartition('\n  File "')[2].split("\n")
    said = next((place for place, line in enumerate(lines) if place > 0 and line[:1].strip()), 0)
    return " ".join(" ".join(lines[said:]).split())[:300]
