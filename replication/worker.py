"""A worker process: receives steps, runs their actions, publishes results, dies with its parent.

What runs one step (`attempt`, `execute`) is the same for every executor.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import math
import os
import platform
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from baselines.user_methods import Handle
from foundation.errors import InputError, PrerequisiteError, StorageError, SuiteError
from foundation.files import storage_error
from replication.attempts import Attempts
from replication.memory_errors import MemoryShort, memory_message
from replication.provenance import provenance
from replication.steps import Step
from replication.store import Store

_PR_SET_PDEATHSIG = 1
# Import state of every library is fixed before the first import: one thread until a step sets its own number, no
# tokenizer threads, no telemetry, deterministic matrix products on GPUs.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "PYTHONHASHSEED": "0",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "FLASH_ATTENTION_DETERMINISTIC": "1",
    # glibc: keep freed activation memory instead of giving it back and faulting it in again at every update
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(8 * 2**30),
}


@dataclass(frozen=True, slots=True)
class Job:
    """What an action gets: the step, its parents' folders, where to write, and whom to tell."""

    step: Any
    inputs: dict[str, Path]
    output: Path
    scratch: Path
    """Kept across kills; emptied when the step is published."""
    on_progress: Callable[[float], None]
    processes: int = 1
    """How many processes a training may use together; never part of what is computed."""
    gpus: tuple[str, ...] = ()
    """The CUDA devices given to this step, as CUDA_VISIBLE_DEVICES names them; empty without GPUs."""
    remembered: Path | None = None
    """Folder for what steps of one kind learn about this machine; no result is kept or looked for there."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A step on its way to the process that runs it, with what it was given there."""

    step: Step
    gpus: tuple[str, ...] = ()
    """Its devices, as CUDA_VISIBLE_DEVICES names them."""
    processes: int = 1
    """That it may use together."""


@dataclass(frozen=True, slots=True)
class Done:
    """A finished step: whether this process ran it, its seconds."""

    key: str
    ran: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Failed:
    """A failed step: the reason for the user, and a traceback when it is a defect of ours."""

    key: str
    reason: str
    exit_code: int
    trace: str | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the running step is, in [0, 1], or that it waits for another process."""

    key: str
    fraction: float
    waiting: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """A step whose node vanished: it did not fail, and may run again elsewhere."""

    key: str
    reason: str


Message = Done | Failed | Progress | Lost


class RankError(Exception):
    """A defect in one of the processes that a step had started: its message, and the traceback from there."""

    def __init__(self, reason: str, trace: str) -> None:
        super().__init__(reason)
        self.trace = trace


def worker_main(connection: Connection, store_root: Path, parent_pid: int) -> None:
    """Run steps received over `connection` until it closes."""
    die_with_parent(parent_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - libraries' chatter must not break the display
    store = Store(store_root)
    while True:
        try:
            assignment = connection.recv()
        except EOFError:
            return

        def report(fraction: float, waiting: bool = False, key: str = assignment.step.key) -> None:
            stop_if_orphan(parent_pid)
            connection.send(Progress(key, fraction, waiting))

        connection.send(attempt(assignment, store, report))


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent dies: an orphan must never publish into the next run."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    stop_if_orphan(parent_pid)


def stop_if_orphan(parent_pid: int) -> None:
    """End this process at once if its parent is gone."""
    if os.getppid() != parent_pid:
        os._exit(1)


def attempt(assignment: Assignment, store: Store, report: Callable[..., None]) -> Done | Failed:
    """Run a step; whatever goes wrong becomes a `Failed` that says what and where.

    Args:
        assignment: the step and what it was given.
        store: where parents lie and the result goes.
        report: told `(fraction, waiting)` while it runs.
    """
    step = assignment.step
    try:
        return execute(step, store, report, assignment)
    except Exception as error:
        told = users_error(step, error, store.root)
        if isinstance(told, SuiteError):
            return Failed(step.key, str(told), told.exit_code, None)
        if isinstance(told, RankError):
            return Failed(step.key, str(told), 1, told.trace)
        return Failed(step.key, f"{type(error).__name__}: {error}", 1, traceback.format_exc())


def users_error(step: Step, error: Exception, place: Path) -> Exception:
    """Return the error as the user is told it: a full disk and a fault of their method's have messages of their own."""
    if isinstance(error, SuiteError | RankError):
        return error
    if (full := _disk_error(error, place)) is not None:
        return full
    if (short := _memory_error(step, error)) is not None:
        return short
    fault = _methods_fault(step, error)
    return error if fault is None else InputError(fault)


def _methods_fault(step: Step, error: Exception) -> str | None:
    """Return file and line if code of a method from outside failed: that is the user's to mend, no defect of ours."""
    handle: Handle | None = getattr(step, "loss_of", None)
    return None if handle is None else handle.fault(error)


def _memory_error(step: Step, error: Exception) -> PrerequisiteError | None:
    """Recognise memory that ran out (trainings try smaller micro-batches before; `replication.actions.fitting`)."""
    if not isinstance(error, MemoryError | RuntimeError | MemoryShort):
        return None
    said = memory_message(error)
    if said is None:
        return None
    helps = ["free it of other processes (nvidia-smi names those on a GPU)", "run fewer steps at a time (--jobs)"]
    if getattr(step, "backend", None) == "hf" and (size := getattr(step, "batch_size", 1)) > 1:
        section = "eval" if step.kind == "generate" else "rollouts"
        helps.insert(0, f"smaller batches, which count as another computation (--set {section}.batch_size={size // 2})")
    return PrerequisiteError(f"{step.label}: memory ran out ({said}). What helps: {'; or '.join(helps)}; or a device "
                             "with more memory. Run again to go on from here")


def _disk_error(error: Exception, root: Path) -> StorageError | None:
    """Recognise a full disk however a library words it (safetensors and torch wrap the operating system's error)."""
    if isinstance(error, OSError):
        return storage_error(error, root)
    if os.strerror(errno.ENOSPC) in str(error) or "file write failed" in str(error):
        return storage_error(OSError(errno.ENOSPC, ""), root)
    return None


def execute(step: Step, store: Store, report: Callable[..., None], given: Assignment | None = None) -> Done:
    """Run one step unless it is done: lock, action into a building folder, publish."""
    given = given or Assignment(step)
    with store.lock(step, on_wait=lambda: report(0.0, waiting=True)):
        if store.is_whole(step):
            return Done(step.key, ran=False, seconds=0.0)
        if store.folder(step).exists() and not store.is_done(step):  # no manifest: an interrupted copy, say
            store.move_aside(step)
        building = store.building_folder(step)
        attempts = Attempts(building)
        output, scratch = building / "output", building / "scratch"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()
        scratch.mkdir(exist_ok=True)
        module, function = step.action.split(":")
        inputs = {role: store.use(parent) for role, parent in step.parents.items()}

        def told(fraction: float) -> None:
            attempts.tick()
            report(fraction)

        job = Job(step, inputs, output, scratch, throttled(told), given.processes, given.gpus,
                  store.root / ".remembered")
        try:
            notes = getattr(importlib.import_module(module), function)(job) or {}
        except BaseException:
            attempts.keep()
            raise
        seconds = attempts.seconds()
        report(1.0)
        store.publish(step, output, {"notes": notes, "seconds": math.fsum(seconds), "attempts": seconds,
                                     "finished": time.time(), "command": sys.argv, "provenance": provenance(),
                                     "placement": {"node": platform.node(), "gpus": list(given.gpus),
                                                   "processes": given.processes}})
        store.discard_building(step)
        return Done(step.key, ran=True, seconds=seconds[-1])


def throttled(report: Callable[..., None], every_seconds: float = 0.2) -> Callable[[float], None]:
    """Return a report that is passed on at most every so many seconds."""
    last = 0.0

    def on_progress(fraction: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= every_seconds:
            last = now
            report(fraction)

    return on_progress
