"""FLOPs of a token, and the one constant that is fitted: executed FLOP/s of a GPU in training.

A forward pass of a token costs 2 FLOPs a multiplied parameter, plus attention. Training on it costs several forward
passes' worth: forward 1, gradients of activations 1, gradients of weights 1, and 1 more where checkpointing recomputes
the forward pass; so 6 N a token without checkpointing and 8 N with it. WD-JT trains two branches and pays twice.

The constant comes from Table 11: SFT of Qwen3-4B-Base on eight GPUs took 4 h 30 min after the warm-up, that is the
second epoch (E.5: two epochs, the first is the shared warm-up), 218 updates of 512 examples (§6.5). The mean length of
an example is assumed; hours on the math pool do not depend on it, since only its product with the constant enters.
"""

from __future__ import annotations

from functools import cache

from replication.cost.figures import value
from replication.cost.shapes import SHAPES, Shape
from replication.paper import integer, published

PAPER_MODEL = "Qwen3-4B-Base"


def forward_flops(shape: Shape, length: float) -> float:
    """Return FLOPs of the forward pass of one token, averaged over a sequence of `length` tokens."""
    attention = sum(count * 4 * shape.heads * shape.head_dim * mean_context(length, window)
                    for count, window in shape.layers_by_window())
    return 2 * shape.multiplied + attention


def mean_context(length: float, window: int | None) -> float:
    """Return how many tokens a token attends to on average under a causal mask, with a window or without."""
    if window is None or length <= window:
        return length / 2
    return (window * window / 2 + (length - window) * window) / length


def training_passes(*, trained: int = 1, frozen: int = 0, lora: bool = False, checkpointing: bool = True) -> int:
    """Return the forward passes' worth of FLOPs that one token costs.

    Args:
        trained: branches that are updated (2 in WD-JT).
        frozen: models that only run forward beside them (a reference, a frozen weak branch).
        lora: only adapters are trained: no gradients of the weights themselves.
        checkpointing: whether the forward pass is recomputed.
    """
    return trained * (2 + (not lora) + checkpointing) + frozen


@cache
def training_flops_per_second() -> float:
    """Return executed FLOP/s of one GPU in training, fitted on Table 11's SFT row."""
    minutes = published("table11", PAPER_MODEL, "SFT", "total_minutes")
    assert minutes is not None
    length = value("tokens.math")
    tokens = integer("wmss.full_steps") * integer("train.global_batch") * length
    flops = tokens * training_passes() * forward_flops(SHAPES["qwen3-4b"], length)
    return flops / (60 * minutes * integer("train.num_gpus"))


def model_flops_utilisation() -> float:
    """Return the fitted constant as a fraction of the peak, recomputation not counted as work."""
    without = training_passes(checkpointing=False) / training_passes()
    return training_flops_per_second() * without / value("gpu.peak_flops")


def training_seconds(shape: Shape, tokens: float, length: float, passes: float, gpus: int) -> float:
    """Return the seconds that training on so many tokens takes on so many GPUs."""
    return tokens * passes * forward_flops(shape, length) / (gpus * training_flops_per_second())


def forward_seconds(shape: Shape, tokens: float, length: float) -> float:
    """Return the seconds that one GPU needs for a pass without gradients (entropies, teacher's logits)."""
    return tokens * forward_flops(shape, length) / (value("gpu.peak_flops") * value("forward.efficiency"))
