"""A step's action in several processes (ranks): started by torchrun, watched by the worker, ended with it.

    worker  ->  python -m replication.actions.ranks launch FOLDER       torchrun's agent, dies with the worker
                ->  python -m replication.actions.ranks rank FOLDER     one a GPU (or CPU share), dies with the agent

FOLDER lies in the step's scratch folder and holds all that passes between them: the job, the progress, what the main
rank returns, and of each rank that failed its error, so that the worker raises what the rank raised. When one rank
ends, torchrun ends the others.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundation.errors import PrerequisiteError, ProcessError, SuiteError
from replication.memory_errors import MemoryShort, memory_message
from replication.provenance import gpu_names
from replication.worker import Job, RankError, die_with_parent, throttled, users_error

Action = Callable[[Job], dict[str, Any]]
POLL_SECONDS = 0.1
_AGENT = "WMSS_AGENT_PID"
_ERRORS = {kind.__name__: kind for kind in SuiteError.__subclasses__()}


@dataclass(frozen=True, slots=True)
class _Launch:
    """What the ranks get of a job: all but whom to tell, which is a file."""

    job: Job
    action: str
    """`module:function`, which every rank calls."""


def free_memory() -> None:
    """Give back what a failed attempt held; call this where its exception is no longer at hand."""
    from accelerate.utils.memory import clear_device_cache

    gc.collect()
    clear_device_cache(garbage_collection=True)


def together(job: Job, action: Action, *, launch: bool = False) -> dict[str, Any]:
    """Return what the action returns: here, or (its main rank) in as many processes as the job was given.

    Args:
        job: with `processes` and `gpus`.
        action: a module's function; each rank calls it with the job. Only the main rank may write output.
        launch: start a rank even where there is but one.

    Raises:
        SuiteError: what a rank raised.
        MemoryShort: memory ran out in a rank.
        RankError: a rank met a defect.
        ProcessError: a rank was killed.
        PrerequisiteError: fewer GPUs than processes.
    """
    if job.processes == 1 and not launch:
        return action(job)
    folder = job.scratch / "ranks"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    name = f"{action.__module__}:{action.__qualname__}"
    sent = Job(job.step, job.inputs, job.output, job.scratch, _silent, job.processes, job.gpus, job.remembered)
    (folder / "job.pickle").write_bytes(pickle.dumps(_Launch(sent, name)))
    with (folder / "output.log").open("wb") as log:
        agent = subprocess.Popen([sys.executable, "-m", __name__, "launch", str(folder), str(os.getpid())],
                                 stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                 env=os.environ | _environment(job), start_new_session=True)
    try:
        _watch(agent, folder, job)
    finally:
        if agent.poll() is None:
            agent.kill()  # the ranks die with it
            agent.wait()
    if agent.returncode != 0:
        _raise(folder, job)
    notes: dict[str, Any] = json.loads((folder / "notes.json").read_text(encoding="utf-8"))
    return notes


def _silent(fraction: float) -> None:
    """Stand in for whom to tell, on the way to a rank."""


def _environment(job: Job) -> dict[str, str]:
    """Return what ranks see: the worker's modules, and the GPUs of this step."""
    changes = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    everything = ",".join(str(number) for number in range(len(gpu_names())))
    seen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", everything).split(",") if name]
    gpus = list(job.gpus) or seen
    if gpu_names() and len(gpus) < job.processes:
        raise PrerequisiteError(f"{job.step.label}: {job.processes} processes need a GPU each, this step was given "
                                f"{len(gpus)} ({', '.join(gpus) or 'none'}); lower --train-processes")
    if job.gpus:
        changes["CUDA_VISIBLE_DEVICES"] = ",".join(job.gpus)
    return changes


def _watch(agent: subprocess.Popen[bytes], folder: Path, job: Job) -> None:
    """Pass progress on until the agent ends."""
    told = 0.0
    while agent.poll() is None:
        time.sleep(POLL_SECONDS)
        with contextlib.suppress(OSError, ValueError):
            told = float((folder / "progress").read_text(encoding="utf-8"))
        job.on_progress(told)


def _raise(folder: Path, job: Job) -> None:
    """Raise what explains the failure best: a lack of memory, an error for the user, a killed rank, a defect."""
    errors = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("error-*.json")]
    errors.sort(key=lambda error: (not error["memory"], error["kind"] is None, error["time"]))
    first = errors[0] if errors else None
    if first is not None and first["memory"]:
        raise MemoryShort(first["reason"])
    if first is not None and first["kind"] is not None:
        raise _ERRORS.get(first["kind"], SuiteError)(first["reason"])
    for rank, code in _exit_codes(folder).items():
        if code < 0 and -code != signal.SIGTERM:
            why = "was killed (out of memory?)" if -code == signal.SIGKILL else f"ended by signal {-code}"
            raise ProcessError(f"process {rank + 1} of {job.processes} of {job.step.label} {why}; run again to go on "
                               "from here")
    if first is not None:
        raise RankError(f"{first['reason']} (in process {first['rank'] + 1} of {job.processes})", first["trace"])
    text = (folder / "output.log").read_text(encoding="utf-8", errors="replace").strip()
    raise RankError(f"the {job.processes} processes of {job.step.label} ended without a word", text[-4000:])


def _exit_codes(folder: Path) -> dict[int, int]:
    path = folder / "exit-codes.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {int(rank): code for rank, code in found.items()}


# ------------------------------------------------------------------------------------- in the agent and in the ranks


def _launch(folder: Path, worker_pid: int) -> int:
    """Run torchrun in this process, which dies with the worker."""
    die_with_parent(worker_pid)
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ[_AGENT] = str(os.getpid())
    processes = pickle.loads((folder / "job.pickle").read_bytes()).job.processes
    try:
        run.main(["--standalone", "--nproc-per-node", str(processes), "-m", f"{__package__}.ranks", "rank",
                  str(folder)])
    except ChildFailedError as error:
        codes = {str(rank): failure.exitcode for rank, failure in error.failures.items()}
        (folder / "exit-codes.json").write_text(json.dumps(codes), encoding="utf-8")
        return 1
    return 0


def _rank(folder: Path) -> int:
    """Run the action as one of several; leave what it returned, or its error."""
    die_with_parent(int(os.environ[_AGENT]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    launch: _Launch = pickle.loads((folder / "job.pickle").read_bytes())
    rank = int(os.environ["RANK"])
    old = launch.job
    job = Job(old.step, old.inputs, old.output, old.scratch, _progress_file(folder) if rank == 0 else _silent,
              old.processes, old.gpus, old.remembered)
    module, function = launch.action.split(":")
    try:
        notes = getattr(importlib.import_module(module), function)(job)
    except Exception as error:
        _leave_error(folder, rank, job, error)
        os._exit(1)  # at once: threads of a collective that others have left may hang
    if rank == 0:
        (folder / "notes.json").write_text(json.dumps(notes), encoding="utf-8")
    _part()
    return 0


def _part() -> None:
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def _progress_file(folder: Path) -> Callable[[float], None]:
    def tell(fraction: float) -> None:
        half = folder / "progress.half"
        half.write_text(str(fraction), encoding="utf-8")
        half.replace(folder / "progress")

    return throttled(tell)


def _leave_error(folder: Path, rank: int, job: Job, error: Exception) -> None:
    short = memory_message(error)
    told = users_error(job.step, error, job.output)
    record = {"rank": rank, "time": time.time(), "memory": short is not None,
              "kind": type(told).__name__ if isinstance(told, SuiteError) else None,
              "reason": short or (str(told) if isinstance(told, SuiteError) else f"{type(error).__name__}: {error}"),
              "trace": traceback.format_exc()}
    half = folder / f"half-{rank}"
    half.write_text(json.dumps(record), encoding="utf-8")
    half.replace(folder / f"error-{rank}.json")


if __name__ == "__main__":
    sys.exit(_launch(Path(sys.argv[2]), int(sys.argv[3])) if sys.argv[1] == "launch" else _rank(Path(sys.argv[2])))
