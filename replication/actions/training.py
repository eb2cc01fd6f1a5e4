"""Training phases, entropies and the draw of the active set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from transformers import PreTrainedModel

from baselines import distributed
from baselines.batches import Encoded, Row, encode_pool, ordered
from baselines.branches import BranchedModel, attention_kernel, is_tied, load_causal_lm, untie
from baselines.interface import Method, StoredLogits
from baselines.lora import attach, merge
from baselines.phases import FULL_EPOCH
from baselines.resuming import last_complete_checkpoint, read_origin
from baselines.scoring import example_entropies, length_batches, official_entropies, official_rows
from baselines.selection import select
from baselines.settings import TrainingSettings
from baselines.teacher import load_targets
from baselines.trainer import AtUpdates, TrainingLog, lays_end_to_end, train, write_log
from foundation.errors import InputError
from foundation.files import link_tree, read_jsonl, write_jsonl
from foundation.prompts import stop_ids
from foundation.seeds import stream, stream_seed
from replication.actions.fitting import fitted
from replication.actions.ranks import together
from replication.actions.rollouts import check_tokenizer
from replication.actions.torch_setup import prepare, save_checkpoint
from replication.needs import check_processes
from replication.worker import Job


def train_phase(job: Job) -> dict[str, Any]:
    """Train one phase and keep the strong branch as a plain checkpoint; the weak one and snapshots lie beside it.

    In as many processes as the job was given, with a micro-batch that fits.

    Raises:
        InputError: several processes for the library's NEFTune (on a cluster only its nodes know how many there are).
    """
    check_processes(job.step, job.processes)
    return fitted(job, train_here, launch=_left_by_zero(job))


def _left_by_zero(job: Job) -> bool:
    """Say whether a ZeRO checkpoint is gone on from, which even a single process reads through a launcher."""
    last = last_complete_checkpoint(job.scratch / "trainer")
    written_by = None if last is None else read_origin(last)
    return written_by is not None and written_by.zero_stage > 0


def train_here(job: Job) -> dict[str, Any]:
    """Train one phase in this process, which may be one of several; see `train_phase`."""
    step = job.step
    seed = stream_seed("train", step.seed)
    prepare(step.threads, seed, gpus=job.gpus)
    tokenizer = _tokenizer(job.inputs["strong"])
    for role in ("weak", "reference"):
        if role in job.inputs:
            check_same_tokenizer(tokenizer, _tokenizer(job.inputs[role]), role)
    encoded, teacher = _encode(job, tokenizer)
    updates = _full_epoch(job) if step.step_matched else None
    rows = ordered(encoded.rows, step.training, epochs=step.epochs, seed=seed, updates=updates,
                   first_epoch=step.first_epoch)
    model = _branched(job, step.loss_of.method, stream_seed("noise", step.method, step.seed))
    plain = model.strong
    tied = is_tied(plain)
    if step.lora is not None:
        model.strong = attach(plain, step.lora)
    stops = stop_ids(tokenizer, step.prompt)
    log = train(model, rows, tokenizer, step.training, seed=seed, work=job.scratch / "trainer", joint=step.joint,
                teacher=teacher, library_arguments=step.library_arguments, on_progress=job.on_progress,
                at_updates=_snapshots(job, model, tokenizer, stops, len(rows)))
    if step.lora is not None:
        model.strong = plain = merge(model.strong)
    assert is_tied(plain) == tied, "training changed whether embedding and head are tied (A-73)"
    save_checkpoint(plain, tokenizer, job.output / "checkpoint", stops)
    if model.weak is not None and not step.joint.freeze_weak:
        save_checkpoint(model.weak, tokenizer, job.output / "weak", stops)
    if distributed.is_main():
        for kept in job.scratch.glob("ck-*"):
            kept.rename(job.output / kept.name)
        write_log(log, job.output / "losses.jsonl")
    flat = lays_end_to_end(model, step.training, step.library_arguments)
    return {**_notes(rows, log), "truncated": encoded.truncated, "dropped_overlength": encoded.dropped,
            "warnings": _warnings(step, flat), "computed": _computed(step.training, plain, flat)}


def _snapshots(job: Job, model: BranchedModel, tokenizer: Any, stops: list[int], rows: int) -> AtUpdates | None:
    """Keep the strong branch at given fractions of the updates, in the scratch folder, which outlives a kill."""
    step = job.step
    total = rows // step.training.global_batch
    names: dict[int, list[str]] = {}
    for fraction in step.snapshots:
        names.setdefault(max(1, round(fraction * total)), []).append(f"ck-{round(fraction * FULL_EPOCH)}")
    if not names:
        return None

    def keep(update: int) -> None:
        for name in names[update]:
            half = job.scratch / f"half-{name}"
            if distributed.is_main():
                shutil.rmtree(half, ignore_errors=True)
            save_checkpoint(model.strong, tokenizer, half, stops)
            if distributed.is_main():
                shutil.rmtree(job.scratch / name, ignore_errors=True)  # of a run that was killed and started again
                half.rename(job.scratch / name)

    return tuple(names), keep


def _computed(training: TrainingSettings, model: Any, padding_free: bool = False) -> dict[str, Any]:
    """Return how the training was cut and by which kernel: what is no part of its identity, for the record."""
    return {"processes": distributed.processes(), "zero_stage": distributed.zero_stage(training),
            "micro_batch": distributed.micro_batch(training), "padding_free": padding_free,
            "attention": model.config._attn_implementation}


def _warnings(step: Any, padding_free: bool) -> list[str]:
    said = []
    if step.training.padding_free and not padding_free:
        said.append(f"{step.title}: its batches are padded although train.padding_free is set: what it adds to "
                    "embeddings goes by rows")
    if step.weak is not None and step.weak.key == step.strong.key:
        said.append(f"{step.title}: the weak and the strong model are the same checkpoint: the discrepancy is zero and "
                    "WD-JT is plain SFT at first")
    if step.examples is not None and step.examples.kind == "select" and (
            step.examples.weak.key == step.examples.strong.key):
        said.append(f"{step.title}: examples are drawn by the discrepancy of a checkpoint with itself, which is zero: "
                    "only the difficulty term is left of Eq. 9")
    return said


def snapshot(job: Job) -> dict[str, Any]:
    """Give one more checkpoint of a training its own folder; files are linked, not copied, where the disk allows.

    Raises:
        InputError: the training kept no such checkpoint.
    """
    source = job.inputs["of"] / job.step.which
    if not source.is_dir():
        raise InputError(f"the training {job.step.of.id} kept no checkpoint {job.step.which!r}; a weak branch exists "
                         "only where it was trained")
    link_tree(source, job.output / "checkpoint")
    return {"which": job.step.which}


def train_on_pairs(job: Job) -> dict[str, Any]:
    """Train one phase on pairs and keep the policy as a plain checkpoint; in how many processes, as `train_phase`."""
    return fitted(job, train_on_pairs_here, launch=_left_by_zero(job))


def train_on_pairs_here(job: Job) -> dict[str, Any]:
    """Train on pairs in this process, which may be one of several; see `train_on_pairs`."""
    from baselines.pair_trainer import train_pairs

    step = job.step
    seed = stream_seed("train", step.seed)
    prepare(step.threads, seed, gpus=job.gpus)
    tokenizer = _tokenizer(job.inputs["strong"])
    check_same_tokenizer(tokenizer, _tokenizer(job.inputs["reference"]), "reference")
    check_tokenizer(job.inputs["pairs"], tokenizer, "pairs")
    pairs = list(read_jsonl(job.inputs["pairs"] / "pairs.jsonl"))
    rows = ordered(pairs, step.training, epochs=step.epochs, seed=seed)
    other = step.reference.key != step.strong.key
    with distributed.partitioned_loading(step.training):
        policy, reference = (_load(job, role) if wanted else None for role, wanted in
                             (("strong", True), ("reference", other)))
    assert policy is not None
    log = train_pairs(step.loss_of.method, policy, reference, rows, tokenizer, step.training, seed=seed,
                      work=job.scratch / "trainer", on_progress=job.on_progress)
    save_checkpoint(policy, tokenizer, job.output / "checkpoint", stop_ids(tokenizer, step.prompt))
    if distributed.is_main():
        write_log(log, job.output / "losses.jsonl")
    return {**_notes(rows, log), "pairs": len(pairs), "warnings": [], "computed": _computed(step.training, policy)}


def _notes(rows: list[Row], log: TrainingLog) -> dict[str, Any]:
    return {"updates": log.updates, "examples_seen": len(rows), "tokens": log.tokens, "first_loss": log.losses[0],
            "final_loss": log.losses[-1]}


def _load(job: Job, role: str) -> PreTrainedModel:
    training = job.step.training
    return load_causal_lm(job.inputs[role] / "checkpoint", training.param_dtype, attention_kernel(training))


def _branched(job: Job, method: Method, noise_seed: int) -> BranchedModel:
    step = job.step
    with distributed.partitioned_loading(step.training):
        branches = {role: _load(job, role) for role in ("strong", "weak", "reference") if role in job.inputs}
    if step.joint is not None and not step.joint.keep_tied:
        for branch in branches.values():
            untie(branch)
    return BranchedModel(method, branches["strong"], branches.get("weak"), reference=branches.get("reference"),
                         freeze_weak=step.joint is not None and step.joint.freeze_weak, noise_seed=noise_seed,
                         reduction=step.loss.reduction)


def _full_epoch(job: Job) -> int:
    """Return the updates of an epoch over the pool, or over what its length limit left of it (A-67)."""
    size = sum(1 for _ in read_jsonl(job.inputs["pool"] / "pool.jsonl"))
    drawn = job.inputs["examples"] / "active.json" if "examples" in job.inputs else None
    if drawn is not None and drawn.is_file():
        size = json.loads(drawn.read_text(encoding="utf-8")).get("pool", size)
    return int(size // job.step.training.global_batch)


def _encode(job: Job, tokenizer: Any) -> tuple[Encoded, StoredLogits | None]:
    """Return the rows to train on, from the pool, a part of it, or stored targets."""
    step = job.step
    if "examples" in job.inputs and (job.inputs["examples"] / "targets.jsonl").is_file():
        rows = list(read_jsonl(job.inputs["examples"] / "targets.jsonl"))
        return Encoded(rows, 0, 0), load_targets(job.inputs["examples"], tokenizer)
    examples = list(read_jsonl(job.inputs["pool"] / "pool.jsonl"))
    if "examples" in job.inputs:
        active = json.loads((job.inputs["examples"] / "active.json").read_text(encoding="utf-8"))
        by_id = {example["id"]: example for example in examples}
        examples = ([by_id[name] for name in active["examples"]] if "examples" in active
                    else [examples[i] for i in active["ids"]])
    return encode_pool(examples, tokenizer, step.prompt, step.data, step.loss), None


def _tokenizer(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder / "checkpoint", local_files_only=True)


def check_same_tokenizer(strong: Any, weak: Any, role: str = "weak") -> None:
    """Refuse a pair whose token ids mean different things.

    Raises:
        InputError: sizes, or some of the tokens, differ.
    """
    ours, theirs = strong.get_vocab(), weak.get_vocab()
    if ours != theirs:
        differing = sorted(set(ours.items()) ^ set(theirs.items()))[:3]
        raise InputError(
            f"{role} and strong model have different vocabularies ({len(theirs)} and {len(ours)} tokens, e.g. "
            f"{differing}); their logits are compared token by token, so take both checkpoints from one model family"
        )


def score_entropy(job: Job) -> dict[str, Any]:
    """Write entropy.jsonl: one line per pool example, in pool order; of several processes each scores its share."""
    for part in job.scratch.glob("entropy-*.jsonl"):
        part.unlink()
    notes = together(job, score_entropy_here)
    scored = [row for part in job.scratch.glob("entropy-*.jsonl") for row in read_jsonl(part)]
    scored.sort(key=lambda row: row["position"])
    assert [row["position"] for row in scored] == list(range(notes["examples"])), "a process left examples out"
    write_jsonl(job.output / "entropy.jsonl", ({"id": row["id"], "entropy": row["entropy"]} for row in scored))
    return notes | {"mean_entropy_nats": float(np.mean([row["entropy"] for row in scored]))}


def score_entropy_here(job: Job) -> dict[str, Any]:
    """Score this process's share of the pool, into the scratch folder."""
    step = job.step
    device = prepare(step.threads, gpus=job.gpus)
    tokenizer = _tokenizer(job.inputs["checkpoint"])
    examples = list(read_jsonl(job.inputs["pool"] / "pool.jsonl"))
    official = step.entropy.entropy == "official"
    rows = (official_rows(examples, tokenizer, step.prompt) if official
            else encode_pool(examples, tokenizer, step.prompt, step.data, step.loss).rows)
    # the public code computes entropies in the dtype that the model is loaded in
    model_dtype = "bf16_pure" if official and step.compute_dtype == "bfloat16" else "fp32_master"
    model: Any = load_causal_lm(job.inputs["checkpoint"] / "checkpoint", model_dtype)
    model.to(device)
    rank, share = distributed.rank(), slice(distributed.rank(), None, distributed.processes())
    if official:
        positions = list(range(len(rows)))[share]
        entropies = official_entropies(model, rows[share], job.on_progress)
    else:
        found = example_entropies(model, rows, pad_id=tokenizer.pad_token_id, batch_tokens=step.batch_tokens,
                                  compute_dtype=step.compute_dtype, softmax_dtype=step.entropy.dtype, share=share,
                                  on_progress=job.on_progress)
        lengths = [len(row["input_ids"]) for row in rows]
        positions = sorted(i for batch in length_batches(lengths, step.batch_tokens)[share] for i in batch)
        entropies = [found[i] for i in positions]
    write_jsonl(job.scratch / f"entropy-{rank}.jsonl",
                ({"position": i, "id": rows[i]["id"], "entropy": value}
                 for i, value in zip(positions, entropies, strict=True)))
    return {"examples": len(rows)}


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
    # by name: positions count what the entropy pass kept, which under data.overlength=drop is not the whole pool
    chosen = [strong[i]["id"] for i in result.ids]
    (job.output / "active.json").write_text(
        json.dumps({"ids": [int(i) for i in result.ids], "examples": chosen, **notes}) + "\n", encoding="utf-8")
    return notes


def _check_aligned(strong_ids: Sequence[str], weak_ids: Sequence[str]) -> None:
    if strong_ids != weak_ids:
        raise InputError("the two entropy files cover different examples; both must come from one pool")
