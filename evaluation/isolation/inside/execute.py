"""A harness that runs the text it is sent: for the probe of an isolation and for tests of its properties.

Writes "ready", reads one line with a JSON string, executes it with a function `report` that writes one JSON line.
"""

from __future__ import annotations

import json
import os


def main() -> None:
    """Serve one text."""
    channel = os.dup(1)
    os.write(channel, b"ready\n")
    with os.fdopen(os.dup(0), "rb") as requests:
        text = json.loads(requests.readline())

    def report(value: object) -> None:
        data = json.dumps(value).encode() + b"\n"
        while data:
            data = data[os.write(channel, data):]
    exec(compile(text, "<program>", "exec"), {"__name__": "__main__", "report": report})
