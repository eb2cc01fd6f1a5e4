"""A hinted teacher's largest logits on its own replies, stored as token columns (SSB; paper App. E.6).

The file is safetensors, one row a supervised token: ids (int32) and logits (float16, relative to the largest) of the
top k, the log of the softened mass outside them, and whether anything is stored. It names its tokenizer by a hash.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from baselines.batches import IGNORED, Row, collate
from baselines.branches import hidden_and_head
from baselines.interface import StoredLogits
from baselines.replies import VerifiedReply
from baselines.scoring import length_batches
from baselines.settings import DataSettings
from foundation.errors import InputError
from foundation.files import write_jsonl
from foundation.prompts import PromptFormat, encode_prompt, stop_ids, terminator_id, tokenizer_hash

# B examples, S positions, R reply tokens of a batch, N supervised tokens of all replies, K stored logits, V vocabulary

COLUMNS = "targets.safetensors"
ROWS = "targets.jsonl"


def distillation_rows(examples: Sequence[Row], kept: dict[str, VerifiedReply], hinted: dict[str, str], tokenizer: Any,
                      prompt: PromptFormat, data: DataSettings, *, student_prompt: str, terminator: str) -> list[Row]:
    """Return one row per kept reply: the student's ids and labels, and what the teacher is shown.

    The student sees the plain problem, the teacher the hinted one; both are followed by the same reply. Its end token
    is supervised without stored logits (A-49). What exceeds the length limit is cut on the right (A-51).
    """
    end, ends = terminator_id(tokenizer, prompt), stop_ids(tokenizer, prompt)
    rows = []
    for example in examples:
        reply = kept[example["id"]].token_ids
        if reply and reply[-1] in ends:
            reply = reply[:-1]
        ids = _student_prompt(tokenizer, prompt, example["question"], student_prompt)
        full = [*ids, *reply, *([end] if terminator == "append" else [])][: data.max_length]
        stored = min(len(reply), len(full) - len(ids))
        if stored < 1:
            continue
        rows.append({"id": example["id"], "input_ids": full, "labels": [IGNORED] * len(ids) + full[len(ids) :],
                     "teacher_ids": encode_prompt(tokenizer, prompt, hinted[example["id"]]), "reply": reply[:stored]})
    return rows


def _student_prompt(tokenizer: Any, prompt: PromptFormat, question: str, how: str) -> list[int]:
    if how == "chat_template":
        return encode_prompt(tokenizer, prompt, question)
    text = question if prompt.system is None else f"{prompt.system}\n{question}"
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@torch.no_grad()
def teacher_columns(model: Any, rows: Sequence[Row], *, top_k: int, temperature: float, pad_id: int,
                    batch_tokens: int, compute_dtype: str,
                    on_progress: Callable[[float], None] = lambda fraction: None) -> StoredLogits:
    """Return the columns of all rows' supervised tokens, in their order, on the CPU.

    For a hinted prompt of length p and a reply of length r, the logits at positions p-1 to p+r-2 predict the reply.

    Raises:
        InputError: more logits are to be stored than the vocabulary has.
    """
    vocabulary = model.get_output_embeddings().weight.shape[0]
    if not 1 <= top_k <= vocabulary:
        raise InputError(f"{top_k} logits a token are to be stored (the phase's top_k), the model's vocabulary has "
                         f"{vocabulary}; choose a number from 1 to {vocabulary}")
    model.eval()
    device = next(model.parameters()).device
    shown = [{"id": row["id"], "input_ids": row["teacher_ids"] + row["reply"],
              "labels": [IGNORED] * len(row["teacher_ids"]) + row["reply"]} for row in rows]
    parts: list[StoredLogits | None] = [None] * len(rows)
    done = 0
    for indices in length_batches([len(row["input_ids"]) for row in shown], batch_tokens):
        batch = {k: v.to(device) for k, v in collate([shown[i] for i in indices], pad_id).items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=compute_dtype == "bfloat16"):
            hidden_BSD, head_VD = hidden_and_head(model, batch["input_ids"], batch["attention_mask"])
        for b, i in enumerate(indices):
            start = len(rows[i]["teacher_ids"]) - 1
            hidden_RD = hidden_BSD[b, start : start + len(rows[i]["reply"])]
            logits_RV = (hidden_RD @ head_VD.to(hidden_RD.dtype).T).float()
            supervised = sum(label != IGNORED for label in rows[i]["labels"])
            parts[i] = _stored(logits_RV, top_k, temperature, supervised)
        done += len(indices)
        on_progress(done / len(rows))
    return StoredLogits(*(torch.cat(columns) for columns in zip(*parts, strict=True)))  # type: ignore[arg-type]


def _stored(logits_RV: torch.Tensor, top_k: int, temperature: float, supervised: int) -> StoredLogits:
    """Return one reply's columns; a supervised token without a logit (the end token) gets an empty row."""
    top = logits_RV.topk(top_k, dim=-1)
    inside_R = (logits_RV / temperature).log_softmax(dim=-1).gather(1, top.indices).exp().sum(dim=-1)
    tail_R = torch.log((1 - inside_R).clamp(min=1e-8))
    missing = supervised - len(logits_RV)
    pad = torch.nn.functional.pad
    return StoredLogits(
        ids_NK=pad(top.indices, (0, 0, 0, missing)).int().cpu(),
        logits_NK=pad(top.values - top.values[:, :1], (0, 0, 0, missing)).half().cpu(),
        tail_N=pad(tail_R, (0, missing)).cpu(),
        stored_N=(torch.arange(supervised) < len(logits_RV)),
    )


def save_targets(folder: Path, rows: Sequence[Row], columns: StoredLogits, tokenizer: Any) -> float:
    """Write both files; return the mean softened mass inside the stored logits."""
    save_file({name: column.contiguous() for name, column in columns._asdict().items()}, folder / COLUMNS,
              metadata={"tokenizer": tokenizer_hash(tokenizer)})
    start, lines = 0, []
    for row in rows:
        lines.append({key: row[key] for key in ("id", "input_ids", "labels")} | {"teacher_start": start})
        start += sum(label != IGNORED for label in row["labels"])
    write_jsonl(folder / ROWS, lines)
    return float(1 - columns.tail_N[columns.stored_N].exp().mean())


def load_targets(folder: Path, tokenizer: Any) -> StoredLogits:
    """Return the columns, ids as int64.

    Raises:
        InputError: they were stored with another tokenizer.
    """
    with safe_open(folder / COLUMNS, framework="pt") as file:
        stored = (file.metadata() or {}).get("tokenizer")
        if stored != tokenizer_hash(tokenizer):
            raise InputError(f"the stored logits in {folder.name} come from another tokenizer (vocabulary hash "
                             f"{str(stored)[:12]}, the student's is {tokenizer_hash(tokenizer)[:12]}): their token ids "
                             "mean other tokens; store them again with the student's own base")
        columns = {name: file.get_tensor(name) for name in StoredLogits._fields}
    return StoredLogits(**{**columns, "ids_NK": columns["ids_NK"].long()})
