"""Subsets, rollouts and their verdicts, pairs, hints, and a teacher's stored logits."""

from __future__ import annotations

import collections
import json
import shutil
from pathlib import Path
from typing import Any

from baselines.replies import (
    VerifiedReply,
    encode_gold_pairs,
    encode_verified_pairs,
    hinted_prompts,
    verified_replies,
)
from evaluation.graders.records import Submission
from evaluation.problem import Problem
from foundation.errors import GraderError, InputError
from foundation.files import read_jsonl, write_jsonl
from foundation.prompts import tokenizer_hash
from foundation.seeds import stream
from replication.actions.answers import drawn, graded_answers
from replication.actions.programs import program_grader
from replication.worker import Job

Row = dict[str, Any]
TOKENIZER = "tokenizer.sha256"


def draw_subset(job: Job) -> dict[str, Any]:
    """Write active.json: sorted positions of a seeded subset; the whole pool where it is no larger."""
    step = job.step
    pool = len(_pool(job))
    size = min(step.size, pool)
    chosen = sorted(stream("subset", step.seed).permutation(pool)[:size].tolist())
    (job.output / "active.json").write_text(json.dumps({"ids": chosen}) + "\n", encoding="utf-8")
    return {"asked": step.size, "examples": size, "pool": pool}


def _pool(job: Job) -> list[dict[str, Any]]:
    return list(read_jsonl(job.inputs["pool"] / "pool.jsonl"))


def sample_replies(job: Job) -> dict[str, Any]:
    """Write replies.jsonl: n replies a prompt with their token ids, in the order of prompts and samples."""
    from evaluation.backends.interface import Prompt, Request, Sampling
    from replication.actions.torch_setup import prepare

    step = job.step
    prepare(step.threads, gpus=job.gpus)
    if "hints" in job.inputs:
        check_tokenizer(job.inputs["hints"], _tokenizer(job.inputs["checkpoint"] / "checkpoint"), "hinted prompts")
        prompts = [Prompt(id=row["id"], question=row["question"]) for row in
                   read_jsonl(job.inputs["hints"] / "hints.jsonl")]
    else:
        prompts = [Prompt(id=row["id"], question=row["question"]) for row in _chosen(job)]
    request = Request(
        prompt=step.prompt, max_new_tokens=step.max_new_tokens, max_total_tokens=step.max_tokens,
        max_prompt_tokens=step.max_tokens, batch_size=step.batch_size, compute_dtype=step.compute_dtype,
        sampling=Sampling(n=step.n, temperature=step.temperature, top_k=step.top_k, top_p=step.top_p),
        seed=step.seed, keep_token_ids=True,
    )
    records, notes = drawn(job, prompts, request)
    write_jsonl(job.output / "replies.jsonl", records)
    _name_tokenizer(job, _tokenizer(job.inputs["checkpoint"] / "checkpoint"))
    return {"prompts": len(prompts), "replies": len(records), **notes}


def _chosen(job: Job) -> list[dict[str, Any]]:
    """Return the pool examples that a subset names, or all."""
    examples = _pool(job)
    if "subset" not in job.inputs:
        return examples
    ids = json.loads((job.inputs["subset"] / "active.json").read_text(encoding="utf-8"))["ids"]
    return [examples[i] for i in ids]


def grade_replies(job: Job) -> dict[str, Any]:
    """Write verdicts.jsonl, one line per reply in their order. Programs are run against their example's tests.

    Raises:
        GraderError: the grader itself failed on a reply: a training label must not come from that.
        InputError: examples ask for programs and have no tests.
        PrerequisiteError: there are programs to run, and no isolation works here.
    """
    pool = {row["id"]: row for row in _pool(job)}
    replies = list(read_jsonl(job.inputs["replies"] / "replies.jsonl"))
    if any(row["answer_type"] == "code" for row in pool.values()):
        found, grader = _of_programs(job, replies, pool)
    else:
        found, grader = _of_answers(job, replies, pool)
    verdicts = [{"id": reply["id"], "sample": reply["sample"], "outcome": verdict.outcome,
                 "extracted": verdict.extracted, "reason": verdict.reason}
                for reply, verdict in zip(replies, found, strict=True)]
    failures = [row for row in verdicts if row["outcome"] == "grader_failure"]
    if failures:
        raise GraderError(f"the grader failed on {len(failures)} of {len(verdicts)} rollouts (first: "
                          f"{failures[0]['id']}, sample {failures[0]['sample']}: {failures[0]['reason']})")
    write_jsonl(job.output / "verdicts.jsonl", verdicts)
    counts = collections.Counter(row["outcome"] for row in verdicts)
    solved = {row["id"] for row in verdicts if row["outcome"] == "correct"}
    return {"replies": len(verdicts), **counts, "prompts": len({row["id"] for row in verdicts}),
            "prompts_solved": len(solved), "grader": grader}


def _of_answers(job: Job, replies: list[Row], pool: dict[str, Row]) -> tuple[list[Any], Row]:
    golds = {row["id"]: Problem(id=row["id"], question=row["question"], gold=row["gold"],
                                answer_type=row["answer_type"], options=tuple(row["options"])) for row in pool.values()}
    return graded_answers(job, replies, golds)


def _of_programs(job: Job, replies: list[Row], pool: dict[str, Row]) -> tuple[list[Any], Row]:
    """Grade programs: an example's `row` is one of the code benchmark `style`, whose tests it holds."""
    without = [row["id"] for row in pool.values() if not row.get("style") or row.get("row") is None]
    if without:
        raise InputError(f"{len(without)} of {len(pool)} pool examples have no tests (first: {without[0]}), so replies "
                         "to them cannot be verified; train a method that needs no verified replies on this pool")
    submissions = (Submission(style=pool[reply["id"]]["style"], row=pool[reply["id"]]["row"], text=reply["text"],
                              finish_reason=reply["finish_reason"]) for reply in replies)
    found = []
    with program_grader(job, {row["style"] for row in pool.values()}) as programs:
        for verdict in programs.grade_all(submissions):
            found.append(verdict)
            job.on_progress(len(found) / len(replies))
        return found, programs.grader.settings()


def _verified(job: Job) -> dict[str, list[VerifiedReply]]:
    replies = read_jsonl(job.inputs["replies"] / "replies.jsonl")
    verdicts = read_jsonl(job.inputs["grades"] / "verdicts.jsonl") if "grades" in job.inputs else None
    return verified_replies(list(replies), None if verdicts is None else list(verdicts))


def _tokenizer(folder: Path) -> Any:
    import transformers

    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _name_tokenizer(job: Job, tokenizer: Any) -> None:
    (job.output / TOKENIZER).write_text(tokenizer_hash(tokenizer) + "\n", encoding="utf-8")


def check_tokenizer(folder: Path, tokenizer: Any, what: str) -> None:
    """Refuse token ids, or texts made from them, that come from another tokenizer.

    Raises:
        InputError: the vocabularies differ.
    """
    stored = (folder / TOKENIZER).read_text(encoding="utf-8").strip()
    if stored != tokenizer_hash(tokenizer):
        raise InputError(f"the {what} in {folder.name} come from another tokenizer (vocabulary hash {stored[:12]}, "
                         f"this model's is {tokenizer_hash(tokenizer)[:12]}); sample them again from a checkpoint of "
                         "the same family")


def make_pairs(job: Job) -> dict[str, Any]:
    """Write pairs.jsonl: `{id, prompt_ids, chosen_ids, rejected_ids}`, and how many prompts gave none, and why.

    Raises:
        InputError: no prompt gave a pair.
    """
    step = job.step
    replies = _verified(job)
    examples = [row for row in _pool(job) if row["id"] in replies]
    tokenizer = _tokenizer(job.inputs["checkpoint"] / "checkpoint")
    check_tokenizer(job.inputs["replies"], tokenizer, "rollouts")
    _name_tokenizer(job, tokenizer)
    if step.rule == "verified":
        pairs, skipped = encode_verified_pairs(examples, replies, tokenizer, step.prompt, step.data, step.incorrect)
    else:
        pairs, skipped = encode_gold_pairs(examples, replies, tokenizer, step.prompt, step.data,
                                           drop_correct=step.drop_correct)
    assert len(pairs) + sum(skipped.values()) == len(examples), "each prompt gives a pair or is counted"
    if not pairs:
        raise InputError(f"none of the {len(examples)} prompts gave a pair ({_listed(skipped)}); {_solved(replies)}. "
                         "Nothing was trained: raise the number of rollouts or the temperature, take more prompts "
                         "(<method>.subset), or start from a stronger checkpoint")
    write_jsonl(job.output / "pairs.jsonl", pairs)
    return {"prompts": len(examples), "pairs": len(pairs), "skipped": dict(skipped)}


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in counts.items())


def _solved(replies: dict[str, list[VerifiedReply]]) -> str:
    everything = [reply for of_prompt in replies.values() for reply in of_prompt]
    correct = sum(reply.outcome == "correct" for reply in everything)
    return f"{correct} of {len(everything)} rollouts were correct"


def make_hints(job: Job) -> dict[str, Any]:
    """Write hints.jsonl: `{id, question}` with the hinted text.

    Raises:
        InputError: no prompt has both a correct and an incorrect rollout.
    """
    step = job.step
    replies = _verified(job)
    examples = [row for row in _pool(job) if row["id"] in replies]
    hints, skipped = hinted_prompts(examples, replies, step.template, step.incorrect, step.seed)
    if not hints:
        raise InputError(f"none of the {len(examples)} prompts has both a correct and an incorrect rollout "
                         f"({_listed(skipped)}); {_solved(replies)}. Nothing was trained: raise the number of "
                         "rollouts, take more prompts (<method>.subset), or start from a stronger checkpoint")
    write_jsonl(job.output / "hints.jsonl", hints)
    shutil.copyfile(job.inputs["replies"] / TOKENIZER, job.output / TOKENIZER)
    return {"prompts": len(examples), "hinted": len(hints), "skipped": dict(skipped)}


def store_targets(job: Job) -> dict[str, Any]:
    """Write targets.safetensors (token columns) and targets.jsonl (one line per kept reply).

    Raises:
        InputError: no reply of the teacher is right, or top_k exceeds the vocabulary.
    """
    from baselines.branches import load_causal_lm
    from baselines.teacher import distillation_rows, save_targets, teacher_columns
    from replication.actions.torch_setup import prepare

    step = job.step
    device = prepare(step.threads, gpus=job.gpus)
    tokenizer = _tokenizer(job.inputs["teacher"] / "checkpoint")
    check_tokenizer(job.inputs["replies"], tokenizer, "hinted replies")
    hinted = {row["id"]: row["question"] for row in read_jsonl(job.inputs["hints"] / "hints.jsonl")}
    replies = _verified(job)
    kept = {i: r[0] for i, r in replies.items() if r[0].outcome == "correct" and r[0].finished}
    if not kept:
        raise InputError(f"none of the teacher's {len(replies)} hinted replies is right and finished; "
                         f"{_solved(replies)}. Nothing was trained: take more prompts (<method>.subset), or start from "
                         "a stronger checkpoint")
    examples = [row for row in _pool(job) if row["id"] in kept]
    rows = distillation_rows(examples, kept, hinted, tokenizer, step.prompt, step.data,
                             student_prompt=step.student_prompt, terminator=step.terminator)
    model: Any = load_causal_lm(job.inputs["teacher"] / "checkpoint")
    model.to(device)
    columns = teacher_columns(model, rows, top_k=step.top_k, temperature=step.temperature,
                              pad_id=tokenizer.pad_token_id, batch_tokens=step.batch_tokens,
                              compute_dtype=step.compute_dtype, on_progress=job.on_progress)
    mass = save_targets(job.output, rows, columns, tokenizer)
    return {"hinted": len(replies), "kept": len(rows), "tokens": len(columns.tail_N), "stored_mass": mass,
            "bytes": (job.output / "targets.safetensors").stat().st_size}
