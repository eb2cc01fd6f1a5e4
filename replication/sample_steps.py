"""Steps of Table 10: n sampled answers to each problem of a benchmark, and their verdicts.

RAISE `version` of a kind whenever what its action computes changes (replication/steps.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from evaluation.backends.interface import Engine
from foundation.prompts import PromptFormat
from replication.steps import GRADING_LIBRARIES, NOT_IDENTITY, Step


@dataclass(frozen=True, kw_only=True)
class SampleAnswers(Step):
    """Sampled answers of a checkpoint to a benchmark's problems, each with a seed of its own."""

    kind = "samples"
    action = "replication.actions.samples:sample_answers"
    libraries = ("torch", "transformers")
    checkpoint: Step
    problems: Step
    prompt: PromptFormat
    n: int
    temperature: float
    top_p: float
    max_new_tokens: int
    max_prompt_tokens: int
    batch_size: int
    compute_dtype: str
    seed: int
    backend: str
    """Part of the identity: backends draw from streams of their own."""
    engine: Engine = field(default=Engine(), metadata=NOT_IDENTITY)
    of: str = field(default="", metadata=NOT_IDENTITY)
    benchmark: str = field(default="", metadata=NOT_IDENTITY)

    @property
    def label(self) -> str:
        """Name the checkpoint, the benchmark and the number of samples."""
        return f"sample {self.of}: {self.benchmark} (n={self.n})"


@dataclass(frozen=True, kw_only=True)
class GradeSamples(Step):
    """Verdicts on sampled answers."""

    kind = "sample-grades"
    action = "replication.actions.samples:grade_samples"
    libraries = GRADING_LIBRARIES
    records: Step
    problems: Step
    grader_version: int
    of: str = field(default="", metadata=NOT_IDENTITY)
    benchmark: str = field(default="", metadata=NOT_IDENTITY)

    @property
    def label(self) -> str:
        """Name the checkpoint and the benchmark."""
        return f"grade samples of {self.of}: {self.benchmark}"
