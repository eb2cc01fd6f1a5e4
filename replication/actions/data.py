"""Training pools and benchmark problems, as JSON lines."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from evaluation.benchmarks import BENCHMARKS
from evaluation.benchmarks.code import CodeTask, load_tasks
from evaluation.benchmarks.fetching import fetch_files
from evaluation.benchmarks.loading import checked_path, load_files
from evaluation.graders.code import absent_packages
from evaluation.graders.code_tasks import code_task
from evaluation.graders.math import MathGrader
from foundation.errors import InputError, PrerequisiteError
from foundation.files import write_jsonl
from foundation.seeds import stream
from replication.corpora.sources import CORPUS_SOURCES, copy_pool
from replication.data import synthetic
from replication.data.pool import Example
from replication.data.real import read_real_pool
from replication.worker import Job

TASKS_FILE = "tasks.jsonl"
_SHOWN = 8
Item = TypeVar("Item")


def build_pool(job: Job) -> dict[str, Any]:
    """Write pool.jsonl: generated problems, real files or the paper's corpora, limited to a seeded sample."""
    step = job.step
    if step.sources in CORPUS_SOURCES:
        root = None if step.data_root is None else Path(step.data_root)
        return copy_pool(step.sources[0], step.domain, root, job.output, job.scratch, limit=step.limit,
                         seed=step.seed, revision=step.revision, workers=step.threads, on_progress=job.on_progress)
    if step.sources == ("synthetic",):
        examples, report = synthetic.training_pool(step.domain, step.limit, step.seed), None
    else:
        read, report = read_real_pool(Path(step.data_root), step.sources)
        examples = _sample(read, step.limit, step.seed)
    if not examples:
        raise InputError(f"the pool from {', '.join(step.sources)} is empty: nothing to train on")
    write_jsonl(job.output / "pool.jsonl", (asdict(example) for example in examples))
    notes: dict[str, Any] = {"examples": len(examples), "generated": step.sources == ("synthetic",)}
    if report is not None:
        notes["report"] = report.to_row()
        (job.output / "report.json").write_text(json.dumps(report.to_row(), indent=1) + "\n", encoding="utf-8")
    return notes


def _sample(examples: list[Example], limit: int | None, seed: int) -> list[Example]:
    """Keep `limit` examples, chosen by a stream of their own, in their order in the file."""
    if limit is None or limit >= len(examples):
        return examples
    chosen = stream("pool-limit", seed).choice(len(examples), size=limit, replace=False)
    return [examples[i] for i in sorted(chosen)]


def load_problems(job: Job) -> dict[str, Any]:
    """Write problems.jsonl; counted, and each gold answer parses. Programs' rows with their tests go to tasks.jsonl.

    Raises:
        InputError: there are no problems, or not the expected ones.
        GoldError: a gold answer does not parse.
        PrerequisiteError: tasks need packages that are not installed here.
    """
    step = job.step
    if BENCHMARKS[step.benchmark].domain == "code":
        return _load_tasks(job)
    if step.source == "synthetic":
        problems = synthetic.benchmark_problems(step.benchmark, step.limit, step.seed)
    else:
        everything = load_files(BENCHMARKS[step.benchmark], _paths(job))
        problems = _limited(everything, step.limit, step.benchmark, step.seed)
    if not problems:
        raise InputError(f"benchmark {step.benchmark} has no problems: an empty benchmark has no score")
    with MathGrader() as grader:
        for i, problem in enumerate(problems):
            grader.check_gold(problem)
            job.on_progress(i / len(problems))
    write_jsonl(job.output / "problems.jsonl", (problem.to_row() for problem in problems))
    return {"problems": len(problems), "generated": step.source == "synthetic"}


def _paths(job: Job) -> list[Path]:
    step, chosen = job.step, BENCHMARKS[job.step.benchmark]
    if step.data_root is None:
        return fetch_files(chosen, on_progress=job.on_progress, revision=step.revision)
    return [checked_path(chosen, Path(step.data_root), step.sha256)]


def _load_tasks(job: Job) -> dict[str, Any]:
    step = job.step
    if step.source == "synthetic":
        tasks = synthetic.benchmark_tasks(step.benchmark, step.limit, step.seed)  # type: ignore[attr-defined]
    else:
        everything = load_tasks(BENCHMARKS[step.benchmark], _paths(job))
        tasks = _limited(everything, step.limit, step.benchmark, step.seed)
    if not tasks:
        raise InputError(f"benchmark {step.benchmark} has no problems: an empty benchmark has no score")
    _require_packages(step.benchmark, tasks)
    write_jsonl(job.output / "problems.jsonl", (task.problem.to_row() for task in tasks))
    write_jsonl(job.output / TASKS_FILE, ({"id": task.problem.id, "row": task.row} for task in tasks))
    return {"problems": len(tasks), "generated": step.source == "synthetic"}


def _require_packages(benchmark: str, tasks: list[CodeTask]) -> None:
    """Refuse early what could only end as a grader failure after everything was trained."""
    lacking: Counter[str] = Counter()
    for task in tasks:
        lacking.update(absent_packages(code_task(benchmark, task.row)))
    if lacking:
        shown = ", ".join(f"{name} ({count} tasks)" for name, count in lacking.most_common(_SHOWN))
        raise PrerequisiteError(
            f"{BENCHMARKS[benchmark].title}: {len(lacking)} packages that its tests need are not installed: {shown}"
            f"{', ...' * (len(lacking) > _SHOWN)}. Install them into this environment; `python -m evaluation verify "
            f"--benchmark {benchmark} --run-bigcodebench` shows what is missing")


def _limited(problems: list[Item], limit: int | None, benchmark: str, seed: int) -> list[Item]:
    """Keep a seeded sample: the first rows of a file need not be typical of it."""
    if limit is None or limit >= len(problems):
        return problems
    chosen = stream("problems-limit", benchmark, seed).choice(len(problems), size=limit, replace=False)
    return [problems[i] for i in sorted(chosen)]
