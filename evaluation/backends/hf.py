"""Generation with Hugging Face transformers: greedy or sampled, batched, sorted by length, resumable by whole batches.

Batched generation is not invariant to how batches are formed (padding moves the last float bits), so the batches
follow from prompts and settings alone; a run that was killed goes on with the first batch that is not complete.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessorList

from evaluation.backends.interface import Question, Request
from evaluation.backends.sampling import GumbelMax
from foundation.errors import InputError
from foundation.files import write_atomic
from foundation.prompts import encode_prompt, stop_ids

# B sequences of a batch, S positions

Key = tuple[str, int]
"""A prompt's id and the number of the sample."""


def generate(checkpoint: Path, prompts: Sequence[Question], request: Request, records: Path, *, key: str,
             on_progress: Callable[[float], None] = lambda fraction: None) -> None:
    """Append one record per prompt and sample to `records` (evaluation.backends.interface).

    Args:
        checkpoint: a plain checkpoint folder with its tokenizer.
        prompts: what to answer.
        request: decoding settings.
        records: JSON lines; a header with `key` first. Whole batches already there are kept.
        key: identity of the run; records of another run are refused.
        on_progress: told the fraction done.

    Raises:
        InputError: a prompt is longer than allowed, top_k exceeds the vocabulary, or `records` belongs to another run.
    """
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    encoded = {p.id: encode_prompt(tokenizer, request.prompt, p.question) for p in prompts}
    _refuse_overlong(encoded, request)
    if request.sampling.top_k > len(tokenizer):
        raise InputError(f"top_k is {request.sampling.top_k}, the vocabulary has {len(tokenizer)} tokens; choose a "
                         "smaller one, or 0 for none")
    batches = form_batches(encoded, request)
    done = _open_records(records, key, batches)
    todo = [batch for batch in batches if not set(batch) <= done]
    if not todo:
        return
    dtype = torch.bfloat16 if request.compute_dtype == "bfloat16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype, local_files_only=True).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    finished = len(batches) - len(todo)
    with records.open("a", encoding="utf-8") as file:
        for batch in todo:
            rows = _answer(model, tokenizer, batch, encoded, request)
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
            file.flush()
            os.fsync(file.fileno())
            finished += 1
            on_progress(finished / len(batches))


def form_batches(encoded: dict[str, list[int]], request: Request) -> list[list[Key]]:
    """Return (id, sample) keys in batches of similar prompt lengths, longest first."""
    keys = [(i, sample) for i in sorted(encoded, key=lambda i: (-len(encoded[i]), i))
            for sample in range(request.sampling.n)]
    return [keys[i : i + request.batch_size] for i in range(0, len(keys), request.batch_size)]


def _refuse_overlong(encoded: dict[str, list[int]], request: Request) -> None:
    limit = request.max_prompt_tokens if request.max_total_tokens is None else min(request.max_prompt_tokens,
                                                                                   request.max_total_tokens - 1)
    overlong = [f"{i} ({len(ids)} tokens)" for i, ids in encoded.items() if len(ids) > limit]
    if overlong:
        raise InputError(f"{len(overlong)} prompts are longer than {limit} tokens: {', '.join(overlong[:5])}; "
                         "a cut prompt is another question, so raise eval.max_prompt_tokens (for rollouts: "
                         "data.max_length, or the method's own limit) instead")


def _open_records(path: Path, key: str, batches: list[list[Key]]) -> set[Key]:
    """Return the keys already answered, after cutting off the lines of a batch that a kill left half-written."""
    if not path.exists():
        path.write_text(json.dumps({"header": key}) + "\n", encoding="utf-8")
        return set()
    content = path.read_bytes()
    lines = content[: content.rfind(b"\n") + 1].decode().splitlines(keepends=True)
    if not lines:
        path.unlink()
        return _open_records(path, key, batches)
    if json.loads(lines[0]).get("header") != key:
        raise InputError(f"{path} holds records of another run; remove it")
    rows = [json.loads(line) for line in lines[1:]]
    keys = [(row["id"], row.get("sample", 0)) for row in rows]
    done = {k for batch in batches if set(batch) <= set(keys) for k in batch}
    write_atomic(path, lines[0] + "".join(line for k, line in zip(keys, lines[1:], strict=True) if k in done))
    return done


@torch.no_grad()
def _answer(model: Any, tokenizer: Any, batch: list[Key], encoded: dict[str, list[int]],
            request: Request) -> list[dict[str, Any]]:
    stops = stop_ids(tokenizer, request.prompt)
    prompts = [encoded[i] for i, _ in batch]
    rooms = [request.room(len(ids)) for ids in prompts]
    width, pad = max(map(len, prompts)), tokenizer.pad_token_id
    ids_BS = torch.tensor([[pad] * (width - len(ids)) + ids for ids in prompts], device=model.device)
    mask_BS = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts], device=model.device)
    seeds = [request.sample_seed(i, sample) for i, sample in batch]
    sampled = request.sampling.temperature > 0
    processors = LogitsProcessorList([GumbelMax(request.sampling, seeds)] if sampled else [])
    output_BS = model.generate(input_ids=ids_BS, attention_mask=mask_BS, do_sample=False, num_beams=1,
                               logits_processor=processors, max_new_tokens=max(rooms), eos_token_id=stops,
                               pad_token_id=pad)
    rows = []
    for (i, sample), new, room, seed in zip(batch, output_BS[:, width:].tolist(), rooms, seeds, strict=True):
        end = next((n for n, token in enumerate(new[:room]) if token in stops), None)
        kept = new[:room] if end is None else new[:end]
        row = {
            "id": i,
            "sample": sample,
            "seed": seed if sampled else None,
            "text": tokenizer.decode(kept, skip_special_tokens=True),
            "finish_reason": "length" if end is None else "stop",
            "new_tokens": len(kept) + (end is not None),
            "prompt_tokens": len(encoded[i]),
        }
        if request.keep_token_ids:
            row["token_ids"] = kept if end is None else new[: end + 1]
        rows.append(row)
    return rows
