r"""Reads the outer shape of an answer: list, set, tuple, interval, union, matrix, relation, text, or a leaf.

Shapes are compared by their own rules and only leaves are compared as values. So `(3,4]` never equals `[3,4]`, a
hedge ("14 or 15") is a list of two and never equals one value, and `31_4` is not 31.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from evaluation.graders.latex import closing, split_top
from evaluation.graders.numbers import is_name, parse_quantity

Kind = Literal["leaf", "text", "list", "tuple", "union", "matrix", "based", "equation"]
MAX_PARTS = 64

_UNION = re.compile(r"\\cup(?![a-zA-Z])")
_MATRIX = re.compile(r"\\begin\{([pbvBV]?)(?:small)?matrix\}(.*)\\end\{\1(?:small)?matrix\}")
_ROWS = re.compile(r"\\\\")
_CELLS = re.compile(r"&")
_SEPARATOR = re.compile(r"\s*[,;]\s*(?:(?:and|or)\b)?|\s+(?:and|or)\b\s*|\\text\{\s*,?\s*(?:and|or)\s*,?\s*\}")
_COMMA = re.compile(r"[,;]")
_EQUALS = re.compile(r"(?<![<>!\\])=")
_COMPARISON = re.compile(r"\\le(?![a-zA-Z])|\\ge(?![a-zA-Z])|<|>")
_MEMBER = re.compile(r"^(?:[a-zA-Z]|\\[a-z]+)\s*\\in(?![a-zA-Z])\s*")
_APPROX = re.compile(r"\\approx(?![a-zA-Z])|\\sim(?![a-zA-Z])")
_PLUS_MINUS = re.compile(r"\\pm(?![a-zA-Z])|\\mp(?![a-zA-Z])")
_BASED = re.compile(r"\(?([0-9A-Fa-f]*\d[0-9A-Fa-f]*)\)?\s*_\s*(?:\{\s*(?:\\text\{)?\(?(\d+|[a-z]+)\)?\}?\s*\}|(\d+))")
_BASE_WORDS = re.compile(r"(\d+)\s+(?:\\text\{)?\s*\(?(?:in )?base[ -](\w+)\)?\}?")
_BASES = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
          "ten": "10", "twelve": "12", "sixteen": "16"}
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_WORDS = re.compile(r"[A-Za-z][A-Za-z .,'()-]*")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})\s*(?:\\text\{)?\s*([ap])?\.?\s*(?:m\b)?\.?\s*\}?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Shape:
    """One node: `text` for leaves, `parts` for the rest; `mark` holds brackets, a base, or a matrix row length."""

    kind: Kind
    text: str = ""
    mark: str = ""
    parts: tuple[Shape, ...] = ()


def read(text: str) -> Shape:
    """Return the shape of a normalised answer."""
    text = _approximation(text.strip())
    text = _MEMBER.sub("", text)
    if parse_quantity(text) is not None:
        return Shape("leaf", text)
    return (_words(text) or _based(text) or _matrix(text) or _relation(text) or _union(text) or _bracketed(text)
            or _listed(text) or Shape("leaf", text))


def _approximation(text: str) -> str:
    parts = split_top(text, _APPROX)
    if len(parts) < 2:
        return text
    return parts[1] if is_name(parts[0]) and not parts[0].startswith("\\pi") else parts[0]


def _words(text: str) -> Shape | None:
    clock = _CLOCK.fullmatch(text)
    if clock:
        return Shape("text", f"{int(clock[1])}:{clock[2]}{(clock[3] or '').lower()}")
    whole = _TEXT.fullmatch(text)
    if whole:
        return Shape("text", whole[1])
    plain = _WORDS.fullmatch(text)
    if plain and re.search(r"[A-Za-z]{3}", text) and not re.search(r"\b(?:or|and)\b", text):
        return Shape("text", text)
    return None


def _based(text: str) -> Shape | None:
    match = _BASED.fullmatch(text)
    base = (match[2] or match[3]) if match else None
    if match is None:
        match = _BASE_WORDS.fullmatch(text)
        base = match[2] if match else None
    if match is None or base is None:
        return None
    return Shape("based", match[1].lower().lstrip("0") or "0", _BASES.get(base.lower(), base))


def _matrix(text: str) -> Shape | None:
    bare = text[1:-1] if text[:1] in "([" and text[1:].startswith("\\begin{matrix}") else text
    match = _MATRIX.fullmatch(bare)
    if match is None or match[1] in ("v", "V"):  # a determinant is a value
        return None
    rows = [split_top(row, _CELLS) for row in split_top(match[2], _ROWS)]
    if len(rows) > 1 and rows[-1] == [""]:
        rows.pop()
    if len({len(row) for row in rows}) != 1 or sum(map(len, rows)) > MAX_PARTS:
        return None
    return Shape("matrix", mark=f"{len(rows)}x{len(rows[0])}", parts=tuple(read(cell) for row in rows for cell in row))


def _relation(text: str) -> Shape | None:
    """Read an inequality in one letter as an interval, and an equation as its members."""
    operators = _COMPARISON.findall(text)
    if operators and len(operators) <= 2 and "," not in text and not re.search(r"\b(?:or|and)\b|=", text):
        return _interval([part.strip() for part in _COMPARISON.split(text)], operators)
    members = split_top(text, _EQUALS)
    if len(members) < 2 or any(len(split_top(member, _SEPARATOR)) > 1 for member in members[:-1]):
        return None
    return Shape("equation", text, parts=tuple(Shape("leaf", members[0])
                                               if index == 0 else read(member) for index, member in enumerate(members)))


def _interval(sides: list[str], operators: list[str]) -> Shape | None:
    rising = [operator in ("<", "\\le") for operator in operators]
    if len(set(rising)) > 1:
        return None
    if not rising[0]:
        sides, operators = sides[::-1], operators[::-1]
    closed = ["e" in operator for operator in operators]
    letter = re.compile(r"[a-zA-Z]|\\theta")
    if len(sides) == 3 and letter.fullmatch(sides[1]):
        low, high, left, right = sides[0], sides[2], closed[0], closed[1]
    elif len(sides) == 2 and letter.fullmatch(sides[0]):
        low, high, left, right = "-\\infty", sides[1], False, closed[0]
    elif len(sides) == 2 and letter.fullmatch(sides[1]):
        low, high, left, right = sides[0], "\\infty", closed[0], False
    else:
        return None
    return Shape("tuple", mark=("[" if left else "(") + ("]" if right else ")"), parts=(read(low), read(high)))


def _union(text: str) -> Shape | None:
    pieces = split_top(text, _UNION)
    if len(pieces) < 2 and _COMPARISON.search(text):
        pieces = [piece for piece in re.split(r"\s*,?\s*\bor\b\s*", text) if piece]
    if len(pieces) < 2 or len(pieces) > MAX_PARTS:
        return None
    return Shape("union", parts=tuple(read(piece) for piece in pieces))


def _bracketed(text: str) -> Shape | None:
    if text == "\\mathbb{R}":
        return Shape("tuple", mark="()", parts=(Shape("leaf", "-\\infty"), Shape("leaf", "\\infty")))
    if text.startswith("\\{") and text.endswith("\\}") and closing(text, 0) == len(text) - 1:
        inner = text[2:-2].strip()
        items = split_top(inner, _COMMA) if inner else []
        return Shape("list", mark="set", parts=_distinct(items)) if 0 < len(items) <= MAX_PARTS else None
    if text[:1] not in ("(", "[") or closing(text, 0) != len(text) - 1:
        return None
    items = split_top(text[1:-1], _COMMA)
    if len(items) == 1:
        return read(items[0]) if text[0] == "(" and text[-1] == ")" else None
    if len(items) > MAX_PARTS:
        return None
    return Shape("tuple", mark=text[0] + text[-1], parts=tuple(read(item) for item in items))


def _listed(text: str) -> Shape | None:
    items = [item for item in split_top(text, _SEPARATOR) if item]
    if 2 <= len(items) <= MAX_PARTS:
        return Shape("list", parts=_distinct(items))
    signs = _PLUS_MINUS.findall(text)
    if len(signs) == 1:
        both = (_PLUS_MINUS.sub(" + ", text), _PLUS_MINUS.sub(" - ", text))
        return Shape("list", parts=tuple(read(one.strip().removeprefix("+").strip()) for one in both))
    return None


def _distinct(items: list[str]) -> tuple[Shape, ...]:
    r"""Return the shapes of a list's items: `1 \pm 2` inside a list stands for two, a repeated item for one."""
    shapes: dict[Shape, None] = {}
    for item in items:
        shape = read(item)
        for one in shape.parts if shape.kind == "list" and _PLUS_MINUS.search(item) else (shape,):
            shapes[one] = None
    return tuple(shapes)


def plain_words(text: str) -> str:
    """Return the words of a text answer without punctuation, brackets, case and articles."""
    words = re.sub(r"[^\w\s:-]", "", _TEXT.sub(r"\1", text).lower()).split()
    return " ".join(word for word in words if word not in ("the", "a", "an") or len(words) == 1)
