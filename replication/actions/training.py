"""Training phases, entropies and the draw of the active set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import transformers

from baselines import distributed
from baselines.batches import Encoded, Row, encode_pool, ordered
from baselines.branches import BranchedModel, is_tied, load_causal_lm, untie
from baselines.interface import Method
from baselines.scoring import example_entropies, official_entropies, official_rows
from baselines.selection import select
from baselines.settings import DataSettings, LossSettings
from baselines.trainer import TrainingLog, train, write_log
from foundation.errors import InputError
from foundation.files import read_jsonl, write_jsonl
from foundation.prompts import PromptFormat, stop_ids
from foundation.seeds import stream, stream_seed
from replication.actions.torch_setup import prepare, save_checkpoint
from replication.worker import Job


def train_phase(job: Job) -> dict[str, Any]:
    """Train one phase and keep the strong branch as a plain checkpoint."""
    step = job.step
    seed = stream_seed("train", step.seed)
    prepare(step.threads, seed)
    tokenizer = _tokenizer(job.inputs["strong"])
    if "weak" in job.inputs:
        check_same_tokenizer(tokenizer, _tokenizer(job.inputs["weak"]))
    encoded = _encode(job, tokenizer, step.prompt, step.data, step.loss)
    updates = _pool_size(job) // step.training.global_batch if step.step_matched else None
    rows = ordered(encoded.rows, step.training, epochs=step.epochs, seed=seed, updates=updates)
    model = _branched(job, step.loss_of)
    tied = is_tied(model.strong)
    log = train(model, rows, tokenizer, step.training, seed=seed, work=job.scratch / "trainer", joint=step.joint,
                on_progress=job.on_progress)
    assert is_tied(model.strong) == tied, "training changed whether embedding and head are tied (A-73)"
    stops = stop_ids(tokenizer, step.prompt)
    kept = model.weak if step.joint is not None and step.joint.export == "weak" else model.strong
    save_checkpoint(kept, tokenizer, job.output / "checkpoint", stops)
    write_log(log, job.output / "losses.jsonl")
    return _notes(encoded, rows, log)


def _notes(encoded: Encoded, rows: list[Row], log: TrainingLog) -> dict[str, Any]:
    return {"updates": log.updates, "examples_seen": len(rows), "tokens": log.tokens, "truncated": encoded.truncated,
            "dropped_overlength": encoded.dropped, "first_loss": log.losses[0], "final_loss": log.losses[-1]}


def _branched(job: Job, method: Method) -> BranchedModel:
    step = job.step
    with distributed.partitioned_loading(step.training):
        strong = load_causal_lm(job.inputs["strong"] / "checkpoint", step.training.param_dtype)
        weak = None
        if "weak" in job.inputs:
            weak = load_causal_lm(job.inputs["weak"] / "checkpoint", step.training.param_dtype)
    if step.joint is not None and not step.joint.keep_tied:
        for branch in (strong, weak):
            if branch is not None:
                untie(branch)
    return BranchedModel(method, strong, weak, freeze_weak=step.joint is not None and step.joint.freeze_weak,
                         reduction=step.loss.reduction)


def _pool_size(job: Job) -> int:
    return sum(1 for _ in read_jsonl(job.inputs["pool"] / "pool.jsonl"))


def _encode(job: Job, tokenizer: Any, prompt: PromptFormat, data: DataSettings, loss: LossSettings) -> Encoded:
    examples = list(read_jsonl(job.inputs["pool"] / "pool.jsonl"))
    if "active" in job.inputs:
        active = json.loads((job.inputs["active"] / "active.json").read_text(encoding="utf-8"))
        examples = [examples[i] for i in active["ids"]]
    return encode_pool(examples, tokenizer, prompt, data, loss)


def _tokenizer(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder / "checkpoint", local_files_only=True)


def check_same_tokenizer(strong: Any, weak: Any) -> None:
    """Refuse a pair whose token ids mean different things.

    Raises:
        InputError: sizes, or some of the tokens, differ.
    """
    ours, theirs = strong.get_vocab(), weak.get_vocab()
    if ours != theirs:
        differing = sorted(set(ours.items()) ^ set(theirs.items()))[:3]
        raise InputError(
            f"weak and strong model have different vocabularies ({len(theirs)} and {len(ours)} tokens, e.g. "
            f"{differing}); WD-JT mixes logits token by token, so take both checkpoints from one model family"
        )


def score_entropy(job: Job) -> dict[str, Any]:
    """Write entropy.jsonl: one line per pool example, in pool order."""
    step = job.step
    device = prepare(step.threads)
    tokenizer = _tokenizer(job.inputs["checkpoint"])
    examples = list(read_jsonl(job.inputs["pool"] / "pool.jsonl"))
    official = step.entropy.variant == "official"
    rows = (official_rows(examples, tokenizer, step.prompt) if official
            else encode_pool(examples, tokenizer, step.prompt, step.data, step.loss).rows)
    # the public code computes entropies in the dtype that the model is loaded in
    model_dtype = "bf16_pure" if official and step.compute_dtype == "bfloat16" else "fp32_master"
    model: Any = load_causal_lm(job.inputs["checkpoint"] / "checkpoint", model_dtype)
    model.to(device)
    entropy_N = (official_entropies(model, rows, job.on_progress) if official
                 else example_entropies(model, rows, pad_id=tokenizer.pad_token_id, batch_tokens=step.batch_tokens,
                                        compute_dtype=step.compute_dtype, softmax_dtype=step.entropy.dtype,
                                        on_progress=job.on_progress))
    write_jsonl(job.output / "entropy.jsonl",
                ({"id": row["id"], "entropy": value} for row, value in zip(rows, entropy_N, strict=True)))
    return {"examples": len(entropy_N), "mean_entropy_nats": float(np.mean(entropy_N))}


def select_active(job: Job) -> dict[str, Any]:
    """Write active.json: the positions in the pool to train on, and what is worth knowing of the draw."""
    step = job.step
    strong, weak = (list(read_jsonl(job.inputs[role] / "entropy.jsonl")) for role in ("strong", "weak"))
    _check_aligned([row["id"] for row in strong], [row["id"] for row in weak])
    strong_N, weak_N = ([row["entropy"] for row in rows] for rows in (strong, weak))
    result = select(strong_N, weak_N, step.selection, stream("wd-ds", step.seed, step.draw))
    notes = {
        "active": len(result.ids), "pool": len(strong_N), "unique_fraction": result.unique_fraction,
        "expected_unique_fraction": result.expected_unique_fraction,
        "unique_fraction_by_weighting": dict(result.unique_fractions_by_weighting),
        "mean_entropy_strong": float(np.mean(strong_N)), "mean_entropy_weak": float(np.mean(weak_N)),
        "warnings": list(result.warnings),
    }
    (job.output / "active.json").write_text(json.dumps({"ids": [int(i) for i in result.ids], **notes}) + "\n",
                                            encoding="utf-8")
    return notes


def _check_aligned(strong_ids: Sequence[str], weak_ids: Sequence[str]) -> None:
    if strong_ids != weak_ids:
        raise InputError("the two entropy files cover different examples; both must come from one pool")
