"""Actions that tests run in several processes through replication.actions.ranks; real processes, real failures."""

from __future__ import annotations

import gc
import json
import os
import pickle
import signal
import time
from dataclasses import replace

from foundation.errors import TrainingError


def greet(job):
    """Leave a file a rank; report progress and return a note from the main one."""
    rank, count = os.environ["RANK"], os.environ["WORLD_SIZE"]
    (job.scratch / f"rank-{rank}").write_text(count, encoding="utf-8")
    for step in range(1, 5):
        job.on_progress(step / 4)
        time.sleep(0.3)
    return {"rank": rank, "count": int(count), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES")}


def fail(job):
    """In the second rank, fail as the job's step says; the first one waits, as in a collective."""
    if os.environ["RANK"] == "0":
        time.sleep(300)
    how = job.step.text
    if how == "user":
        raise TrainingError("the loss became nan at update 3")
    if how == "defect":
        raise KeyError("a defect of ours")
    if how == "disk":
        raise OSError(28, "No space left on device")
    if how == "memory":
        import torch

        torch.empty(2**60)
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError(how)


def wait_for_ever(job):
    """Say who runs, then wait."""
    (job.scratch / f"pid-{os.environ['RANK']}").write_text(str(os.getpid()), encoding="utf-8")
    time.sleep(300)


def train_all(job):
    """Train the jobs that lie pickled in the scratch folder, one after another, as a worker would."""
    from baselines import distributed
    from replication.actions import training

    distributed.WHOLE_ELEMENTS = 0  # the tests' whole model is smaller than that: really split every weight
    for one in pickle.loads((job.scratch / "jobs.pickle").read_bytes()):
        action = training.train_on_pairs_here if one.step.kind == "train-pairs" else training.train_here
        notes = action(one)
        if distributed.is_main():
            (one.output / "notes.json").write_text(json.dumps(notes), encoding="utf-8")
        gc.collect()  # engines hold on to themselves
    return {}


def train_small(job):
    """Train as `train_here`, with every weight of the small model really split."""
    from baselines import distributed
    from replication.actions.training import train_here

    distributed.WHOLE_ELEMENTS = 0
    return train_here(job)


def train_and_die(job):
    """Train until half of the updates are made, then end with an error in every rank."""
    def die(fraction):
        if fraction > 0.45:
            raise TrainingError("ended on purpose")

    return train_small(replace(job, on_progress=die))


def train_hungry(job):
    """Train as `train_small`, but a forward pass over more than one example of the second rank finds no memory."""
    from replication.actions import training

    original = training.BranchedModel.forward

    def forward(self, input_ids, *args, **kwargs):
        with (job.scratch / f"sizes-{os.environ['RANK']}").open("a", encoding="utf-8") as file:
            file.write(f"{len(input_ids)}\n")
        if os.environ["RANK"] == "1" and len(input_ids) > 1:
            import torch

            torch.empty(2**60)
        return original(self, input_ids, *args, **kwargs)

    training.BranchedModel.forward = forward
    return train_small(job)
