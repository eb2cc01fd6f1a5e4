r"""The kinds of generated math problems, one per benchmark name, as plain tables of forms.

A form is a question template, the ranges of its operands, and either a list of integer operations (`"a*b r1+c"`:
each result is named r1, r2, ... and the last one is the answer) or a function that writes the steps and the answer.
Questions, steps and answers use only the templates and the word lists of this module, so that the tiny tokenizer's
vocabulary can be read off `all_texts` and never misses a word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from string import Formatter
from typing import TYPE_CHECKING, Any

from evaluation.problem import CHOICE_LETTERS, AnswerType

if TYPE_CHECKING:
    import numpy as np

NAMES = ("Tom", "Anna", "Ben", "Emma", "Jack", "Lily", "Max", "Nina", "Sam", "Zoe")
ITEMS = ("apples", "books", "cards", "coins", "cookies", "eggs", "flowers", "marbles", "pens", "stamps")
HOLDERS = ("bags", "boxes", "baskets", "jars")
NUM_OPTIONS = 5

Values = Mapping[str, int]
Worked = tuple[tuple[str, ...], str]


@dataclass(frozen=True, slots=True)
class Draft:
    """One drawn problem of any domain: its question, the lines of its chain of thought, its answer.

    `options` are those of a choice, `answer` is what stands in the answer block ("": the boxed gold), `row` holds a
    programming task's tests in the benchmark's own format, `cluster` names a shared passage.
    """

    question: str
    steps: tuple[str, ...]
    gold: str
    options: tuple[str, ...] = ()
    answer: str = ""
    row: dict[str, Any] | None = field(default=None, repr=False)
    cluster: str | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """A question template with the inclusive ranges of its operands and the way to its answer.

    The words {n} {m} (two names), {i} {j} (two items) and {h} (a holder) are drawn without ranges.
    """

    text: str
    work: str | Callable[[Values], Worked | None]
    ranges: Mapping[str, tuple[int, int]]
    least: int = 1
    """Smallest result any operation may have."""
    most: int = 999
    """Largest result any operation may have."""


@dataclass(frozen=True, slots=True)
class Kind:
    """All forms of one benchmark; `choices` turns the integer answer into one of five lettered options."""

    answer_type: AnswerType
    forms: tuple[Form, ...] = field(repr=False)
    choices: bool = False


def _operate(left: int, operator: str, right: int) -> tuple[str, int] | None:
    """Return one operation as a line of the chain with its result; None when a division is not exact."""
    if operator == "+":
        return f"{left}+{right}={left + right}", left + right
    if operator == "-":
        return f"{left}-{right}={left - right}", left - right
    if operator == "*":
        return _multiply(left, right)
    if operator == "/" and left % right == 0:
        return f"{left}/{right}={left // right}", left // right
    if operator == "%":
        quotient, rest = divmod(left, right)
        return f"{left}-{right}*{quotient}={left}-{right * quotient}={rest}", rest
    return None


def _multiply(left: int, right: int) -> tuple[str, int]:
    """Return a product; of two numbers of two digits or more it goes through tens and units."""
    product = left * right
    units = right % 10
    if left < 10 or right < 10 or units == 0:
        return f"{left}*{right}={product}", product
    return f"{left}*{right}={left * (right - units)}+{left * units}={product}", product


@cache
def _parsed(operations: str) -> tuple[tuple[str, str, str], ...]:
    """Split operations such as `a*b r1+c` into their left sides, operators and right sides."""
    matches = [re.fullmatch(r"(\w+)([-+*/%])(\w+)", operation) for operation in operations.split()]
    if None in matches:
        raise ValueError(f"malformed operations {operations!r}")
    return tuple((match[1], match[2], match[3]) for match in matches if match)


def _chain(operations: str, values: Values, least: int, most: int) -> Worked | None:
    """Carry out operations such as `a*b r1+c`; None when a result leaves [least, most] or is not an integer."""
    known = dict(values)
    lines = []
    result = 0
    for number, (left, operator, right) in enumerate(_parsed(operations), start=1):
        first, second = (int(name) if name.isdigit() else known[name] for name in (left, right))
        step = _operate(first, operator, second)
        if step is None or not least <= step[1] <= most:
            return None
        lines.append(step[0])
        result = known[f"r{number}"] = step[1]
    return tuple(lines), str(result)


def _linear(slope: int, constant: int) -> str:
    """Return slope*x + constant the way a book prints it, e.g. `3x+12`, `x-4`, `5x`."""
    head = "x" if slope == 1 else f"{slope}x"
    return head if constant == 0 else f"{head}{constant:+d}"


def _fraction(top: int, bottom: int) -> str:
    """Return a fraction in lowest terms as LaTeX, an integer as its digits."""
    common = math.gcd(top, bottom)
    top, bottom = top // common, bottom // common
    return str(top) if bottom == 1 else rf"\frac{{{top}}}{{{bottom}}}"


def _reduce_fraction(values: Values) -> Worked | None:
    top, bottom = values["a"], values["b"]
    common = math.gcd(top, bottom)
    if top >= bottom or common == 1:
        return None
    return (f"{top}/{common}={top // common}", f"{bottom}/{common}={bottom // common}"), _fraction(top, bottom)


def _reduced_line(top: int, bottom: int) -> tuple[str, ...]:
    """Return the line that brings a fraction to lowest terms, none when it is already there."""
    common = math.gcd(top, bottom)
    return () if common == 1 else (f"{top}/{bottom}={top // common}/{bottom // common}",)


def _add_fractions(values: Values) -> Worked | None:
    a, b, c, d = (values[name] for name in "abcd")
    if a >= b or c >= d or b == d or math.gcd(a, b) > 1 or math.gcd(c, d) > 1:
        return None
    top, bottom = a * d + c * b, b * d
    if top % bottom == 0:
        return None
    lines = (f"{a}*{d}={a * d}", f"{c}*{b}={c * b}", f"{a * d}+{c * b}={top}", f"{b}*{d}={bottom}")
    return lines + _reduced_line(top, bottom), _fraction(top, bottom)


def _multiply_fractions(values: Values) -> Worked | None:
    a, b, c, d = (values[name] for name in "abcd")
    if a >= b or c >= d or math.gcd(a, b) > 1 or math.gcd(c, d) > 1:
        return None
    top, bottom = a * c, b * d
    return (f"{a}*{c}={top}", f"{b}*{d}={bottom}", *_reduced_line(top, bottom)), _fraction(top, bottom)


def _expand(values: Values) -> Worked | None:
    k, a, b = (values[name] for name in "kab")
    return (f"{k}*{a}={k * a}", f"{k}*{b}={k * b}"), _linear(k * a, k * b)


def _collect(values: Values) -> Worked | None:
    a, b, c, d = (values[name] for name in "abcd")
    return (f"{a}+{c}={a + c}", f"{b}-{d}={b - d}"), _linear(a + c, b - d)


def _binomials(values: Values) -> Worked | None:
    a, b = values["a"], values["b"]
    return (f"{a}+{b}={a + b}", f"{a}*{b}={a * b}"), f"x^2+{_linear(a + b, a * b)}"


def _derivative(values: Values) -> Worked | None:
    a, b = values["a"], values["b"]
    return (f"2*{a}={2 * a}",), _linear(2 * a, b)


_SUM = {"a": (11, 79), "b": (11, 79)}
_DIFFERENCE = {"a": (20, 99), "b": (5, 79)}
_PRODUCT = {"a": (2, 9), "b": (3, 20)}
_QUOTIENT = {"a": (12, 99), "b": (2, 9)}

_MAWPS = (
    Form("{n} has {a} {i} and buys {b} more. How many {i} does {n} have now?", "a+b", _SUM),
    Form("{n} has {a} {i} and {m} has {b} {i}. How many {i} do they have together?", "a+b", _SUM),
    Form("{n} has {a} {i} and gives {b} to {m}. How many {i} are left?", "a-b", _DIFFERENCE),
    Form("{n} has {a} {i} and {m} has {b} {i}. How many more {i} does {n} have?", "a-b", _DIFFERENCE),
    Form("There are {a} {h} with {b} {i} each. How many {i} are there?", "a*b", _PRODUCT),
    Form("{n} buys {a} {h} of {b} {i} each. How many {i} does {n} buy?", "a*b", _PRODUCT),
    Form("{n} shares {a} {i} equally among {b} friends. How many {i} does each friend get?", "a/b", _QUOTIENT, 3),
    Form("{n} puts {a} {i} equally in {b} {h}. How many {i} are in each?", "a/b", _QUOTIENT, 3),
)

_ANY = {"d": (3, 99)}
_SVAMP = (
    Form("{n} has {a} {i} and {d} {j}. {n} buys {b} more {i}. How many {i} does {n} have now?", "a+b", _SUM | _ANY),
    Form("{n} has {d} {j} and {a} {i}. {m} has {b} {i}. How many {i} do they have together?", "a+b", _SUM | _ANY),
    Form("{n} has {a} {i} and {d} {j}. {n} gives {b} {i} to {m}. How many {i} are left?", "a-b", _DIFFERENCE | _ANY),
    Form("{n} has {d} {j} and {a} {i}. {m} has {b} {i}. How many more {i} does {n} have?", "a-b", _DIFFERENCE | _ANY),
    Form("There are {a} {h} with {b} {i} each and {d} {j}. How many {i} are there?", "a*b", _PRODUCT | _ANY),
    Form("{n} has {d} {j} and buys {a} {h} of {b} {i} each. How many {i} does {n} buy?", "a*b", _PRODUCT | _ANY),
    Form("{n} has {d} {j} and shares {a} {i} equally among {b} friends. How many {i} does each friend get?", "a/b",
         _QUOTIENT | _ANY, 3),
    Form("{n} puts {a} {i} equally in {b} {h} and keeps {d} {j}. How many {i} are in each?", "a/b",
         _QUOTIENT | _ANY, 3),
)

_GSM8K = (
    Form("{n} has {a} {h} with {b} {i} each and finds {c} more. How many {i} does {n} have now?", "a*b r1+c",
         {"a": (2, 9), "b": (3, 12), "c": (5, 60)}),
    Form("{n} has {a} {h} with {b} {i} each and gives {c} {i} to {m}. How many {i} are left?", "a*b r1-c",
         {"a": (2, 9), "b": (3, 12), "c": (5, 60)}),
    Form("{n} has {a} {i}. {m} has {b} more {i} than {n}. How many {i} do they have together?", "a+b a+r1",
         {"a": (11, 60), "b": (5, 40)}),
    Form("{n} has {a} {i}. {m} has {b} times as many. How many {i} do they have together?", "a*b a+r1",
         {"a": (5, 25), "b": (2, 5)}),
    Form("{n} has {a} {i}, buys {b} more and then gives {c} to {m}. How many {i} are left?", "a+b r1-c",
         {"a": (11, 79), "b": (11, 60), "c": (5, 79)}),
    Form("{n} has {a} {i} and buys {b} more. {n} shares them equally among {c} friends. "
         "How many {i} does each friend get?", "a+b r1/c", {"a": (11, 60), "b": (11, 39), "c": (2, 9)}, 3),
)

_AQUA = (
    Form("A shop sells {i} for {a} dollars each. What is the cost of {b} {i} after a discount of {c} dollars?",
         "a*b r1-c", {"a": (2, 9), "b": (3, 15), "c": (3, 40)}, 5, 99),
    Form("A train runs {a} miles and then {b} miles, in {c} hours in all. What is its speed in miles per hour?",
         "a+b r1/c", {"a": (11, 79), "b": (11, 79), "c": (2, 9)}, 4, 199),
    Form("A worker makes {a} {i} in each hour and sells {b} of them. How many {i} are left after {c} hours?",
         "a*c r1-b", {"a": (3, 15), "b": (5, 60), "c": (2, 9)}, 5, 99),
    Form("The sum of two numbers is {a} and one of them is {b}. What is {c} times the other number?", "a-b r1*c",
         {"a": (12, 99), "b": (5, 90), "c": (2, 6)}, 4, 99),
)

_AMC23 = (
    Form("If {a}x+{b}={c}, what is the value of x?", "c-b r1/a", {"a": (2, 9), "b": (2, 30), "c": (10, 79)}, 2),
    Form("If {a}(x-{b})={c}, what is the value of x?", "c/a r1+b", {"a": (2, 9), "b": (2, 30), "c": (10, 79)}, 2),
    Form("If x+y={a} and x-y={b}, what is the value of x?", "a+b r1/2", {"a": (10, 99), "b": (2, 60)}, 2),
    Form("If f(x)={a}x+{b}, what is the value of f({c})?", "a*c r1+b",
         {"a": (2, 9), "b": (2, 40), "c": (2, 9)}),
    Form("If f(x)=x^2+{a}, what is the value of f({b})?", "b*b r1+a", {"a": (2, 60), "b": (2, 9)}),
    Form("An arithmetic sequence starts at {a} with common difference {b}. What is term {c}?", "c-1 r1*b r2+a",
         {"a": (3, 30), "b": (2, 9), "c": (3, 9)}, 2),
)

_PARTS = {"a": (1, 8), "b": (2, 9), "c": (1, 8), "d": (2, 9)}
_MATH500 = (
    Form(r"Compute \frac{{{a}}}{{{b}}}+\frac{{{c}}}{{{d}}}.", _add_fractions, _PARTS),
    Form(r"Compute \frac{{{a}}}{{{b}}} times \frac{{{c}}}{{{d}}}.", _multiply_fractions,
         {"a": (1, 12), "b": (2, 12), "c": (1, 9), "d": (2, 9)}),
    Form(r"Write \frac{{{a}}}{{{b}}} in lowest terms.", _reduce_fraction, {"a": (2, 60), "b": (4, 120)}),
    Form("Expand {k}({a}x+{b}).", _expand, {"k": (2, 9), "a": (2, 12), "b": (2, 20)}),
    Form("Simplify {a}x+{b}+{c}x-{d}.", _collect, {"a": (2, 40), "b": (2, 40), "c": (2, 40), "d": (2, 40)}),
    Form("Expand (x+{a})(x+{b}).", _binomials, {"a": (2, 15), "b": (2, 12)}),
    Form("What is the derivative of {a}x^2+{b}x?", _derivative, {"a": (2, 60), "b": (2, 60)}),
)

_AIME2025 = (
    Form("Find the remainder when {a}*{b}+{c} is divided by {d}.", "a*b r1+c r2%d",
         {"a": (3, 19), "b": (3, 12), "c": (5, 60), "d": (3, 9)}, 0),
    Form("A sequence starts at {a}. Each next term is {b} times the last term plus {c}. What is term 3?",
         "a*b r1+c r2*b r3+c", {"a": (3, 20), "b": (2, 4), "c": (3, 30)}),
    Form("If x+y={a} and x-y={b}, find the remainder when xy is divided by {d}.", "a+b r1/2 r2-b r2*r3 r4%d",
         {"a": (8, 24), "b": (2, 10), "d": (3, 9)}, 0),
    Form("{n} has {a} {h} with {b} {i} each and {c} {h} with {d} {i} each. {n} shares them equally among {e} friends. "
         "How many {i} does each friend get?", "a*b c*d r1+r2 r3/e",
         {"a": (2, 9), "b": (3, 12), "c": (2, 9), "d": (3, 12), "e": (2, 6)}, 3),
)

KINDS: dict[str, Kind] = {
    "aime2025": Kind("integer", _AIME2025),
    "math500": Kind("expression", _MATH500),
    "amc23": Kind("integer", _AMC23),
    "aqua": Kind("choice", _AQUA, choices=True),
    "gsm8k": Kind("integer", _GSM8K),
    "mawps": Kind("number", _MAWPS),
    "svamp": Kind("integer", _SVAMP),
}


def draw(kind: Kind, rng: np.random.Generator) -> Draft:
    """Draw one problem of a kind: a form, words, operands."""
    form = kind.forms[rng.integers(len(kind.forms))]
    words = _draw_words(rng)
    values, (steps, gold) = _solve(form, rng)
    question = form.text.format(**words, **values)
    if not kind.choices:
        return Draft(question, steps, gold)
    options = _draw_options(form, gold, rng)
    letter = CHOICE_LETTERS[options.index(gold)]
    return Draft(f"{question} {choices_text(options)}", (*steps[:-1], f"{steps[-1]} ({letter})"), letter, options)


def _solve(form: Form, rng: np.random.Generator) -> tuple[dict[str, int], Worked]:
    """Draw operands until the form accepts them; return them with the steps and the answer."""
    while True:
        values = {name: int(rng.integers(low, high + 1)) for name, (low, high) in form.ranges.items()}
        worked = _chain(form.work, values, form.least, form.most) if isinstance(form.work, str) else form.work(values)
        if worked is not None:
            return values, worked


def _draw_options(form: Form, gold: str, rng: np.random.Generator) -> tuple[str, ...]:
    """Return five options in ascending order: the answer and answers of the same form to other operands.

    Right and wrong options follow one distribution, so every letter is right equally often.
    """
    options = {gold}
    while len(options) < NUM_OPTIONS:
        options.add(_solve(form, rng)[1][1])
    return tuple(sorted(options, key=int))


def _draw_words(rng: np.random.Generator) -> dict[str, str]:
    """Draw two different names, two different items and a holder."""
    first, second = rng.permutation(len(NAMES))[:2]
    item, other = rng.permutation(len(ITEMS))[:2]
    return {"n": NAMES[first], "m": NAMES[second], "i": ITEMS[item], "j": ITEMS[other],
            "h": HOLDERS[rng.integers(len(HOLDERS))]}


def choices_text(options: tuple[str, ...]) -> str:
    """Return options as they stand in a question: `Answer Choices: (A) 12 (B) 15 ...`."""
    return "Answer Choices: " + " ".join(
        f"({letter}) {text}" for letter, text in zip(CHOICE_LETTERS, options, strict=False))


def all_texts() -> Iterator[str]:
    """Yield every fixed piece of text a problem can contain: the templates' literals and the word lists."""
    for kind in KINDS.values():
        for form in kind.forms:
            yield from (literal for literal, _, _, _ in Formatter().parse(form.text) if literal)
    for words in (NAMES, ITEMS, HOLDERS):
        yield from (variant for word in words for variant in (word, f" {word}"))
    yield from (choices_text(("",) * NUM_OPTIONS), *CHOICE_LETTERS[:NUM_OPTIONS])
    yield from (f" ({letter})" for letter in CHOICE_LETTERS[:NUM_OPTIONS])
