"""Sampling many answers a problem, and grading them."""

from __future__ import annotations

import collections
from typing import Any

from evaluation.graders.math import MathGrader, grader_versions
from evaluation.problem import Problem
from foundation.errors import GraderError
from foundation.files import read_jsonl, write_jsonl
from replication.worker import Job


def sample_answers(job: Job) -> dict[str, Any]:
    """Write records.jsonl: n answers a problem, in the order of problems and samples; resumed in the middle."""
    from evaluation.backends.interface import BACKENDS, Request, Sampling
    from replication.actions.torch_setup import prepare

    step = job.step
    prepare(step.threads)
    problems = [Problem.from_row(row) for row in read_jsonl(job.inputs["problems"] / "problems.jsonl")]
    request = Request(
        prompt=step.prompt, max_new_tokens=step.max_new_tokens, max_prompt_tokens=step.max_prompt_tokens,
        batch_size=step.batch_size, compute_dtype=step.compute_dtype, seed=step.seed,
        sampling=Sampling(n=step.n, temperature=step.temperature, top_p=step.top_p),
    )
    partial = job.scratch / "records.jsonl"
    BACKENDS[step.backend](job.inputs["checkpoint"] / "checkpoint", problems, request, partial, key=step.key,
                           on_progress=job.on_progress)
    order = {problem.id: i for i, problem in enumerate(problems)}
    records = [row for row in read_jsonl(partial) if "header" not in row]
    records.sort(key=lambda row: (order[row["id"]], row["sample"]))
    assert len(records) == step.n * len(problems), "each problem has n samples"
    write_jsonl(job.output / "records.jsonl", records)
    reasons = collections.Counter(row["finish_reason"] for row in records)
    return {"problems": len(problems), "samples": len(records), "finish_reasons": dict(reasons),
            "new_tokens": sum(row["new_tokens"] for row in records),
            "distinct_texts": len({(row["id"], row["text"]) for row in records})}


def grade_samples(job: Job) -> dict[str, Any]:
    """Write verdicts.jsonl, one line a sample; all of them count.

    Raises:
        GraderError: the grader itself failed on an answer.
    """
    problems = {row["id"]: Problem.from_row(row) for row in read_jsonl(job.inputs["problems"] / "problems.jsonl")}
    records = list(read_jsonl(job.inputs["records"] / "records.jsonl"))
    verdicts = []
    with MathGrader() as grader:
        for i, record in enumerate(records):
            verdict = grader.grade(problems[record["id"]], record["text"], record["finish_reason"])
            verdicts.append({"id": record["id"], "sample": record["sample"], "outcome": verdict.outcome,
                             "extracted": verdict.extracted, "rule": verdict.rule, "reason": verdict.reason})
            job.on_progress(i / len(records))
    failures = [row for row in verdicts if row["outcome"] == "grader_failure"]
    if failures:
        raise GraderError(f"the grader failed on {len(failures)} of {len(verdicts)} answers (first: "
                          f"{failures[0]['id']}, sample {failures[0]['sample']}: {failures[0]['reason']})")
    write_jsonl(job.output / "verdicts.jsonl", verdicts)
    counts = collections.Counter(row["outcome"] for row in verdicts)
    return {"samples": len(verdicts), **counts, "grader": grader_versions()}
