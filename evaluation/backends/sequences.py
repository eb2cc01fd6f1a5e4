"""From a request to the sequences it asks for, and from half-finished records to the sequences still missing.

What both backends share: prompts as token ids with their limits and seeds, and the file of records that survives kills.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from evaluation.backends.interface import Question, Request
from foundation.errors import InputError
from foundation.files import write_atomic
from foundation.prompts import encode_prompt


class Slot(NamedTuple):
    """The place of one record: which prompt, which of its samples."""

    id: str
    sample: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSequence:
    """One sequence to generate."""

    slot: Slot
    prompt_ids: list[int]
    limit: int
    """New tokens at most, terminator included."""
    seed: int | None


def plan_sequences(tokenizer: Any, prompts: Sequence[Question], request: Request) -> list[PlannedSequence]:
    """Return the sequences of a request, in the order of the prompts and their samples.

    Raises:
        InputError: an id occurs twice, or a prompt is too long for the limits.
    """
    encoded = {p.id: encode_prompt(tokenizer, request.prompt, p.question) for p in prompts}
    if len(encoded) < len(prompts):
        raise InputError(f"{len(prompts)} prompts have only {len(encoded)} different ids; each needs its own")
    _refuse_overlong(encoded, request)
    return [PlannedSequence(slot=Slot(i, sample), prompt_ids=ids, limit=_limit(len(ids), request),
                            seed=request.seed_of(i, sample))
            for i, ids in encoded.items() for sample in range(request.sampling.n)]


def _limit(prompt_tokens: int, request: Request) -> int:
    limits = [request.max_new_tokens, request.max_total_tokens and request.max_total_tokens - prompt_tokens]
    return min(limit for limit in limits if limit is not None)


def _refuse_overlong(encoded: dict[str, list[int]], request: Request) -> None:
    overlong = [f"{i} ({len(ids)} tokens)" for i, ids in encoded.items() if len(ids) > request.max_prompt_tokens]
    if overlong:
        raise InputError(f"{len(overlong)} prompts are longer than {request.max_prompt_tokens} tokens: "
                         f"{', '.join(overlong[:5])}; a cut prompt is another question, so raise "
                         "eval.max_prompt_tokens instead")
    full = [f"{i} ({len(ids)} tokens)" for i, ids in encoded.items() if _limit(len(ids), request) < 1]
    if full:
        raise InputError(f"{len(full)} prompts leave no room for an answer within {request.max_total_tokens} tokens "
                         f"in total: {', '.join(full[:5])}; raise max_total_tokens, or leave these prompts out")


def refuse_large_top_k(request: Request, vocabulary: int) -> None:
    """Raise InputError when more tokens are to be kept than there are: libraries would cap it without a word."""
    if request.sampling.top_k > vocabulary:
        raise InputError(f"top_k {request.sampling.top_k} exceeds the model's vocabulary of {vocabulary} tokens; "
                         "give 0 to turn it off")


def record(sequence: PlannedSequence, *, text: str, finish_reason: str, token_ids: list[int],
           keep_token_ids: bool) -> dict[str, Any]:
    """Return the record of one finished sequence."""
    row = {
        "id": sequence.slot.id,
        "sample": sequence.slot.sample,
        "seed": sequence.seed,
        "text": text,
        "finish_reason": finish_reason,
        "new_tokens": len(token_ids),
        "prompt_tokens": len(sequence.prompt_ids),
    }
    return row | {"token_ids": token_ids} if keep_token_ids else row


def open_records(path: Path, key: str, batches: Iterable[Sequence[PlannedSequence]]) -> set[Slot]:
    """Return the slots already filled, after cutting off the lines of a batch that a kill left half-written.

    Raises:
        InputError: the file belongs to another run.
    """
    if not path.exists():
        path.write_text(json.dumps({"header": key}) + "\n", encoding="utf-8")
        return set()
    content = path.read_bytes()
    # "\n" alone separates records: str.splitlines would also cut at U+2028 inside an answer.
    lines = content[: content.rfind(b"\n") + 1].decode().split("\n")[:-1]
    if not lines:
        path.unlink()
        return open_records(path, key, batches)
    if json.loads(lines[0]).get("header") != key:
        raise InputError(f"{path} holds records of another run; remove it")
    slots = [Slot(row["id"], row.get("sample", 0)) for row in map(json.loads, lines[1:])]
    found = set(slots)
    whole = {s.slot for batch in batches if found.issuperset(s.slot for s in batch) for s in batch}
    kept = [line for slot, line in zip(slots, lines[1:], strict=True) if slot in whole]
    write_atomic(path, "".join(line + "\n" for line in [lines[0], *kept]))
    return whole


def append(file: IO[str], rows: Iterable[dict[str, Any]]) -> None:
    """Append rows to an open file of records, on the disk when this returns."""
    file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    file.flush()
    os.fsync(file.fileno())
