"""The equations that MAWPS gives with its problems: read without `eval`, computed exactly, written out step by step.

The text comes from a data file and is treated as hostile: a few characters are allowed, its length is bounded, and
only the four operations exist, so that nothing can run and no number can grow without bound.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

_ALLOWED = re.compile(r"[A-Za-z0-9.+\-*/() ]*")
_MAX_LENGTH = 200
_DECIMAL_PLACES = 6
_OPERATORS: dict[type[ast.operator], Literal["+", "-", "*", "/"]] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}


class EquationError(ValueError):
    """An equation that cannot be read or computed."""


@dataclass(frozen=True, slots=True)
class Number:
    """A written number."""

    value: Fraction


@dataclass(frozen=True, slots=True)
class Unknown:
    """The unknown, whatever its name in the text."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One of the four operations."""

    sign: Literal["+", "-", "*", "/"]
    left: Expression
    right: Expression


Expression = Number | Unknown | Operation


@dataclass(frozen=True, slots=True)
class Equation:
    """Two sides, equal at the answer."""

    left: Expression
    right: Expression

    def solved_side(self) -> Expression | None:
        """Return the other side if one is the bare unknown ("x = 3*6"), else None."""
        if self.left == Unknown() and not has_unknown(self.right):
            return self.right
        if self.right == Unknown() and not has_unknown(self.left):
            return self.left
        return None


def parse_equation(text: str) -> Equation:
    """Read "left=right" with one unknown.

    Raises:
        EquationError: it is not two arithmetic expressions in one unknown.
    """
    sides = text.split("=")
    if len(sides) != 2:
        raise EquationError(f"{text[:_MAX_LENGTH]!r} is not of the form left=right")
    if len({name.lower() for name in re.findall(r"[A-Za-z]+", text)}) != 1:
        raise EquationError(f"{text[:_MAX_LENGTH]!r} does not have exactly one unknown")
    return Equation(parse_expression(sides[0]), parse_expression(sides[1]))


def parse_expression(text: str) -> Expression:
    """Read an arithmetic expression of numbers, the four operations, parentheses and an unknown.

    Raises:
        EquationError: it is anything else.
    """
    if len(text) > _MAX_LENGTH or not _ALLOWED.fullmatch(text):
        raise EquationError(f"{text[:_MAX_LENGTH]!r} is not a short arithmetic expression")
    try:
        return _convert(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise EquationError(f"{text!r} is not an arithmetic expression ({error})") from error


def _convert(node: ast.expr) -> Expression:
    match node:
        case ast.Constant(value=bool()):
            raise EquationError("a truth value is not a number")
        case ast.Constant(value=int() | float() as value):
            return Number(Fraction(repr(value)))
        case ast.Name():
            return Unknown()
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return Operation(_OPERATORS[type(op)], _convert(left), _convert(right))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _convert(operand)
            return Number(-inner.value) if isinstance(inner, Number) else Operation("-", Number(Fraction(0)), inner)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _convert(operand)
    raise EquationError(f"{type(node).__name__} is not arithmetic")


def has_unknown(expression: Expression) -> bool:
    """Tell whether the unknown occurs."""
    if isinstance(expression, Operation):
        return has_unknown(expression.left) or has_unknown(expression.right)
    return isinstance(expression, Unknown)


def evaluate(expression: Expression, unknown: Fraction | None = None) -> Fraction:
    """Return the exact value.

    Raises:
        EquationError: a division by zero, or an unknown without a value.
    """
    if isinstance(expression, Number):
        return expression.value
    if isinstance(expression, Unknown):
        if unknown is None:
            raise EquationError("the unknown has no value")
        return unknown
    left, right = evaluate(expression.left, unknown), evaluate(expression.right, unknown)
    if expression.sign == "+":
        return left + right
    if expression.sign == "-":
        return left - right
    if expression.sign == "*":
        return left * right
    if right == 0:
        raise EquationError("division by zero")
    return left / right


def short_decimal(value: Fraction, places: int = _DECIMAL_PLACES) -> str | None:
    """Return a value as a decimal number if it needs no more than `places` decimals, else None."""
    if (value * 10**places).denominator != 1:
        return None
    if value.denominator == 1:
        return str(value.numerator)
    # By hand: Decimal would round to 28 digits.
    sign, digits = "-" if value < 0 else "", f"{abs(int(value * 10**places)):0{places + 1}d}"
    return f"{sign}{digits[:-places]}.{digits[-places:]}".rstrip("0")


def render(expression: Expression) -> str:
    """Return the expression with spaces, without needless parentheses and without the ".0" of integers."""
    if isinstance(expression, Number):
        return short_decimal(expression.value, places=20) or str(float(expression.value))
    if isinstance(expression, Unknown):
        return "x"
    precedence = _PRECEDENCE[expression.sign]
    left, right = render(expression.left), render(expression.right)
    if isinstance(expression.left, Operation) and _PRECEDENCE[expression.left.sign] < precedence:
        left = f"({left})"
    # a - (b - c) and a / (b / c) need theirs at equal precedence; a + (b + c) is kept as written, too.
    if isinstance(expression.right, Operation) and _PRECEDENCE[expression.right.sign] <= precedence:
        right = f"({right})"
    return _join(left, expression.sign, right)


def steps(expression: Expression) -> list[str] | None:
    """Return one line "a + b = c" per operation, or None if a value on the way has no short decimal form."""
    lines: list[str] = []
    value = _collect_steps(expression, lines)
    return None if value is None else lines


def _collect_steps(expression: Expression, lines: list[str]) -> str | None:
    if not isinstance(expression, Operation):
        return render(expression)
    left, right = _collect_steps(expression.left, lines), _collect_steps(expression.right, lines)
    value = short_decimal(evaluate(expression))
    if left is None or right is None or value is None:
        return None
    lines.append(f"{_join(left, expression.sign, right)} = {value}")
    return value


def _join(left: str, sign: str, right: str) -> str:
    return f"{left} {sign} ({right})" if right.startswith("-") else f"{left} {sign} {right}"
