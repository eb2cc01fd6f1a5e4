"""The math rules in processes of their own: parallel, with bounded memory, and none of them can stop the whole.

A record can make math-verify compute a power with a billion digits, which nothing but the end of the process stops. A
batch that ends its process is therefore gone through record by record; one that ends a process alone is left out and
counted. A process that was killed from outside is replaced, and its record tried again.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from types import TracebackType

from foundation.errors import GraderError
from replication.corpora.batches import Batch, Judged
from replication.corpora.math_rules import LATE

MEMORY_MIB = 512
_LOST = (EOFError, OSError, pickle.UnpicklingError)


class MathProcesses:
    """Context manager; call it with batches, from as many threads as there shall be processes."""

    def __init__(self, held_out: Mapping[str, str] | None = None) -> None:
        self._held_out = dict(held_out or {})
        self._local = threading.local()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> MathProcesses:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            self._closed = True
            for process in self._processes:
                process.kill()
            for process in self._processes:
                process.wait()
                _close_pipes(process)
            self._processes.clear()

    def __call__(self, batch: Batch) -> Judged:
        """Return what became of a batch.

        Raises:
            GraderError: no process starts.
        """
        try:
            return self._ask(batch)
        except _LOST:
            self._give_up()
        result = Judged()
        for single in batch.single():
            result.add(self._alone(single))
        return result

    def _alone(self, single: Batch) -> Judged:
        for _ in range(2):
            try:
                return self._ask(single)
            except _LOST:
                if self._give_up() == -signal.SIGPROF:  # its own limit, not somebody from outside
                    break
        return Judged(read=1, dropped=Counter({LATE: 1}))

    def _ask(self, batch: Batch) -> Judged:
        process = getattr(self._local, "process", None) or self._start()
        assert process.stdin is not None and process.stdout is not None
        pickle.dump(batch, process.stdin)
        process.stdin.flush()
        judged = pickle.load(process.stdout)
        assert isinstance(judged, Judged)
        return judged

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        with self._lock:
            if self._closed:
                raise GraderError("the math filter was ended")
            process = subprocess.Popen([sys.executable, "-m", "replication.corpora.math_worker", str(MEMORY_MIB)],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                       env=environment, start_new_session=True)
            self._processes.add(process)
        assert process.stdin is not None and process.stdout is not None
        self._local.process = process
        try:
            pickle.dump(self._held_out, process.stdin)
            process.stdin.flush()
            pickle.load(process.stdout)
        except _LOST as error:
            raise GraderError("a process of the math filter does not start; try `python -c 'import math_verify'` and "
                              "reinstall math-verify if that fails") from error
        return process

    def _give_up(self) -> int | None:
        """End this thread's process, if it has not ended, and return its exit code."""
        process = getattr(self._local, "process", None)
        self._local.process = None
        if process is None:
            return None
        with self._lock:
            self._processes.discard(process)
        process.kill()
        code = process.wait()
        _close_pipes(process)
        return int(code)


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()
