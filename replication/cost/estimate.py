"""The sums of a plan at paper scale: trainings, tokens, GPU-hours, wall clock, memory, disk, downloads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from replication.backends import uses_vllm
from replication.cost.counts import checkpoints, pool_examples, pool_tokens, prompts, reply_tokens
from replication.cost.figures import value
from replication.cost.memory import Memory, Weights, smallest_stage, training_memory
from replication.cost.schedule import NODE, Schedule, gpu_hours, simulate
from replication.cost.shapes import Shape
from replication.cost.step_costs import GPUS_PER_TRAINING, CostModel, StepCost, branches
from replication.steps import Step

TRAININGS = ("train", "train-pairs")
SAVED_BYTES = 4
"""Per parameter of a trained checkpoint: fp32 weights are saved as they are held."""
RESUMABLE_BYTES = {0: 16, 2: 20, 3: 16}
"""Per trained parameter of a resumable checkpoint, by ZeRO stage. Weights 4 and moments 8, and 4 for the optimizer's
own copy of the weights (without ZeRO: room); stage 2 writes the weights twice, for the trainer and for DeepSpeed."""
RESUMABLE_AT_ONCE = 3
"""Two are kept, and the oldest goes only after the newest is written."""
TEXT_BYTES = 4
"""Per token of text."""


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """Trainings that hold the same models, on one GPU, under the ZeRO stage that the whole plan needs."""

    what: str
    models: int
    """Trained and frozen ones."""
    fits: bool
    fp32: Memory
    """With this suite's fp32 weights under autocast."""
    bf16: Memory
    """With an engine that holds bf16 weights."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What the steps still to run would take."""

    gpus: int
    gpus_per_training: int
    steps: tuple[tuple[Step, StepCost], ...]
    """Parents first."""
    schedule: Schedule
    shared_hours: float
    unshared_hours: float
    zero_stage: int
    """The lowest under which every training fits, else 3."""
    memory: tuple[TrainingMemory, ...]
    disk_bytes: float
    transient_bytes: float
    download_bytes: float
    pool_domains: frozenset[str]
    """Whose training pool is still to be made."""
    needs_fetch: bool
    needs_vllm: bool
    gated: bool

    @property
    def trainings(self) -> list[tuple[Step, StepCost]]:
        """The training steps and their costs."""
        return [(step, cost) for step, cost in self.steps if step.kind in TRAININGS]

    @property
    def uneven_batches(self) -> list[int]:
        """Global batches that the GPUs of a training cannot share evenly: such a run is refused."""
        batches = {step.training.global_batch for step, _ in self.trainings if hasattr(step, "training")}
        return sorted(batch for batch in batches if batch % self.gpus_per_training)

    @property
    def needs_deepspeed(self) -> bool:
        """Whether trainings are shared out by ZeRO, as set or as memory asks for."""
        asked = any(step.training.zero_stage for step, _ in self.trainings if hasattr(step, "training"))
        return self.gpus_per_training > 1 and (asked or bool(self.zero_stage))

    @property
    def fits(self) -> bool:
        """Whether every training fits the GPUs' memory."""
        return all(entry.fits for entry in self.memory)

    def by_group(self) -> dict[str, tuple[int, float, float]]:
        """Return (steps, GPU-hours, CPU-hours) of each group of steps."""
        sums: dict[str, tuple[int, float, float]] = {}
        for _, cost in self.steps:
            count, gpu, cpu = sums.get(cost.group, (0, 0.0, 0.0))
            sums[cost.group] = (count + 1, gpu + cost.gpu_hours, cpu + (0 if cost.gpus else cost.seconds / 3600))
        return sums


def estimate(targets: Sequence[Step], missing: Sequence[Step], shape: Shape, *, gpus: int,
             train_processes: int | None = None) -> Estimate:
    """Return the sums for the steps that are still to run.

    Args:
        targets: the steps whose results are wanted.
        missing: those of their closure that are to run, parents first.
        shape: of the backbone.
        gpus: that there are.
        train_processes: GPUs of a training (default: eight); all there are where they are fewer, eight at most.

    Raises:
        InputError: fewer than one GPU.
    """
    model = CostModel(shape=shape, gpus_per_training=min(train_processes or GPUS_PER_TRAINING, NODE, max(gpus, 1)))
    keys = {step.key for step in missing}
    wanted = [step for step in targets if step.key in keys]
    schedule = simulate(wanted, gpus, model.cost, done=lambda step: step.key not in keys)
    stage, memory = _memory(missing, shape, model.gpus_per_training)
    kinds = {step.kind for step in missing}
    pools: list[Any] = [step for step in missing if step.kind == "pool"]
    corpus = any("am" in pool.sources and pool.data_root is None for pool in pools)
    return Estimate(
        gpus=gpus, gpus_per_training=model.gpus_per_training,
        steps=tuple((step, model.cost(step)) for step in missing), schedule=schedule,
        shared_hours=gpu_hours(targets, model.cost), unshared_hours=gpu_hours(targets, model.cost, shared=False),
        zero_stage=stage, memory=memory,
        disk_bytes=sum(_stored(step, shape) for step in missing) + corpus * value("corpus"),
        transient_bytes=_transient(missing, shape, gpus),
        download_bytes=("fetch" in kinds) * shape.download_bytes + corpus * value("corpus"),
        pool_domains=frozenset(pool.domain for pool in pools), needs_fetch="fetch" in kinds, gated=shape.gated,
        needs_vllm=any(map(uses_vllm, missing)))


def _stored(step: Any, shape: Shape) -> float:
    per_parameter = 2 if step.kind == "fetch" else SAVED_BYTES
    held: float = checkpoints(step) * per_parameter * shape.parameters
    if step.kind == "targets":  # an id and a logit of 4 bytes each
        held += prompts(step.replies) * reply_tokens(step.replies) * step.top_k * 8
    if step.kind == "pool":
        held += pool_examples(step) * pool_tokens(step) * TEXT_BYTES
    return held


def _transient(steps: Sequence[Any], shape: Shape, gpus: int) -> float:
    """Return the bytes of resumable checkpoints while the largest trainings run side by side.

    A model that vLLM reads in another form (Gemma) is written anew by every generation: one a GPU where nothing trains.
    """
    sizes = sorted((branches(step)[0] * shape.parameters * resumable_bytes(step.training.zero_stage) for step in steps
                    if step.kind in TRAININGS and getattr(step, "lora", None) is None
                    and step.training.checkpoint_every is not None), reverse=True)
    exports = gpus * SAVED_BYTES * shape.parameters if shape.exported and any(map(uses_vllm, steps)) else 0
    return max(sum(sizes[: max(1, gpus // NODE)]), exports)


def resumable_bytes(stage: int) -> int:
    """Return the bytes per trained parameter of all resumable checkpoints that exist at once."""
    return RESUMABLE_AT_ONCE * RESUMABLE_BYTES[stage]


@dataclass(frozen=True, slots=True)
class _Held:
    """What a training holds on its GPUs; equal ones need equal memory."""

    branches: int
    frozen: int
    lora_rank: int | None
    tokens: int
    """Of a micro-batch."""


def _held(step: Any) -> _Held:
    lora = getattr(step, "lora", None)
    length = step.data.max_length if step.kind == "train" else 2 * step.pairs.data.max_length
    return _Held(*branches(step), None if lora is None else lora.rank, step.training.micro_batch * length)


def _memory(steps: Iterable[Any], shape: Shape, gpus: int) -> tuple[int, tuple[TrainingMemory, ...]]:
    """Return the stage that all trainings need, and the memory of each kind of training under it."""
    budget = value("gpu.usable") * value("gpu.memory")
    kinds: dict[_Held, Any] = {}
    for step in steps:
        if step.kind in TRAININGS:
            kinds.setdefault(_held(step), step)
    stages = [smallest_stage(shape, budget=budget, gpus=gpus, weights="fp32", **asdict(held)) for held in kinds]
    # one process has nothing to share out: 16 bytes a parameter, whatever stage is set
    stage = 0 if gpus == 1 else max((3 if found is None else found for found in stages), default=0)

    def peak(held: _Held, weights: Weights) -> Memory:
        return training_memory(shape, gpus=gpus, stage=stage, weights=weights, **asdict(held))

    return stage, tuple(
        TrainingMemory(what=step.title or step.method, models=held.branches + held.frozen,
                       fits=peak(held, "fp32").total <= budget, fp32=peak(held, "fp32"), bf16=peak(held, "bf16"))
        for held, step in kinds.items())
