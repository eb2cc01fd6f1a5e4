"""Generating answers and grading them."""

from __future__ import annotations

import collections
import json
from pathlib import Path
from typing import Any

from evaluation.graders.records import grade_records
from evaluation.problem import Problem
from foundation.errors import GraderError
from foundation.files import read_jsonl, write_jsonl
from replication.actions.answers import graded_answers
from replication.actions.data import TASKS_FILE
from replication.actions.programs import program_grader
from replication.worker import Job

Row = dict[str, Any]
GREEDY_FIELDS = ("id", "text", "finish_reason", "new_tokens", "prompt_tokens")
"""What a greedy record holds: it has neither a sample number nor a seed."""


def generate(job: Job) -> dict[str, Any]:
    """Write records.jsonl: one greedy answer per problem, resumed after a kill."""
    from evaluation.backends.interface import BACKENDS, Request
    from replication.actions.torch_setup import prepare

    step = job.step
    prepare(step.threads, gpus=job.gpus)
    problems = [Problem.from_row(row) for row in read_jsonl(job.inputs["problems"] / "problems.jsonl")]
    request = Request(
        prompt=step.prompt, max_new_tokens=step.max_new_tokens, max_prompt_tokens=step.max_prompt_tokens,
        batch_size=step.batch_size, compute_dtype=step.compute_dtype,
    )
    partial = job.scratch / "records.jsonl"
    BACKENDS[step.backend](job.inputs["checkpoint"] / "checkpoint", problems, request, partial, key=step.key,
                           on_progress=job.on_progress, engine=step.engine)
    records = [{name: row[name] for name in GREEDY_FIELDS} for row in read_jsonl(partial) if "header" not in row]
    order = {problem.id: i for i, problem in enumerate(problems)}
    records.sort(key=lambda row: order[row["id"]])
    assert [row["id"] for row in records] == list(order), "each problem has exactly one record"
    write_jsonl(job.output / "records.jsonl", records)
    reasons = collections.Counter(row["finish_reason"] for row in records)
    return {"problems": len(records), "new_tokens": sum(row["new_tokens"] for row in records),
            "finish_reasons": dict(reasons)}


def grade(job: Job) -> dict[str, Any]:
    """Write verdicts.jsonl and counts.json: four outcomes, all of them in the denominator.

    Each verdict is kept in the scratch folder as it comes: a killed grading repeats only what was in work.

    Raises:
        GraderError: the grader itself failed on an answer, even when it was tried again alone.
        PrerequisiteError: there are programs to run, and no isolation works here.
    """
    problems = {row["id"]: Problem.from_row(row) for row in read_jsonl(job.inputs["problems"] / "problems.jsonl")}
    records = list(read_jsonl(job.inputs["records"] / "records.jsonl"))
    if [row["id"] for row in records] != list(problems):
        raise GraderError(f"{len(records)} records for {len(problems)} problems: ids do not match")
    tasks = job.inputs["problems"] / TASKS_FILE
    verdicts, grader = _of_programs(job, records, tasks) if tasks.is_file() else _of_answers(job, records, problems)
    failures = [row for row in verdicts if row["outcome"] == "grader_failure"]
    if failures:
        raise GraderError(f"the grader failed on {len(failures)} of {len(verdicts)} answers (first: "
                          f"{failures[0]['id']}: {failures[0]['reason']}); nothing was scored 0 for that")
    counts = collections.Counter(row["outcome"] for row in verdicts)
    write_jsonl(job.output / "verdicts.jsonl", verdicts)
    summary = {"n": len(verdicts), **{name: counts.get(name, 0) for name in ("correct", "wrong", "no_answer")},
               "grader_failure": 0, "truncated": sum(row["finish_reason"] == "length" for row in records)}
    (job.output / "counts.json").write_text(json.dumps(summary) + "\n", encoding="utf-8")
    return {**summary, "grader": grader}


def _of_answers(job: Job, records: list[Row], problems: dict[str, Problem]) -> tuple[list[Row], Row]:
    found, versions = graded_answers(job, records, problems)
    return [{"id": record["id"], "outcome": verdict.outcome, "extracted": verdict.extracted, "rule": verdict.rule,
             "reason": verdict.reason} for record, verdict in zip(records, found, strict=True)], versions


def _of_programs(job: Job, records: list[Row], tasks: Path) -> tuple[list[Row], Row]:
    rows = {task["id"]: task["row"] for task in read_jsonl(tasks)}
    benchmark, verdicts = job.step.problems.benchmark, []
    with program_grader(job, [benchmark]) as programs:
        for row in grade_records(benchmark, rows, records, programs):
            verdicts.append(row)
            job.on_progress(len(verdicts) / len(records))
        return verdicts, programs.grader.settings()
