"""Share of pool prompts that a stored checkpoint solves when sampled: rollouts need right and wrong answers.

    python -m bench.sampling --store runs --prompts 200 --samples 4

Looks up the tiny warm-up M1 in the store, samples answers to training prompts at temperature 1 and grades them with the
suite's grader. Prints the mean success and the share of prompts solved at least once, never and always.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from evaluation.graders.math import MathGrader
from evaluation.problem import Problem
from foundation.files import read_jsonl
from foundation.prompts import PromptFormat, encode_prompt, stop_ids
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
    texts = sample(store.root / manifests[0]["id"] / "checkpoint", pool, prompt, options.samples)
    with MathGrader() as grader:
        report([graded(grader, row, answers) for row, answers in zip(pool, texts, strict=True)])
    return 0


def sample(checkpoint: Path, pool: list[dict[str, Any]], prompt: PromptFormat, samples: int) -> list[list[str]]:
    import torch
    import transformers

    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, local_files_only=True).eval()
    texts = []
    for row in pool:
        ids = torch.tensor([encode_prompt(tokenizer, prompt, row["question"])] * samples)
        output = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0, top_k=0,
                                top_p=1.0, max_new_tokens=96, eos_token_id=stop_ids(tokenizer, prompt),
                                pad_token_id=tokenizer.pad_token_id)
        texts.append(tokenizer.batch_decode(output[:, ids.shape[1] :], skip_special_tokens=True))
    return texts


def graded(grader: MathGrader, row: dict[str, Any], answers: list[str]) -> list[bool]:
    kind = "choice" if row["gold"] in "ABCDE" else "integer" if row["gold"].lstrip("-").isdigit() else "expression"
    problem = Problem(id=row["id"], question=row["question"], gold=row["gold"], answer_type=kind)
    return [grader.grade(problem, text).correct for text in answers]


def report(right: list[list[bool]]) -> None:
    n, k = len(right), len(right[0])
    print(f"{n} pool prompts, {k} samples each at temperature 1")
    print(f"mean success           {100 * sum(map(sum, right)) / (n * k):5.1f} %")
    for label, test in (("solved at least once", any), ("always solved", all)):
        print(f"{label:<22} {100 * sum(map(test, right)) / n:5.1f} %")
    print(f"{'right and wrong both':<22} {100 * sum(0 < sum(r) < k for r in right) / n:5.1f} %")


if __name__ == "__main__":
    sys.exit(main())
