"""Scores of a tiny model's base, warm-up M1 and SFT, per domain: what calibrates the tiny scale.

    python -m bench.tiny --model tiny --store /tmp/calibration --domains math code logic

Runs the suite's own steps (pretraining, pools, trainings) in a store of its own, generates and grades every benchmark
of the domains, samples M1 on pool prompts, and prints scores and seconds. Nothing is shared with a table's store.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from baselines.interface import BASE, WARMUP
from bench.sampling import report
from evaluation.backends.interface import BACKENDS, Request, Sampling
from evaluation.graders.code import CodeGrader
from evaluation.graders.code_extraction import extract_program
from evaluation.graders.code_tasks import code_task
from evaluation.graders.math import MathGrader
from evaluation.problem import Problem
from foundation.files import read_jsonl
from replication.configuration import with_changes
from replication.data import synthetic
from replication.models import MODELS
from replication.plan import Planner
from replication.plan import Request as Wanted
from replication.scales import SCALES
from replication.steps import Step, closure
from replication.store import Store
from replication.worker import execute

Task = tuple[Problem, str, dict[str, Any] | None]
"""A problem, the benchmark whose row format its tests have, and that row."""
SAMPLED_PROMPTS, SAMPLES = 200, 4


def main() -> int:
    options = _options()
    scale = SCALES["tiny"]
    configuration = with_changes(scale.configuration, options.set)
    request = Wanted(model=MODELS[options.model], scale=scale, configuration=configuration, data_root=None,
                     limit_train=options.limit_train, limit_eval=None, seed=options.seed)
    store = Store(options.store)
    for domain in options.domains:
        planner = Planner(request, domain)
        for row in options.rows:
            checkpoint = _made(planner.final(row), store)
            _columns(checkpoint, planner, row, options.size)
            if row == WARMUP:
                _sampled(checkpoint, planner)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.tiny", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=[name for name, m in MODELS.items() if m.scale == "tiny"], default="tiny")
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--domains", nargs="+", choices=list(synthetic.DRAWERS), default=list(synthetic.DRAWERS))
    parser.add_argument("--rows", nargs="+", default=[BASE, WARMUP, "sft"])
    parser.add_argument("--set", action="append", default=[], metavar="section.field=value")
    parser.add_argument("--size", type=int, default=200, help="problems of each benchmark")
    parser.add_argument("--limit-train", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _made(step: Step, store: Store) -> Path:
    """Run a step and what it needs, where the store has it not yet; print the seconds of what ran."""
    for needed in closure([step]):
        if not store.is_done(needed):
            started = time.perf_counter()
            execute(needed, store, lambda *_, **__: None)
            print(f"  {needed.label:<40} {time.perf_counter() - started:7.1f} s", flush=True)
    return store.use(step) / "checkpoint"


def _columns(checkpoint: Path, planner: Planner, row: str, size: int) -> None:
    scores = []
    for name in synthetic.DRAWERS[planner.domain]:
        tasks: list[Task]
        if planner.domain == "code":
            tasks = [(task.problem, name, task.row) for task in synthetic.benchmark_tasks(name, size, 0)]
        else:
            tasks = [(problem, "", None) for problem in synthetic.benchmark_problems(name, size, 0)]
        started = time.perf_counter()
        records = _answers(checkpoint, planner, [task[0] for task in tasks], Sampling(), "")
        generated = time.perf_counter()
        right = [verdict for _, verdict in _graded(tasks, records)]
        length = sum(record["new_tokens"] for record in records) / len(records)
        scores.append(100 * sum(right) / len(right))
        print(f"{planner.model.name:<10} {row:<8} {name:<15} {scores[-1]:5.1f} %   {length:4.0f} tokens, "
              f"{generated - started:4.1f} s generated, {time.perf_counter() - generated:4.1f} s graded", flush=True)
    print(f"{planner.model.name:<10} {row:<8} {planner.domain + ' average':<15} {sum(scores) / len(scores):5.1f} %")


def _answers(checkpoint: Path, planner: Planner, problems: list[Problem], sampling: Sampling,
             key: str) -> list[dict[str, Any]]:
    import torch

    torch.set_num_threads(1)
    settings = planner.configuration.eval
    request = Request(prompt=planner.prompt, sampling=sampling, max_new_tokens=settings.max_new_tokens or 96,
                      max_prompt_tokens=settings.max_prompt_tokens, compute_dtype="float32",
                      batch_size=settings.batch_size if sampling.greedy else 256)
    with tempfile.TemporaryDirectory() as folder:
        BACKENDS["hf"](checkpoint, problems, request, Path(folder) / "records.jsonl", key="bench")
        return [row for row in read_jsonl(Path(folder) / "records.jsonl") if "header" not in row]


def _graded(tasks: list[Task], records: list[dict[str, Any]]) -> list[tuple[str, bool]]:
    """Return each record's problem and whether it is right, by the suite's graders."""
    of = {task[0].id: task for task in tasks}
    if tasks[0][2] is None:
        with MathGrader() as grader:
            return [(r["id"], grader.grade(of[r["id"]][0], r["text"], r["finish_reason"]).correct) for r in records]
    with CodeGrader(workers=1) as code:
        programs = []
        for record in records:
            _, style, row = of[record["id"]]
            task = code_task(style, row or {})
            program = extract_program(record["text"], getattr(task, "entry_point", None))
            programs.append((task, None if program is None else program.code))
        return [(r["id"], v.correct) for r, v in zip(records, code.grade_all(programs), strict=True)]


def _sampled(checkpoint: Path, planner: Planner) -> None:
    """Print how often M1 solves pool prompts when it samples at temperature 1."""
    pool = synthetic.training_pool(planner.domain, SAMPLED_PROMPTS, planner.request.seed)
    tasks: list[Task] = [(Problem(id=e.id, question=e.question, gold=e.gold, answer_type=e.answer_type,
                                  options=e.options), e.style, e.row) for e in pool]
    started = time.perf_counter()
    records = _answers(checkpoint, planner, [t[0] for t in tasks], Sampling(n=SAMPLES, temperature=1.0), "")
    seconds = time.perf_counter() - started
    right: dict[str, list[bool]] = {e.id: [] for e in pool}
    for name, verdict in _graded(tasks, records):
        right[name].append(verdict)
    report(list(right.values()))
    print(f"  {len(records)} samples in {seconds:.1f} s")


if __name__ == "__main__":
    sys.exit(main())
