"""Shapes of the four backbones: what the cost of a token depends on.

Each field is the one of that name in the model's public config.json (revisions unpinned: they could not be looked up
on the hub, only in public copies of the configs). Counting the weights of a model built from these fields gives the
parameter counts of the model cards, which is what vouches for them; tests/test_cost.py holds the formula against
`transformers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from foundation.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A decoder with gated MLP and grouped-query attention."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    """Whether embedding and head are one matrix."""
    qkv_bias: bool = False
    qk_norm: bool = True
    norms_per_layer: int = 2
    window: int | None = None
    """Tokens that a local layer sees back; None: all layers see all."""
    global_every: int = 1
    """Every n-th layer is global, the rest are local."""
    other_download: int = 0
    """Parameters of the published checkpoint that the suite does not use (Gemma's vision tower)."""
    exported: bool = False
    """Whether vLLM reads another form than what is trained, which each generation writes for itself."""
    gated: bool = False
    """Whether the hub asks for a token of an account that accepted the licence."""
    card: str
    """What the model card states."""

    @property
    def parameters(self) -> int:
        """Trained parameters, a tied matrix once."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = 2 * self.hidden * q + 2 * self.hidden * kv
        attention += (q + 2 * kv) * self.qkv_bias + 2 * self.head_dim * self.qk_norm
        layer = attention + 3 * self.hidden * self.intermediate + self.norms_per_layer * self.hidden
        return self.layers * layer + self.embedding * (1 if self.tied else 2) + self.hidden

    @property
    def embedding(self) -> int:
        """Parameters of the embedding matrix."""
        return self.vocabulary * self.hidden

    @property
    def multiplied(self) -> int:
        """Parameters that each token is multiplied with: all but an untied input embedding, which is only read."""
        return self.parameters - (0 if self.tied else self.embedding)

    @property
    def lora_targets(self) -> int:
        """Sum of rows and columns of the seven projections of all layers: LoRA parameters per rank."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return self.layers * (2 * (self.hidden + q) + 2 * (self.hidden + kv) + 3 * (self.hidden + self.intermediate))

    @property
    def download_bytes(self) -> int:
        """Bytes of the published bf16 weights."""
        return 2 * (self.parameters + self.other_download)

    def layers_by_window(self) -> tuple[tuple[int, int | None], ...]:
        """Return (number of layers, window) for global and local layers."""
        if self.window is None:
            return ((self.layers, None),)
        whole = self.layers // self.global_every
        return (whole, None), (self.layers - whole, self.window)


SHAPES: dict[str, Shape] = {
    "qwen3-4b": Shape(
        layers=36, hidden=2560, intermediate=9728, heads=32, kv_heads=8, head_dim=128, vocabulary=151_936, tied=True,
        card="4.0B parameters, 3.6B without embeddings, 36 layers, 32 query and 8 key-value heads"),
    "qwen3-8b": Shape(
        layers=36, hidden=4096, intermediate=12_288, heads=32, kv_heads=8, head_dim=128, vocabulary=151_936, tied=False,
        card="8.2B parameters, 6.95B without embeddings, 36 layers, 32 query and 8 key-value heads"),
    "qwen2.5-3b": Shape(
        layers=36, hidden=2048, intermediate=11_008, heads=16, kv_heads=2, head_dim=128, vocabulary=151_936, tied=True,
        qkv_bias=True, qk_norm=False,
        card="3.09B parameters, 2.77B without embeddings, 36 layers, 16 query and 2 key-value heads"),
    "gemma-3-4b": Shape(
        layers=34, hidden=2560, intermediate=10_240, heads=8, kv_heads=4, head_dim=256, vocabulary=262_208, tied=True,
        norms_per_layer=4, window=1024, global_every=6, other_download=420_000_000, exported=True, gated=True,
        card="4B: 3.2B without embeddings, 0.7B embeddings, 0.4B vision tower (technical report)"),
}


def shape_of(model: str) -> Shape:
    """Return a backbone's shape.

    Raises:
        InputError: a model that is not at paper scale.
    """
    if model not in SHAPES:
        raise InputError(f"no cost model for {model!r}; there is one for: {', '.join(SHAPES)}")
    return SHAPES[model]


def shape_of_config(config: Mapping[str, Any]) -> Shape:
    """Return the shape that a checkpoint's config.json describes; of a vision-language model, its text part's."""
    text = config.get("text_config", config)
    heads = text["num_attention_heads"]
    gemma = str(text.get("model_type", "")).startswith("gemma3")
    return Shape(
        layers=text["num_hidden_layers"], hidden=text["hidden_size"], intermediate=text["intermediate_size"],
        heads=heads, kv_heads=text.get("num_key_value_heads", heads),
        head_dim=text.get("head_dim") or text["hidden_size"] // heads, vocabulary=text["vocab_size"],
        tied=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", gemma))),
        qkv_bias=text.get("model_type") == "qwen2", qk_norm=gemma or text.get("model_type") == "qwen3",
        norms_per_layer=4 if gemma else 2, card="from its config.json")
