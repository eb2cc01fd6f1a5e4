"""Tokens per second of one GPU when it generates: limited by reading weights and keys and values from memory.

A step makes one token for each running sequence. It reads all weights once and the cache of each sequence; its time is
those bytes over the usable bandwidth, or its FLOPs over the usable compute, whichever is longer.
"""

from __future__ import annotations

from replication.cost.compute import forward_flops
from replication.cost.figures import value
from replication.cost.shapes import Shape

BF16 = 2


def cache_bytes(shape: Shape, context: float) -> float:
    """Return the bytes of keys and values of a sequence of `context` tokens, in bf16."""
    return sum(count * min(context, window or context) for count, window in shape.layers_by_window()) * (
        2 * shape.kv_heads * shape.head_dim * BF16)


def running_sequences(shape: Shape, context: float) -> int:
    """Return how many sequences one GPU decodes at a time."""
    left = value("gpu.usable") * value("gpu.memory") - BF16 * shape.parameters
    return max(1, int(min(value("decode.sequences"), left / cache_bytes(shape, context))))


def step_seconds(shape: Shape, context: float, sequences: int) -> float:
    """Return the seconds of one token for each of the running sequences."""
    read = BF16 * shape.multiplied + sequences * cache_bytes(shape, context)
    compute = sequences * forward_flops(shape, 2 * context)
    return max(read / (value("gpu.bandwidth") * value("decode.efficiency")),
               compute / (value("gpu.peak_flops") * value("decode.efficiency")))


def tokens_per_second(shape: Shape, mean_reply: float, *, backend: str, batch: int) -> float:
    """Return the tokens that one GPU generates a second.

    Args:
        shape: of the model.
        mean_reply: tokens of a reply; on average half of them lie in the cache.
        backend: `vllm` refills its batch as sequences end; `hf` waits for the longest one of each batch.
        batch: sequences of a batch of `hf`.
    """
    context = value("tokens.prompt") + mean_reply / 2
    if backend == "vllm":
        sequences = running_sequences(shape, context)
        return sequences / step_seconds(shape, context, sequences)
    sequences = min(batch, running_sequences(shape, context))
    return value("fraction.of_limit") * sequences / max(value("decode.hf_step"),
                                                        step_seconds(shape, context, sequences))
