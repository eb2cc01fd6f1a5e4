"""The entropy pass of WD-DS (paper Eq. 7): forward only, no logits kept.

    H(M; i) = (1 / |T_i|) * sum over supervised t of  - sum_v P_M(v | c_t) log P_M(v | c_t)

The unit is nats. Entropy is that of the model alone: no sampling, no dropout, teacher-forced on the gold completion.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from baselines.batches import IGNORED, Row, collate
from baselines.branches import hidden_and_head
from baselines.mixed_cross_entropy import token_entropy
from foundation.prompts import PromptFormat, encode_example

# B examples, S positions, D hidden size, V vocabulary, N examples of the pool, T supervised positions


@torch.no_grad()
def example_entropies(model: Any, rows: Sequence[Row], *, pad_id: int, batch_tokens: int, compute_dtype: str,
                      softmax_dtype: str = "fp32", share: slice = slice(None),
                      on_progress: Callable[[float], None] = lambda fraction: None) -> list[float]:
    """Return H(M; i) of each row, in order; softmax in fp32 unless `softmax_dtype` is `model` (A-65).

    Rows are batched by length, at most `batch_tokens` padded tokens a batch. Padding and prompt enter nothing. Of
    several processes each takes its `share` of the batches, which stay the same; other rows' entropies are NaN.
    """
    model.eval()
    device = next(model.parameters()).device
    entropy_N = [float("nan")] * len(rows)
    done = 0
    batches = length_batches([len(row["input_ids"]) for row in rows], batch_tokens)[share]
    total = sum(len(indices) for indices in batches)
    for indices in batches:
        batch = {k: v.to(device) for k, v in collate([rows[i] for i in indices], pad_id).items() if k != "row"}
        with torch.autocast(device.type, torch.bfloat16, enabled=compute_dtype == "bfloat16"):
            hidden_BSD, head_VD = hidden_and_head(model, batch["input_ids"], batch["attention_mask"])
        supervised_BS = batch["labels"][:, 1:].ne(IGNORED)
        hidden_TD = hidden_BSD[:, :-1][supervised_BS]
        if softmax_dtype == "fp32":
            with torch.autocast(device.type, torch.bfloat16, enabled=compute_dtype == "bfloat16"):
                entropy_T = token_entropy(hidden_TD, head_VD)  # float32 unless a path for bf16 is set
        else:
            entropy_T = _plain_entropy(hidden_TD, head_VD)
        counts_B = supervised_BS.sum(dim=1)
        for i, own_T in zip(indices, entropy_T.split(counts_B.tolist()), strict=True):
            entropy_N[i] = own_T.double().mean().item()
        done += len(indices)
        on_progress(done / total)
    return entropy_N


def length_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Group indices of similar lengths, longest first, so that a group's padded size stays under `batch_tokens`."""
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= batch_tokens:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def _plain_entropy(hidden_TD: torch.Tensor, head_VD: torch.Tensor, epsilon: float = 0.0) -> torch.Tensor:
    """Entropy from a softmax in the hidden states' own dtype, with all logits in memory (A-64, A-65)."""
    p_TV = torch.softmax(hidden_TD @ head_VD.to(hidden_TD.dtype).T, dim=-1)
    log_TV = torch.log(p_TV + epsilon) if epsilon else torch.where(p_TV > 0, p_TV, 1).log()
    return -(p_TV * log_TV).sum(dim=-1)


OFFICIAL_MAX_LENGTH = 8192
OFFICIAL_EPSILON = 1e-12


def official_rows(examples: Sequence[Row], tokenizer: Any, prompt: PromptFormat) -> list[Row]:
    """Encode as the public code's entropy pass does (A-64): no system prompt, assistant header counted as target."""
    bare = replace(prompt, system=None)
    rows = []
    for example in examples:
        ids = encode_example(tokenizer, bare, example["question"], example["completion"]).ids[:OFFICIAL_MAX_LENGTH]
        user = tokenizer.apply_chat_template([{"role": "user", "content": example["question"]}], tokenize=False)
        start = len(tokenizer(user, add_special_tokens=False)["input_ids"])
        rows.append({"id": example["id"], "input_ids": ids, "labels": [IGNORED] * start + ids[start:]})
    return rows


@torch.no_grad()
def official_entropies(model: Any, rows: Sequence[Row],
                       on_progress: Callable[[float], None] = lambda fraction: None) -> list[float]:
    """Return the public code's entropies (A-64): batch 1, unshifted positions, softmax in the model's dtype."""
    model.eval()
    device = next(model.parameters()).device
    entropies = []
    for done, row in enumerate(rows, start=1):
        ids_BS = torch.tensor([row["input_ids"]], device=device)
        hidden_BSD, head_VD = hidden_and_head(model, ids_BS, torch.ones_like(ids_BS))
        targets_S = torch.tensor(row["labels"], device=device).ne(IGNORED)
        entropy_T = _plain_entropy(hidden_BSD[0][targets_S], head_VD, OFFICIAL_EPSILON)
        entropies.append(entropy_T.double().mean().item())
        on_progress(done / len(rows))
    return entropies
