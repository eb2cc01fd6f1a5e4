"""Steps whose actions are trivial, so that store and runner are tested with real files and real processes."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from foundation.errors import InputError
from replication.steps import NOT_IDENTITY, Step


@dataclass(frozen=True, kw_only=True)
class Write(Step):
    """Writes its text, after its parents' texts; appends a line to `log` each time it runs."""

    kind = "write"
    action = "fake_steps:write"
    text: str
    needs: tuple[Step, ...] = ()
    seconds: float = 0.0
    log: str | None = field(default=None, metadata=NOT_IDENTITY)


@dataclass(frozen=True, kw_only=True)
class Break(Step):
    """Fails: as a user's mistake, as a defect, as a full disk, or by dying."""

    kind = "break"
    action = "fake_steps:break_"
    how: str
    needs: tuple[Step, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ShowDevices(Step):
    """Appends to `log` which devices it was given and sees, and its process, when it begins and when it ends."""

    kind = "show-devices"
    action = "fake_steps:show_devices"
    text: str
    gpus: int = 0
    shares: bool = False
    needs: tuple[Step, ...] = ()
    seconds: float = 0.0
    log: str = field(default="", metadata=NOT_IDENTITY)


@dataclass(frozen=True, kw_only=True)
class KeepLock(Step):
    """Leaves a semaphore behind in its worker, as progress bars of libraries do."""

    kind = "keep-lock"
    action = "fake_steps:keep_lock"


@dataclass(frozen=True, kw_only=True)
class Interrupted(Step):
    """Works for a while and is interrupted in the first attempt, as `how` says; goes on from there in the second."""

    kind = "interrupted"
    action = "fake_steps:interrupted"
    how: str


def interrupted(job):
    reached = job.scratch / "reached"
    if job.step.how != "not at all" and not reached.exists():
        reached.write_text("half way", encoding="utf-8")
        time.sleep(0.3)
        job.on_progress(0.5)
        if job.step.how == "killed":
            os.kill(os.getpid(), 9)
        raise RuntimeError("out of memory")
    (job.output / "text").write_text("done", encoding="utf-8")


def keep_lock(job):
    import multiprocessing
    import sys

    sys.modules[__name__].kept = multiprocessing.RLock()
    (job.output / "text").write_text("locked", encoding="utf-8")


def show_devices(job):
    import json

    for event in ("begin", "end"):
        line = {"alive": _others(job.step.log),
                "event": event, "text": job.step.text, "given": list(job.gpus), "processes": job.processes,
                "seen": os.environ.get("CUDA_VISIBLE_DEVICES"), "process": os.getpid()}
        with open(job.step.log, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if event == "begin":
            time.sleep(job.step.seconds)


def _others(log):
    """Return which of the processes that wrote to a log are alive, this one left out unless it wrote before."""
    import json
    from contextlib import suppress

    alive = []
    with suppress(FileNotFoundError):
        for process in dict.fromkeys(json.loads(line)["process"] for line in Path(log).read_text().splitlines()):
            with suppress(ProcessLookupError):
                os.kill(process, 0)
                alive.append(process)
    return alive


def write(job):
    step = job.step
    if step.log:
        with open(step.log, "a", encoding="utf-8") as file:
            file.write(f"{step.text}\n")
    (job.output / "half").write_text("written first", encoding="utf-8")
    time.sleep(step.seconds)
    before = "".join((folder / "text").read_text(encoding="utf-8") for folder in job.inputs.values())
    (job.output / "text").write_text(before + step.text, encoding="utf-8")
    return {"length": len(step.text)}


def break_(job):
    how = job.step.how
    if how == "input":
        raise InputError("the input is wrong: 7")
    if how == "defect":
        raise KeyError("a defect of ours")
    if how == "disk":
        raise OSError(28, "No space left on device")
    if how == "library disk":
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    if how == "die":
        os.kill(os.getpid(), 9)
    raise AssertionError(how)


def read(store_root, step):
    return (Path(store_root) / step.id / "text").read_text(encoding="utf-8")
