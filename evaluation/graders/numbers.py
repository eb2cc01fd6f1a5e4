r"""Reads a written quantity exactly: integers, decimals, fractions, mixed numbers, powers of ten, with a unit or not.

`5`, `1,450,000`, `11,111`, `\frac{43}{6}`, `137 \frac{1}{2}`, `-3/4`, `6.72 \times 10^{-5}`, `0.\overline{3}`, `20%`,
`90°`, `18 dollars`, `864 \text{ inches}^2`. What offers two numbers ("14 or 15") is no quantity. A percent sign is a
unit like any other: `x%` equals `x`, never `x/100`.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from evaluation.graders.latex import LONG_RUN, MAX_CHARACTERS, closing, normalise

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,3}(?: \d{3})+(?:\.\d+)?(?! ?\d)|\d+(?:\.\d*)?|\.\d+)"
_QUANTITY = re.compile(
    rf"(?P<sign>[+-]?)\s*(?:"
    rf"(?P<repeat>(?P<r_whole>\d*)\.(?P<r_fixed>\d*)\\overline\{{(?P<r_digits>\d+)\}})"
    rf"|(?P<f_whole>\d+)?\s*\\frac\{{\s*(?P<f_sign>-?)\s*(?P<f_top>{_NUMBER})\s*\}}\{{\s*(?P<f_bottom>{_NUMBER})\s*\}}"
    rf"|(?P<m_whole>\d+)[ -](?P<m_top>\d+)/(?P<m_bottom>\d+)"
    rf"|(?P<top>{_NUMBER})\s*/\s*(?P<bottom>{_NUMBER})"
    rf"|(?P<plain>{_NUMBER})(?:\s*(?:\\times|\\cdot|\*|x)\s*10\^(?:\{{\s*(?P<power>[+-]?\d{{1,3}})\s*\}}|(?P<short>\d))"
    rf"|[eE](?P<e>[+-]?\d{{1,3}})(?![\w.]))?"
    r")(?![\d.]*\d)")
_CURRENCY = re.compile(r"^([+-]?)\s*(?:(?:Rs|INR|USD|US|EUR)\b\.?\s*|\$)\s*", re.IGNORECASE)
_TEXT_UNIT = re.compile(r"\s*\\text\{([^{}]*)\}\s*(?:\^\s*\{?\s*([23])\s*\}?)?\.?$")
_PLAIN_UNIT = re.compile(r"\s*([A-Za-z][A-Za-z ./°'-]*)(?:\^?\{?([23])\}?)?\.?$")
_SHARE = re.compile(r"\s*(?:out of|of|per|in every|in each|every|each)\b[^()]*$")
_PLURAL = re.compile(r"(?<=[a-z]{3})s$")
# One name per unit: two answers in different known units differ even when their numbers agree.
UNITS = {name: names.split()[0] for names in (
    "mm millimeter millimetre", "cm centimeter centimetre", "m meter metre", "km kilometer kilometre kms",
    "in inch inche", "ft foot feet", "yd yard", "mi mile", "g gm gram gms", "kg kilogram", "s sec second",
    "min minute mins", "h hr hour hrs", "day", "week", "month", "year yr", "dollar usd buck", "cent", "rupee rs",
    "percent % pct percentage", "degree ° deg", "radian rad", "l liter litre", "ml milliliter",
    "kmph km/h km/hr kph kms/hr", "mph mi/h", "lb pound", "oz ounce",
) for name in names.split()}
_LETTER_UNITS = frozenset("msghlL")
_ARITHMETIC = re.compile(r"[\d+\-*/(). ]{1,200}")


@dataclass(frozen=True, slots=True)
class Quantity:
    """An exact value and its canonical unit ("" when none or unknown)."""

    value: Fraction
    unit: str = ""


def parse_quantity(text: str, *, loose_units: bool = False) -> Quantity | None:
    """Read a normalised text as one quantity, or None.

    Args:
        text: what `latex.normalise` returned.
        loose_units: any words after the number are its unit (word problems); otherwise `2 k` might be an expression.
    """
    text = text.strip()
    if _is_plain(text):
        return Quantity(Fraction(int(text)))
    if not text or len(text) > MAX_CHARACTERS or not any(char.isdigit() for char in text):
        return None
    for _ in range(8):
        if text[:1] != "(" or closing(text, 0) != len(text) - 1:
            break
        text = text[1:-1].strip()
    inner = re.fullmatch(r"\\text\{([^{}]*\d[^{}]*)\}", text)
    if inner:
        text, loose_units = inner[1].strip(), True
    currency = _CURRENCY.match(text)
    if currency:
        text = currency[1] + text[currency.end():]
    match = None if LONG_RUN.search(text) else _QUANTITY.match(text)
    if match is None:
        return None
    unit = _unit(text[match.end():], loose_units)
    value = _value(match) if unit is not None else None
    return None if value is None or unit is None else Quantity(value, unit)


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18


def _value(match: re.Match[str]) -> Fraction | None:
    part = match.groupdict()
    negative = part["sign"] == "-"
    try:
        if part["repeat"]:
            value = _repeating(part["r_whole"], part["r_fixed"], part["r_digits"])
        elif part["f_top"]:
            value = _ratio(part["f_top"], part["f_bottom"])
            if part["f_whole"] is not None:
                if part["f_sign"] or value >= 1:  # `2\frac{3}{2}` is no mixed number
                    return None
                value += int(part["f_whole"])
            negative ^= part["f_sign"] == "-"
        elif part["m_whole"]:
            value = int(part["m_whole"]) + _ratio(part["m_top"], part["m_bottom"])
        elif part["top"]:
            value = _ratio(part["top"], part["bottom"])
        else:
            power = part["power"] or part["short"] or part["e"]
            value = _decimal(part["plain"]) * Fraction(10) ** int(power or 0)
    except ZeroDivisionError:
        return None
    return -value if negative else value


def _decimal(text: str) -> Fraction:
    return Fraction(text.replace(",", "").replace(" ", "").rstrip(".") or "0")


def _ratio(top: str, bottom: str) -> Fraction:
    return _decimal(top) / _decimal(bottom)


def _repeating(whole: str, fixed: str, digits: str) -> Fraction:
    scale = 10 ** len(fixed)
    return Fraction(int(whole + fixed or "0"), scale) + Fraction(int(digits), scale * (10 ** len(digits) - 1))


def _unit(rest: str, loose: bool) -> str | None:
    """Return the canonical unit that follows a number ("" when unknown), None when the rest is no unit."""
    rest = rest.strip().rstrip(".")
    if not rest:
        return ""
    if rest in ("%", "°"):
        return UNITS[rest]
    text = _TEXT_UNIT.fullmatch(rest)
    if text:
        return None if any(char.isdigit() for char in text[1]) else canonical_unit(text[1], text[2])
    if loose and _SHARE.match(rest):  # "3 of 10", "5 out of the 10 apples"
        return ""
    plain = _PLAIN_UNIT.fullmatch(rest)
    if plain is None or re.search(r"\b(?:or|and|to)\b", plain[1]):
        return None
    word = plain[1].strip()
    if word in _LETTER_UNITS:
        return canonical_unit(word, plain[2]) if loose else None
    if len(word) == 1 or not (loose or word.split()[-1].rstrip("s").lower() in UNITS or word.lower() in UNITS):
        return None
    return canonical_unit(word, plain[2])


def canonical_unit(words: str, power: str | None = None) -> str:
    """Return the one name of a unit, "" for words that are no known unit."""
    words = words.strip().lower().rstrip(".").replace("square ", "sq ").replace("cubic ", "cu ")
    exponent = power or ""
    for prefix, value in (("sq ", "2"), ("sq. ", "2"), ("cu ", "3"), ("cu. ", "3")):
        if words.startswith(prefix):
            words, exponent = words.removeprefix(prefix), value
    name = UNITS.get(words) or UNITS.get(_PLURAL.sub("", words)) or UNITS.get(words.replace(" ", ""), "")
    return f"{name}^{exponent}" if name and exponent else name


def units_conflict(first: str, second: str) -> bool:
    """Say whether two canonical units are both known and different."""
    return bool(first and second and first != second)


def evaluate_arithmetic(text: str) -> Fraction | None:
    """Return the exact value of digits, + - * / and brackets only, as in the chain `12 + 5 = 17`; None for all else."""
    text = re.sub(r"\\times|\\cdot", "*", text).replace("\\div", "/").replace(",", "")
    if not _ARITHMETIC.fullmatch(text.strip()) or "**" in text or "//" in text:
        return None
    try:
        return _node(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _node(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return Fraction(str(node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        return -_node(node.operand) if isinstance(node.op, ast.USub) else _node(node.operand)
    if isinstance(node, ast.BinOp):
        left, right = _node(node.left), _node(node.right)
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Sub):
            return left - right
        if isinstance(node.op, ast.Mult):
            return left * right
        if isinstance(node.op, ast.Div):
            return left / right
    raise ValueError("not plain arithmetic")


_NAME = re.compile(r"\s*(?:\\text\{[^{}]*\}|\\?[a-zA-Z]+(?:_\{?\w+\}?)?(?:\s*\([^()=]*\))?(?:\s+[a-zA-Z]+)*)\s*")


def is_name(text: str) -> bool:
    """Say whether the left side of an equation merely names the value: `x`, `P(A)`, `f(2)`, `Total cost`."""
    return _NAME.fullmatch(text) is not None


def number_in(answer: str) -> Quantity | None:
    r"""Return the one number an answer of a word problem states, or None.

    `x = 5`, `12 + 5 = 17` (every member must have the value), `\approx 5` and words after the number are allowed.
    """
    if len(answer) > MAX_CHARACTERS:
        return None
    if _is_plain(answer):
        return Quantity(Fraction(int(answer)))
    text = normalise(answer)
    quantity = parse_quantity(text, loose_units=True)
    if quantity is not None or not ("=" in text or "\\approx" in text):
        return quantity
    members = [part.strip() for part in re.split(r"=|\\approx", text)]
    quantities = [parse_quantity(member, loose_units=True) for member in members]
    last = quantities[-1]
    if last is None:
        return None
    for index, member in enumerate(members[:-1]):
        quantity = quantities[index]
        known = quantity.value if quantity is not None else evaluate_arithmetic(member)
        if known is None and not (index == 0 and is_name(member)):
            return None
        if known is not None and known != last.value:
            return None
    return last


@lru_cache(maxsize=8192)
def gold_number(gold: str) -> Quantity | None:
    """Return `number_in` of a gold answer, which is asked for with every answer to it."""
    return number_in(gold)


def matches_gold(gold: str, value: Fraction) -> bool:
    """Compare a value with a gold number exactly, but for golds that can only be roundings.

    A gold of 15 or more significant digits is the print of a double (`1.8333333333333335` stands for 11/6): a relative
    1e-14 is allowed. A gold with at least three decimals and five digits (`54.545` stands for 600/11) may be the
    rounding of a value with more decimals: half of its last decimal is allowed to such a value. All else is exact, so
    1.83 is not 11/6.
    """
    quantity = gold_number(gold)
    if quantity is None:
        return False
    exact = quantity.value
    if value == exact:
        return True
    plain = re.search(r"(\d*)\.(\d+)", gold.replace(",", ""))
    if plain is None:
        return False
    decimals, digits = len(plain[2]), len((plain[1] + plain[2]).lstrip("0"))
    if digits >= 15:
        return abs(value - exact) <= abs(exact) * Fraction(1, 10**14)
    longer = (value * 10**decimals).denominator != 1  # the value has more decimals than gold shows
    return decimals >= 3 and digits >= 5 and longer and abs(value - exact) <= Fraction(1, 2 * 10**decimals)
