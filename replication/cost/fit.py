"""Whether a training fits the GPUs that it would get, by the cost model's sums, and what helps where it does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from baselines.settings import TrainingSettings
from replication.cost.memory import training_memory
from replication.cost.shapes import Shape
from replication.cost.step_costs import branches

GIGA = 1e9
MOST_GPUS = 64
"""More are not proposed."""
USABLE = 0.9
"""Of a GPU's memory, where more GPUs are proposed: the sums leave out what CUDA and fragments take."""


def longest_example(step: Any) -> int:
    """Return the tokens of a training's longest example; of a pair, of both its sides."""
    return int(step.data.max_length if step.kind == "train" else 2 * step.pairs.data.max_length)


def keeps_micro_batch(step: Any) -> bool:
    """Whether a library's noise depends on how an update is cut: such a training keeps its micro-batch."""
    return bool(getattr(step, "library_arguments", None))


def stage_in_force(training: TrainingSettings, processes: int) -> int:
    """Return the ZeRO stage that so many processes train under: one alone has nothing to share out."""
    return training.zero_stage if processes > 1 else 0


def needed_bytes(step: Any, shape: Shape, *, gpus: int, stage: int) -> float:
    """Return the bytes on each GPU, with one example at a time (or the micro-batch that cannot be lowered)."""
    trained, frozen = branches(step)
    lora, training = getattr(step, "lora", None), step.training
    at_once = math.gcd(training.micro_batch, training.global_batch // gpus) if keeps_micro_batch(step) else 1
    return training_memory(shape, branches=trained, frozen=frozen, gpus=gpus, stage=stage, weights="fp32",
                           lora_rank=None if lora is None else lora.rank,
                           tokens=max(1, at_once) * longest_example(step)).total


def remedies(training: TrainingSettings, processes: int, needed: Callable[[int, int], float], *, bound: float
             ) -> list[str]:
    """Return what helps a training that does not fit.

    Args:
        training: its settings.
        processes: that shared it.
        needed: bytes on each of so many GPUs under a ZeRO stage.
        bound: bytes of a GPU that more GPUs should need at most.
    """
    need, found = needed(processes, stage_in_force(training, processes)), []
    if not training.gradient_checkpointing:
        found.append("--set train.gradient_checkpointing=true")
    if processes > 1 and training.zero_stage < 3 and (less := needed(processes, 3)) < need:
        found.append(f"--set train.zero_stage=3 ({less / GIGA:.3g} GB)")
    more = [count for count in range(processes + 1, MOST_GPUS + 1) if training.global_batch % count == 0]
    if more:
        count = next((n for n in more if needed(n, 3) <= bound), more[-1])
        found.append(f"{count} GPUs: --train-processes {count} --set train.zero_stage=3 "
                     f"({needed(count, 3) / GIGA:.3g} GB)")
    return found or ["a device with more memory"]
