"""Generated programming tasks, one kind per code benchmark name, as rows in the benchmarks' own formats.

A task is put together from phrases, each with its piece of Python: a term ("a plus 7", `a+7`), a condition, an end
("the sum of", `sum`). Its tests are inputs near the constants that occur, where a wrong constant or operator shows.

    humaneval_plus  a function's head with a docstring: two terms joined
    mbpp_plus       a sentence and an assertion: a condition on a list's numbers and what to make of them
    bigcodebench    a task in words with unittest cases: a condition, a term and an end
    livecodebench   a script on standard input: a condition and two terms
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from string import Formatter
from typing import TYPE_CHECKING, Any

from evaluation.benchmarks.code import CODE_BENCHMARKS
from replication.data.synthetic_problems import Draft

if TYPE_CHECKING:
    import numpy as np

NUM_TESTS = 8
"""Inputs of a task; the first three are its original tests where a benchmark tells them apart."""
FENCE = "\n```python\n{program}\n```\n"
"""An answer block's content: the fences stand on lines of their own."""
PHRASES = (
    "Complete this Python function. Give the whole program, with imports and signature, in one code block.\n\n",
    "Write a Python function for this task. The assertion shows its name and how it is called.\n\n",
    "\n\nWrite a Python program that reads from standard input and writes to standard output.",
    "\nYou should write self-contained code starting with:\n```\n",
)
"""What the benchmarks' prompts wrap around every task: single tokens of the tiny model."""
IDIOMS = (
    "```python\n", "```", "    ", '"""', "(a, b):\n", "(xs):\n", "return ", " task_func", " for x in xs if ", "print(",
    "a, b = map(int, input().split())\n", "a = int(input())\nb = int(input())\n",
)
"""Pieces of programs that are single tokens too, as they are in large vocabularies."""
NAMES = ("solve", "compute", "value", "result", "answer")

_TERMS = (
    ("{v} plus {p}", "{v}+{p}"),
    ("{v} minus {p}", "{v}-{p}"),
    ("{p} minus {v}", "{p}-{v}"),
    ("{v} times {p}", "{v}*{p}"),
    ("the remainder of {v} by {p}", "{v}%{p}"),
    ("the larger of {v} and {p}", "max({v}, {p})"),
    ("the smaller of {v} and {p}", "min({v}, {p})"),
)
_JOINS = (
    ("the sum of {s} and {t}", "({s})+({t})"),
    ("the difference of {s} and {t}", "({s})-({t})"),
    ("the product of {s} and {t}", "({s})*({t})"),
    ("the larger of {s} and {t}", "max({s}, {t})"),
    ("the smaller of {s} and {t}", "min({s}, {t})"),
)
_CONDITIONS = (
    ("more than {p}", "{v}>{p}"),
    ("less than {p}", "{v}<{p}"),
    ("at least {p}", "{v}>={p}"),
    ("at most {p}", "{v}<={p}"),
    ("not {p}", "{v}!={p}"),
    ("divisible by {q}", "{v}%{q}==0"),
    ("not divisible by {q}", "{v}%{q}!=0"),
)
_ENDS = (
    ("the sum of", "sum({xs})"),
    ("the largest of", "max({xs})"),
    ("the smallest of", "min({xs})"),
    ("the number of", "len({xs})"),
    ("the list of", "{xs}"),
    ("the sorted list of", "sorted({xs})"),
)
_DOCSTRING = '    """Return {what}."""\n'
_MBPP = "Write a function to find {end} the numbers in xs that are {keep}."
_BIG = "Take the numbers in xs that are {keep}, replace each x by {change} and return {end} the results."
_CASE = "    def test_{i}(self):\n        self.assertEqual(task_func({xs}), {value})\n"
_CONTEST = "The input is {how} with the integers a and b. If {v} is {keep}, print {s}. If not, print {t}."
_READINGS = (
    ("one line", "a, b = map(int, input().split())", " "),
    ("two lines", "a = int(input())\nb = int(input())", "\n"),
)
_PROGRAM_WORDS = ("def", " if", " else", "assert", "xs", " xs")


@dataclass(frozen=True, slots=True)
class _Piece:
    """A phrase with its piece of Python and the constants in both."""

    words: str
    code: str
    constants: tuple[int, ...]


Arguments = list[Any]


def _piece(table: tuple[tuple[str, str], ...], rng: np.random.Generator, variable: str = "") -> _Piece:
    """Draw a line of a table and its constant: a digit p, or a digit q that divides more often."""
    words, code = table[rng.integers(len(table))]
    constants = {"p": int(rng.integers(2, 10)), "q": int(rng.integers(2, 6))}
    used = {name for _, name, _, _ in Formatter().parse(code) if name}
    return _Piece(words.format(v=variable, **constants), code.format(v=variable, **constants),
                  tuple(constant for name, constant in constants.items() if name in used))


def _near(constants: tuple[int, ...], rng: np.random.Generator) -> int:
    """Draw an input: at a constant, beside it, or anywhere up to 20."""
    if constants and rng.integers(2):
        return constants[rng.integers(len(constants))] + int(rng.integers(-1, 2))
    return int(rng.integers(0, 21))


def _value(expression: str, variables: dict[str, Any]) -> Any:
    """Evaluate an expression that was put together here."""
    return eval(expression, {}, variables)


def _identity(question: str) -> int:
    """Return a number for a task that no real task has, equal for equal questions."""
    return 10**6 + int.from_bytes(hashlib.sha256(question.encode()).digest()[:6], "big")


def _function(name: str, parameters: str, expression: str) -> str:
    return f"def {name}({parameters}):\n    return {expression}"


def _plus_row(family: str, what: str, inputs: list[Arguments], **fields: Any) -> dict[str, Any]:
    """Return a row as evalplus releases them, with the tests as inputs."""
    return {"task_id": f"{family}/{_identity(what)}", **fields, "contract": "", "base_input": inputs[:3],
            "plus_input": inputs[3:], "atol": 0}


def humaneval(rng: np.random.Generator) -> Draft:
    """Draw a function of two numbers: two terms joined."""
    first, second = _piece(_TERMS, rng, "a"), _piece(_TERMS, rng, "b")
    join, code = _JOINS[rng.integers(len(_JOINS))]
    name = NAMES[rng.integers(len(NAMES))]
    words, expression = join.format(s=first.words, t=second.words), code.format(s=first.code, t=second.code)
    constants = first.constants + second.constants
    inputs = [[_near(constants, rng), _near(constants, rng)] for _ in range(NUM_TESTS)]
    head = f"def {name}(a, b):\n" + _DOCSTRING.format(what=words)
    row = _plus_row("HumanEval", head, inputs, prompt=head, entry_point=name,
                    canonical_solution=f"    return {expression}\n")
    return _draft("humaneval_plus", row, (first.code, second.code), _function(name, "a, b", expression))


def _list_inputs(expression: str, constants: tuple[int, ...], rng: np.random.Generator) -> list[list[int]]:
    """Draw lists on which the expression has a value (the largest of no numbers has none)."""
    found: list[list[int]] = []
    while len(found) < NUM_TESTS:
        xs = [_near(constants, rng) for _ in range(rng.integers(3, 7))]
        try:
            _value(expression, {"xs": xs})
        except ValueError:
            continue
        found.append(xs)
    return found


def mbpp(rng: np.random.Generator) -> Draft:
    """Draw a function of a list: a condition and an end."""
    keep, (end, code) = _piece(_CONDITIONS, rng, "x"), _ENDS[rng.integers(len(_ENDS))]
    name = NAMES[rng.integers(len(NAMES))]
    expression = code.format(xs=f"[x for x in xs if {keep.code}]")
    inputs = _list_inputs(expression, keep.constants, rng)
    shown = min(inputs[:3], key=len)
    task = (f"{_MBPP.format(end=end, keep=keep.words)}\n"
            f"assert {name}({shown}) == {_value(expression, {'xs': shown})}")
    program = _function(name, "xs", expression)
    row = _plus_row("Mbpp", task, [[xs] for xs in inputs], prompt=f'"""\n{task}\n"""\n', entry_point=name,
                    canonical_solution=f"\n{program}\n")
    return _draft("mbpp_plus", row, (keep.code, code.format(xs="xs")), program)


def bigcodebench(rng: np.random.Generator) -> Draft:
    """Draw a function of a list: a condition, a term and an end, tested by a unittest class."""
    keep, change = _piece(_CONDITIONS, rng, "x"), _piece(_TERMS, rng, "x")
    end, code = _ENDS[rng.integers(len(_ENDS))]
    expression = code.format(xs=f"[{change.code} for x in xs if {keep.code}]")
    head = "def task_func(xs):\n"
    task = _BIG.format(keep=keep.words, change=change.words, end=end)
    inputs = _list_inputs(expression, keep.constants + change.constants, rng)
    cases = "".join(_CASE.format(i=i, xs=xs, value=_value(expression, {"xs": xs})) for i, xs in enumerate(inputs))
    row = {"task_id": f"BigCodeBench/{_identity(task)}", "entry_point": "task_func", "libs": "[]", "code_prompt": head,
           "complete_prompt": f'{head}    """{task}"""\n', "canonical_solution": f"    return {expression}\n",
           "instruct_prompt": f"{task}{PHRASES[3]}{head}```",
           "test": f"import unittest\nclass TestCases(unittest.TestCase):\n{cases}"}
    return _draft("bigcodebench", row, (keep.code, change.code, code.format(xs="xs")),
                  _function("task_func", "xs", expression))


def livecodebench(rng: np.random.Generator) -> Draft:
    """Draw a script on standard input: two numbers, a condition on one of them, two terms."""
    how, reading, separator = _READINGS[rng.integers(len(_READINGS))]
    v, s, t = ("ab"[rng.integers(2)] for _ in range(3))
    keep, yes, no = _piece(_CONDITIONS, rng, v), _piece(_TERMS, rng, s), _piece(_TERMS, rng, t)
    expression = f"{yes.code} if {keep.code} else {no.code}"
    content = _CONTEST.format(how=how, v=v, keep=keep.words, s=yes.words, t=no.words)
    tests = []
    for i in range(NUM_TESTS):
        ab = {name: _near(keep.constants + yes.constants + no.constants, rng) for name in "ab"}
        if i < 3:  # at the condition's constant and on both sides of it
            ab[v] = keep.constants[0] + i - 1
        tests.append({"input": f"{ab['a']}{separator}{ab['b']}\n", "output": f"{_value(expression, dict(ab))}\n",
                      "testtype": "stdin"})
    row = {"question_id": f"synthetic-{_identity(content)}", "question_content": content, "starter_code": "",
           "metadata": "{}", "public_test_cases": json.dumps(tests)}
    return _draft("livecodebench", row, (keep.code, yes.code, no.code), f"{reading}\nprint({expression})")


def _draft(benchmark: str, row: dict[str, Any], steps: tuple[str, ...], program: str) -> Draft:
    """Return the task as the benchmark's own reader presents it."""
    parsed = CODE_BENCHMARKS[benchmark].parse(row)
    return Draft(parsed.question, steps, parsed.gold or program, answer=FENCE.format(program=program), row=row)


CODE_KINDS: dict[str, Callable[[np.random.Generator], Draft]] = {
    "humaneval_plus": humaneval,
    "mbpp_plus": mbpp,
    "bigcodebench": bigcodebench,
    "livecodebench": livecodebench,
}


def all_texts() -> Iterator[str]:
    """Yield every fixed piece of text that a task, its program or its framing can contain."""
    yield from PHRASES
    for table in (_TERMS, _JOINS, _CONDITIONS, _ENDS):
        for pair in table:
            yield from pair
    for reading in _READINGS:
        yield from reading
    yield from (_DOCSTRING, _MBPP, _BIG, _CONTEST, *_PROGRAM_WORDS)
    for name in NAMES:
        yield from (name, f" {name}")
