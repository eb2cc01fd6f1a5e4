"""Generation with Hugging Face transformers: greedy, batched, sorted by length, resumable by whole batches.

Batched generation is not invariant to how batches are formed (padding moves the last float bits), so the batches
follow from problems and settings alone; a run that was killed goes on with the first batch that is not complete.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluation.problem import Problem
from foundation.errors import InputError
from foundation.files import write_atomic
from foundation.prompts import PromptFormat, encode_prompt, stop_ids

# B prompts of a batch, S positions


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """How to answer: greedy decoding with these limits (A-90, A-91)."""

    prompt: PromptFormat
    max_new_tokens: int
    max_prompt_tokens: int
    batch_size: int
    compute_dtype: str


def generate(checkpoint: Path, problems: Sequence[Problem], request: Request, records: Path, *, key: str,
             on_progress: Callable[[float], None] = lambda fraction: None) -> None:
    """Append one record per problem to `records`: `{id, text, finish_reason, new_tokens, prompt_tokens}`.

    Args:
        checkpoint: a plain checkpoint folder with its tokenizer.
        problems: what to answer.
        request: decoding settings.
        records: JSON lines; a header with `key` first. Whole batches already there are kept.
        key: identity of the run; records of another run are refused.
        on_progress: told the fraction done.

    Raises:
        InputError: a prompt is longer than allowed, or `records` belongs to another run.
    """
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    prompts = {p.id: encode_prompt(tokenizer, request.prompt, p.question) for p in problems}
    _refuse_overlong(prompts, request.max_prompt_tokens)
    batches = form_batches(prompts, request.batch_size)
    done = _open_records(records, key, batches)
    todo = [batch for batch in batches if not set(batch) <= done]
    if not todo:
        return
    dtype = torch.bfloat16 if request.compute_dtype == "bfloat16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype, local_files_only=True).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    stops = stop_ids(tokenizer, request.prompt)
    finished = len(batches) - len(todo)
    with records.open("a", encoding="utf-8") as file:
        for batch in todo:
            rows = _answer(model, tokenizer, batch, prompts, request.max_new_tokens, stops)
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
            file.flush()
            os.fsync(file.fileno())
            finished += 1
            on_progress(finished / len(batches))


def form_batches(prompts: dict[str, list[int]], batch_size: int) -> list[list[str]]:
    """Return ids in batches of similar prompt lengths, longest first."""
    ids = sorted(prompts, key=lambda i: (-len(prompts[i]), i))
    return [ids[i : i + batch_size] for i in range(0, len(ids), batch_size)]


def _refuse_overlong(prompts: dict[str, list[int]], limit: int) -> None:
    overlong = [f"{i} ({len(ids)} tokens)" for i, ids in prompts.items() if len(ids) > limit]
    if overlong:
        raise InputError(f"{len(overlong)} prompts are longer than {limit} tokens: {', '.join(overlong[:5])}; "
                         "a cut prompt is another question, so raise eval.max_prompt_tokens instead")


def _open_records(path: Path, key: str, batches: list[list[str]]) -> set[str]:
    """Return the ids already answered, after cutting off the lines of a batch that a kill left half-written."""
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
    ids = [json.loads(line)["id"] for line in lines[1:]]
    done = {i for batch in batches if set(batch) <= set(ids) for i in batch}
    write_atomic(path, lines[0] + "".join(line for i, line in zip(ids, lines[1:], strict=True) if i in done))
    return done


@torch.no_grad()
def _answer(model: Any, tokenizer: Any, batch: list[str], prompts: dict[str, list[int]], max_new_tokens: int,
            stops: list[int]) -> list[dict[str, Any]]:
    width = max(len(prompts[i]) for i in batch)
    pad = tokenizer.pad_token_id
    ids_BS = torch.tensor([[pad] * (width - len(prompts[i])) + prompts[i] for i in batch], device=model.device)
    mask_BS = torch.tensor([[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in batch],
                           device=model.device)
    output_BS = model.generate(input_ids=ids_BS, attention_mask=mask_BS, do_sample=False, num_beams=1,
                               max_new_tokens=max_new_tokens, eos_token_id=stops, pad_token_id=pad)
    rows = []
    for i, new in zip(batch, output_BS[:, width:].tolist(), strict=True):
        end = next((n for n, token in enumerate(new) if token in stops), None)
        kept = new if end is None else new[:end]
        rows.append({
            "id": i,
            "text": tokenizer.decode(kept, skip_special_tokens=True),
            "finish_reason": "length" if end is None else "stop",
            "new_tokens": len(kept) + (end is not None),
            "prompt_tokens": len(prompts[i]),
        })
    return rows
