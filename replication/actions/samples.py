"""Sampling many answers a problem, and grading them."""

from __future__ import annotations

import collections
from typing import Any

from evaluation.problem import Problem
from foundation.errors import GraderError
from foundation.files import read_jsonl, write_jsonl
from replication.actions.answers import drawn, graded_answers
from replication.worker import Job


def sample_answers(job: Job) -> dict[str, Any]:
    """Write records.jsonl: n answers a problem, in the order of problems and samples; resumed in the middle."""
    from evaluation.backends.interface import Request, Sampling
    from replication.actions.torch_setup import prepare

    step = job.step
    prepare(step.threads, gpus=job.gpus)
    problems = [Problem.from_row(row) for row in read_jsonl(job.inputs["problems"] / "problems.jsonl")]
    request = Request(
        prompt=step.prompt, max_new_tokens=step.max_new_tokens, max_prompt_tokens=step.max_prompt_tokens,
        batch_size=step.batch_size, compute_dtype=step.compute_dtype, seed=step.seed,
        sampling=Sampling(n=step.n, temperature=step.temperature, top_p=step.top_p),
    )
    records, notes = drawn(job, problems, request)
    write_jsonl(job.output / "records.jsonl", records)
    return {"problems": len(problems), "samples": len(records), **notes}


def grade_samples(job: Job) -> dict[str, Any]:
    """Write verdicts.jsonl, one line a sample; all of them count.

    Raises:
        GraderError: the grader itself failed on an answer.
    """
    problems = {row["id"]: Problem.from_row(row) for row in read_jsonl(job.inputs["problems"] / "problems.jsonl")}
    records = list(read_jsonl(job.inputs["records"] / "records.jsonl"))
    found, grader = graded_answers(job, records, problems)
    verdicts = [{"id": record["id"], "sample": record["sample"], "outcome": verdict.outcome,
                 "extracted": verdict.extracted, "rule": verdict.rule, "reason": verdict.reason}
                for record, verdict in zip(records, found, strict=True)]
    failures = [row for row in verdicts if row["outcome"] == "grader_failure"]
    if failures:
        raise GraderError(f"the grader failed on {len(failures)} of {len(verdicts)} answers (first: "
                          f"{failures[0]['id']}, sample {failures[0]['sample']}: {failures[0]['reason']})")
    write_jsonl(job.output / "verdicts.jsonl", verdicts)
    counts = collections.Counter(row["outcome"] for row in verdicts)
    return {"samples": len(verdicts), **counts, "grader": grader}
