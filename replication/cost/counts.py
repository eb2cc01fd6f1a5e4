"""How many examples, prompts and tokens a step handles, read off its chain as far as settings tell, else assumed.

What only a run can tell (how many draws are duplicates, how many prompts have both kinds of rollout) is taken from the
paper (123 of 218 updates after WD-DS, §6.5) or from `figures`.
"""

from __future__ import annotations

from typing import Any

from evaluation.benchmarks import BENCHMARKS
from replication.cost.figures import value
from replication.paper import integer
from replication.steps import Step

REAL_FILES = ("gsm8k", "mawps")


def pool_examples(pool: Any) -> float:
    """Return the examples of a pool: the paper's count of its domain (Table 12), or the real files'."""
    whole = value("examples.real_files") if _real_files(pool) else integer(f"data.{pool.domain}_examples")
    return whole if pool.limit is None else min(whole, pool.limit)


def _real_files(pool: Any) -> bool:
    return bool(pool.sources) and set(pool.sources) <= set(REAL_FILES)


def pool_tokens(pool: Any) -> float:
    """Return the mean tokens of a pool's example, prompt included."""
    return value("tokens.real_files" if _real_files(pool) else f"tokens.{pool.domain}")


def active_fraction() -> float:
    """Return the part of the pool that WD-DS keeps after removing duplicates: the paper's updates over a full epoch."""
    return integer("wmss.active_steps") / integer("wmss.full_steps")


def examples(step: Any) -> float:
    """Return how many examples, prompts or pairs a data step holds."""
    counted: dict[str, Any] = {
        "pool": pool_examples,
        "subset": lambda s: min(s.size, examples(s.pool)),
        "select": lambda s: examples(s.strong.pool) * (active_fraction() if s.selection.dedup else 1),
        "pairs": lambda s: prompts(s.replies) * (1 if s.rule == "gold_first" else value("fraction.mixed")),
        "hints": lambda s: prompts(s.replies) * value("fraction.mixed"),
        "targets": lambda s: prompts(s.replies) * value("fraction.right_hinted"),
    }
    if step.kind not in counted:
        raise KeyError(f"no count for steps of kind {step.kind!r}")
    return float(counted[step.kind](step))


def prompts(replies: Any) -> float:
    """Return how many prompts a sampling step answers."""
    return examples(replies.hints or replies.subset or replies.pool)


def reply_tokens(replies: Any) -> float:
    """Return the mean tokens of a sampled reply: as long as the pool's own, within the limits."""
    own = pool_tokens(replies.pool) - value("tokens.prompt")
    return min(own, replies.max_new_tokens or own, replies.max_tokens or own)


def training_data(step: Any) -> tuple[float, float, int]:
    """Return (examples of an epoch, tokens of an example, updates) of a training on tokens or on pairs.

    An example of a training on pairs is two sequences.
    """
    batch = step.training.global_batch
    if step.kind == "train-pairs":
        count = examples(step.pairs)
        return count, 2 * pool_tokens(step.pairs.pool), step.epochs * int(count // batch)
    data = step.examples or step.pool
    count, tokens = examples(data), pool_tokens(step.pool)
    epoch = examples(step.pool) if step.step_matched else count
    return count, tokens, step.epochs * int(epoch // batch)


def benchmark_problems(problems: Any) -> float:
    """Return how many problems a benchmark step holds; 0 for one that the suite does not know."""
    known = BENCHMARKS.get(problems.benchmark)
    whole = float(known.expected_count) if known else 0.0
    return whole if problems.limit is None else min(whole, problems.limit)


def checkpoints(step: Step) -> int:
    """Return how many checkpoints a step leaves in the store."""
    if step.kind in ("fetch", "train-pairs", "snapshot"):
        return 1
    if step.kind == "train":
        return 1 + (getattr(step, "weak", None) is not None) + len(getattr(step, "snapshots", ()))
    return 0
