r"""Generated math problems: the training pool, the held-out benchmarks and the pretraining texts of the tiny scale.

Everything follows from a size and a seed. A stable hash of the question's text decides on which side it lies,
held-out (benchmarks) or training (pool and pretraining), so the two never meet whatever the seeds are.

    Example(question="Tom has 12 pens and buys 7 more. How many pens does Tom have now?",
            completion="<think>\n12+7=19\n</think>\n<answer>\\boxed{19}</answer>", gold="19", ...)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from evaluation.problem import CHOICE_LETTERS, Problem
from foundation.errors import InputError
from foundation.seeds import stream
from replication.data.pool import Example
from replication.data.synthetic_problems import KINDS, Draft, Kind, choices_text, draw
from replication.hints import HINT_TEMPLATES

if TYPE_CHECKING:
    import numpy as np

PRETRAINING_LINES = 6
"""Arithmetic lines in one pretraining text of facts."""
_HELD_OUT_SHARE = 8
_MAX_MISSES = 20_000


def is_held_out(question: str) -> bool:
    """Tell whether a question belongs to the benchmarks (one question in eight) or to training."""
    return hashlib.sha256(question.encode()).digest()[0] % _HELD_OUT_SHARE == 0


def completion_text(steps: tuple[str, ...], answer: str) -> str:
    r"""Return the paper's completion format: the chain in think tags, the boxed answer in answer tags."""
    chain = "\n".join(steps)
    return f"<think>\n{chain}\n</think>\n<answer>\\boxed{{{answer}}}</answer>"


def training_pool(size: int, seed: int) -> list[Example]:
    """Return `size` training examples of all kinds, no question twice, none of them held out.

    A smaller pool of the same seed is the beginning of a larger one.
    """
    rng = stream("synthetic", "pool", seed)
    drafts = _unique(_mixed(rng), size, held_out=False)
    return [
        Example(id=f"synthetic-{position}", question=draft.question, gold=draft.gold, source=f"synthetic-{name}",
                completion=completion_text(draft.steps, draft.gold), answer_type=KINDS[name].answer_type,
                options=draft.options)
        for position, (name, draft) in enumerate(drafts)
    ]


def benchmark_problems(name: str, size: int, seed: int) -> list[Problem]:
    """Return `size` different held-out problems of the kind that stands in for benchmark `name`.

    Raises:
        InputError: there is no such kind, or it does not have that many questions.
    """
    if name not in KINDS:
        raise InputError(f"no generated problems stand in for benchmark {name!r}; there are: {', '.join(KINDS)}")
    kind = KINDS[name]
    drafts = _unique(_endless(name, kind, stream("synthetic", "benchmark", name, seed)), size, held_out=True)
    return [
        Problem(id=f"{name}-{position}", question=draft.question, gold=draft.gold, answer_type=kind.answer_type,
                options=draft.options)
        for position, (_, draft) in enumerate(drafts)
    ]


def pretraining_texts(size: int, seed: int) -> list[str]:
    """Return `size` plain texts, half arithmetic lines, half worked problems in prose; no tags, no boxes.

    The base model learns from them to calculate and to read the questions, but not the answer format. Every third
    worked problem comes after two attempts, one right and one wrong: without that, a model of this size cannot read
    the hints of SSB's teacher, as pretrained models can.
    """
    rng = stream("synthetic", "pretraining", seed)
    source = (draft for _, draft in _mixed(rng) if not is_held_out(draft.question))
    makers = (lambda: _facts(source, rng), lambda: _prose(next(source)), lambda: _facts(source, rng),
              lambda: _prose(next(source)), lambda: _facts(source, rng), lambda: _attempted(next(source), next(source)))
    return [makers[position % len(makers)]() for position in range(size)]


def _facts(source: Iterator[Draft], rng: np.random.Generator) -> str:
    """Return arithmetic lines as they occur in chains of thought, or lettered options that are looked up."""
    first = next(source)
    if first.options:
        order = rng.permutation(len(first.options))
        return "\n".join([choices_text(first.options), *(f"{first.options[k]} ({CHOICE_LETTERS[k]})" for k in order)])
    lines = list(first.steps)
    while len(lines) < PRETRAINING_LINES:
        lines.extend(step.split(" ")[0] for step in next(source).steps)  # without a choice's letter
    return "\n".join(lines[:PRETRAINING_LINES])


def _prose(draft: Draft) -> str:
    """Return a worked problem as running text."""
    return f"Question: {draft.question} Solution: {', '.join(draft.steps)}. So the answer is {draft.gold}."


def _attempted(draft: Draft, other: Draft) -> str:
    """Return a worked problem after a right attempt and, as the wrong one, an attempt at another problem."""
    right, wrong = ("\n".join((*d.steps, d.gold)) for d in (draft, other))
    hinted = HINT_TEMPLATES["math"].format(question=draft.question, right=right, wrong=wrong)
    asked = hinted.replace(", and enclose the final answer in \\boxed{}", "")
    return f"{asked} Solution: {', '.join(draft.steps)}. So the answer is {draft.gold}."


PROSE_PIECES = ("Question:", " Solution:", " So the answer is", ", ", ".")
"""The fixed pieces of `_prose`, for the tokenizer's vocabulary."""


def _endless(name: str, kind: Kind, rng: np.random.Generator) -> Iterator[tuple[str, Draft]]:
    while True:
        yield name, draw(kind, rng)


def _mixed(rng: np.random.Generator) -> Iterator[tuple[str, Draft]]:
    """Yield problems of all kinds, each kind equally often."""
    names = list(KINDS)
    while True:
        name = names[rng.integers(len(names))]
        yield name, draw(KINDS[name], rng)


def _unique(source: Iterator[tuple[str, Draft]], size: int, held_out: bool) -> list[tuple[str, Draft]]:
    """Take `size` problems of one side from an endless source, no question twice.

    Raises:
        InputError: the source seems to have no more than the problems found so far.
    """
    found: dict[str, tuple[str, Draft]] = {}
    misses = 0
    while len(found) < size:
        name, draft = next(source)
        if is_held_out(draft.question) != held_out or draft.question in found:
            misses += 1
            if misses > _MAX_MISSES:
                raise InputError(f"{size} different generated problems were asked for, only {len(found)} were found")
            continue
        misses = 0
        found[draft.question] = (name, draft)
    return list(found.values())
