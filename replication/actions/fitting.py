"""The micro-batch that fits: halved after memory ran out, and remembered for the next training of its kind.

A micro-batch is how an update is cut, no part of what it computes: the global batch stays as it is. After an
out-of-memory error the training goes on from its last checkpoint, or begins again, with half the size; whatever the
number of processes, it is the worker that decides, so that all of them agree. What was found lies beside the results,
one small file for each kind of training on each kind of machine; removing it makes the search begin anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from baselines import distributed
from baselines.resuming import remove_half_written
from foundation.errors import PrerequisiteError
from foundation.files import canonical_json, write_atomic
from replication.actions.ranks import Action, free_memory, memory_message, together
from replication.cost.fit import (
    GIGA,
    USABLE,
    keeps_micro_batch,
    longest_example,
    needed_bytes,
    remedies,
    stage_in_force,
)
from replication.cost.shapes import Shape, shape_of_config
from replication.cost.step_costs import branches
from replication.provenance import gpu_names
from replication.steps import ancestors
from replication.worker import Job


def fitted(job: Job, action: Action, *, launch: bool = False) -> dict[str, Any]:
    """Return what a training action returns, under the largest micro-batch (a half, a quarter, ...) that fits.

    Args:
        job: of a step with `training` settings.
        action: a module's function that trains; it may be called several times.
        launch: start a process of its own even for one rank.

    Raises:
        PrerequisiteError: not even one example at a time fits; the message has the sum and what would help.
        InputError: the processes cannot share an update evenly.
    """
    kind = Kind(job)
    size = kind.start()
    while True:
        said = ""
        remove_half_written(job.scratch / "trainer")  # of an attempt that was killed or found too little memory
        try:
            notes = together(with_micro_batch(job, size), action, launch=launch)
        except Exception as error:
            said = memory_message(error) or ""
            if not said:
                raise
        if not said:
            kind.remember(size)
            return notes
        free_memory()  # here, where the exception holds no tensor any more
        smaller = distributed.smaller_micro_batch(with_micro_batch(job, size).step.training, job.processes)
        if smaller is None or kind.fixed:
            raise PrerequisiteError(kind.advice(size, said))
        size = smaller


def with_micro_batch(job: Job, size: int) -> Job:
    """Return the job with another micro-batch; the step stays the same one, since that is no part of its identity."""
    return replace(job, step=replace(job.step, training=replace(job.step.training, micro_batch=size)))


@dataclass(frozen=True)
class Kind:
    """The trainings that need equal memory: what is remembered for one holds for all."""

    job: Job

    @property
    def fixed(self) -> bool:
        """Whether a library's noise depends on how an update is cut: such a training keeps its micro-batch."""
        return keeps_micro_batch(self.job.step)

    @cached_property
    def description(self) -> dict[str, Any]:
        """All that memory depends on."""
        step, training = self.job.step, self.job.step.training
        model = next((one.model for one in ancestors(step) if hasattr(one, "model")), None)
        trained, frozen = branches(step)
        lora = getattr(step, "lora", None)
        return {"model": model, "kind": step.kind, "trained": trained, "frozen": frozen,
                "lora_rank": None if lora is None else lora.rank, "length": self.length,
                "device": _device(), "processes": self.job.processes,
                **{name: getattr(training, name) for name in
                   ("zero_stage", "gradient_checkpointing", "padding_free", "attention", "compute_dtype",
                    "param_dtype", "optimizer")}}

    @property
    def length(self) -> int:
        """Tokens of the longest example; of a pair, of both its sides."""
        return longest_example(self.job.step)

    @property
    def _path(self) -> Path | None:
        if self.job.remembered is None:
            return None
        digest = hashlib.sha256(canonical_json(self.description).encode()).hexdigest()
        return self.job.remembered / f"micro-batch-{digest[:16]}.json"

    def start(self) -> int:
        """Return the micro-batch to begin with: the setting's, or the smaller one that was found before."""
        size = distributed.micro_batch(self.job.step.training, self.job.processes)
        if self.fixed or self._path is None or not self._path.is_file():
            return size
        try:
            found = int(json.loads(self._path.read_text(encoding="utf-8"))["micro_batch"])
        except (ValueError, KeyError, TypeError):
            return size  # it only saves time
        return next(one for one in range(max(min(size, found), 1), 0, -1) if size % one == 0)

    def remember(self, size: int) -> None:
        """Keep a micro-batch below the setting's."""
        if self._path is not None and size < self.start():
            write_atomic(self._path, json.dumps({"micro_batch": size, **self.description}, indent=1) + "\n")

    # -------------------------------------------------------------------------------------------- when nothing fits

    def advice(self, size: int, said: str) -> str:
        """Return the message for a training that does not fit: the cost model's sum, and what would help."""
        training = self.job.step.training
        text = (f"{self.job.step.label}: memory ran out at a micro-batch of {size} on {self.job.processes} x "
                f"{_device()} of {_memory_bytes() / GIGA:.0f} GB")
        if self.fixed and size > 1:
            return (f"{text} ({said}). The noise of this method depends on how an update is cut, so the micro-batch is "
                    f"not lowered by itself; set --set train.micro_batch={size // 2}")
        stage = stage_in_force(training, self.job.processes)
        need = self._need(self.job.processes, stage)
        bound = min(USABLE * _memory_bytes(), 0.6 * need)  # it ran out, so the sum may be too small
        return (f"{text} ({said}). By the cost model it needs about {need / GIGA:.3g} GB on each of them"
                f"{'' if training.gradient_checkpointing else ' with gradient checkpointing'}. What helps: "
                + "; or ".join(remedies(training, self.job.processes, self._need, bound=bound)))

    def _need(self, gpus: int, stage: int) -> float:
        return needed_bytes(self.job.step, self._shape, gpus=gpus, stage=stage)

    @cached_property
    def _shape(self) -> Shape:
        config = self.job.inputs["strong"] / "checkpoint" / "config.json"
        return shape_of_config(json.loads(config.read_text(encoding="utf-8")))


def _device() -> str:
    """Return the name of what computes; the driver is asked, so that a worker takes no memory of a GPU for it."""
    return gpu_names()[0] if gpu_names() else "CPU"


def _memory_bytes() -> float:
    """Return the memory of one device."""
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
