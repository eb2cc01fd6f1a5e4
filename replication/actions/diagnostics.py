"""Logit statistics of a checkpoint, and the theory on a pair: forward passes over one sample of the pool, in batches.

Both write statistics.json, `{name: {value, ci95, n_tokens, n_examples}}`, and examples.jsonl, one row per example in
pool order, from which any difference between checkpoints can be paired.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from baselines.batches import IGNORED, Encoded, Row, collate, encode_pool
from baselines.branches import hidden_and_head, load_causal_lm
from baselines.mixed_cross_entropy import mixed_cross_entropy
from baselines.scoring import length_batches
from evaluation.logit_stats import example_rows, summary, token_statistics
from evaluation.theory import drift_statistics, pair_rows, pair_statistics, pair_summary, sensitivity_summary
from foundation.errors import InputError
from foundation.files import read_jsonl, write_atomic, write_jsonl
from foundation.seeds import stream
from replication.actions.torch_setup import prepare
from replication.actions.training import check_same_tokenizer
from replication.worker import Job

# B examples, S positions, N supervised tokens of a batch, D hidden size, V vocabulary

Side = tuple[torch.Tensor, torch.Tensor]


def logit_statistics(job: Job) -> dict[str, Any]:
    """Measure one checkpoint (Tables 6 and 7)."""
    device = prepare(job.step.threads, gpus=job.gpus)
    encoded, pad_id = _sample(job, _tokenizer(job, "checkpoint"))
    model = _model(job, "checkpoint", device)
    rows: list[dict[str, Any]] = []
    for ids, counts, targets_N, (side,) in _batches(job, [model], encoded.rows, pad_id, job.on_progress):
        rows += example_rows(ids, counts, token_statistics(*side, targets_N, softcap=_softcap(model)))
    rows = _in_order(rows, encoded.rows)
    return _publish(job, rows, summary(rows), encoded)


def theory_statistics(job: Job) -> dict[str, Any]:
    """Measure a pair at the step's lambda and over its grid; with a strong model after training, its drift as well."""
    step, device = job.step, prepare(job.step.threads, gpus=job.gpus)
    tokenizer = _tokenizer(job, "strong")
    roles = [role for role in ("weak", "strong", "strong_post") if role in job.inputs]
    for role in roles:
        check_same_tokenizer(tokenizer, _tokenizer(job, role), role)
    encoded, pad_id = _sample(job, tokenizer)
    models = {role: _model(job, role, device) for role in roles}
    cap = _softcap(models["strong"])
    rows: list[dict[str, Any]] = []
    differentiated = _differentiated(step)
    share = 0.5 if differentiated else 1.0  # of the progress
    for ids, counts, targets_N, sides in _batches(job, list(models.values()), encoded.rows, pad_id,
                                                  lambda done: job.on_progress(share * done)):
        values = pair_statistics(sides[0], sides[1], targets_N, step.mix_weight, grid=step.grid, softcap=cap)
        values |= drift_statistics(sides[1], sides[2], softcap=cap) if len(sides) > 2 else {}
        rows += pair_rows(ids, counts, values)
    rows = _in_order(rows, encoded.rows)
    found = pair_summary(rows)
    models.pop("strong_post", None)  # the gradients of two models need its room
    sensitivities = _sensitivities(job, models["weak"], models["strong"], encoded.rows[:differentiated])
    write_jsonl(job.output / "sensitivities.jsonl", sensitivities)
    return _publish(job, rows, found | sensitivity_summary(sensitivities, step.mix_weight), encoded)


def _publish(job: Job, rows: list[dict[str, Any]], found: dict[str, Any], encoded: Encoded) -> dict[str, Any]:
    write_jsonl(job.output / "examples.jsonl", rows)
    write_atomic(job.output / "statistics.json", json.dumps(found, indent=1, allow_nan=False) + "\n")
    return {"examples": len(rows), "tokens": sum(row["tokens"] for row in rows), "truncated": encoded.truncated,
            "dropped_overlength": encoded.dropped}


def _tokenizer(job: Job, role: str) -> Any:
    return transformers.AutoTokenizer.from_pretrained(job.inputs[role] / "checkpoint", local_files_only=True)


def _model(job: Job, role: str, device: torch.device) -> Any:
    checkpoint: Path = job.inputs[role] / "checkpoint"
    model: Any = load_causal_lm(checkpoint)
    return model.to(device).eval()


def _softcap(model: Any) -> float | None:
    return getattr(model.config, "final_logit_softcapping", None)


def _sample(job: Job, tokenizer: Any) -> tuple[Encoded, int]:
    """Encode the seeded sample: equal for every checkpoint of one pool and seed.

    Raises:
        InputError: the pool is empty.
    """
    step = job.step
    pool = list(read_jsonl(job.inputs["pool"] / "pool.jsonl"))
    if not pool:
        raise InputError(f"{job.inputs['pool'] / 'pool.jsonl'} holds no example to measure logits on")
    drawn = sorted(stream("logit-statistics", step.seed).permutation(len(pool))[: step.n_examples].tolist())
    return (encode_pool([pool[i] for i in drawn], tokenizer, step.prompt, step.data, step.loss),
            tokenizer.pad_token_id)


def _batches(job: Job, models: Sequence[Any], rows: Sequence[Row], pad_id: int, on_progress: Callable[[float], None],
             ) -> Iterator[tuple[list[str], list[int], torch.Tensor, list[Side]]]:
    """Yield of each batch: example ids, supervised tokens of each, targets (N,), and each model's states and head."""
    step, device, done = job.step, next(models[0].parameters()).device, 0
    for indices in length_batches([len(row["input_ids"]) for row in rows], step.batch_tokens):
        batch = {k: v.to(device) for k, v in collate([rows[i] for i in indices], pad_id).items() if k != "row"}
        supervised_BS = batch["labels"][:, 1:].ne(IGNORED)
        sides = []
        with torch.no_grad():
            for model in models:
                with torch.autocast(device.type, torch.bfloat16, enabled=step.compute_dtype == "bfloat16"):
                    hidden_BSD, head_VD = hidden_and_head(model, batch["input_ids"], batch["attention_mask"])
                sides.append((hidden_BSD[:, :-1][supervised_BS], head_VD))
        yield ([rows[i]["id"] for i in indices], supervised_BS.sum(dim=1).tolist(),
               batch["labels"][:, 1:][supervised_BS], sides)
        done += len(indices)
        on_progress(done / len(rows))


def _in_order(rows: list[dict[str, Any]], encoded: Sequence[Row]) -> list[dict[str, Any]]:
    position = {row["id"]: i for i, row in enumerate(encoded)}
    return sorted(rows, key=lambda row: position[row["id"]])


# ---------------------------------------------------------------------------------------- Assumption 11, measured


def _differentiated(step: Any) -> int:
    """Return of how many examples a token is differentiated: at lambda 0 and 1 one branch has no gradient."""
    return step.sensitivity_examples if 0 < step.mix_weight < 1 else 0


def _sensitivities(job: Job, weak: Any, strong: Any, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return `{id, position, weak, strong}` of one seeded token of each example: g^T K_i g of Eq. 59.

    The gradient of a token's mixed loss in a branch's parameters is s_i J_i^T g, so its square over s_i^2 is
    g^T K_i g, which the centred kernel does not change (Pi g = g).
    """
    step, found = job.step, []
    for done, row in enumerate(rows, start=1):
        supervised = [i for i, label in enumerate(row["labels"]) if label != IGNORED]
        position = int(stream("sensitivity", step.seed, row["id"]).choice(supervised))
        squares = token_sensitivity(weak, strong, row["input_ids"][: position + 1], step.mix_weight,
                                    step.compute_dtype)
        found.append({"id": row["id"], "position": position, **squares})
        job.on_progress(0.5 + 0.5 * done / len(rows))
    return found


def token_sensitivity(weak: Any, strong: Any, ids: Sequence[int], mix_weight: float,
                      compute_dtype: str) -> dict[str, float]:
    """Return g^T K_i g of both branches for the last of `ids` as the target after the others (Eq. 47, 59).

    Args:
        weak: the weak model.
        strong: the strong model.
        ids: tokens; the last is the target.
        mix_weight: lambda in (0, 1).
        compute_dtype: `bfloat16` for autocast in the forward pass.
    """
    device = next(strong.parameters()).device
    ids_BS = torch.tensor([ids[:-1]], device=device)
    target_N = torch.tensor([ids[-1]], device=device)
    sides = {}
    for name, model in (("strong", strong), ("weak", weak)):
        with torch.autocast(device.type, torch.bfloat16, enabled=compute_dtype == "bfloat16"):
            hidden_BSD, head_VD = hidden_and_head(model, ids_BS, torch.ones_like(ids_BS))
        sides[name] = hidden_BSD[0, -1:], head_VD
    loss = mixed_cross_entropy(sides["strong"][0], sides["weak"][0], sides["strong"][1], sides["weak"][1], target_N,
                               mix_weight)
    weights = {"strong": mix_weight, "weak": 1 - mix_weight}
    parameters = {name: [p for p in model.parameters() if p.requires_grad]
                  for name, model in (("strong", strong), ("weak", weak))}
    gradients = torch.autograd.grad(loss, [*parameters["strong"], *parameters["weak"]], allow_unused=True)
    cut = len(parameters["strong"])
    parts = {"strong": gradients[:cut], "weak": gradients[cut:]}
    return {name: sum(float(g.double().square().sum()) for g in part if g is not None) / weights[name] ** 2
            for name, part in parts.items()}
