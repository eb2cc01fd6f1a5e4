"""What is made of a model's graded replies: preference pairs (DPO, SPIN) and hinted prompts (SSB).

All of it is a function of the fixed sampling order: running it again changes nothing. Every prompt gives something or
is counted with a reason.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from baselines.batches import Row
from baselines.settings import DataSettings
from foundation.prompts import PromptFormat, encode_example, encode_prompt
from foundation.seeds import stream

Skipped = collections.Counter[str]


@dataclass(frozen=True, slots=True)
class VerifiedReply:
    """One sampled reply with its verdict; `outcome` is None where replies were not graded."""

    text: str
    token_ids: list[int]
    finished: bool
    """It ended by itself, not at the length limit."""
    outcome: str | None
    answer: str | None
    """The piece of the text that was graded."""


def verified_replies(replies: Sequence[Row], verdicts: Sequence[Row] | None) -> dict[str, list[VerifiedReply]]:
    """Return each prompt's replies in sampling order."""
    found: dict[str, list[VerifiedReply]] = {}
    for i, reply in enumerate(replies):
        verdict = {} if verdicts is None else verdicts[i]
        assert not verdict or (verdict["id"], verdict["sample"]) == (reply["id"], reply["sample"]), "orders differ"
        found.setdefault(reply["id"], []).append(VerifiedReply(
            reply["text"], reply["token_ids"], reply["finish_reason"] == "stop", verdict.get("outcome"),
            verdict.get("extracted")))
    return found


def first_pair(replies: Sequence[VerifiedReply], incorrect: str = "finished_and_false") -> tuple[int, int] | str:
    """Return the positions of the first correct and the first incorrect reply (B.9), or why there is no pair.

    A truncated reply has no answer to verify: it is neither, unless `incorrect` is `any_false` (A-43).
    """
    right = [i for i, r in enumerate(replies) if r.outcome == "correct" and r.finished]
    wrong = [i for i, r in enumerate(replies)
             if (r.outcome == "wrong" and r.finished) or (incorrect == "any_false" and r.outcome != "correct")]
    if right and wrong:
        return right[0], wrong[0]
    if not right:
        return "without a correct rollout"
    return "without an incorrect rollout"


def encode_verified_pairs(examples: Sequence[Row], replies: dict[str, list[VerifiedReply]], tokenizer: Any,
                          prompt: PromptFormat, data: DataSettings, incorrect: str) -> tuple[list[Row], Skipped]:
    """Return DPO's pairs as token ids, and the prompts skipped, by reason."""
    pairs: list[Row] = []
    skipped = Skipped()
    for example in examples:
        found = first_pair(replies[example["id"]], incorrect)
        if isinstance(found, str):
            skipped[found] += 1
            continue
        chosen, rejected = (replies[example["id"]][i].token_ids for i in found)
        _add(pairs, skipped, example, encode_prompt(tokenizer, prompt, example["question"]), chosen, rejected, data)
    return pairs, skipped


def encode_gold_pairs(examples: Sequence[Row], replies: dict[str, list[VerifiedReply]], tokenizer: Any,
                      prompt: PromptFormat, data: DataSettings, *, drop_correct: bool) -> tuple[list[Row], Skipped]:
    """Return SPIN's pairs: the pool's completion against the first sampled reply; copies of it are skipped (A-33)."""
    pairs: list[Row] = []
    skipped = Skipped()
    for example in examples:
        gold = encode_example(tokenizer, prompt, example["question"], example["completion"])
        reply = replies[example["id"]][0]
        if drop_correct and reply.outcome == "correct":
            skipped["whose reply is right"] += 1
            continue
        _add(pairs, skipped, example, gold.ids[: gold.prompt_length], gold.ids[gold.prompt_length :],
             reply.token_ids, data)
    return pairs, skipped


def _add(pairs: list[Row], skipped: Skipped, example: Row, prompt_ids: list[int], chosen: list[int],
         rejected: list[int], data: DataSettings) -> None:
    """Append a pair within the length limit (A-35), or count why not."""
    room = data.max_length - len(prompt_ids)
    if chosen == rejected:
        skipped["whose two replies are the same"] += 1
    elif room < 1:
        skipped["whose prompt fills the length limit"] += 1
    elif max(len(chosen), len(rejected)) > room and data.overlength == "drop":
        skipped["longer than the limit"] += 1
    else:
        pairs.append({"id": example["id"], "prompt_ids": prompt_ids, "chosen_ids": chosen[:room],
                      "rejected_ids": rejected[:room]})


def wrong_reply(replies: Sequence[VerifiedReply], rule: str, seed: int, prompt_id: str) -> int | None:
    """Return the incorrect reply that is shown: one with the commonest wrong answer (ties at random), or the first."""
    wrong = [i for i, r in enumerate(replies) if r.outcome == "wrong" and r.finished]
    if not wrong or rule == "first":
        return wrong[0] if wrong else None
    counts = collections.Counter(replies[i].answer for i in wrong)
    most = max(counts.values())
    commonest = sorted((answer for answer, n in counts.items() if n == most), key=str)
    chosen = commonest[stream("ssb-hint", seed, prompt_id).integers(len(commonest))]
    return next(i for i in wrong if replies[i].answer == chosen)


def hinted_prompts(examples: Sequence[Row], replies: dict[str, list[VerifiedReply]], template: str, rule: str,
                   seed: int) -> tuple[list[Row], Skipped]:
    """Return `{id, question}` with the hinted text, for prompts with a correct and an incorrect rollout."""
    hints: list[Row] = []
    skipped = Skipped()
    for example in examples:
        own = replies[example["id"]]
        right = next((i for i, r in enumerate(own) if r.outcome == "correct" and r.finished), None)
        wrong = wrong_reply(own, rule, seed, example["id"])
        if right is None or wrong is None:
            skipped["without a correct rollout" if right is None else "without an incorrect rollout"] += 1
            continue
        question = template.format(question=example["question"], right=own[right].text, wrong=own[wrong].text)
        hints.append({"id": example["id"], "question": question, "right": right, "wrong": wrong})
    return hints, skipped
