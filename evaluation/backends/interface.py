"""What every backend is asked and gives: prompts in, append-only records out, greedy or sampled.

A record is `{id, sample, seed, text, finish_reason, new_tokens, prompt_tokens}`, with `token_ids` where they are asked
for. Nothing heavy is imported here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from foundation.errors import InputError
from foundation.prompts import PromptFormat
from foundation.seeds import stream_seed


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How tokens are chosen: greedy at temperature 0, else sampled from the top k of the top-p nucleus."""

    n: int = 1
    """Samples of each prompt."""
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    """0: off."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            InputError: which setting, its value, and what is allowed.
        """
        if self.n < 1:
            raise InputError(f"n is {self.n}; it must be at least 1 sample a prompt")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(f"the temperature is {self.temperature}; it must be 0 (greedy) or more")
        if self.temperature == 0 and self.n > 1:
            raise InputError(f"n is {self.n} at temperature 0: all samples would be the same; raise the temperature, "
                             "or set n to 1")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; it must lie in (0, 1]")
        if self.top_k < 0:
            raise InputError(f"top_k is {self.top_k}; it must be 0 (off) or more")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question with the id its records carry."""

    id: str
    question: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """How to answer: decoding, limits, and how work is cut into batches."""

    prompt: PromptFormat
    max_new_tokens: int | None = None
    max_total_tokens: int | None = None
    """Prompt and reply together; the smaller limit holds."""
    max_prompt_tokens: int
    batch_size: int
    compute_dtype: str
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    keep_token_ids: bool = False

    def __post_init__(self) -> None:
        """Refuse a request without any limit (InputError)."""
        if self.max_new_tokens is None and self.max_total_tokens is None:
            raise InputError("a request needs a limit: max_new_tokens or max_total_tokens")

    def room(self, prompt_tokens: int) -> int:
        """Return how many new tokens a prompt of that length may get."""
        limits = [limit for limit in (self.max_new_tokens, None if self.max_total_tokens is None
                                      else self.max_total_tokens - prompt_tokens) if limit is not None]
        return min(limits)

    def sample_seed(self, prompt_id: str, sample: int) -> int:
        """Return the seed of one sample: the same wherever it stands in a batch."""
        return stream_seed("sample", self.seed, prompt_id, sample)


class Question(Protocol):
    """What can be answered: a Prompt or a benchmark's Problem."""

    @property
    def id(self) -> str:
        """Unique name."""

    @property
    def question(self) -> str:
        """Text of the user's turn."""


class Backend(Protocol):
    """A way to generate."""

    def generate(self, checkpoint: Path, prompts: Sequence[Question], request: Request, records: Path, *, key: str,
                 on_progress: Callable[[float], None] = ...) -> None:
        """Append one record per prompt and sample to `records`, resuming after a kill."""
