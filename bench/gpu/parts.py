"""What is measured, in which order, and how long each part may take: together less than eight minutes."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.gpu.context import Context, SkippedPart
from bench.gpu.device import smi

LIMIT_SECONDS = 480
GRACE_SECONDS = 3
"""From asking a part's process to end until it is killed."""
OVERHEAD_SECONDS = 10
"""Looking at the machine, before and between the parts, and writing."""
_START_SECONDS = 4
"""Of a part's time, kept back for what ends after its last measurement."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One thing to measure."""

    title: str
    seconds: float
    """Its share, importing torch included."""
    run: Callable[[Context], None]


def _loss_time(context: Context) -> None:
    from bench.gpu.loss import time_part

    time_part(context)


def _loss_memory(context: Context) -> None:
    from bench.gpu.loss import memory_part

    memory_part(context)


def _numerics(context: Context) -> None:
    from bench.gpu.numerics import numerics_part

    numerics_part(context)


def _steps(model: str, context: Context) -> None:
    from bench.gpu.steps import steps_part

    steps_part(context, model)


def _tests(context: Context) -> None:
    from bench.gpu.suite import tests_part

    tests_part(context)


def _table1(context: Context) -> None:
    from bench.gpu.suite import table1_part

    table1_part(context)


PARTS: dict[str, Part] = {
    "loss-time": Part(title="mixed loss: time", seconds=75, run=_loss_time),
    "loss-memory": Part(title="mixed loss: memory", seconds=30, run=_loss_memory),
    "loss-numerics": Part(title="mixed loss: against float64", seconds=35, run=_numerics),
    "steps-0.6b": Part(title="updates, Qwen3-0.6B shape", seconds=65, run=partial(_steps, "qwen3-0.6b")),
    "steps-1.7b": Part(title="updates, Qwen3-1.7B shape", seconds=75, run=partial(_steps, "qwen3-1.7b")),
    "tests": Part(title="tests marked gpu", seconds=45, run=_tests),
    "table1": Part(title="tiny Table 1, end to end", seconds=120, run=_table1),
}


def run_here(name: str, *, device: str, small: bool, out: Path, seconds: float) -> int:
    """Run a part in this process and leave its results in `out`; return the exit code (0, or 1 if it failed)."""
    if small and device == "cpu":
        os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is imported
    context = Context(device=device, small=small, out=out, seconds=seconds - min(_START_SECONDS, seconds / 4))
    began = time.monotonic()
    try:
        PARTS[name].run(context)
    except SkippedPart as skipped:
        context.put("skipped", str(skipped))
        return 0
    except Exception as error:
        traceback.print_exc(file=sys.stdout)
        context.put("failed", f"{type(error).__name__}: {error}")
        return 1
    if device == "cuda":
        context.put("clocks", smi())  # while the GPU is still warm
    context.put("part_seconds", time.monotonic() - began)
    context.put("complete", True)
    return 0
