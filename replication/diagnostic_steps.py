"""Steps that look at logits: the statistics of Tables 6 and 7, and the theory measured on a pair of checkpoints.

All checkpoints that share a pool, a seed and a number of examples are measured on the same tokens. RAISE `version` of
a kind whenever what its action computes changes (replication/steps.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from baselines.settings import DataSettings, LossSettings
from foundation.prompts import PromptFormat
from replication.paper import integer
from replication.steps import NOT_IDENTITY, Step

LAMBDA_GRID = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Where the theory is measured beside the run's own lambda; at 1 the mixture is the strong model."""
SENSITIVITY_EXAMPLES = 32


@dataclass(frozen=True, kw_only=True)
class LogitStatistics(Step):
    """Statistics of a checkpoint's logits on sampled training examples (App. B.4)."""

    kind = "logit-statistics"
    action = "replication.actions.diagnostics:logit_statistics"
    libraries = ("torch", "transformers")
    checkpoint: Step
    pool: Step
    prompt: PromptFormat
    data: DataSettings
    loss: LossSettings
    n_examples: int = integer("logit_stats.num_examples")
    seed: int
    compute_dtype: str
    batch_tokens: int
    of: str = field(default="", metadata=NOT_IDENTITY)

    @property
    def label(self) -> str:
        """Name the checkpoint."""
        return f"logit statistics of {self.of}"


@dataclass(frozen=True, kw_only=True)
class TheoryStatistics(Step):
    """Conditions and conclusions of the theory on a weak-strong pair (§5, App. C, D), and the drift after training."""

    kind = "theory"
    action = "replication.actions.diagnostics:theory_statistics"
    libraries = ("torch", "transformers")
    weak: Step
    strong: Step
    strong_post: Step | None = None
    """The strong branch after WD-JT, for the drift of Stage III; None: no drift is measured."""
    pool: Step
    prompt: PromptFormat
    data: DataSettings
    loss: LossSettings
    mix_weight: float
    grid: tuple[float, ...] = LAMBDA_GRID
    n_examples: int = integer("logit_stats.num_examples")
    sensitivity_examples: int = SENSITIVITY_EXAMPLES
    """Examples of which one token each is differentiated through both models (Assumption 11); 0: none."""
    seed: int
    compute_dtype: str
    batch_tokens: int
    of: str = field(default="", metadata=NOT_IDENTITY)

    @property
    def label(self) -> str:
        """Name the pair."""
        return f"theory on {self.of}"
