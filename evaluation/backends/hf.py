"""Generation with Hugging Face transformers: batched, sorted by length, resumable by whole batches.

Batched generation is not invariant to how batches are formed (padding moves the last float bits), so the batches
follow from prompts and settings alone; a run that was killed goes on with the first batch that is not complete.

Sampling draws nothing through the library, whose one generator per call would tie every sample to its batch. A token
is the argmax of logits plus Gumbel noise, and each sequence takes its noise from its own stream: for a given seed a
sample changes only where rounding of the logits decides between two tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    StoppingCriteria,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from evaluation.backends.interface import Question, Request, Sampling
from evaluation.backends.sequences import (
    PlannedSequence,
    append,
    open_records,
    plan_sequences,
    record,
    refuse_large_top_k,
)
from foundation.prompts import stop_ids

# B sequences of a batch, S positions, V vocabulary, K steps

_NOISE_VALUES = 2**20  # drawn at a time: 8 MiB
_STRETCH = 16  # steps after which finished sequences leave a sampled batch


def generate(checkpoint: Path, prompts: Sequence[Question], request: Request, records: Path, *, key: str,
             on_progress: Callable[[float], None] = lambda fraction: None) -> None:
    """Append the records of a request to a file: see `evaluation.backends.interface.Backend`."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    batches = form_batches(plan_sequences(tokenizer, prompts, request), request.batch_size)
    config = AutoConfig.from_pretrained(checkpoint, local_files_only=True).get_text_config()
    refuse_large_top_k(request, config.vocab_size)
    done = open_records(records, key, batches)
    todo = [batch for batch in batches if batch[0].slot not in done]
    if not todo:
        return
    model = _load(checkpoint, request)
    finished = len(batches) - len(todo)
    with records.open("a", encoding="utf-8") as file:
        for batch in todo:
            append(file, _answer(model, tokenizer, batch, request))
            finished += 1
            on_progress(finished / len(batches))


def form_batches(sequences: Sequence[PlannedSequence], batch_size: int) -> list[list[PlannedSequence]]:
    """Return batches of similar prompt lengths, longest first."""
    ordered = sorted(sequences, key=lambda s: (-len(s.prompt_ids), s.slot))
    return [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]


def _load(checkpoint: Path, request: Request) -> Any:
    dtype = torch.bfloat16 if request.compute_dtype == "bfloat16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype, local_files_only=True).eval()
    # A published checkpoint may bring a repetition penalty and the like: decoding is the request's alone.
    model.generation_config = GenerationConfig()
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def _answer(model: Any, tokenizer: Any, batch: Sequence[PlannedSequence], request: Request) -> list[dict[str, Any]]:
    stops = stop_ids(tokenizer, request.prompt)
    return [_finish(sequence, new, tokenizer, stops, request)
            for sequence, new in zip(batch, _decode(model, tokenizer, batch, request, stops), strict=True)]


@torch.no_grad()
def _decode(model: Any, tokenizer: Any, batch: Sequence[PlannedSequence], request: Request,
            stops: list[int]) -> list[list[int]]:
    """Return the new ids of each sequence of a batch, up to its end and perhaps padding beyond.

    Sampling goes on in stretches of a few steps, and finished sequences leave the batch in between: lengths of samples
    scatter so widely that half of the work would be spent on padding. Greedy decoding keeps its batch to the end, as
    texts recorded before depend on its rounding.
    """
    width, pad = max(len(s.prompt_ids) for s in batch), tokenizer.pad_token_id
    padding = [width - len(s.prompt_ids) for s in batch]
    ids_BS = torch.tensor([[pad] * p + s.prompt_ids for p, s in zip(padding, batch, strict=True)], device=model.device)
    mask_BS = torch.tensor([[0] * p + [1] * (width - p) for p in padding], device=model.device)
    draw = None if request.sampling.greedy else Draw(request.sampling, [s.seed or 0 for s in batch])
    cache = DynamicCache(config=model.config)
    new: list[list[int]] = [[] for _ in batch]
    rows = list(range(len(batch)))
    while True:
        limits = [batch[row].limit for row in rows]
        longest = max(limits) - (ids_BS.shape[1] - width)
        criteria: list[StoppingCriteria] = [_OwnLimit(width, limits, model.device)]
        if request.stop:
            criteria.append(_TextStop(width, request.stop, tokenizer))
        ids_BS = model.generate(
            input_ids=ids_BS, attention_mask=mask_BS, past_key_values=cache, do_sample=False, num_beams=1,
            max_new_tokens=min(_STRETCH, longest) if draw else longest, eos_token_id=stops, pad_token_id=pad,
            stopping_criteria=criteria, logits_processor=[draw] if draw else [])
        for row, ids in zip(rows, ids_BS[:, width:].tolist(), strict=True):
            new[row] = ids
        going = [i for i, row in enumerate(rows) if not _ended(batch[row], new[row], tokenizer, stops, request)]
        if not going or draw is None:
            return new
        mask_BS = torch.nn.functional.pad(mask_BS, (0, ids_BS.shape[1] - mask_BS.shape[1]), value=1)[going]
        ids_BS, rows = ids_BS[going], [rows[i] for i in going]
        cache.batch_select_indices(torch.tensor(going, device=model.device))
        draw.keep(going)


def _ended(sequence: PlannedSequence, new: list[int], tokenizer: Any, stops: list[int], request: Request) -> bool:
    return (len(new) >= sequence.limit or not set(stops).isdisjoint(new)
            or (bool(request.stop) and _first_stop(tokenizer.decode(new, skip_special_tokens=True), request.stop)
                is not None))


def _finish(sequence: PlannedSequence, new: list[int], tokenizer: Any, stops: list[int],
            request: Request) -> dict[str, Any]:
    """Return the record of a row of the output: what follows its end is padding."""
    new = new[: sequence.limit]
    end = next((n for n, token in enumerate(new) if token in stops), None)
    text = tokenizer.decode(new[:end], skip_special_tokens=True)
    reason, made = ("length", new) if end is None else ("stop", new[: end + 1])
    if request.stop and (cut := _first_stop(text, request.stop)) is not None:
        reason, made, text = "stop", _shortest_with(tokenizer, made, request.stop), text[:cut]
    return record(sequence, text=text, finish_reason=reason, token_ids=made, keep_token_ids=request.keep_token_ids)


def _first_stop(text: str, stop: Sequence[str]) -> int | None:
    places = [place for string in stop if (place := text.find(string)) >= 0]
    return min(places, default=None)


def _shortest_with(tokenizer: Any, made: list[int], stop: Sequence[str]) -> list[int]:
    """Return the tokens up to the one that completed a stop string."""
    return next(made[:n] for n in range(1, len(made) + 1)
                if _first_stop(tokenizer.decode(made[:n], skip_special_tokens=True), stop) is not None)


class _OwnLimit(StoppingCriteria):
    """Ends each sequence at its own limit: total lengths leave prompts of one batch different room."""

    def __init__(self, prompt_width: int, limits: list[int], device: torch.device) -> None:
        self._ends_B = prompt_width + torch.tensor(limits, device=device)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return self._ends_B <= input_ids.shape[1]


class _TextStop(StoppingCriteria):
    """Ends a sequence whose text holds a stop string; as in vLLM, special tokens are no text."""

    def __init__(self, prompt_width: int, stop: Sequence[str], tokenizer: Any) -> None:
        self._width, self._stop, self._tokenizer = prompt_width, stop, tokenizer
        # A character has up to four bytes, and a token may be a single one.
        self._window = 4 * max(map(len, stop)) + 4

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        recent_BS = input_ids[:, max(self._width, input_ids.shape[1] - self._window) :]
        texts = self._tokenizer.batch_decode(recent_BS, skip_special_tokens=True)
        return torch.tensor([_first_stop(text, self._stop) is not None for text in texts], device=input_ids.device)


class Draw(LogitsProcessor):
    """Turns greedy decoding into sampling: temperature, top-k, top-p, then Gumbel noise of each sequence's own stream.

    The noise is in double precision: single-precision exponential draws are exactly 0 once in 2**23, which would make
    an arbitrary token of probability 0 win every few thousand steps.
    """

    def __init__(self, sampling: Sampling, seeds: Sequence[int]) -> None:
        self._temperature = sampling.temperature
        self._filters: list[Any] = []
        if sampling.top_k:
            self._filters.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            self._filters.append(TopPLogitsWarper(sampling.top_p))
        self._streams = [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]
        self._ahead: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return logits (B, V) whose argmax is a draw from softmax(scores / temperature) after the filters."""
        # The largest logit becomes 0 before the division: a small temperature then gives -inf, never inf - inf.
        scores = (scores - scores.amax(dim=-1, keepdim=True)) / self._temperature
        for keep in self._filters:
            scores = keep(input_ids, scores)
        return scores + self._noise(scores)

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows of the batch only."""
        self._streams = [self._streams[row] for row in rows]
        self._ahead = [noise_BV[rows] for noise_BV in self._ahead]

    def _noise(self, scores: torch.Tensor) -> torch.Tensor:
        """Return Gumbel noise (B, V) of the next step; several steps are drawn at a time."""
        if not self._ahead:
            steps = max(1, _NOISE_VALUES // scores.numel())
            drawn_BKV = np.stack([s.standard_exponential((steps, scores.shape[-1])) for s in self._streams])
            noise_KBV = -torch.from_numpy(drawn_BKV).transpose(0, 1).log()
            self._ahead = list(noise_KBV.to(scores.device, scores.dtype).unbind(0))[::-1]
        return self._ahead.pop()
