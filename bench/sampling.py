"""Share of pool prompts that a stored checkpoint solves when sampled: rollouts need right and wrong answers.

    python -m bench.sampling --store runs --prompts 200 --samples 4

Looks up the tiny warm-up M1 in the store, samples answers to training prompts at temperature 1 and grades them with the
suite's grader. Prints the mean success and the share of prompts solved at least once, never and always.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from evaluation.backends.interface import BACKENDS, Prompt, Request, Sampling
from evaluation.graders.math import MathGrader
from evaluation.problem import Problem
from foundation.files import read_jsonl
from foundation.prompts import PromptFormat
from replication.store import Store


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.sampling", description=__doc__)
    parser.add_argument("--store", type=Path, default=Path("runs"))
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--samples", type=int, default=4)
    options = parser.parse_args()
    store = Store(options.store)
    manifests = [m for m in store.manifests() if m["label"] == "train warm-up (M1)"]
    if not manifests:
        print(f"no warm-up M1 in {options.store}; run make all-tables first", file=sys.stderr)
        return 2
    pool = list(read_jsonl(store.root / manifests[0]["parents"]["pool"] / "pool.jsonl"))[: options.prompts]
    prompt = PromptFormat(**manifests[0]["settings"]["prompt"])
    with MathGrader() as grader:
        checkpoint = store.root / manifests[0]["id"] / "checkpoint"
        report(graded(grader, pool, answers(checkpoint, pool, prompt, options.samples)))
    return 0


def answers(checkpoint: Path, pool: list[dict[str, Any]], prompt: PromptFormat, samples: int) -> list[dict[str, Any]]:
    """Sample at temperature 1 through the suite's own backend; one record a sample."""
    import torch

    torch.set_num_threads(1)
    request = Request(prompt=prompt, sampling=Sampling(n=samples, temperature=1.0), max_new_tokens=96,
                      max_prompt_tokens=128, batch_size=256, compute_dtype="float32")
    prompts = [Prompt(id=row["id"], question=row["question"]) for row in pool]
    with tempfile.TemporaryDirectory() as folder:
        BACKENDS["hf"](checkpoint, prompts, request, Path(folder) / "records.jsonl", key="bench")
        return [row for row in read_jsonl(Path(folder) / "records.jsonl") if "header" not in row]


def graded(grader: MathGrader, pool: list[dict[str, Any]], records: list[dict[str, Any]]) -> list[list[bool]]:
    """Return for each prompt whether each of its samples is right."""
    right: dict[str, list[bool]] = {row["id"]: [] for row in pool}
    problems = {row["id"]: Problem(id=row["id"], question=row["question"], gold=row["gold"],
                                   answer_type=row["answer_type"], options=tuple(row["options"])) for row in pool}
    for record in records:
        verdict = grader.grade(problems[record["id"]], record["text"], record["finish_reason"])
        right[record["id"]].append(verdict.correct)
    return list(right.values())


def report(right: list[list[bool]]) -> None:
    n, k = len(right), len(right[0])
    print(f"{n} pool prompts, {k} samples each at temperature 1")
    print(f"mean success           {100 * sum(map(sum, right)) / (n * k):5.1f} %")
    for label, test in (("solved at least once", any), ("always solved", all)):
        print(f"{label:<22} {100 * sum(map(test, right)) / n:5.1f} %")
    print(f"{'right and wrong both':<22} {100 * sum(0 < sum(r) < k for r in right) / n:5.1f} %")


if __name__ == "__main__":
    sys.exit(main())
