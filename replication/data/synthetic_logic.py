"""Generated logic problems, one kind per logic benchmark name: a passage, a question, four lettered options.

    logiqa2  who of four people is the tallest, from three comparisons, from above or from below
    reclor   what follows from a chain of rules "whoever has pens has coins", forwards or backwards
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from evaluation.benchmarks.logic import passage_cluster, render_problem
from evaluation.problem import CHOICE_LETTERS
from replication.data.synthetic_problems import ITEMS, NAMES, Draft

if TYPE_CHECKING:
    import numpy as np

NUM_OPTIONS = 4
ANSWER = "The answer is ({letter})."

_COMPARISONS = (
    ("taller", "shorter", "tallest", "shortest"),
    ("older", "younger", "oldest", "youngest"),
    ("faster", "slower", "fastest", "slowest"),
    ("richer", "poorer", "richest", "poorest"),
)
_OPENING = "Facts:"
_FACT = "{n} is {more} than {m}."
_QUESTIONS = (("Who is the {most}?", 0), ("Who is the second {most}?", 1), ("Who is the {least}?", 3))
_RULE = "Whoever has {i} has {j}."
_HAS, _HAS_NOT = "{n} has {i}.", "{n} has no {i}."
_MUST, _CANNOT = "What else must {n} have?", "What else can {n} not have?"


def ordering(rng: np.random.Generator) -> Draft:
    """Draw four people in an order, told by comparisons of neighbours from the top or from the bottom."""
    people = [NAMES[k] for k in rng.permutation(len(NAMES))[:NUM_OPTIONS]]
    more, less, most, least = _COMPARISONS[rng.integers(len(_COMPARISONS))]
    downwards = bool(rng.integers(2))
    pairs = list(pairwise(people)) if downwards else list(pairwise(people))[::-1]
    facts = [_FACT.format(n=high, more=more, m=low) if downwards else _FACT.format(n=low, more=less, m=high)
             for high, low in pairs]
    text, place = _QUESTIONS[rng.integers(len(_QUESTIONS))]
    chain = f"order: {' > '.join(people)}"
    return _draft(" ".join(facts), text.format(most=most, least=least), (chain,), people[place],
                  [name for name in people if name != people[place]], rng)


def rules(rng: np.random.Generator) -> Draft:
    """Draw a chain of two rules and two rules beside it; what holds at one end of the chain holds at the other."""
    things = [ITEMS[k] for k in rng.permutation(len(ITEMS))]
    pairs = [(things[0], things[1]), (things[1], things[2]), (things[3], things[4]), (things[4], things[5])]
    name = NAMES[rng.integers(len(NAMES))]
    forwards = bool(rng.integers(2))
    chain = things[:3] if forwards else things[2::-1]
    told = (_HAS if forwards else _HAS_NOT).format(n=name, i=chain[0])
    lines = [_RULE.format(i=pairs[k][0], j=pairs[k][1]) for k in rng.permutation(len(pairs))]
    question = (_MUST if forwards else _CANNOT).format(n=name)
    step = "".join(f" {thing}" if forwards else f" no {thing}" for thing in chain)
    return _draft(" ".join([*lines, told]), question, (f"chain:{step}",), chain[-1],
                  [things[3], things[5], things[6]], rng)


def _draft(passage: str, question: str, steps: tuple[str, ...], right: str, wrong: list[str],
           rng: np.random.Generator) -> Draft:
    """Shuffle the options and finish the chain with the right one's letter."""
    texts = [right, *wrong]
    options = tuple(texts[k] for k in rng.permutation(len(texts)))
    letter = CHOICE_LETTERS[options.index(right)]
    passage = f"{_OPENING} {passage}"
    return Draft(render_problem(passage, question, options), (*steps, found_option(right, letter)), letter, options,
                 answer=ANSWER.format(letter=letter), cluster=passage_cluster(passage))


def found_option(text: str, letter: str) -> str:
    """Return the chain's last line. As everywhere in these problems, a space stands before every name and thing.

    To a tokenizer of whole words, " Tom" and "Tom" are two words, and copying one as the other is one more thing to
    learn.
    """
    return f"option: {text} ({letter})"


LOGIC_KINDS: dict[str, Callable[[np.random.Generator], Draft]] = {"logiqa2": ordering, "reclor": rules}


def all_texts() -> Iterator[str]:
    """Yield every fixed piece of text a problem or its answer can contain."""
    yield from (_OPENING, _FACT, _RULE, _HAS, _HAS_NOT, _MUST, _CANNOT, ANSWER, "order", "chain", "option")
    yield from (text for text, _ in _QUESTIONS)
    yield from (f" {word}" for words in _COMPARISONS for word in words)
    yield from (f"({letter})" for letter in CHOICE_LETTERS[:NUM_OPTIONS])
