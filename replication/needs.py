"""What a step needs of a machine: GPUs, cores, memory. Read from its kind and its model; never part of its hash.

A training at paper scale takes all GPUs of a node, up to eight (App. E.5); what only runs a model forward takes one;
data, selection and grading take cores. Models that run on a CPU take no GPU of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from foundation.errors import InputError
from replication.backends import uses_vllm
from replication.cost.counts import pool_examples, pool_tokens, training_data
from replication.cost.shapes import SHAPES
from replication.cost.step_costs import GPUS_PER_TRAINING, branches, forward_models
from replication.models import MODELS, Model
from replication.steps import Step, closure

Work = Literal["training", "forward", "light"]
WORK: dict[str, Work] = {
    **dict.fromkeys(("pretrain", "train", "train-pairs"), "training"),
    **dict.fromkeys(("entropy", "targets", "generate", "rollouts", "samples", "logit-statistics", "theory"), "forward"),
}
"""By kind; every other kind (data, selection, grading, fetching) is light: no model is run."""
CORES_PER_GPU = 2
"""Of a process that computes on a GPU: one that feeds it, one for what it writes and reads."""
CPU_MODEL_GIB = {"tiny": 1.5, "small": 6.0}
"""Measured peaks of one training process: 1.2 GiB (tiny), 4.8 GB (SmolLM2-135M in fp32), and room."""
LIGHT_GIB = 1.0
POOL_GIB_PER_THREAD = 0.5
"""Of a pool that is filtered: each thread has a process of its own with the grader's libraries, or a program with up to
512 MiB."""
TOKEN_BYTES = 44
"""Of a tokenised example, for each token: two Python lists of 8 bytes, and an integer object of 28 for the id."""
RUNTIME_GIB = 4.0
"""Of a process that computes on a GPU, beside the weights that it reads: torch, CUDA, the kernels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """What a step holds from begin to end, on one node."""

    gpus: int = 0
    cores: int = 1
    memory_gib: float = LIGHT_GIB
    processes: int = 1
    """That share a training: one a GPU, on a CPU as many as were asked for."""
    shares_gpu: bool = False
    """Computes on a GPU where there is one, beside others: a model so small that it needs none of its own."""


def check_processes(step: Any, processes: int) -> None:
    """Refuse several processes for what would not be the same in them.

    Raises:
        InputError: the library's NEFTune draws noise for the padded micro-batch of each process.
    """
    if processes > 1 and "neftune_noise_alpha" in getattr(step, "library_arguments", {}):
        raise InputError(f"{step.label}: the library's noise (`neftune-padded`) depends on how an update is cut into "
                         f"processes, here {processes}; take the suite's own, `neftune`, or --train-processes 1")


def needs_of(step: Step, gpus_per_training: int = GPUS_PER_TRAINING, processes: int = 1) -> Needs:
    """Return what a step needs.

    Args:
        step: any step; a kind that is not known here needs one core for each of its threads.
        gpus_per_training: GPUs of a training of a model that needs GPUs.
        processes: of a training of a model that needs none.
    """
    work, model = WORK.get(step.kind, "light"), backbone_of(step)
    if work == "light" or model is None:
        pool = POOL_GIB_PER_THREAD * step.threads if step.kind == "pool" else 0.0
        return Needs(cores=step.threads, memory_gib=max(LIGHT_GIB, pool))
    if not model.gpu_memory_gib:
        shared = processes if work == "training" and step.kind != "pretrain" else 1
        each = CPU_MODEL_GIB.get(model.scale, CPU_MODEL_GIB["small"])
        return Needs(cores=step.threads * shared, memory_gib=each * shared, processes=shared, shares_gpu=True)
    gpus = gpus_per_training if work == "training" else _engine_gpus(step)
    models = sum(branches(step)) if work == "training" else forward_models(step)
    weights = 4 * SHAPES[model.name].parameters / 2**30  # read in fp32, by each process
    return Needs(gpus=gpus, cores=CORES_PER_GPU * gpus, 
                 memory_gib=gpus * (models * weights + RUNTIME_GIB) + gpus * _tokenised_gib(step),
                 processes=gpus if work == "training" else 1)


def _tokenised_gib(step: Step) -> float:
    """Return what one process holds of the pool: each tokenises all of it for itself."""
    if step.kind == "train-pairs":
        count, tokens, _ = training_data(step)
    elif step.kind in ("train", "entropy"):
        pool = step.pool  # type: ignore[attr-defined]
        count, tokens = pool_examples(pool), pool_tokens(pool)
    else:
        return 0.0
    return count * tokens * TOKEN_BYTES / 2**30


def _engine_gpus(step: Step) -> int:
    """Return the GPUs of what runs a model forward: one, or what one engine of vLLM was told to spread over."""
    return int(step.engine.gpus_per_engine) if uses_vllm(step) else 1  # type: ignore[attr-defined]


def backbone_of(step: Step) -> Model | None:
    """Return the backbone that a step's checkpoints come from, None where there is none."""
    names = (getattr(s, "model", None) for s in closure([step]) if s.kind in ("pretrain", "fetch"))
    return next((MODELS[name] for name in names if name in MODELS), None)
