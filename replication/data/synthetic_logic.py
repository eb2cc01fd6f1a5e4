"""Generated logic problems, one kind per logic benchmark name: a passage, a question, four lettered options.

    logiqa2  which of four boxes is the heaviest, from three comparisons, from above or from below
    reclor   what follows from a chain of rules "whoever has card 3 has 7", forwards or backwards

Boxes and cards are numbered: a model that has learned to copy digits from arithmetic can copy these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from evaluation.benchmarks.logic import passage_cluster, render_problem
from evaluation.problem import CHOICE_LETTERS
from replication.data.synthetic_problems import NAMES, Draft

if TYPE_CHECKING:
    import numpy as np

NUM_OPTIONS = 4
ANSWER = "The answer is ({letter})."

_COMPARISONS = (
    ("heavier", "lighter", "heaviest", "lightest"),
    ("larger", "smaller", "largest", "smallest"),
    ("older", "newer", "oldest", "newest"),
    ("taller", "shorter", "tallest", "shortest"),
)
_FACT = "Box {n} is {more} than {m}."
_QUESTIONS = (("Which box is the {most}?", 0), ("Which box is the second {most}?", 1), ("Which box is the {least}?", 3))
_RULE = "Whoever has card {i} has {j}."
_HAS, _HAS_NOT = "{n} has card {i}.", "{n} has no card {i}."
_MUST, _CANNOT = "Which card must {n} have as well?", "Which card can {n} not have either?"


def ordering(rng: np.random.Generator) -> Draft:
    """Draw four boxes in an order, told by comparisons of neighbours from the top or from the bottom."""
    boxes = [str(k + 1) for k in rng.permutation(9)[:NUM_OPTIONS]]
    more, less, most, least = _COMPARISONS[rng.integers(len(_COMPARISONS))]
    downwards = bool(rng.integers(2))
    pairs = list(pairwise(boxes)) if downwards else list(pairwise(boxes))[::-1]
    facts = [_FACT.format(n=high, more=more, m=low) if downwards else _FACT.format(n=low, more=less, m=high)
             for high, low in pairs]
    text, place = _QUESTIONS[rng.integers(len(_QUESTIONS))]
    return _draft(" ".join(facts), text.format(most=most, least=least), ">".join(boxes), boxes[place],
                  [box for box in boxes if box != boxes[place]], rng)


def rules(rng: np.random.Generator) -> Draft:
    """Draw a chain of two rules and two rules beside it; what holds at one end of the chain holds at the other."""
    cards = [str(k + 1) for k in rng.permutation(9)]
    pairs = [(cards[0], cards[1]), (cards[1], cards[2]), (cards[3], cards[4]), (cards[4], cards[5])]
    name = NAMES[rng.integers(len(NAMES))]
    forwards = bool(rng.integers(2))
    chain = cards[:3] if forwards else cards[2::-1]
    told = (_HAS if forwards else _HAS_NOT).format(n=name, i=chain[0])
    lines = [_RULE.format(i=pairs[k][0], j=pairs[k][1]) for k in rng.permutation(len(pairs))]
    question = (_MUST if forwards else _CANNOT).format(n=name)
    return _draft(" ".join([*lines, told]), question, (">" if forwards else "<").join(chain), chain[-1],
                  [cards[3], cards[5], cards[6]], rng)


def _draft(passage: str, question: str, chain: str, right: str, wrong: list[str], rng: np.random.Generator) -> Draft:
    """Shuffle the options and end the chain with the right one's letter."""
    texts = [right, *wrong]
    options = tuple(texts[k] for k in rng.permutation(len(texts)))
    letter = CHOICE_LETTERS[options.index(right)]
    return Draft(render_problem(passage, question, options), (chain, f"{right} ({letter})"), letter, options,
                 answer=ANSWER.format(letter=letter), cluster=passage_cluster(passage))


LOGIC_KINDS: dict[str, Callable[[np.random.Generator], Draft]] = {"logiqa2": ordering, "reclor": rules}


def all_texts() -> Iterator[str]:
    """Yield every fixed piece of text a problem or its answer can contain."""
    yield from (_FACT, _RULE, _HAS, _HAS_NOT, _MUST, _CANNOT, ANSWER)
    yield from (text for text, _ in _QUESTIONS)
    yield from (f" {word}" for words in _COMPARISONS for word in words)
    yield from (f"({letter})" for letter in CHOICE_LETTERS[:NUM_OPTIONS])
