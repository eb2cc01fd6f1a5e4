"""The lines that `--plan` prints at paper scale below the steps."""

from __future__ import annotations

from replication.cost.compute import model_flops_utilisation, training_flops_per_second
from replication.cost.estimate import RESUMABLE_BYTES, SAVED_BYTES, Estimate, TrainingMemory
from replication.cost.shapes import Shape
from replication.cost.step_costs import StepCost
from replication.display import clock
from replication.steps import Step

GIGA = 1e9


def lines(found: Estimate, shape: Shape, missing: list[str]) -> list[str]:
    """Return the estimate, sums first, then what they come from, then what the machine lacks."""
    if not found.steps:
        return ["Nothing is left to run."]
    return [
        "", "Estimate, not a measurement (assumptions and how well it meets the paper's times: docs/paper-scale.md)",
        *_sums(found), "", "Where it comes from", *_constant(), *_trainings(found), *_rest(found), *_memory(found),
        _storage(found, shape), "", *_lacks(missing),
    ]


def _sums(found: Estimate) -> list[str]:
    trained = sum(cost.trained_tokens for _, cost in found.steps)
    generated = sum(cost.generated_tokens for _, cost in found.steps)
    total = sum(cost.gpu_hours for _, cost in found.steps)
    plan = found.schedule
    peak = max((entry.fp32.total for entry in found.memory), default=0.0)
    return [
        f"  trainings   {len(found.trainings)}, on {trained / GIGA:.2f} G tokens; {generated / GIGA:.2f} G tokens "
        "generated",
        f"  GPU-hours   {total:,.0f}"
        + (f" (without shared steps {found.unshared_hours:,.0f})" if found.unshared_hours > total else ""),
        f"  wall clock  {clock(plan.makespan)} on {found.gpus} GPU{'s' * (found.gpus > 1)}, "
        f"{plan.utilisation:.0%} busy; the longest chain alone takes {clock(plan.critical_path)}",
        *_uneven(found),
        f"  memory      {peak / GIGA:.0f} GB a GPU at most" + _stage_advice(found),
        f"  disk        {found.disk_bytes / GIGA:,.0f} GB kept, {found.transient_bytes / GIGA:,.0f} GB more while "
        "trainings run",
        f"  downloads   {found.download_bytes / GIGA:.1f} GB",
    ]


def _uneven(found: Estimate) -> list[str]:
    """Say that a run on so many GPUs would be refused."""
    said = []
    for batch in found.uneven_batches:
        fewer = max(count for count in range(1, found.gpus_per_training) if batch % count == 0)
        said.append(f"  remark      {found.gpus_per_training} GPUs cannot share an update of {batch} examples evenly "
                    f"({batch} is not divided by {found.gpus_per_training}): add --train-processes {fewer}")
    return said


def _stage_advice(found: Estimate) -> str:
    if found.gpus_per_training == 1 and found.fits:
        return ", without ZeRO: a training has one GPU"
    if not found.fits:
        return "; a training does not fit one of 80 GB: give it more GPUs"
    asked = {step.training.zero_stage for step, _ in found.trainings if hasattr(step, "training")}
    if asked <= {found.zero_stage}:
        return f", with train.zero_stage={found.zero_stage}, as set" if found.zero_stage else ""
    return f", with --set train.zero_stage={found.zero_stage}"


def _constant() -> list[str]:
    return [f"  {training_flops_per_second() / 1e12:.0f} TFLOP/s of work a GPU in training (recomputed activations "
            f"included; {model_flops_utilisation():.1%} MFU without): fitted on SFT's 4 h 30 min (Table 11)"]


def _trainings(found: Estimate) -> list[str]:
    return [f"  {step.label:<34} {cost.text}" for step, cost in found.trainings]


def _rest(found: Estimate) -> list[str]:
    """One line a step where there are few of a group, else the group's sum and its largest step."""
    said = []
    for group, (count, gpu, cpu) in found.by_group().items():
        if group == "training":
            continue
        members = [(step, cost) for step, cost in found.steps if cost.group == group]
        if count <= 4:
            said += [f"  {step.label:<34} {cost.text or clock(cost.seconds)}" for step, cost in members]
            continue
        hours = f"{gpu:,.1f} GPU-hours" if gpu else f"{clock(3600 * cpu)} of CPU"
        said.append(f"  {group}: {count} steps, {hours}{_largest(members)}")
    return said


def _largest(members: list[tuple[Step, StepCost]]) -> str:
    step, cost = max(members, key=lambda member: member[1].seconds)
    return f"; most: {step.label}, {cost.text}" if cost.text else ""


def _memory(found: Estimate) -> list[str]:
    if not found.memory:
        return []
    stage = f"ZeRO-{found.zero_stage}" if found.zero_stage else "no ZeRO"
    return [f"  memory of a GPU in GB, {stage}; fp32 weights under autocast, as here (an engine with bf16 weights)",
            *(f"    {entry.what:<32} {_memory_sum(entry)}" for entry in found.memory)]


def _memory_sum(entry: TrainingMemory) -> str:
    peak = entry.fp32
    models = "1 model" if entry.models == 1 else f"{entry.models} models"
    return (f"{models}: {peak.weights / GIGA:.1f} weights + {peak.optimizer / GIGA:.1f} gradients and optimizer + "
            f"{peak.activations / GIGA:.1f} activations + {peak.logits / GIGA:.1f} head and logits = "
            f"{peak.total / GIGA:.1f} ({entry.bf16.total / GIGA:.1f})")


def _storage(found: Estimate, shape: Shape) -> str:
    checkpoint = SAVED_BYTES * shape.parameters
    resumable = RESUMABLE_BYTES[found.zero_stage] * shape.parameters
    return (f"  disk: {checkpoint / GIGA:.1f} GB a trained checkpoint (fp32; the warm-up keeps some inside its epoch, "
            f"WD-JT its weak branch); while it trains up to three resumable ones of {resumable / GIGA:.0f} GB a branch")


def _lacks(missing: list[str]) -> list[str]:
    return ["This machine lacks", *(f"  {line}" for line in missing)] if missing else ["This machine lacks nothing."]
