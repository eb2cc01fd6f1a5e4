"""The cost of one step: GPUs, seconds, tokens, and the sum in words.

A kind of step without an entry in `COSTS` costs its `hint_seconds` on the CPU and is listed as not modelled, so that a
new kind never makes the estimate fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from replication.cost.compute import (
    forward_flops,
    forward_seconds,
    training_flops_per_second,
    training_passes,
    training_seconds,
)
from replication.cost.counts import benchmark_problems, examples, pool_tokens, prompts, reply_tokens, training_data
from replication.cost.decoding import tokens_per_second
from replication.cost.figures import value
from replication.cost.shapes import Shape
from replication.display import clock
from replication.paper import integer
from replication.steps import Step

GPUS_PER_TRAINING = integer("train.num_gpus")


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCost:
    """What one step takes."""

    group: str
    """Under which heading it is summed."""
    gpus: int
    """Held from begin to end; 0: the CPU's work."""
    seconds: float
    trained_tokens: float = 0
    generated_tokens: float = 0
    text: str = ""
    """The sum, in words."""
    modelled: bool = True

    @property
    def gpu_hours(self) -> float:
        """GPUs times hours."""
        return self.gpus * self.seconds / 3600


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """Costs of the steps of one backbone."""

    shape: Shape
    gpus_per_training: int = GPUS_PER_TRAINING
    cached: dict[str, StepCost] = field(default_factory=dict)

    def cost(self, step: Step) -> StepCost:
        """Return what a step takes."""
        if step.key not in self.cached:
            self.cached[step.key] = COSTS.get(step.kind, _unknown)(self, step)
        return self.cached[step.key]

    def costs(self, steps: Iterable[Step]) -> list[StepCost]:
        """Return what each step takes."""
        return [self.cost(step) for step in steps]


def _unknown(model: CostModel, step: Any) -> StepCost:
    return StepCost(group="not modelled", gpus=0, seconds=step.hint_seconds, modelled=False,
                    text=f"no cost model for steps of kind {step.kind!r}")


def _small(model: CostModel, step: Any) -> StepCost:
    return StepCost(group="data", gpus=0, seconds=10)


def _fetch(model: CostModel, step: Any) -> StepCost:
    size = model.shape.download_bytes
    return StepCost(group="fetching", gpus=0, seconds=size / value("network"),
                    text=f"{size / 1e9:.1f} GB at {value('network') / 1e6:.0f} MB/s")


def branches(step: Any) -> tuple[int, int]:
    """Return (branches that are trained, models that only run forward) of a training step."""
    weak, joint = getattr(step, "weak", None), getattr(step, "joint", None)
    frozen_weak = weak is not None and joint is not None and joint.freeze_weak
    trained = 2 if weak is not None and not frozen_weak else 1
    return trained, int(frozen_weak) + (getattr(step, "reference", None) is not None)


def forward_models(step: Any) -> int:
    """Return the models that a step without training holds at once: two or three where the theory is measured."""
    roles = ("weak", "strong", "strong_post") if step.kind == "theory" else ()
    return sum(getattr(step, role) is not None for role in roles) or 1


def _pool(model: CostModel, step: Any) -> StepCost:
    """Filtering is minutes to hours of CPU; a pool that is finished, or made of small files, is only copied."""
    finished = any(name.startswith("corpora/") for name, _ in step.sha256)
    if step.sources != ("am",) or finished:
        return _small(model, step)
    speed = value(f"filter.{step.domain}") * step.threads
    download = value("corpus") / value("network") if step.repository is not None else 0.0
    seconds = download + value("corpus.records") / speed
    return StepCost(group="data", gpus=0, seconds=seconds,
                    text=f"{value('corpus.records'):,.0f} records / {speed:,.0f} records/s on {step.threads} cores"
                         f"{f' + {clock(download)} of download' if download else ''} = {clock(seconds)}")


def _diagnosed(model: CostModel, step: Any) -> StepCost:
    """Forward passes of each model over the sampled examples; the theory also differentiates a few."""
    length, models = pool_tokens(step.pool), forward_models(step)
    count = min(step.n_examples, examples(step.pool))
    # Of a differentiated token: a forward pass and two of a backward pass, in two models.
    passes = models * count + 2 * 3 * getattr(step, "sensitivity_examples", 0)
    seconds = forward_seconds(model.shape, passes * length, length)
    return StepCost(group="diagnostics", gpus=1, seconds=seconds,
                    text=f"{passes:,.0f} passes x {length:,.0f} tokens (1 GPU x {value('forward.efficiency'):.0%} of "
                         f"the peak) = {clock(seconds)}")


def _train(model: CostModel, step: Any) -> StepCost:
    _, length, updates = training_data(step)
    trained, frozen = branches(step)
    passes = training_passes(trained=trained, frozen=frozen, lora=getattr(step, "lora", None) is not None,
                             checkpointing=step.training.gradient_checkpointing)
    tokens = updates * step.training.global_batch * length
    sequence = length / 2 if step.kind == "train-pairs" else length
    gpus = model.gpus_per_training
    seconds = training_seconds(model.shape, tokens, sequence, passes, gpus)
    text = (f"{updates} updates x {step.training.global_batch} x {length:,.0f} tokens = {tokens / 1e6:,.0f} M tokens; "
            f"x {passes} passes x {forward_flops(model.shape, sequence) / 1e9:.1f} GFLOP "
            f"/ ({gpus} GPUs x {training_flops_per_second() / 1e12:.0f} TFLOP/s) = {clock(seconds)}")
    return StepCost(group="training", gpus=gpus, seconds=seconds, trained_tokens=tokens, text=text)


def _forward(model: CostModel, step: Any) -> StepCost:
    if step.kind == "targets":
        count, length = prompts(step.replies), reply_tokens(step.replies) + value("tokens.prompt")
    else:
        count, length = examples(step.pool), pool_tokens(step.pool)
    seconds = forward_seconds(model.shape, count * length, length)
    return StepCost(group="scoring", gpus=1, seconds=seconds,
                    text=f"{count:,.0f} x {length:,.0f} tokens x {forward_flops(model.shape, length) / 1e9:.1f} GFLOP "
                         f"/ (1 GPU x {value('forward.efficiency'):.0%} of the peak) = {clock(seconds)}")


def _generation(model: CostModel, group: str, sequences: float, mean: float, *, backend: str, batch: int) -> StepCost:
    speed = tokens_per_second(model.shape, mean, backend=backend, batch=batch)
    seconds = value("decode.start") + sequences * mean / speed
    return StepCost(group=group, gpus=1, seconds=seconds, generated_tokens=sequences * mean,
                    text=f"{sequences:,.0f} replies x {mean:,.0f} tokens / {speed:,.0f} tokens/s ({backend}, one GPU) "
                         f"= {clock(seconds)}")


def _rollouts(model: CostModel, step: Any) -> StepCost:
    return _generation(model, "rollouts", prompts(step) * step.n, reply_tokens(step), backend=step.backend,
                       batch=step.batch_size)


def _generate(model: CostModel, step: Any) -> StepCost:
    sequences = benchmark_problems(step.problems) * getattr(step, "n", 1)
    return _generation(model, "evaluation", sequences, value("fraction.of_limit") * step.max_new_tokens,
                       backend=getattr(step, "backend", "hf"), batch=step.batch_size)


def _grading(model: CostModel, step: Any) -> StepCost:
    if step.kind == "rollout-grades":
        verdicts = prompts(step.replies) * step.replies.n
    else:
        verdicts = benchmark_problems(step.problems) * getattr(step.records, "n", 1)
    return StepCost(group="grading", gpus=0, seconds=verdicts / value("grading"))


COSTS: dict[str, Callable[[CostModel, Any], StepCost]] = {
    "fetch": _fetch, "train": _train, "train-pairs": _train, "entropy": _forward, "targets": _forward,
    "rollouts": _rollouts, "generate": _generate, "samples": _generate,
    **dict.fromkeys(("grade", "rollout-grades", "sample-grades"), _grading),
    **dict.fromkeys(("logit-statistics", "theory"), _diagnosed), "pool": _pool,
    **dict.fromkeys(("problems", "subset", "select", "pairs", "hints", "snapshot"), _small),
}
"""By kind of step."""
