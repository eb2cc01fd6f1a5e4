"""The chain from rollouts to trained models on replies written by hand: no capable model is needed.

Of each prompt's four replies the first is wrong, the second the pool's own completion, the third wrong in another
way and the fourth cut off; every fifth prompt has no right one.
"""

from __future__ import annotations

from foundation.files import read_jsonl, write_jsonl
from foundation.prompts import tokenizer_hash
from replication.actions import rollouts, training
from replication.steps import closure
from replication.worker import Job, execute


def wrong(text, answer):
    return text.replace("\\boxed{" + answer + "}", "\\boxed{123456}")


def replies_by_hand(examples, tokenizer, n=4):
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    for position, example in enumerate(examples):
        right, gold = example["completion"], example["gold"]
        texts = [wrong(right, gold), right if position % 5 else wrong(right, gold), "<answer>\\boxed{7777}</answer>",
                 right[:20]]
        for sample, text in enumerate(texts[:n]):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            finished = sample != 3
            yield {"id": example["id"], "sample": sample, "seed": sample, "text": text, "new_tokens": len(ids),
                   "prompt_tokens": 1, "finish_reason": "stop" if finished else "length",
                   "token_ids": [*ids, end] if finished else ids}


class Chain:
    """Runs the steps of a row, with replies put in the place of sampling."""

    def __init__(self, folder, store, plan):
        self.folder, self.store, self.plan = folder, store, plan
        self.made = {}

    def run(self, target):
        """Run a step and what it needs; return its folder."""
        for step in closure([target]):
            if step.key in self.made:
                continue
            if not self._needs_replies(step):
                execute(step, self.store, lambda *_, **__: None)
                self.made[step.key] = self.store.use(step)
                continue
            output, scratch = self.folder / step.id, self.folder / f"{step.id}-scratch"
            output.mkdir()
            scratch.mkdir()
            inputs = {role: self.made[parent.key] for role, parent in step.parents.items()}
            job = Job(step, inputs, output, scratch, lambda fraction: None)
            self.notes = self._replies(job) if step.kind == "rollouts" else self._action(step)(job)
            self.made[step.key] = output
        return self.made[target.key]

    def _needs_replies(self, step):
        return any(s.kind == "rollouts" for s in closure([step]))

    def _action(self, step):
        module, _, name = step.action.partition(":")
        return getattr({"rollouts": rollouts, "training": training}[module.rpartition(".")[2]], name)

    def _replies(self, job):
        tokenizer = rollouts._tokenizer(job.inputs["checkpoint"] / "checkpoint")
        if "hints" in job.inputs:
            hinted = {row["id"] for row in read_jsonl(job.inputs["hints"] / "hints.jsonl")}
            examples = [e for e in read_jsonl(job.inputs["pool"] / "pool.jsonl") if e["id"] in hinted]
            rows = list(_hinted_replies(examples, tokenizer))
        else:
            rows = list(replies_by_hand(rollouts._chosen(job), tokenizer, job.step.n))
        write_jsonl(job.output / "replies.jsonl", rows)
        (job.output / rollouts.TOKENIZER).write_text(tokenizer_hash(tokenizer) + "\n")
        return {}


def _hinted_replies(examples, tokenizer):
    """One reply a hinted prompt: the completion, wrong in every seventh."""
    for i, example in enumerate(examples):
        text = example["completion"] if i % 7 else wrong(example["completion"], example["gold"])
        _, row = list(replies_by_hand([{**example, "id": "x"}] * 2, tokenizer, n=2))[1::2]
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        yield {**row, "id": example["id"], "sample": 0, "text": text, "token_ids": [*ids, row["token_ids"][-1]]}
