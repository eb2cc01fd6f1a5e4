"""When an output is right: evalplus's rules for HumanEval+ and MBPP+, LiveCodeBench's for scripts and functions.

Outputs are plain data, decoded by sandboxed.values; nothing of the program's own runs here.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal, InvalidOperation
from typing import Any

from evaluation.graders.code_tasks import FunctionTask
from evaluation.graders.sandboxed.values import few_collisions

# MBPP+ tasks whose reference returns something that is not compared: only whether it is None counts.
NOT_NONE = frozenset({"check_str", "text_match_three", "text_starta_endb"})
_AS_SETS = frozenset({"similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum",
                      "intersection_array", "find_dissimilar", "Diff"})
_RELATIVE, _FLOAT_ATOL = 1e-7, 1e-6


class FunctionComparison:
    """Compares the outputs of one task in the order of its inputs.

    The order matters in one place, as in evalplus: the first reference output made of floats gives a task without a
    tolerance of its own one of 1e-6, for it and all that follow.
    """

    def __init__(self, task: FunctionTask) -> None:
        self._task = task
        self._atol = task.atol

    def same(self, arguments: list[Any], output: Any, expected: Any) -> bool:
        """Whether one output is right; an output for which a rule cannot be evaluated is not."""
        try:
            return self._same(arguments, output, expected)
        except Exception:  # a rule met a type it is not made for: evalplus counts that as wrong
            return False

    def saw_equal(self, *, floats: bool) -> None:
        """Take note of a reference output, made of floats or not, that was matched exactly without being seen."""
        if self._atol == 0 and floats:
            self._atol = _FLOAT_ATOL

    def _same(self, arguments: list[Any], output: Any, expected: Any) -> bool:
        name = self._task.entry_point
        if self._task.family == "humaneval" and name == "find_zero":
            coefficients, = arguments
            return bool(abs(_polynomial(coefficients, output)) <= self._atol)
        exact = bool(output == expected)
        if self._task.family == "mbpp":
            exact = self._special(name, arguments, output, expected, exact)
        if self._atol == 0 and _made_of_floats(expected):
            self._atol = _FLOAT_ATOL
        if exact or self._atol == 0:
            return exact
        return _close(output, expected, self._atol)

    def _special(self, name: str, arguments: list[Any], output: Any, expected: Any, exact: bool) -> bool:
        """Evalplus's special oracles for MBPP+."""
        if name == "are_equivalent":  # Mbpp/164: its reference is not to be relied on, any answer counts
            return True
        if name == "sum_div":  # Mbpp/295
            return exact or bool(output == 0)
        if name == "surface_Area":  # Mbpp/581: the height may be read as the pyramid's instead of the slant's
            return exact or bool(abs(output - _pyramid_surface(*arguments)) <= self._atol)
        if name == "digit_distance_nums":  # Mbpp/558: digit by digit is right too
            return exact or bool(output == _digit_distance(*arguments))
        if name in _AS_SETS:
            return set(few_collisions(list(output))) == set(expected)
        if name in NOT_NONE:
            return bool(output == expected) if isinstance(output, bool) else expected == (output is not None)
        return exact


def _made_of_floats(value: Any) -> bool:
    if isinstance(value, (list, tuple)) and value:
        return all(isinstance(item, float) for item in value)
    return isinstance(value, float)


def _close(output: Any, expected: Any, atol: float) -> bool:
    import numpy as np
    if type(output) is not type(expected):
        return False
    if isinstance(expected, (list, tuple)) and len(output) != len(expected):
        return False
    return bool(np.allclose(output, expected, rtol=_RELATIVE, atol=atol))


def _polynomial(coefficients: list[float], x: float) -> float:
    return sum(coefficient * math.pow(x, power) for power, coefficient in enumerate(coefficients))


def _pyramid_surface(base: float, height: float) -> int:
    slant = math.sqrt((base / 2) ** 2 + height ** 2)
    return round(base ** 2 + 4 * (base * slant) / 2)


def _digit_distance(first: int, second: int) -> int:
    width = max(len(str(first)), len(str(second)))
    return sum(abs(int(one) - int(other))
               for one, other in zip(str(first).zfill(width), str(second).zfill(width), strict=True))


def same_text(output: str, expected: str) -> bool:
    """Whether a script wrote what was expected: line by line without outer blanks, numbers by value."""
    lines, wanted = ([line.strip() for line in text.strip().split("\n")] for text in (output, expected))
    if lines == wanted:
        return True
    return len(lines) == len(wanted) and all(map(_same_line, lines, wanted))


def _same_line(line: str, wanted: str) -> bool:
    parts, other = line.split(), wanted.split()
    if parts == other:
        return True
    if len(parts) != len(other):
        return False
    try:
        return all(one == two or _number(one) == _number(two) for one, two in zip(parts, other, strict=True))
    except InvalidOperation:
        return False


def _number(text: str) -> Decimal:
    if len(text) > 400 or not text.isascii() or "_" in text:
        raise InvalidOperation
    number = Decimal(text)
    if not number.is_finite() or abs(number.adjusted()) > 1000:
        raise InvalidOperation
    return number


def same_value(output: Any, expected_json: str) -> bool:
    """Whether a function returned what the JSON says; tuples count as lists, a bool is not a number."""
    return _same_data(output, json.loads(expected_json))


def _same_data(output: Any, expected: Any) -> bool:
    if isinstance(expected, list):
        return (isinstance(output, (list, tuple)) and len(output) == len(expected)
                and all(map(_same_data, output, expected)))
    if isinstance(expected, dict):
        return (isinstance(output, dict) and len(output) == len(expected)
                and all(key in output and _same_data(output[key], value) for key, value in expected.items()))
    if isinstance(expected, bool) or isinstance(output, bool):
        return isinstance(output, bool) and output is expected
    if isinstance(expected, float) and isinstance(output, (int, float)):
        return math.isclose(output, expected, rel_tol=1e-6, abs_tol=1e-9)
    return bool(output == expected)
