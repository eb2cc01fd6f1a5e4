"""A warm pool: isolated processes that wait for work, each used once and thrown away.

Starting one takes about 40 ms, a third of it waiting for the kernel: `take` hands out a waiting one and starts its
successor while others still wait, so that a short program need not wait for the next process.
"""

from __future__ import annotations

from collections import deque
from types import TracebackType

from evaluation.isolation.kinds import Isolation
from evaluation.isolation.limits import Limits
from evaluation.isolation.sandbox import Sandbox
from evaluation.isolation.view import View


class Pool:
    """Belongs to the thread that made it; `size` processes wait."""

    def __init__(self, isolation: Isolation, view: View, limits: Limits, *, harness: str, size: int = 2) -> None:
        self.isolation, self.view, self.limits, self.harness = isolation, view, limits, harness
        self._size = size
        self._waiting: deque[Sandbox] = deque()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def take(self) -> Sandbox:
        """Return a process that listens.

        Raises:
            GraderError: it does not start.
        """
        self.fill()
        sandbox = self._waiting.popleft().ready()
        self.fill()
        return sandbox

    def fill(self) -> None:
        """Start what is missing, without waiting for it."""
        while len(self._waiting) < self._size:
            self._waiting.append(Sandbox(self.isolation, self.view, self.limits, harness=self.harness))

    def close(self) -> None:
        """End all that wait."""
        while self._waiting:
            self._waiting.popleft().kill()
