r"""A first look at two leaves without SymPy: floating point with error bounds, for the plainest expressions only.

It can show that two values differ, never that they are equal, and declines (None) whatever it does not read with
certainty as the parser of `symbolic.py` does: numbers, one-letter names or the imaginary `i`, `\pi`, `+ - * /`,
`\frac`, `\sqrt`, integer powers, brackets. Names get the values of that module's first test point, so that "different"
here is "different" there. Nearly every wrong answer of a model ends here, in microseconds instead of milliseconds.
"""

from __future__ import annotations

import cmath
import math
import re
from functools import lru_cache

_TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d+)?|\.\d+)|\\(frac|sqrt|pi|cdot|times)(?![a-zA-Z])\s*|([a-zA-Z])(?![a-zA-Z_'])"
                    r"|([-+*/^(){}]))")
_NO_NAMES = frozenset("dejEI")  # constants and differentials to the parser
_MAX_POWER = 64
_MAX_TOKENS = 200
_EPSILON = 2.0**-52
_SAFETY = 64.0

Value = tuple[complex, float]  # a number and a bound of its error


class _Decline(Exception):
    """This text is not for the first look."""


def surely_different(gold: str, answer: str) -> bool:
    """Say whether two normalised leaves certainly have different values."""
    names = sorted({*_names(gold), *_names(answer)})
    if names and ("i" in gold.replace("\\pi", "") or "i" in answer.replace("\\pi", "")):
        return False
    one, other = _value(gold, tuple(names)), _value(answer, tuple(names))
    if one is None or other is None:
        return False
    margin = _SAFETY * (one[1] + other[1]) + 1e-12 * max(abs(one[0]), abs(other[0]))
    return abs(one[0] - other[0]) > margin


def surely_parses(text: str) -> bool:
    """Say whether a normalised leaf is of the plain kind that the parser certainly reads."""
    return _value(text, tuple(sorted(set(_names(text))))) is not None


def _names(text: str) -> list[str]:
    return re.findall(r"(?<![\\a-zA-Z])[a-hj-zA-Z](?![a-zA-Z])", text)


@lru_cache(maxsize=8192)
def _value(text: str, names: tuple[str, ...]) -> Value | None:
    try:
        # symbolic._point(index, 0)
        reader = _Reader(text, {name: (137 + 41 * index) / 101 for index, name in enumerate(names)})
        value = reader.sum()
        if reader.peek() is not None or not cmath.isfinite(value[0]) or not math.isfinite(value[1]):
            return None
    except (_Decline, ZeroDivisionError, OverflowError, ValueError):
        return None
    return value


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    position, text = 0, text.strip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or len(tokens) >= _MAX_TOKENS:
            raise _Decline
        number, command, name, sign = match.groups()
        if name is not None and name in _NO_NAMES:
            raise _Decline
        tokens.append(number or (f"\\{command}" if command else name or sign))
        position = match.end()
    return tokens


class _Reader:
    """Recursive descent; every construct whose reading could be disputed declines."""

    def __init__(self, text: str, names: dict[str, float]) -> None:
        self.tokens, self.position, self.names, self.depth = _tokens(text), 0, names, 0

    def peek(self) -> str | None:
        return self.tokens[self.position] if self.position < len(self.tokens) else None

    def take(self, expected: str | None = None) -> str:
        token = self.peek()
        if token is None or expected not in (None, token):
            raise _Decline
        self.position += 1
        return token

    def sum(self) -> Value:
        self.depth += 1
        if self.depth > 20:
            raise _Decline
        negative = self.peek() in ("+", "-") and self.take() == "-"
        total = _times(self.product(), (-1.0, 0.0)) if negative else self.product()
        while self.peek() in ("+", "-"):
            sign = -1.0 if self.take() == "-" else 1.0
            total = _plus(total, _times(self.product(), (sign, 0.0)))
        self.depth -= 1
        return total

    def product(self) -> Value:
        first = self.peek()
        value = self.power()
        while (token := self.peek()) is not None:
            if token in ("\\cdot", "\\times", "*"):
                self.take()
                following = self.peek()
                value = _times(value, self.power())
            elif token == "/":  # what follows a quotient without brackets is a matter of taste
                self.take()
                value = _over(value, self.power())
                if self.peek() not in (None, "+", "-", ")", "}"):
                    raise _Decline
                return value
            elif token in ("+", "-", ")", "}"):
                return value
            else:
                following = token
                if not self._may_follow(first, token):
                    raise _Decline
                begun = self.position
                value = _times(value, self.power())
                if token == "(" and not any(part in self.names for part in self.tokens[begun:self.position]):
                    raise _Decline  # the parser takes `2(3)` for a mixed number
            first = following
        return value

    def _may_follow(self, factor: str | None, token: str) -> bool:
        r"""Say whether a product without a sign is beyond dispute: `2x`, `2\sqrt{3}`, `3(x+1)`, `(x+1)(x-1)`."""
        if factor is None:
            return False
        numeric = factor[0].isdigit() or factor[0] == "."
        if numeric:
            return token in ("(", "\\sqrt", "\\pi") or token.isalpha()
        return factor in ("(", "\\sqrt", "\\frac") and (token == "(" or token.isalpha() or token in ("\\sqrt", "\\pi"))

    def power(self) -> Value:
        base = self.atom()
        if self.peek() != "^":
            return base
        self.take()
        if self.peek() == "{":
            self.take()
            negative = self.peek() == "-" and bool(self.take())
            digits = self.take()
            self.take("}")
        else:
            negative, digits = False, self.take()
            if len(digits) != 1:
                raise _Decline
        if not digits.isdigit() or int(digits) > _MAX_POWER or self.peek() == "^":
            raise _Decline
        result: Value = (1.0, 0.0)
        for _ in range(int(digits)):
            result = _times(result, base)
        return _over((1.0, 0.0), result) if negative else result

    def atom(self) -> Value:
        token = self.take()
        if token[0].isdigit() or token[0] == ".":
            value = float(token)
            return value, abs(value) * _EPSILON
        if token in self.names:
            return self.names[token], self.names[token] * _EPSILON
        if token == "i":
            return 1j, 0.0
        if token == "\\pi":
            return math.pi, _EPSILON * 4
        if token == "(":
            value_in = self.sum()
            self.take(")")
            return value_in
        if token == "\\frac":
            top = self.group()
            return _over(top, self.group())
        if token == "\\sqrt":
            return _root(self.group())
        raise _Decline

    def group(self) -> Value:
        self.take("{")
        value = self.sum()
        self.take("}")
        return value


def _plus(a: Value, b: Value) -> Value:
    value = a[0] + b[0]
    return value, a[1] + b[1] + abs(value) * _EPSILON


def _times(a: Value, b: Value) -> Value:
    value = a[0] * b[0]
    return value, abs(a[0]) * b[1] + abs(b[0]) * a[1] + a[1] * b[1] + abs(value) * _EPSILON


def _over(a: Value, b: Value) -> Value:
    room = abs(b[0]) - 2 * b[1]
    if room <= 1e-9 * abs(a[0]) or room <= 1e-9:
        raise _Decline
    value = a[0] / b[0]
    return value, (a[1] + abs(value) * b[1]) / room + abs(value) * _EPSILON


def _root(a: Value) -> Value:
    radicand = complex(a[0])
    if radicand.imag or radicand.real - 2 * a[1] <= 1e-9:  # negative, or so small that it might be
        raise _Decline
    value = math.sqrt(radicand.real)
    return value, a[1] / value + value * _EPSILON
