"""A symbolic comparison that can always be stopped: a separate process with a memory limit and a wall limit.

The parent enforces the limit with SIGKILL (no alarm, no thread: neither stops C code), goes on with a fresh server and
tries a late request once more, alone in that fresh server and with twice the time. What is late twice is reported as
such. The limit counts the server's processor time, so that a loaded machine gives the verdicts of an idle one; ten
times as much wall time ends a request in any case. The process dies with its parent.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from foundation.errors import GraderError

_PROGRAM = Path(__file__).with_name("symbolic.py")
START_SECONDS = 120.0
PATIENCE = 10  # wall seconds allowed per processor second, on a loaded machine
DEFINITE = frozenset({"equal", "different", "parsed", "unparsed_gold", "unparsed_answer"})
_CACHED = 4096


@dataclass(frozen=True, slots=True)
class SymbolicResult:
    """`status`: equal, different, parsed, unparsed_gold, unparsed_answer, timeout, memory, crash or error.

    `stage` (gold, answer, compare) tells where it stood, so that an answer that cannot be evaluated is not taken for
    a failure of the grader.
    """

    status: str
    stage: str

    @property
    def definite(self) -> bool:
        """Whether the comparison came to an end."""
        return self.status in DEFINITE


class SymbolicWorker:
    """Context manager around the process; it starts with the first request."""

    def __init__(self, *, limit_seconds: float = 0.4, memory_limit_mib: int = 1024) -> None:
        self.limit_seconds = limit_seconds
        self.memory_limit_mib = memory_limit_mib
        self.restarts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._server = 0
        self._requests = self._replies = -1
        self._buffer = b""
        self._known: OrderedDict[tuple[str, str, str], SymbolicResult] = OrderedDict()

    def __enter__(self) -> SymbolicWorker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    @property
    def started(self) -> bool:
        """Whether a process runs."""
        return self._process is not None

    def compare(self, gold: str, answer: str) -> SymbolicResult:
        """Compare two normalised LaTeX leaves."""
        return self._ask("compare", gold, answer)

    def parse(self, gold: str) -> SymbolicResult:
        """Say whether a normalised LaTeX leaf can be parsed."""
        return self._ask("parse", gold, "")

    def close(self) -> None:
        """End the process and all it started."""
        process, self._process = self._process, None
        if process is None:
            return
        for descriptor in (self._requests, self._replies):
            os.close(descriptor)
        process.kill()  # its server dies with it
        process.wait()
        if self._server:
            _kill(self._server)
        self._server = 0

    def _ask(self, operation: str, gold: str, answer: str) -> SymbolicResult:
        key = operation, gold, answer
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        result = self._try(operation, gold, answer, self.limit_seconds)
        if not result.definite:
            result = self._try(operation, gold, answer, 2 * self.limit_seconds)
        if result.definite:  # a time-out depends on the machine: never kept
            self._known[key] = result
            if len(self._known) > _CACHED:
                self._known.popitem(last=False)
        return result

    def _try(self, operation: str, gold: str, answer: str, limit_seconds: float) -> SymbolicResult:
        request = json.dumps({"op": operation, "gold": gold, "answer": answer}).encode() + b"\n"
        if self._process is not None and self._process.poll() is not None:
            self.close()  # it went away while idle
        self._start()
        try:
            os.write(self._requests, request)
        except BrokenPipeError:
            self.close()
            return SymbolicResult("crash", "gold")
        return self._await(limit_seconds)

    def _await(self, limit_seconds: float) -> SymbolicResult:
        stage = "gold"
        begun, busy = time.monotonic(), _processor_seconds(self._server)
        deadline = begun + limit_seconds
        while True:
            message = self._read(deadline)
            if message is None:
                left = limit_seconds - (_processor_seconds(self._server) - busy)
                if left > 0.01 and time.monotonic() < begun + PATIENCE * limit_seconds:
                    deadline = time.monotonic() + left  # it did not get its share of the processor yet
                    continue
                self._replace_server()
                return SymbolicResult("timeout", stage)
            if "stage" in message:
                stage = str(message["stage"])
            elif "ready" in message:  # the server died and another took its place
                self._server = int(message["ready"])  # type: ignore[call-overload]
                return SymbolicResult("crash", stage)
            elif "closed" in message:
                self.close()
                return SymbolicResult("crash", stage)
            else:
                status = str(message["status"])
                if status not in DEFINITE:  # a server that ran out of memory is not asked again
                    self._replace_server()
                return SymbolicResult(status, stage)

    def _start(self) -> None:
        if self._process is not None:
            return
        child_in, self._requests = os.pipe()
        self._replies, child_out = os.pipe()
        arguments = [str(os.getpid()), str(child_in), str(child_out), str(self.memory_limit_mib)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        # -P: this folder holds modules named like standard ones (numbers, math) that must not shadow them.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_PROGRAM), *arguments], pass_fds=(child_in, child_out), env=environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        os.close(child_in)
        os.close(child_out)
        self._buffer = b""
        self._await_ready()

    def _replace_server(self) -> None:
        self.restarts += 1
        _kill(self._server)
        self._await_ready()

    def _await_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            message = self._read(deadline)
            if message is None or "closed" in message:
                self.close()
                raise GraderError("the symbolic worker does not start; try `python -c 'import math_verify'` and "
                                  "reinstall math-verify if that fails")
            if "ready" in message:
                self._server = int(message["ready"])  # type: ignore[call-overload]
                return

    def _read(self, deadline: float) -> dict[str, object] | None:
        """Return the next whole message, None when the deadline passed; a half-written line is skipped."""
        while True:
            while b"\n" in self._buffer:
                line, self._buffer = self._buffer.split(b"\n", 1)
                try:
                    message = json.loads(line)
                except ValueError:
                    continue
                if isinstance(message, dict):
                    return message
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._replies], [], [], left)[0]:
                return None
            data = os.read(self._replies, 65536)
            if not data:
                return {"closed": True}
            self._buffer += data


def _processor_seconds(pid: int) -> float:
    """Return the processor time a process has used; where that cannot be read, the clock, which is then the limit."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return time.monotonic()


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
