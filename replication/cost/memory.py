"""Peak bytes of a GPU in training: states under ZeRO, activations with checkpointing, the chunk of logits.

Bytes per parameter. With a bf16 engine: weights 2, gradients 2, and fp32 master and two Adam moments 12. With this
suite's autocast over fp32 weights: weights 4, gradients 4, moments 8, and under ZeRO a further fp32 copy of 4 that
DeepSpeed's optimizer shares out. Stage 0 keeps all of it on each GPU, stage 2 shares gradients and optimizer, stage 3
the weights as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from replication.cost.shapes import Shape

Weights = Literal["bf16", "fp32"]
_BYTES: dict[tuple[Weights, bool], tuple[int, int]] = {  # (weights, shared by ZeRO) -> (weights, all the rest)
    ("bf16", False): (2, 14), ("bf16", True): (2, 14), ("fp32", False): (4, 12), ("fp32", True): (4, 16),
}
LOGIT_CHUNK_BYTES = 64 * 2**20
LOGIT_BUFFERS = 4
"""Of a chunk, alive at once in its forward and backward pass."""
STAGES = (0, 2, 3)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one GPU, by what holds them."""

    weights: float
    optimizer: float
    """Gradients, master weights, moments."""
    activations: float
    logits: float

    @property
    def total(self) -> float:
        """The sum."""
        return self.weights + self.optimizer + self.activations + self.logits


def state_bytes(parameters: float, *, gpus: int, stage: int, weights: Weights = "bf16") -> tuple[float, float]:
    """Return bytes on each GPU of (weights, gradients and optimizer) of a model that is trained whole.

    Args:
        parameters: of all branches together.
        gpus: that share the training.
        stage: of ZeRO, 0, 2 or 3.
        weights: in which type the engine holds them.
    """
    own, rest = _BYTES[weights, stage > 0]
    return parameters * own / (gpus if stage == 3 else 1), parameters * rest / (gpus if stage >= 2 else 1)


def activation_bytes(shape: Shape, tokens: int) -> float:
    """Return bytes of one micro-batch's activations with checkpointing: each layer's input, and one layer in full."""
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    inputs = 2 * shape.layers * shape.hidden
    one_layer = 2 * (6 * shape.hidden + 3 * q + 4 * kv + 4 * shape.intermediate)
    return tokens * (inputs + one_layer)


def training_memory(shape: Shape, *, branches: int = 1, frozen: int = 0, lora_rank: int | None = None, gpus: int,
                    stage: int, weights: Weights = "bf16", tokens: int = 4096) -> Memory:
    """Return the peak of one GPU.

    Args:
        shape: of each branch.
        branches: that are trained (2 in WD-JT).
        frozen: models that only run forward, in the same type.
        lora_rank: of the adapters, where only those are trained.
        gpus: that share the training.
        stage: of ZeRO.
        weights: in which type the engine holds them.
        tokens: of a micro-batch.
    """
    trained = branches * shape.parameters if lora_rank is None else lora_rank * shape.lora_targets
    held, optimizer = state_bytes(trained, gpus=gpus, stage=stage, weights=weights)
    still = frozen + (branches if lora_rank is not None else 0)
    held += state_bytes(still * shape.parameters, gpus=gpus, stage=stage, weights=weights)[0]
    if stage == 3:  # the layer at work, and the head that the loss uses, are whole
        held += 2 * (shape.embedding + (shape.parameters - shape.embedding) / shape.layers)
    head_gradient = 4 * shape.embedding
    return Memory(held, optimizer, branches * activation_bytes(shape, tokens),
                  branches * head_gradient + LOGIT_BUFFERS * LOGIT_CHUNK_BYTES)


def smallest_stage(shape: Shape, *, budget: float, branches: int = 1, frozen: int = 0, lora_rank: int | None = None,
                   gpus: int, weights: Weights = "bf16", tokens: int = 4096) -> int | None:
    """Return the lowest ZeRO stage that fits `budget` bytes a GPU, or None."""
    for stage in STAGES:
        need = training_memory(shape, branches=branches, frozen=frozen, lora_rank=lora_rank, gpus=gpus, stage=stage,
                               weights=weights, tokens=tokens)
        if need.total <= budget:
            return stage
    return None
