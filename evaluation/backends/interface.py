"""What is asked of a generation backend, and what it gives back; importing this loads nothing heavy.

A backend turns prompts into records, one JSON line per (prompt, sample), appended to a file as they are made:

    {"id", "sample", "seed", "text", "finish_reason", "new_tokens", "prompt_tokens"[, "token_ids"]}

`seed` is the sample's own (None for greedy decoding). `finish_reason` is `stop` (a terminator or a stop string) or
`length`. `text` has neither the terminator nor the stop string; `new_tokens` counts the terminator. `token_ids` are the
generated ids exactly as the model chose them, terminator included, so that training on a rollout needs no tokeniser.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from foundation.errors import InputError
from foundation.prompts import PromptFormat
from foundation.seeds import stream_seed

_SMALLEST_TEMPERATURE = 1e-6  # logits divided by less leave the range of float32


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How tokens are chosen: greedily (temperature 0), or drawn after temperature, then top-k, then top-p.

    `top_k` 0 and `top_p` 1 are off. In greedy decoding neither matters.
    """

    n: int = 1
    """Samples per prompt."""
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        if self.n < 1:
            raise InputError(f"{self.n} samples per prompt: ask for at least 1")
        if self.temperature != 0 and not _SMALLEST_TEMPERATURE <= self.temperature < math.inf:
            raise InputError(f"temperature {self.temperature} is not possible; give 0 for greedy decoding, or a number "
                             f"of at least {_SMALLEST_TEMPERATURE}")
        if self.temperature == 0 and self.n > 1:
            raise InputError(f"{self.n} samples at temperature 0 would all be the same text; ask for 1, or raise the "
                             "temperature")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p {self.top_p} must lie in (0, 1]; 1 turns it off")
        if self.top_k < 0:
            raise InputError(f"top_k {self.top_k} is negative; 0 turns it off")

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0


class Question(Protocol):
    """What a backend needs of a prompt; `evaluation.problem.Problem` is one too."""

    @property
    def id(self) -> str:
        """Its name, unique within a request."""

    @property
    def question(self) -> str:
        """The user's message, as text."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question that is no benchmark problem: of the training pool, or with hints (SSB's teacher)."""

    id: str
    question: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """How to answer a list of prompts.

    A sequence ends at `max_new_tokens` generated tokens, or where prompt and answer together reach `max_total_tokens`
    (A-32, A-42), whichever comes first; at least one of the two is given.
    """

    prompt: PromptFormat
    sampling: Sampling = Sampling()
    max_new_tokens: int | None = None
    max_total_tokens: int | None = None
    max_prompt_tokens: int
    batch_size: int
    """Sequences decoded together by `hf`; `vllm` forms its own batches."""
    compute_dtype: Literal["float32", "bfloat16"]
    seed: int = 0
    """Of the whole request; every (prompt, sample) derives its own."""
    stop: tuple[str, ...] = ()
    """Strings that end an answer and are cut off its text."""
    keep_token_ids: bool = False

    def __post_init__(self) -> None:
        if self.max_new_tokens is None and self.max_total_tokens is None:
            raise InputError("generation needs a limit: give max_new_tokens, max_total_tokens or both")
        for name in ("max_new_tokens", "max_total_tokens", "max_prompt_tokens", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} {value} must be at least 1")
        if self.compute_dtype not in ("float32", "bfloat16"):
            raise InputError(f"compute dtype {self.compute_dtype!r} is unknown; choose float32 or bfloat16")
        if "" in self.stop:
            raise InputError("an empty stop string would end every answer at once; leave it out")

    def seed_of(self, prompt_id: str, sample: int) -> int | None:
        """Return the seed in [0, 2**63) of one sample, None when nothing is drawn.

        It depends on the request's seed and these two names alone, so that a sample is the same however many others
        are drawn beside it.
        """
        return None if self.sampling.greedy else stream_seed("sampling", self.seed, prompt_id, sample)


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """How a vLLM engine uses GPUs; the `hf` backend has no need of it. Not part of what is asked for."""

    gpus_per_engine: int = 1
    """Tensor parallelism, for a model that does not fit one GPU. Otherwise every GPU has an engine of its own."""
    gpu_memory_utilization: float = 0.9
    """Share of a GPU's memory for weights and cached keys and values, in (0, 1]."""

    def __post_init__(self) -> None:
        if self.gpus_per_engine < 1:
            raise InputError(f"engine.gpus_per_engine is {self.gpus_per_engine}; it must be at least 1")
        if not 0 < self.gpu_memory_utilization <= 1:
            raise InputError(f"engine.gpu_memory_utilization is {self.gpu_memory_utilization}; it must lie in (0, 1]")


ONE_GPU = Engine()
"""An engine on each GPU."""


class Backend(Protocol):
    """A way to generate."""

    def __call__(self, checkpoint: Path, prompts: Sequence[Question], request: Request, records: Path, *, key: str,
                 on_progress: Callable[[float], None] = ..., engine: Engine = ...) -> None:
        """Append the records of a request to a file; one that was killed goes on where it stood.

        Args:
            checkpoint: a plain checkpoint folder with its tokenizer.
            prompts: what to answer; ids are unique.
            request: how.
            records: JSON lines; a header with `key` first. Finished work already there is kept.
            key: identity of the run; records of another run are refused.
            on_progress: told the fraction done.
            engine: for the backends that have one.

        Raises:
            InputError: a prompt is too long for the limits, an id occurs twice, top_k exceeds the vocabulary, or
                `records` belongs to another run.
            PrerequisiteError: the machine lacks what the backend needs.
        """


def _hf(checkpoint: Path, prompts: Sequence[Question], request: Request, records: Path, *, key: str,
        on_progress: Callable[[float], None] = lambda fraction: None, engine: Engine = ONE_GPU) -> None:
    from evaluation.backends import hf

    hf.generate(checkpoint, prompts, request, records, key=key, on_progress=on_progress)


def _vllm(checkpoint: Path, prompts: Sequence[Question], request: Request, records: Path, *, key: str,
          on_progress: Callable[[float], None] = lambda fraction: None, engine: Engine = ONE_GPU) -> None:
    from evaluation.backends import vllm

    vllm.generate(checkpoint, prompts, request, records, key=key, on_progress=on_progress, engine=engine)


BACKENDS: Mapping[str, Backend] = {"hf": _hf, "vllm": _vllm}
"""`hf` is the reference and runs anywhere; `vllm` is for throughput on GPUs. Their texts differ by rounding."""
