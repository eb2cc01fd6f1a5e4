"""What steps on answers share: drawing samples, and verdicts on what is no program. Both go on after a kill."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evaluation.graders.cache import VerdictCache
from evaluation.graders.math import MathGrader, Verdict, grader_versions
from evaluation.problem import Problem
from foundation.files import read_jsonl
from replication.worker import Job

if TYPE_CHECKING:
    from evaluation.backends.interface import Question, Request

Row = dict[str, Any]


def drawn(job: Job, prompts: Sequence[Question], request: Request) -> tuple[list[Row], Row]:
    """Return the step's n samples of each prompt, in the order of prompts and samples, and what is worth noting."""
    from evaluation.backends.interface import BACKENDS

    step = job.step
    partial = job.scratch / "records.jsonl"
    BACKENDS[step.backend](job.inputs["checkpoint"] / "checkpoint", prompts, request, partial, key=step.key,
                           on_progress=job.on_progress, engine=step.engine)
    order = {prompt.id: i for i, prompt in enumerate(prompts)}
    records = [row for row in read_jsonl(partial) if "header" not in row]
    records.sort(key=lambda row: (order[row["id"]], row["sample"]))
    assert len(records) == step.n * len(prompts), "each prompt has n samples"
    reasons = collections.Counter(row["finish_reason"] for row in records)
    return records, {"finish_reasons": dict(reasons), "new_tokens": sum(row["new_tokens"] for row in records),
                     "distinct_texts": len({(row["id"], row["text"]) for row in records})}


def graded_answers(job: Job, records: Sequence[Row], problems: dict[str, Problem]) -> tuple[list[Verdict], Row]:
    """Return a verdict for each record, and the versions of the grader; a killed grading goes on where it stood."""
    verdicts = []
    with MathGrader() as grader, VerdictCache(job.scratch / "answers.jsonl", grader) as cache:
        for i, record in enumerate(records):
            verdicts.append(cache.grade(problems[record["id"]], record["text"], record["finish_reason"]))
            job.on_progress(i / len(records))
    return verdicts, dict(grader_versions())
