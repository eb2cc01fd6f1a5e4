"""The scales: tiny (generated problems), small (real files, a small pretrained model), paper. One code path for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from baselines.settings import DataSettings, TrainingSettings
from foundation.prompts import Domain
from replication.configuration import Configuration, EvaluationSettings, PretrainingSettings, RolloutSettings
from replication.paper import integer, number


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """Sizes and settings of a scale. `None` for a size means all there is."""

    name: str
    note: str
    """Stands in every heading of a result at this scale."""
    configuration: Configuration
    pool_sources: Mapping[Domain, tuple[str, ...]]
    """Where the pool of each domain comes from; a domain that is not there cannot be trained at this scale."""
    pool_size: Mapping[Domain, int]
    """Examples of a domain's pool, where it is limited."""
    benchmark_size: int | None
    problems_source: str
    threads: int
    entropy_batch_tokens: int
    code_size: int | None = None
    """Problems of each code benchmark: running programs takes longer than anything else in evaluation."""
    sweep_size: int | None = None
    """Problems of each benchmark in tables with many trainings (Tables 8 and 9)."""
    subset_limit: int | None = None
    """Most prompts that a subset for rollouts may have in any domain: running the sampled programs is what costs."""
    sampled_size: int | None = None
    """Problems of each benchmark in Table 10, which takes 64 samples of each."""
    hint_seconds: dict[str, float] = field(default_factory=dict)
    """Expected duration of each kind of step on the reference machine (2 cores)."""

    def pool_size_of(self, domain: Domain) -> int | None:
        """Return the size of a domain's training pool, None for all there is."""
        return self.pool_size.get(domain)

    def ratios(self, domain: Domain = "math") -> dict[str, float]:
        """Return this scale's shared values over the paper's, by the names of `baselines.interface.setting`.

        The pool's ratio is that of one domain: its pool here over its pool in the paper (Table 12).
        """
        shared, pool = self.configuration.second_epoch, self.pool_size_of(domain)
        return {
            "learning_rate": shared.learning_rate / PAPER_TRAINING.learning_rate,
            "global_batch": shared.global_batch / PAPER_TRAINING.global_batch,
            "pool": 1.0 if pool is None else pool / integer(f"data.{domain}_examples"),
            "length": self.configuration.data.max_length / integer("train.max_length"),
        }


PAPER_TRAINING = TrainingSettings(
    learning_rate=number("train.learning_rate"),
    global_batch=integer("train.global_batch"),
    warmup_ratio=number("train.warmup_fraction"),
    clip_norm=number("train.max_grad_norm"),
    compute_dtype="bfloat16",
    micro_batch=1,
    gradient_checkpointing=True,
    checkpoint_every=20,
)

BACKBONE_TRAINING: dict[str, dict[str, Any]] = {
    "qwen3-4b": {"zero_stage": 2, "micro_batch": 4, "gradient_checkpointing": True},
    "qwen3-8b": {"zero_stage": 3, "micro_batch": 4, "gradient_checkpointing": True},
    "qwen2.5-3b": {"zero_stage": 2, "micro_batch": 8, "gradient_checkpointing": True},
    "gemma-3-4b": {"zero_stage": 2, "micro_batch": 4, "gradient_checkpointing": True},
}
"""How a backbone's trainings are laid out on eight GPUs of 80 GB: the lowest ZeRO stage, and then the largest
micro-batch, with which WD-JT's two branches fit by the cost model (tests/test_cost.py holds the sums against it). None
of it is part of what is computed; after memory ran out, the micro-batch is lowered by itself."""

_TINY_FIRST = TrainingSettings(learning_rate=2e-3, global_batch=32, micro_batch=16)
_TINY_SECOND = TrainingSettings(learning_rate=1e-3, global_batch=32, micro_batch=16)
_SMALL = TrainingSettings(learning_rate=1e-4, global_batch=16, micro_batch=4, compute_dtype="bfloat16",
                          checkpoint_every=8)

SCALES: dict[str, Scale] = {
    scale.name: scale
    for scale in (
        Scale(
            name="tiny",
            note="tiny scale: a 0.8M-parameter model on generated problems; not a replication of the paper's numbers",
            configuration=Configuration(
                train=_TINY_FIRST, second_epoch=_TINY_SECOND, data=DataSettings(max_length=256),
                eval=EvaluationSettings(max_new_tokens=96, max_prompt_tokens=128, batch_size=100),
                rollouts=RolloutSettings(batch_size=256),
                pretrain=PretrainingSettings(updates=1_200, sequence_length=192, learning_rate=3e-3, batch=8),
            ),
            pool_sources=dict.fromkeys(("math", "code", "logic"), ("synthetic",)),
            pool_size={"math": 3_840, "code": 2_400, "logic": 1_920},
            benchmark_size=200, code_size=100, sweep_size=100, sampled_size=50, subset_limit=688,
            problems_source="synthetic", threads=1, entropy_batch_tokens=4096,
            hint_seconds={"pretrain": 230, "pool": 1, "problems": 1, "train": 22, "train-pair": 36, "entropy": 8,
                          "select": 0.1, "generate": 1.2, "grade": 0.5, "grade-code": 10, "rollouts": 25,
                          "targets": 8,
                          "train-pairs": 25, "samples": 30, "logits": 1, "theory": 3},
        ),
        Scale(
            name="small",
            note="small scale: a 135M-parameter instruction-tuned model on real files with limits; not a replication "
                 "of the paper's numbers",
            configuration=Configuration(
                train=_SMALL, second_epoch=_SMALL, data=DataSettings(max_length=512),
                eval=EvaluationSettings(max_new_tokens=256, max_prompt_tokens=768, batch_size=32,
                                        compute_dtype="bfloat16"),
                rollouts=RolloutSettings(batch_size=32),
            ),
            pool_sources={"math": ("gsm8k", "mawps")}, pool_size={}, benchmark_size=None, problems_source="data_root",
            threads=1, entropy_batch_tokens=2048,  # two processes of one thread beat one of two
            hint_seconds={"fetch": 30, "pool": 3, "problems": 1, "train": 330, "train-pair": 420, "entropy": 110,
                          "select": 0.1, "generate": 40, "grade": 1, "rollouts": 600, "targets": 60,
                          "train-pairs": 600},
        ),
        Scale(
            name="paper",
            note="paper scale",
            configuration=Configuration(
                train=PAPER_TRAINING, second_epoch=PAPER_TRAINING,
                data=DataSettings(max_length=integer("train.max_length")),
                # Batches are those of `--backend hf`: 64 sequences of 8,192 tokens would fill the GPU with their cache.
                eval=EvaluationSettings(compute_dtype="bfloat16", backend="vllm", batch_size=16),
                rollouts=RolloutSettings(backend="vllm", batch_size=32),
            ),
            pool_sources={"math": ("am",), "code": ("am",), "logic": ("logic",)}, pool_size={},
            benchmark_size=None, problems_source="hub",
            threads=8, entropy_batch_tokens=16_384,
        ),
    )
}


def configuration_of(model: str, scale: Scale) -> Configuration:
    """Return a scale's settings with a backbone's own layout of its trainings."""
    layout, shared = BACKBONE_TRAINING.get(model, {}), scale.configuration
    return replace(shared, train=replace(shared.train, **layout), second_epoch=replace(shared.second_epoch, **layout))
