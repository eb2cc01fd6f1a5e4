"""The harness of every isolated process: wait for one request, then be what it asks for.

`calls` runs a program and calls one function with given inputs; `stdin` runs it as a script on given inputs; `serve`
lets a test process elsewhere call it; `judge` is that test process; `together` runs program and tests in one process,
for tests that cannot be split; `extract` reads code out of a model's text.
"""

from __future__ import annotations

import resource

from channel import Channel  # type: ignore[import-not-found]


def main(expected: str = "calls") -> None:
    """Serve one request; the mode that is expected is loaded while nobody waits."""
    channel = Channel()
    __import__(expected)
    channel.write_line(b"ready")
    request = channel.read()
    most = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (min(request["cpu"], most), min(request["cpu"] + 1, most)))
    mode = request["mode"]
    if mode not in ("calls", "stdin", "serve", "judge", "together", "extract"):
        raise ValueError(mode)
    __import__(mode).run(request, channel)
