"""The check: Table 11's training times, predicted. SFT's is what the constant is fitted on; the rest are predictions.

A row counts what its method runs after the warm-up: its trainings, and what they need besides the warm-up (rollouts,
hinted replies, entropies), spread over the paper's eight GPUs. The paper says that WMSS "includes the WD-DS active
schedule and dual forward pass" and is "the measured ck-123 runtime" (B.10): the 123 updates are certainly in it, the
two entropy passes perhaps, so both sums are given. Rollouts and entropies run at assumed speeds, fitted on nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from replication.cost.compute import PAPER_MODEL
from replication.cost.shapes import SHAPES
from replication.cost.step_costs import CostModel
from replication.paper import integer, published
from replication.steps import closure

ROWS = {"SFT": "sft", "NEFTune": "neftune", "UNDIAL": "undial", "SSB": "ssb", "SPIN": "spin", "WMSS": "wmss"}
"""The paper's row: the suite's method."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """A row of Table 11, in hours on eight GPUs."""

    row: str
    paper: float
    training: float
    """The trainings alone."""
    whole: float
    """With all that they need after the warm-up."""
    generated_tokens: float

    @property
    def implied_tokens_per_second(self) -> float | None:
        """The tokens a second and GPU that the rollouts must have run at for the sum to come out; None without any."""
        left = 3600 * (self.paper - self.training) * integer("train.num_gpus")
        return self.generated_tokens / left if self.generated_tokens and left > 0 else None


def predictions() -> list[Prediction]:
    """Return every row of Table 11, from the same steps as Table 1 runs for Qwen3-4B-Base on the paper's pool."""
    from replication.models import MODELS
    from replication.plan import Planner, Request
    from replication.scales import SCALES

    scale = SCALES["paper"]
    planner = Planner(Request(model=MODELS["qwen3-4b"], scale=scale, configuration=scale.configuration, data_root=None,
                              limit_train=None, limit_eval=None, seed=0, plan_only=True))
    return [_prediction(row, planner, method) for row, method in ROWS.items()]


def _prediction(row: str, planner: Any, method: str) -> Prediction:
    model, gpus = CostModel(shape=SHAPES["qwen3-4b"]), integer("train.num_gpus")
    before = {step.key for step in closure([planner.warmup()])}
    steps = [step for step in closure(planner.plan(method).trainings) if step.key not in before]
    costs = model.costs(steps)
    minutes = published("table11", PAPER_MODEL, row, "total_minutes")
    assert minutes is not None
    return Prediction(
        row=row, paper=minutes / 60, whole=sum(cost.gpu_hours for cost in costs) / gpus,
        training=sum(cost.gpu_hours for cost in costs if cost.group == "training") / gpus,
        generated_tokens=sum(cost.generated_tokens for cost in costs))


def lines() -> list[str]:
    """Return the table as text."""
    said = [f"{'Table 11':<10} {'paper':>8} {'trainings':>10} {'with all':>9} {'':>7}  rollouts imply"]
    for found in predictions():
        implied = found.implied_tokens_per_second
        note = "" if implied is None else f"{implied:,.0f} tokens/s a GPU"
        said.append(f"{found.row:<10} {found.paper:>6.2f} h {found.training:>8.2f} h {found.whole:>7.2f} h "
                    f"{found.whole / found.paper - 1:>+6.0%}  {note}".rstrip())
    return said
