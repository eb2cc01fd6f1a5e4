r"""Generated problems of all domains: the training pools, the held-out benchmarks, the tiny models' pretraining texts.

Everything follows from a size and a seed. A stable hash of the question's text decides on which side it lies,
held-out (benchmarks) or training (pool and pretraining), so the two never meet whatever the seeds are.

    Example(question="Tom has 12 pens and buys 7 more. How many pens does Tom have now?",
            completion="<think>\n12+7=19\n</think>\n<answer>\\boxed{19}</answer>", gold="19", ...)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from evaluation.benchmarks.code import CodeTask
from evaluation.problem import CHOICE_LETTERS, AnswerType, Problem
from foundation.errors import InputError
from foundation.prompts import Domain
from foundation.seeds import stream
from replication.data.pool import Example
from replication.data.synthetic_code import CODE_KINDS
from replication.data.synthetic_logic import LOGIC_KINDS
from replication.data.synthetic_problems import KINDS, Draft, choices_text, draw
from replication.hints import HINT_TEMPLATES

if TYPE_CHECKING:
    import numpy as np

Drawer = Callable[["np.random.Generator"], Draft]
Dialogue = Callable[[str, str], str]
"""Writes a user's and a model's turn as a model's own chat template does."""

DRAWERS: dict[Domain, dict[str, Drawer]] = {
    "math": {name: partial(draw, kind) for name, kind in KINDS.items()},
    "code": CODE_KINDS,
    "logic": LOGIC_KINDS,
}
"""Per domain what draws the problems that stand in for each benchmark."""
DOMAIN_OF: dict[str, Domain] = {name: domain for domain, drawers in DRAWERS.items() for name in drawers}
PRETRAINING_LINES = 6
"""Arithmetic lines in one pretraining text of facts."""
_HELD_OUT_SHARE = 8
_MAX_MISSES = 20_000


def is_held_out(question: str) -> bool:
    """Tell whether a question belongs to the benchmarks (one question in eight) or to training."""
    return hashlib.sha256(question.encode()).digest()[0] % _HELD_OUT_SHARE == 0


def completion_text(draft: Draft) -> str:
    r"""Return the paper's completion format: the chain in think tags, the answer in answer tags.

    The answer is boxed (math), a sentence with the letter (logic) or a fenced program (code) (App. E.4).
    """
    chain = "\n".join(draft.steps)
    return f"<think>\n{chain}\n</think>\n<answer>{draft.answer or boxed(draft.gold)}</answer>"


def boxed(answer: str) -> str:
    r"""Return a math answer as it stands in a completion, `\boxed{19}`."""
    return f"\\boxed{{{answer}}}"


def answer_type(name: str) -> AnswerType:
    """Return how answers to a benchmark's stand-ins are compared with the gold."""
    domain = DOMAIN_OF[name]
    return KINDS[name].answer_type if domain == "math" else "choice" if domain == "logic" else "code"


def training_pool(domain: Domain, size: int, seed: int) -> list[Example]:
    """Return `size` training examples of all the domain's kinds, no question twice, none of them held out.

    A smaller pool of the same seed is the beginning of a larger one. A programming task brings its tests (`row`) and
    names the benchmark whose row format they have (`style`).
    """
    drafts = _unique(_mixed(domain, stream("synthetic", "pool", domain, seed)), size, held_out=False)
    return [
        Example(id=f"synthetic-{domain}-{position}", question=draft.question, gold=draft.gold,
                source=f"synthetic-{name}", completion=completion_text(draft), answer_type=answer_type(name),
                options=draft.options, style="" if draft.row is None else name, row=draft.row)
        for position, (name, draft) in enumerate(drafts)
    ]


def benchmark_problems(name: str, size: int, seed: int) -> list[Problem]:
    """Return `size` different held-out problems of the kind that stands in for benchmark `name`.

    Raises:
        InputError: there is no such kind, or it does not have that many questions.
    """
    return [_problem(name, position, draft) for position, draft in enumerate(_held_out(name, size, seed))]


def benchmark_tasks(name: str, size: int, seed: int) -> list[CodeTask]:
    """Return the problems of a code benchmark's stand-in with their rows, as `benchmark_problems` numbers them.

    Raises:
        InputError: as for `benchmark_problems`, or the benchmark is not one of programming tasks.
    """
    if DOMAIN_OF.get(name, "code") != "code":
        raise InputError(f"benchmark {name!r} has no programming tasks; those with tasks: {', '.join(CODE_KINDS)}")
    return [CodeTask(_problem(name, position, draft), draft.row or {})
            for position, draft in enumerate(_held_out(name, size, seed))]


def _held_out(name: str, size: int, seed: int) -> list[Draft]:
    if name not in DOMAIN_OF:
        raise InputError(f"no generated problems stand in for benchmark {name!r}; there are: {', '.join(DOMAIN_OF)}")
    drawer = DRAWERS[DOMAIN_OF[name]][name]
    source = _endless(name, drawer, stream("synthetic", "benchmark", name, seed))
    return [draft for _, draft in _unique(source, size, held_out=True)]


def _problem(name: str, position: int, draft: Draft) -> Problem:
    return Problem(id=f"{name}-{position}", question=draft.question, gold=draft.gold, answer_type=answer_type(name),
                   options=draft.options, cluster=draft.cluster)


def pretraining_texts(size: int, seed: int, dialogue: Dialogue) -> list[str]:
    """Return `size` plain texts: arithmetic lines, and worked problems of every domain in prose; no tags, no boxes.

    The base model learns from them to calculate and to read the questions, but not the answer format. Part of the
    problems are dialogues of user and model, as any base model has read some: `dialogue` writes one from both turns.
    Others come after two attempts, one right and one wrong: without that, a model of this size cannot read the hints of
    SSB's teacher, as pretrained models can. More than half of the tokens are math, which needs most practice.
    """
    rng = stream("synthetic", "pretraining", seed)
    sources: dict[Domain, Iterator[Draft]] = {
        domain: (draft for _, draft in _mixed(domain, rng) if not is_held_out(draft.question)) for domain in DRAWERS}
    return [_text(*_PATTERN[position % len(_PATTERN)], sources, rng, dialogue) for position in range(size)]


_BOTH_HALVES: tuple[tuple[Domain, str], ...] = (
    ("math", "facts"), ("math", "dialogue"), ("logic", "dialogue"), ("math", "facts"), ("code", "dialogue"),
    ("math", "facts"), ("math", "dialogue"), ("logic", "dialogue"), ("math", "facts"), ("math", "attempted"),
    ("logic", "facts"), ("math", "dialogue"), ("math", "facts"), ("logic", "dialogue"), ("math", "prose"),
    ("code", "prose"), ("logic", "prose"),
)
_PATTERN = (*_BOTH_HALVES, ("code", "attempted"), *_BOTH_HALVES, ("logic", "attempted"))
"""The texts' domains and shapes, over and over."""


def _text(domain: Domain, shape: str, sources: dict[Domain, Iterator[Draft]], rng: np.random.Generator,
          dialogue: Dialogue) -> str:
    source = sources[domain]
    if shape == "facts":
        return _facts(source, rng)
    draft = next(source)
    if shape == "dialogue":
        return dialogue(draft.question, "\n".join(draft.steps) + "\n" + _result(draft))
    return _prose(draft) if shape == "prose" else _attempted(domain, draft, next(source))


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
    return f"Question: {draft.question}{_solution(draft)}"


def _solution(draft: Draft) -> str:
    return f" Solution: {', '.join(draft.steps)}. {_result(draft)}"


def _result(draft: Draft) -> str:
    return f"So the answer is{draft.answer.rstrip()}" if draft.row else f"So the answer is {draft.gold}."


def _attempted(domain: Domain, draft: Draft, other: Draft) -> str:
    """Return a worked problem after a right attempt and, as the wrong one, an attempt at another problem."""
    right, wrong = ("\n".join((*d.steps, d.answer.strip() or d.gold)) for d in (draft, other))
    hinted = HINT_TEMPLATES[domain].format(question=draft.question, right=right, wrong=wrong)
    return hinted.replace(", and enclose the final answer in \\boxed{}", "") + _solution(draft)


PROSE_PIECES = ("Question:", " Solution:", " So the answer is", "So", ", ", ".")
"""The fixed pieces of `_prose`, for the tokenizer's vocabulary."""


def _endless(name: str, drawer: Drawer, rng: np.random.Generator) -> Iterator[tuple[str, Draft]]:
    while True:
        yield name, drawer(rng)


def _mixed(domain: Domain, rng: np.random.Generator) -> Iterator[tuple[str, Draft]]:
    """Yield problems of all of a domain's kinds, each kind equally often."""
    drawers = DRAWERS[domain]
    names = list(drawers)
    while True:
        name = names[rng.integers(len(names))]
        yield name, drawers[name](rng)


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
