"""How trainings are laid out over processes and GPUs, and what cannot be laid out: refused before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from foundation.errors import InputError, PrerequisiteError
from replication.cost.estimate import TRAININGS
from replication.cost.fit import GIGA, USABLE, needed_bytes, remedies, stage_in_force
from replication.cost.shapes import SHAPES
from replication.cost.step_costs import GPUS_PER_TRAINING
from replication.needs import backbone_of, check_processes, needs_of
from replication.steps import Step

Processes = Callable[[Step], int]
"""How many processes share a training."""


def gpus_of_training(asked: int | None, there: int) -> int:
    """Return the GPUs of a training: as many as were asked for, else eight (App. E.5), at most all there are."""
    return max(1, min(asked or GPUS_PER_TRAINING, there))


def processes_here(asked: int | None, gpus: Sequence[str]) -> Processes:
    """Return how the local executor will share out trainings on these devices."""
    most = gpus_of_training(asked, len(gpus))
    return lambda step: needs_of(step, most, asked or 1).processes


def _trainings(steps: Iterable[Step]) -> list[Any]:
    return [step for step in steps if step.kind in TRAININGS and getattr(step, "training", None) is not None]


def uses_deepspeed(steps: Iterable[Step], processes: Processes) -> bool:
    """Whether a training is shared out by ZeRO, for which the machine that runs it needs DeepSpeed."""
    return any(stage_in_force(step.training, processes(step)) > 0 for step in _trainings(steps))


def check_trainings(steps: Iterable[Step], processes: Processes) -> None:
    """Refuse trainings that so many processes cannot share, before anything runs.

    Raises:
        InputError: a global batch that does not split evenly, settings that ZeRO cannot share out, or the library's
            NEFTune.
        PrerequisiteError: ZeRO without DeepSpeed.
    """
    shared = [(step, count) for step in _trainings(steps) if (count := processes(step)) > 1]
    if not shared:
        return  # torch is not imported for it
    from baselines.distributed import check_zero, micro_batch

    for step, count in shared:
        check_processes(step, count)
        try:
            micro_batch(step.training, count)
            check_zero(step.training)
        except InputError as error:
            raise InputError(f"--train-processes {count}, {step.label}: {error}") from error


def check_memory(steps: Iterable[Step], processes: Processes, memory: Sequence[float]) -> None:
    """Refuse trainings that by the cost model cannot fit the GPUs even one example at a time, before anything runs.

    Args:
        steps: any.
        processes: that share a training.
        memory: bytes of each GPU; nothing is refused where they are not known.

    Raises:
        PrerequisiteError: with the sum, and what helps.
    """
    worst: tuple[float, Any, int] | None = None
    for step in _trainings(steps):
        model, count = backbone_of(step), processes(step)
        if memory and model is not None and model.name in SHAPES:
            need = needed_bytes(step, SHAPES[model.name], gpus=count, stage=stage_in_force(step.training, count))
            if need > min(memory) and (worst is None or need > worst[0]):
                worst = need, step, count
    if worst is not None:
        raise PrerequisiteError(_too_little(*worst, min(memory)))


def _too_little(need: float, step: Any, count: int, memory: float) -> str:
    shape = SHAPES[backbone_of(step).name]  # type: ignore[union-attr]
    stage = stage_in_force(step.training, count)
    helps = remedies(step.training, count, lambda gpus, stage: needed_bytes(step, shape, gpus=gpus, stage=stage),
                     bound=USABLE * memory)
    layout = "one GPU" if count == 1 else f"{count} GPUs with train.zero_stage={stage}"
    return (f"{step.label} on {layout} needs about {need / GIGA:.3g} GB on each by the cost model, one example at a "
            f"time; {memory / GIGA:.0f} GB are there. What helps: {'; or '.join(helps)}")
