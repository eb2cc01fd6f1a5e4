"""Engines side by side, each with GPUs and a process of its own, fed with chunks of work by a parent that never waits.

An engine that fails takes nothing with it: rows that others finished are handed over as they come, its chunk is tried
once more on another engine, and what is left is shared among those that still run. Only then is the failure raised.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from foundation.errors import GenerationError, SuiteError

Rows = list[dict[str, Any]]
Answer = Callable[[Any], Rows]

_EXIT_SECONDS = 20.0
_TRIES = 2
"""Of a chunk: one that brings down two engines is not given to a third."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Ready:
    """An engine is loaded."""


@dataclass(frozen=True, slots=True)
class _Answered:
    rows: Rows


@dataclass(frozen=True, slots=True)
class _Failed:
    """An engine did not start, or gave up on its chunk. `again`: another engine may do better."""

    error: SuiteError
    again: bool


@dataclass(slots=True)
class _Member:
    number: int
    gpus: str
    log: Path
    process: BaseProcess
    connection: Connection
    chunk: int | None = None
    ready: bool = False


@dataclass(slots=True)
class _Work:
    waiting: deque[int]
    tries: dict[int, int] = field(default_factory=dict)
    missing: list[int] = field(default_factory=list)
    """Chunks that nobody will try again."""
    errors: list[SuiteError] = field(default_factory=list)


def run_chunks(groups: Sequence[str], chunks: Sequence[Sequence[Any]], make: Callable[[Path], Answer], logs: Path,
               on_rows: Callable[[Rows], None]) -> None:
    """Answer all chunks and hand the rows over in the order in which chunks finish.

    Args:
        groups: CUDA_VISIBLE_DEVICES of each engine.
        chunks: what is answered as one.
        make: loads an engine in its process, whose log it is told, and returns what answers a chunk; sent there by
            pickle.
        logs: beginning of the names of the engines' logs; they are removed when all went well.
        on_rows: told the rows of a finished chunk.

    Raises:
        SuiteError: chunks are missing; the first reason. All others were handed over.
    """
    pool = _Pool(groups[: len(chunks)], chunks, make, logs)
    try:
        pool.run(on_rows)
    finally:
        pool.close()
    pool.judge()


class _Pool:
    def __init__(self, groups: Sequence[str], chunks: Sequence[Sequence[Any]], make: Callable[[Path], Answer],
                 logs: Path) -> None:
        self.chunks, self.work = chunks, _Work(deque(range(len(chunks))))
        self.logs = [logs.with_name(f"{logs.name}.engine-{i}.log") for i in range(len(groups))]
        self.members = [_start(i, gpus, make, log) for i, (gpus, log) in enumerate(zip(groups, self.logs, strict=True))]

    def run(self, on_rows: Callable[[Rows], None]) -> None:
        """Feed the engines until every chunk is answered, or nobody is left to answer one."""
        while self.members:
            for member in self.members:
                self._feed(member)
            if not self.work.waiting and all(member.chunk is None for member in self.members):
                return
            for connection in wait([member.connection for member in self.members]):
                member = next(m for m in self.members if m.connection is connection)
                try:
                    message = member.connection.recv()
                except (EOFError, OSError):
                    self._lose(member, _death(member), again=True)
                    continue
                self._take(member, message, on_rows)

    def _feed(self, member: _Member) -> None:
        if member.ready and member.chunk is None and self.work.waiting:
            member.chunk = self.work.waiting.popleft()
            try:
                member.connection.send(self.chunks[member.chunk])
            except OSError:  # it died idle; its end of the connection says so in a moment
                self.work.waiting.appendleft(member.chunk)
                member.chunk = None

    def _take(self, member: _Member, message: Any, on_rows: Callable[[Rows], None]) -> None:
        if isinstance(message, _Failed):
            self._lose(member, message.error, again=message.again)
        elif isinstance(message, _Answered):
            member.chunk = None
            on_rows(message.rows)
        else:
            member.ready = True

    def _lose(self, member: _Member, error: SuiteError, *, again: bool) -> None:
        """Go on without an engine; its chunk, if it had one, goes to another, or is missing."""
        logger.warning("the engine on GPU %s is lost: %s", member.gpus, error)
        self.work.errors.append(error)
        self.members.remove(member)
        _end(member)
        if (chunk := member.chunk) is not None:
            self.work.tries[chunk] = self.work.tries.get(chunk, 0) + 1
            if again and self.work.tries[chunk] < _TRIES:
                self.work.waiting.append(chunk)
            else:
                self.work.missing.append(chunk)
        if not again:  # the others would meet it too: what runs is finished, nothing new begun
            self.work.missing.extend(self.work.waiting)
            self.work.waiting.clear()

    def close(self) -> None:
        """End the engines: one that waits ends by itself when its connection closes; one that works is killed."""
        for member in self.members:
            member.connection.close()
        for member in self.members:
            if member.chunk is None and member.ready:
                member.process.join(_EXIT_SECONDS)
            _end(member)

    def judge(self) -> None:
        """Raise the first error where work is missing; else forget the logs."""
        missing = sum(len(self.chunks[chunk]) for chunk in (*self.work.missing, *self.work.waiting))
        if missing:
            first = self.work.errors[0]
            raise type(first)(f"{first}; {missing} sequences of this run are missing; rerun: finished samples are kept "
                              "and not made again")
        for log in self.logs:
            log.unlink(missing_ok=True)


def _start(number: int, gpus: str, make: Callable[[Path], Answer], log: Path) -> _Member:
    context = multiprocessing.get_context("spawn")  # a forked process cannot use CUDA
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, gpus, make, log))
    process.start()
    theirs.close()
    return _Member(number, gpus, log, process, ours)


def _end(member: _Member) -> None:
    member.connection.close()
    member.process.kill()
    member.process.join()


def _death(member: _Member) -> GenerationError:
    member.process.join()
    code = member.process.exitcode
    why = "was killed (for want of memory?)" if code == -9 else f"ended with exit code {code}"
    return GenerationError(f"the engine on GPU {member.gpus} {why}; its last words are in {member.log}")


def _serve(connection: Connection, gpus: str, make: Callable[[Path], Answer], log: Path) -> None:
    """Answer chunks in a process of its own until the connection closes or something fails."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    _write_to(log)
    ready = False
    try:
        answer = make(log)
        connection.send(_Ready())
        ready = True
        while (chunk := _next(connection)) is not None:
            connection.send(_Answered(answer(chunk)))
    except SuiteError as error:
        # Of a chunk it is final; that one engine did not start says nothing of the others.
        connection.send(_Failed(error, again=not ready))
    except Exception as error:
        traceback.print_exc()
        told = GenerationError(f"the engine on GPU {gpus} failed: {type(error).__name__}: {error}; more in {log}")
        connection.send(_Failed(told, again=True))


def _next(connection: Connection) -> Any:
    try:
        return connection.recv()
    except EOFError:
        return None


def _write_to(log: Path) -> None:
    """Send everything this process says, also its C libraries', to a file: it would break the display."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(handle, stream)
    os.close(handle)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # an orphan would hold its GPU for ever
