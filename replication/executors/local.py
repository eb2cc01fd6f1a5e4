"""Worker processes on this machine: spawned, each with a fixed set of GPUs.

A process that has computed on GPUs of its own is ended with its step: it would still hold memory there (torch keeps
what it once took), which the next step's engine or ranks would miss. Starting another costs seconds. Processes without
devices of their own live long.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from replication.layout import gpus_of_training
from replication.needs import Needs, needs_of
from replication.placement import Node, Place, Placement
from replication.provenance import gpu_devices
from replication.steps import Step
from replication.store import Store
from replication.worker import ENVIRONMENT, Assignment, Failed, Message, Progress, worker_main

IDLE_EXIT_SECONDS = 10.0


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    connection: Connection
    devices: tuple[str, ...] | None
    """Its own GPUs; (): none at all; None: it shares those of the machine with others."""
    step: Step | None = None
    needs: Needs | None = None
    place: Place | None = None


class LocalExecutor:
    """Runs up to `jobs` steps at a time; on a machine with GPUs, each GPU step has its own."""

    def __init__(self, store: Store, jobs: int, *, gpus: tuple[str, ...] | None = None,
                 gpus_per_training: int | None = None, processes: int = 1,
                 needs: Callable[[Step], Needs] | None = None) -> None:
        """Prepare; processes are started when there is something to run.

        Args:
            store: where results live.
            jobs: steps at a time.
            gpus: devices (default: those this process may use).
            gpus_per_training: default: all of them, up to eight.
            processes: that share a training of a model that needs no GPU.
            needs: of a step (default: `needs_of`).
        """
        self.store, self.width = store, jobs
        self.gpus = gpu_devices() if gpus is None else gpus
        most = gpus_of_training(gpus_per_training, len(self.gpus))
        self.needs = needs or (lambda step: needs_of(step, most, processes))
        self.placement = Placement([Node(name="", gpus=self.gpus, slots=jobs)])
        self.workers: list[_Worker] = []
        self.started = 0

    def start(self, ready: Sequence[Step]) -> list[Step]:
        """Give ready steps to idle workers, or new ones where there is room."""
        needs = [self._fitted(self.needs(step)) for step in ready]
        started = []
        for step, need, place in zip(ready, needs, self.placement.place(needs), strict=True):
            if place is None:
                continue
            if self._send(step, need, place):
                started.append(step)
            else:  # its worker died idle (out of memory, say): the step stays with the caller for another
                self.placement.give_back(need, place)
        return started

    def _fitted(self, needs: Needs) -> Needs:
        """Without GPUs nothing is asked of them; whether the model can run here was asked before."""
        return needs if self.gpus or not needs.gpus else Needs(cores=needs.cores, memory_gib=needs.memory_gib)

    def _send(self, step: Step, needs: Needs, place: Place) -> bool:
        worker = self._worker_for(place.gpus if needs.gpus or not needs.shares_gpu else None)
        try:
            worker.connection.send(Assignment(step, place.gpus, needs.processes))
        except OSError:
            self._forget(worker)
            return False
        worker.step, worker.needs, worker.place = step, needs, place
        return True

    def _worker_for(self, devices: tuple[str, ...] | None) -> _Worker:
        """Return an idle worker of this kind, or start one; those with devices of their own were ended."""
        if not self.gpus:
            devices = None
        for worker in self.workers:
            if worker.step is None and worker.devices == devices:
                return worker
        if len(self.workers) >= self.width:
            self._end(next(worker for worker in self.workers if worker.step is None))
        worker = _start_worker(self.store.root, devices, self.gpus, self.started)
        self.started += 1
        self.workers.append(worker)
        return worker

    def events(self, seconds: float) -> Iterator[tuple[Step, Message]]:
        """Return what the busy workers told."""
        busy = {worker.connection: worker for worker in self.workers if worker.step}
        for connection in wait(list(busy), timeout=seconds):
            worker = busy[connection]  # type: ignore[index]
            step = worker.step
            assert step is not None
            try:
                message = worker.connection.recv()
            except (EOFError, ConnectionResetError):
                message = self._died(worker)
            if not isinstance(message, Progress):
                self._release(worker)
                if worker.devices and worker in self.workers:
                    self._end(worker)
            yield step, message

    def hopeless(self, step: Step) -> str | None:
        """Say nothing: trainings are cut to the GPUs that there are."""
        return None

    def close(self) -> None:
        """End all workers: idle ones tidy up first, busy ones must not publish."""
        for worker in self.workers:
            worker.connection.close()
        for worker in self.workers:
            if worker.step is None:
                worker.process.join(IDLE_EXIT_SECONDS)
            worker.process.kill()
            worker.process.join()
        self.workers.clear()

    def _release(self, worker: _Worker) -> None:
        assert worker.needs is not None and worker.place is not None
        self.placement.give_back(worker.needs, worker.place)
        worker.step = worker.needs = worker.place = None

    def _died(self, worker: _Worker) -> Failed:
        assert worker.step is not None
        self._forget(worker)
        code = worker.process.exitcode
        why = "was killed (out of memory?)" if code == -9 else f"ended with exit code {code}"
        return Failed(worker.step.key, f"its worker process {why}; run again to go on from here", 1, None)

    def _forget(self, worker: _Worker) -> None:
        worker.connection.close()
        worker.process.join()
        self.workers.remove(worker)

    def _end(self, worker: _Worker) -> None:
        worker.connection.close()
        worker.process.join(IDLE_EXIT_SECONDS)
        worker.process.kill()
        worker.process.join()
        self.workers.remove(worker)


def _start_worker(store_root: Path, devices: tuple[str, ...] | None, gpus: tuple[str, ...], number: int) -> _Worker:
    """Start a worker that sees its devices alone; one that shares sees one, so that no library spreads a batch."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)] if devices is None else ",".join(devices)
    try:
        process = context.Process(target=worker_main, args=(theirs, store_root, os.getpid()))
        process.start()
    finally:
        os.environ.clear()
        os.environ.update(before)
    theirs.close()
    return _Worker(process, ours, devices)


def local(store: Store, jobs: int, *, gpus_per_training: int | None = None, processes: int = 1
          ) -> Callable[[Sequence[Step]], LocalExecutor]:
    """Return what opens this executor for the steps of a run."""
    return lambda steps: LocalExecutor(store, min(jobs, len(steps)), gpus_per_training=gpus_per_training,
                                       processes=processes)
