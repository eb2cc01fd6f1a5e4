"""Generated logic problems, one kind per logic benchmark name: a passage, a question, four lettered options.

    logiqa2  who has more, from two comparisons through a third person; it may be equal, or it cannot be told
    reclor   what follows from a conditional and an observation; it may be nothing

The options stand in one order, so that a letter names a conclusion: a model of this size learns to conclude long before
it learns to look a conclusion up among shuffled options.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from evaluation.benchmarks.logic import passage_cluster, render_problem
from evaluation.problem import CHOICE_LETTERS
from replication.data.synthetic_problems import ITEMS, NAMES, Draft

if TYPE_CHECKING:
    import numpy as np

NUM_OPTIONS = 4
ANSWER = "The answer is ({letter})."

_SAID = {">": "{n} has more {i} than {m}.", "<": "{n} has fewer {i} than {m}.", "=": "{n} has as many {i} as {m}."}
_MIRROR = {">": "<", "<": ">", "=": "="}
_WHO = "Who has more {i}, {n} or {m}?"
_EQUAL, _OPEN = "They have equally many", "It cannot be told"
# what the first has against the third, by what it has against the second and the second against the third
_CHAINS = ((">>", ">=", "=>"), ("<<", "<=", "=<"), ("==",), ("><", "<>"))

_CONDITIONS = (("it rains", "it does not rain"), ("it snows", "it does not snow"),
               ("the shop opens", "the shop does not open"), ("the train stops", "the train does not stop"))
_ACTIONS = (("takes the bus", "does not take the bus"), ("reads a book", "does not read a book"),
            ("walks home", "does not walk home"), ("bakes a cake", "does not bake a cake"))
_RULE, _BESIDE, _FOLLOWS = "If {c} then {n} {a}.", "{m} has {k} {i}.", "What follows?"
_NOTHING = "Nothing follows"


def comparison(rng: np.random.Generator) -> Draft:
    """Draw two comparisons that lead, or do not lead, from one person over a second to a third."""
    first, second, third = (NAMES[k] for k in rng.permutation(len(NAMES))[:3])
    item = ITEMS[rng.integers(len(ITEMS))]
    place = int(rng.integers(NUM_OPTIONS))
    signs = _CHAINS[place][rng.integers(len(_CHAINS[place]))]
    facts = [_fact(signs[0], first, second, item), _fact(signs[1], second, third, item)]
    if rng.integers(4) == 0:
        facts[1] = _fact(_MIRROR[signs[1]], third, second, item)
    order = rng.permutation(2)
    options = (first, third, _EQUAL, _OPEN)
    return _draft(" ".join(facts[k] for k in order), _WHO.format(i=item, n=first, m=third), f"{signs[0]} {signs[1]}",
                  options, place)


def _fact(sign: str, one: str, other: str, item: str) -> str:
    return _SAID[sign].format(n=one, m=other, i=item)


def conditional(rng: np.random.Generator) -> Draft:
    """Draw a conditional and an observation: it applies, its consequence fails, or neither."""
    name, other = (NAMES[k] for k in rng.permutation(len(NAMES))[:2])
    condition, action = _CONDITIONS[rng.integers(len(_CONDITIONS))], _ACTIONS[rng.integers(len(_ACTIONS))]
    place = int(rng.integers(NUM_OPTIONS))
    negative = place == 1 or (place > 1 and bool(rng.integers(2)))
    holds, fails = f"{name} {action[negative]}", f"{name} {action[not negative]}"
    undecided = (condition[1], holds)[rng.integers(2)]
    observed = (condition[0], condition[0], fails, undecided)[place]
    beside = _BESIDE.format(m=other, k=int(rng.integers(2, 60)), i=ITEMS[rng.integers(len(ITEMS))])
    passage = f"{beside} {_RULE.format(c=condition[0], n=name, a=action[negative])} {_capital(observed)}."
    options = (_capital(f"{name} {action[0]}"), _capital(f"{name} {action[1]}"), _capital(condition[1]), _NOTHING)
    return _draft(passage, _FOLLOWS, _capital(observed), options, place)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _draft(passage: str, question: str, step: str, options: tuple[str, ...], place: int) -> Draft:
    letter = CHOICE_LETTERS[place]
    return Draft(render_problem(passage, question, options), (step, f"{options[place]} ({letter})"), letter, options,
                 answer=ANSWER.format(letter=letter), cluster=passage_cluster(passage))


LOGIC_KINDS: dict[str, Callable[[np.random.Generator], Draft]] = {"logiqa2": comparison, "reclor": conditional}


def all_texts() -> Iterator[str]:
    """Yield every fixed piece of text a problem or its answer can contain."""
    yield from (*_SAID.values(), _WHO, _EQUAL, _OPEN, _RULE, _BESIDE, _FOLLOWS, _NOTHING, ANSWER)
    for pair in (*_CONDITIONS, *_ACTIONS):
        yield from (f" {text}" for text in pair)
        yield from (_capital(text) for text in pair)
    yield from (f"({letter})" for letter in CHOICE_LETTERS[:NUM_OPTIONS])
