"""Training pools and benchmark problems, as JSON lines."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluation.benchmarks import BENCHMARKS
from evaluation.benchmarks.fetching import benchmark_problems
from evaluation.benchmarks.loading import load_benchmark
from evaluation.graders.math import MathGrader
from evaluation.problem import Problem
from foundation.errors import InputError
from foundation.files import write_jsonl
from foundation.seeds import stream
from replication.corpora.sources import CORPUS_SOURCES, copy_pool
from replication.data import synthetic
from replication.data.pool import Example
from replication.data.real import read_real_pool
from replication.worker import Job


def build_pool(job: Job) -> dict[str, Any]:
    """Write pool.jsonl: generated problems, real files or the paper's corpora, limited to a seeded sample."""
    step = job.step
    if step.sources in CORPUS_SOURCES:
        return copy_pool(step.sources[0], step.domain, Path(step.data_root), job.output, job.scratch, limit=step.limit,
                         seed=step.seed, on_progress=job.on_progress)
    if step.sources == ("synthetic",):
        examples, report = synthetic.training_pool(step.limit, step.seed), None
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
    """Write problems.jsonl; counted, and each gold answer parses."""
    step = job.step
    if step.source == "synthetic":
        problems = synthetic.benchmark_problems(step.benchmark, step.limit, step.seed)
    else:
        chosen = BENCHMARKS[step.benchmark]
        everything = (benchmark_problems(chosen, None) if step.data_root is None
                      else load_benchmark(chosen, Path(step.data_root), step.sha256))
        problems = _limited(everything, step.limit, step.benchmark, step.seed)
    if not problems:
        raise InputError(f"benchmark {step.benchmark} has no problems: an empty benchmark has no score")
    with MathGrader() as grader:
        for i, problem in enumerate(problems):
            grader.check_gold(problem)
            job.on_progress(i / len(problems))
    write_jsonl(job.output / "problems.jsonl", (problem.to_row() for problem in problems))
    return {"problems": len(problems), "generated": step.source == "synthetic"}


def _limited(problems: list[Problem], limit: int | None, benchmark: str, seed: int) -> list[Problem]:
    """Keep a seeded sample: the first rows of a file need not be typical of it."""
    if limit is None or limit >= len(problems):
        return problems
    chosen = stream("problems-limit", benchmark, seed).choice(len(problems), size=limit, replace=False)
    return [problems[i] for i in sorted(chosen)]
