"""Runs the steps that a table needs, in worker processes; the only orchestrator.

What is done is left alone, what is shared runs once, what fails takes only its descendants with it.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from replication.display import Display, display
from replication.provenance import gpu_names
from replication.steps import Step, closure
from replication.store import Store
from replication.worker import ENVIRONMENT, Done, Failed, Progress, worker_main

IDLE_EXIT_SECONDS = 10.0
WHICH_FAILED = "which failed: "
"""Stands in the reason of a step that was not run, before the reason of the one it needs."""


@dataclass(slots=True)
class RunReport:
    """What a run did: steps found done, steps run, and why the failed ones failed."""

    done_before: int = 0
    ran: list[Step] = field(default_factory=list)
    failed: dict[str, Failed] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0, or the worst exit code of a failed step."""
        codes = {failure.exit_code for failure in self.failed.values()}
        return 0 if not codes else 1 if 1 in codes else max(codes)


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    connection: Connection
    step: Step | None = None


def missing_steps(targets: Iterable[Step], store: Store) -> list[Step]:
    """Return the steps still to run for the targets, parents first: what a finished step came from is not needed."""
    needed: dict[str, Step] = {}
    found: set[str] = set()

    def visit(step: Step) -> None:
        if step.key in needed or step.key in found:
            return
        if store.is_whole(step):
            found.add(step.key)
            return
        for parent in step.parents.values():
            visit(parent)
        needed[step.key] = step

    for target in targets:
        if not store.is_done(target):  # of a target it is enough to be read; what others start from must be whole
            visit(target)
    return list(needed.values())


def run_steps(targets: Sequence[Step], store: Store, *, jobs: int, processes: int = 1) -> RunReport:
    """Bring every target into the store.

    Args:
        targets: the steps wanted; what they need is found from them.
        store: where results live.
        jobs: worker processes.
        processes: that a training may use together.

    Returns:
        The report; failed steps and their descendants are in `failed`, never raised.
    """
    started = time.monotonic()
    pending = missing_steps(targets, store)
    report = RunReport(done_before=len(closure(targets)) - len(pending))
    if pending:
        with display(pending, report.done_before, jobs) as shown:
            _Scheduler(pending, store, min(jobs, len(pending)), report, shown, processes).run()
    report.seconds = time.monotonic() - started
    return report


class _Scheduler:
    """Hands ready steps to idle workers, longest remaining chain first."""

    def __init__(self, pending: list[Step], store: Store, jobs: int, report: RunReport, shown: Display,
                 processes: int) -> None:
        self.pending = {step.key: step for step in pending}
        self.store, self.report, self.shown, self.jobs, self.processes = store, report, shown, jobs, processes
        self.priority = _chain_seconds(pending)
        self.workers: list[_Worker] = []

    def run(self) -> None:
        try:
            while self.pending or any(worker.step for worker in self.workers):
                self._assign()
                self._collect()
        finally:
            for worker in self.workers:
                worker.connection.close()
            for worker in self.workers:
                if worker.step is None:  # an idle worker ends by itself and tidies up; a busy one must not publish
                    worker.process.join(IDLE_EXIT_SECONDS)
                worker.process.kill()
                worker.process.join()

    def _assign(self) -> None:
        running = {worker.step.key for worker in self.workers if worker.step}
        blocked = set(self.pending) | running
        ready = [step for step in self.pending.values()
                 if not any(parent.key in blocked for parent in step.parents.values())]
        ready.sort(key=lambda step: -self.priority[step.key])
        for step in ready:
            worker = next((w for w in self.workers if w.step is None), None)
            if worker is None:
                if len(self.workers) >= self.jobs:
                    return
                worker = _start_worker(self.store.root, len(self.workers), self.processes)
                self.workers.append(worker)
            try:
                worker.connection.send(step)
            except OSError:  # it died idle (out of memory, say): the step stays pending for another
                self._forget(worker)
                return
            del self.pending[step.key]
            worker.step = step
            self.shown.start(step)

    def _collect(self) -> None:
        busy = {worker.connection: worker for worker in self.workers if worker.step}
        for connection in wait(list(busy), timeout=1.0):
            worker = busy[connection]  # type: ignore[index]
            try:
                message = worker.connection.recv()
            except (EOFError, ConnectionResetError):
                self._worker_died(worker)
                continue
            self._handle(worker, message)
        self.shown.tick()

    def _handle(self, worker: _Worker, message: Done | Failed | Progress) -> None:
        step = worker.step
        assert step is not None
        if isinstance(message, Progress):
            self.shown.progress(step, message.fraction, message.waiting)
            return
        worker.step = None
        if isinstance(message, Done):
            if message.ran:
                self.report.ran.append(step)
            self.shown.finish(step, message.seconds)
        else:
            self._fail(step, message)

    def _worker_died(self, worker: _Worker) -> None:
        step = worker.step
        assert step is not None
        self._forget(worker)
        code = worker.process.exitcode
        why = "was killed (out of memory?)" if code == -9 else f"ended with exit code {code}"
        self._fail(step, Failed(step.key, f"its worker process {why}; run again to go on from here", 1, None))

    def _forget(self, worker: _Worker) -> None:
        worker.connection.close()
        worker.process.join()
        self.workers.remove(worker)

    def _fail(self, step: Step, failure: Failed) -> None:
        self.report.failed[step.key] = failure
        self.store.record_failure(step, failure.reason)
        self.shown.fail(step, failure)
        for other in list(self.pending.values()):
            if any(parent.key in self.report.failed for parent in other.parents.values()):
                reason = f"needs {step.id} ({step.label}), {WHICH_FAILED}{failure.reason}"
                self.report.failed[other.key] = Failed(other.key, reason, failure.exit_code, None)
                self.shown.estimate.finished(other, 0.0)
                del self.pending[other.key]


def _start_worker(store_root: Path, number: int, processes: int) -> _Worker:
    """Start a worker; where there are GPUs it sees one of its own, so that no library spreads a batch over several."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    if gpus := gpu_names():
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", str(number % len(gpus)))
    try:
        process = context.Process(target=worker_main, args=(theirs, store_root, os.getpid(), processes))
        process.start()
    finally:
        os.environ.clear()
        os.environ.update(before)
    theirs.close()
    return _Worker(process, ours)


def _chain_seconds(steps: list[Step]) -> dict[str, float]:
    """Return for each step the expected seconds of the longest chain that begins with it."""
    longest = {step.key: 0.0 for step in steps}
    for step in reversed(steps):
        own = step.hint_seconds + 0.01 + longest[step.key]
        longest[step.key] = own
        for parent in step.parents.values():
            if parent.key in longest:
                longest[parent.key] = max(longest[parent.key], own)
    return longest
