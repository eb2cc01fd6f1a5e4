"""What can be graded: four kinds of coding task, and how the benchmarks' rows become them."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# LiveCodeBench's solutions are written for a judge that has these names at hand.
JUDGE_PRELUDE = """\
import bisect, collections, copy, functools, heapq, itertools, math, operator, random, re, string, sys
from bisect import bisect, bisect_left, bisect_right, insort
from collections import Counter, OrderedDict, defaultdict, deque
from copy import copy, deepcopy
from functools import cache, cmp_to_key, lru_cache, reduce
from heapq import heapify, heappop, heappush, heappushpop, heapreplace, nlargest, nsmallest
from itertools import accumulate, chain, combinations, count, cycle, groupby, islice, permutations, product
from math import ceil, comb, floor, gcd, inf, isqrt, lcm, log, log2, log10, pi, prod, sqrt
from typing import *
"""

# Eight reference solutions take 5 to 20 s. The benchmark's own harness waits 240 s.
BIGCODEBENCH_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionTask:
    """A function to be compared with a reference on given inputs, by evalplus's rules (HumanEval+, MBPP+).

    `family` ("humaneval" or "mbpp") chooses among the special oracles. The reference is prompt + canonical_solution.
    """

    id: str
    family: str
    prompt: str
    entry_point: str
    canonical_solution: str
    base_input: list[list[Any]] = field(repr=False)
    plus_input: list[list[Any]] = field(repr=False)
    atol: float = 0.0
    contract: str = ""

    @property
    def reference(self) -> str:
        """The program that is right by definition."""
        return self.prompt + self.canonical_solution


@dataclass(frozen=True, slots=True, kw_only=True)
class AssertTask:
    """Tests as Python text: asserts, a `check(candidate)` function, test functions, or unittest classes.

    `together` forces program and tests into one process (BigCodeBench); `modules` are the ones its tests need;
    `seconds` is the least wall time for all tests together, where that is more than the grader's limit.
    """

    id: str
    tests: str
    entry_point: str | None = None
    together: bool = False
    modules: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputTask:
    """Inputs and expected outputs (LiveCodeBench): of a script, or of a function when `entry_point` is given."""

    id: str
    inputs: tuple[str, ...] = field(repr=False)
    outputs: tuple[str, ...] = field(repr=False)
    entry_point: str | None = None

    def __post_init__(self) -> None:
        if not self.inputs or len(self.inputs) != len(self.outputs):
            raise ValueError(f"task {self.id!r} has {len(self.inputs)} inputs and {len(self.outputs)} outputs; "
                             "it needs at least one, and as many of the one as of the other")


Task = FunctionTask | AssertTask | OutputTask


def code_task(benchmark: str, row: dict[str, Any]) -> Task:
    """Build a task from a row of a benchmark, named as on the command line.

    HumanEval+ and MBPP+ rows in the hub's layout, without inputs, keep their tests as a program.

    Raises:
        KeyError: it is no code benchmark.
        ValueError: the row has no usable tests.
    """
    if benchmark in ("humaneval_plus", "mbpp_plus") and "base_input" not in row:
        return AssertTask(id=str(row["task_id"]), tests=row["test"], entry_point=row.get("entry_point"))
    return TASKS[benchmark](row)


def humaneval_plus_task(row: dict[str, Any]) -> FunctionTask:
    """Build a task from a row of HumanEvalPlus.jsonl."""
    return _function_task(row, "humaneval", lambda arguments: arguments)


def mbpp_plus_task(row: dict[str, Any]) -> FunctionTask:
    """Build a task from a row of MbppPlus.jsonl, whose inputs JSON has robbed of tuples, sets and complex numbers."""
    number = int(row["task_id"].rpartition("/")[2])
    return _function_task(row, "mbpp", _MBPP_INPUTS.get(number, lambda arguments: arguments))


def _function_task(row: dict[str, Any], family: str, restore: Callable[[list[Any]], Any]) -> FunctionTask:
    inputs = {name: [list(restore(arguments)) for arguments in row[name]] for name in ("base_input", "plus_input")}
    return FunctionTask(id=row["task_id"], family=family, prompt=row["prompt"], entry_point=row["entry_point"],
                        canonical_solution=row["canonical_solution"], atol=row["atol"], contract=row["contract"],
                        base_input=inputs["base_input"], plus_input=inputs["plus_input"])


def bigcodebench_task(row: dict[str, Any]) -> AssertTask:
    """Build a task from a row of BigCodeBench.jsonl."""
    libraries = row["libs"] if isinstance(row["libs"], list) else ast.literal_eval(row["libs"])
    needed = {*libraries, *_imports(row["test"]), *_imports(row["code_prompt"] + row["canonical_solution"])}
    return AssertTask(id=row["task_id"], tests=row["test"], entry_point=row["entry_point"], together=True,
                      modules=tuple(sorted(needed)), seconds=BIGCODEBENCH_SECONDS)


def _imports(text: str) -> set[str]:
    """The top-level packages that a text of the benchmark's imports."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found


def livecodebench_task(row: dict[str, Any]) -> OutputTask:
    """Build a task from a row of LiveCodeBench, public and private tests together.

    Raises:
        ValueError: the row has no test, or its private tests cannot be read.
    """
    tests = json.loads(row["public_test_cases"]) + _private_tests(row.get("private_test_cases"))
    metadata = row.get("metadata") or "{}"
    name = (json.loads(metadata) if isinstance(metadata, str) else metadata).get("func_name")
    functional = any(test["testtype"] == "functional" for test in tests)
    return OutputTask(id=str(row["question_id"]), inputs=tuple(test["input"] for test in tests),
                      outputs=tuple(test["output"] for test in tests),
                      entry_point=f"Solution().{name}" if functional else None)


def _private_tests(text: str | list[Any] | None) -> list[Any]:
    """Decode private tests: JSON, or base64 + zlib + pickle of a JSON string, of which only the string is read."""
    import base64
    import io
    import pickle
    import zlib

    class OnlyPlain(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            raise pickle.UnpicklingError(f"private tests ask for {module}.{name}")

    if not text:
        return []
    if isinstance(text, list):
        return text
    if text.lstrip().startswith("["):
        return list(json.loads(text))
    try:
        packed = zlib.decompressobj().decompress(base64.b64decode(text), 1 << 30)
        return list(json.loads(OnlyPlain(io.BytesIO(packed)).load()))
    except (ValueError, TypeError, EOFError, zlib.error, pickle.UnpicklingError) as error:
        raise ValueError(f"private tests cannot be read: {error}") from error


def _rows(value: list[Any]) -> list[Any]:
    return [tuple(row) for row in value]


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


_each = _rows  # every argument becomes a tuple


def _each_rows(arguments: list[Any]) -> list[Any]:
    return [_rows(argument) for argument in arguments]


def _first(change: Callable[[Any], Any]) -> Callable[[list[Any]], list[Any]]:
    return lambda arguments: [change(arguments[0]), *arguments[1:]]


def _mbpp_inputs() -> dict[int, Callable[[list[Any]], Any]]:
    """Return what restores the inputs of each task that needs it, as evalplus's own loader does."""
    table: list[tuple[tuple[int, ...], Callable[[list[Any]], Any]]] = [
        ((2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630, 726, 740, 744, 809),
         _each),
        ((63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780), _each_rows),
        ((75, 413, 444, 753), _first(_rows)),
        ((106, 750), lambda arguments: [arguments[0], tuple(arguments[1])]),
        ((115,), lambda arguments: [[set(item) if isinstance(item, list) and item else {} for item in arguments[0]]]),
        ((124,), lambda arguments: (float(arguments[0]), complex(arguments[1]))),
        ((250, 307, 405, 446, 617, 720, 763, 808), _first(tuple)),
        ((259, 401, 445), lambda arguments: [tuple(_rows(argument)) for argument in arguments]),
        ((278,), lambda arguments: [tuple(tuple(item) if isinstance(item, list) else item for item in arguments[0])]),
        ((722,), _first(lambda students: {name: tuple(value) for name, value in students.items()})),
        ((252,), lambda arguments: [complex(arguments[0])]),
        ((580, 615, 791), _tuples),
    ]
    return {number: restore for numbers, restore in table for number in numbers}


_MBPP_INPUTS = _mbpp_inputs()

TASKS: dict[str, Callable[[dict[str, Any]], Task]] = {
    "humaneval_plus": humaneval_plus_task,
    "mbpp_plus": mbpp_plus_task,
    "bigcodebench": bigcodebench_task,
    "livecodebench": livecodebench_task,
}
