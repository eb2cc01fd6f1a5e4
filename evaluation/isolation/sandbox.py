"""One isolated tree of processes, as its owner outside sees it: lines to it, lines from it, and SIGKILL.

The owner never waits without a deadline and never for end-of-file alone: a tree that holds its pipes open is killed.
Where no control group bounds the tree's memory and processes, waiting also watches them.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from evaluation.isolation import tree
from evaluation.isolation.cgroups import make_group
from evaluation.isolation.limits import Limits
from foundation.errors import GraderError

if TYPE_CHECKING:
    from evaluation.isolation.kinds import Isolation
    from evaluation.isolation.view import View

START_SECONDS = 60.0
_WATCH_SECONDS = 0.02  # between looks at a tree that no control group bounds
_GLANCE_SECONDS = 0.25  # between looks at the processor time of one that is
_KILL_SECONDS = 10.0
_CHUNK = 1 << 18


class Sandbox:
    """Started at once, usable after `ready`; one owner, one thread (the tree dies with the thread that started it)."""

    def __init__(self, isolation: Isolation, view: View, limits: Limits, *, harness: str = "execute") -> None:
        self.limits = limits
        self.excess: str | None = None  # the limit that ended it: memory, processes, cpu or output
        self._group = make_group(limits)
        try:
            self._process = isolation.spawn(view, limits, harness, self._group)
        except GraderError:
            if self._group is not None:
                self._group.close()
            raise
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self._replies = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._requests, False)
        self._pending = b""
        self._buffer = bytearray()
        self._scanned = 0
        self._closed = False
        self._init = 0
        self._next_look = 0.0

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.kill()

    def ready(self) -> Sandbox:
        """Wait until the harness listens.

        Raises:
            GraderError: it does not start.
        """
        line = self.receive(time.monotonic() + START_SECONDS)
        if line != b"ready":
            code = self.kill()
            raise GraderError(f"an isolated process did not start (exit code {code}); the machine may be out of "
                              "memory or processes: try again with fewer workers")
        below = tree.descendants(self._process.pid)
        self._init = below[0] if below else self._process.pid
        return self

    def send(self, message: bytes) -> None:
        """Queue one line; it is written while replies are awaited."""
        self._pending += message + b"\n"
        self._flush()

    def receive(self, deadline: float) -> bytes | None:
        """Return the next line, or None when the deadline (monotonic) passed or the tree has ended or exceeded."""
        wait([self], deadline)
        return self.next_line()

    def next_line(self) -> bytes | None:
        """Return a line that has already arrived, else None."""
        end = self._buffer.find(b"\n", self._scanned)
        if end < 0:
            self._scanned = len(self._buffer)
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[:end + 1]
        self._scanned = 0
        return line

    @property
    def ended(self) -> bool:
        """Whether no further line can come, apart from those that have arrived."""
        return self._closed or self.excess is not None

    @property
    def waiting(self) -> bool:
        """Whether a whole line has arrived."""
        return self._buffer.find(b"\n", self._scanned) >= 0

    def kill(self) -> int:
        """End the whole tree and return its exit code: 128 + n after signal n, 137 when it had to be killed."""
        code = self._end()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        if self._group is not None:
            if self._group.out_of_memory:
                self.excess = self.excess or "memory"
            self._group.close()
            self._group = None
        self._closed = True
        return code

    def _end(self) -> int:
        """Kill the namespace's init, on whose death the kernel has already killed all others, and wait for it."""
        members = tree.descendants(self._process.pid) if self._process.returncode is None else []
        watched = None
        with contextlib.suppress(OSError):
            watched = os.pidfd_open(members[0] if members else self._process.pid)
        if self._closed and self._process.returncode is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.2)  # it closed its pipes; most often it is about to end by itself
        if self._process.returncode is None:
            for member in members:
                with contextlib.suppress(OSError):
                    os.kill(member, signal.SIGKILL)
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
        if watched is not None:
            select.select([watched], [], [], _KILL_SECONDS)
            os.close(watched)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_KILL_SECONDS)
        code = self._process.returncode
        if code is None:
            raise GraderError(f"process {self._process.pid} did not end when killed; the machine needs attention")
        return code if code >= 0 else 128 - code

    def _flush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._pending:
                try:
                    self._pending = self._pending[os.write(self._requests, self._pending[:_CHUNK]):]
                except (BrokenPipeError, ValueError, OSError) as error:
                    if isinstance(error, BlockingIOError):
                        raise
                    self._pending = b""

    def _read(self) -> None:
        data = os.read(self._replies, _CHUNK)
        if not data:
            self._closed = True
        self._buffer += data
        if len(self._buffer) > self.limits.output_bytes and not self.waiting:
            self.excess = "output"

    def _look(self, now: float) -> None:
        """Compare the tree with the limits that the kernel does not hold for us."""
        if now < self._next_look or not self._init:
            return
        used = tree.usage(self._process.pid)
        if used.cpu_seconds > self.limits.cpu_seconds:
            self.excess = "cpu"
        if self._group is None:
            if used.memory_bytes > self.limits.memory_mib << 20:
                self.excess = "memory"
            elif used.processes > self.limits.processes + 1:
                self.excess = "processes"
        self._next_look = now + self._pause

    @property
    def _pause(self) -> float:
        return _WATCH_SECONDS if self._group is None else _GLANCE_SECONDS


def wait(sandboxes: Sequence[Sandbox], deadline: float) -> None:
    """Return when one of them has a line or has ended, or when the deadline (monotonic) has passed."""
    while not any(sandbox.waiting or sandbox.ended for sandbox in sandboxes):
        now = time.monotonic()
        if now >= deadline:
            return
        for sandbox in sandboxes:
            sandbox._look(now)
        if any(sandbox.ended for sandbox in sandboxes):
            return
        pause = min(deadline - now, min(sandbox._pause for sandbox in sandboxes))
        _exchange(sandboxes, pause)


def _exchange(sandboxes: Sequence[Sandbox], pause: float) -> None:
    poll = select.poll()
    owners = {}
    for sandbox in sandboxes:
        owners[sandbox._replies] = sandbox
        poll.register(sandbox._replies, select.POLLIN | select.POLLHUP)
        if sandbox._pending:
            owners[sandbox._requests] = sandbox
            poll.register(sandbox._requests, select.POLLOUT)
    for descriptor, _ in poll.poll(max(1, int(pause * 1000))):
        sandbox = owners[descriptor]
        if descriptor == sandbox._requests:
            sandbox._flush()
        else:
            sandbox._read()


def request(**fields: object) -> bytes:
    """Return a message as one line of JSON."""
    return json.dumps(fields).encode()
