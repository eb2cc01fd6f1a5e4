"""Plain data between processes that do not trust each other: Python values as JSON, bounded, never pickled.

A list is a JSON array; None, booleans, numbers and strings are themselves (NaN and infinities as Python's json writes
them); everything else is an object with one key: `t` tuple, `d` dict (pairs), `s` set, `z` frozenset, `b` bytes,
`y` bytearray, `i` large integer (hexadecimal), `c` complex, `r` range, `q` Fraction, `m` Decimal, `a` numpy array,
and `o` for any other object, of which only the type's name crosses. Subclasses cross as their built-in base: what
their methods claim does not count.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

MAX_DEPTH = 120
MAX_NODES = 2_000_000
_PLAIN = frozenset((str, bool, type(None), float, int))
_SMALL = frozenset((str, bool, type(None), float))
_LARGE_BITS = 8000  # Python refuses to read longer decimal integers
_SAME_HASH = 64
Fallback = Callable[[Any], Any]


class Opaque:
    """An object of which only the type's name is known; it equals nothing, not even itself."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{self.name} object>"


class TooLarge(ValueError):
    """A value deeper or larger than what may cross."""


class Encoder:
    """Turns one value into JSON-able data; `other` handles what is no plain data (default: the type's name)."""

    def __init__(self, other: Fallback | None = None) -> None:
        self._other = other or (lambda value: {"o": type_name(value)})
        self._nodes = 0

    def encode(self, value: Any, depth: int = 0) -> Any:
        """Return JSON-able data.

        Raises:
            TooLarge: deeper than MAX_DEPTH or more than MAX_NODES parts.
        """
        kind = type(value)
        if kind in _SMALL:
            return value
        if kind is int:
            return value if -(1 << 63) <= value < 1 << 63 or value.bit_length() < _LARGE_BITS else {"i": hex(value)}
        if depth > MAX_DEPTH:
            raise TooLarge("nested too deeply")
        if kind is list:
            return self._items(value, depth)
        if kind is tuple:
            return {"t": self._items(value, depth)}
        return self._rare(value, kind, depth)

    def _items(self, value: Any, depth: int) -> list[Any]:
        self._nodes += len(value) + 1
        if self._nodes > MAX_NODES:
            raise TooLarge("too many parts")
        kinds = set(map(type, value))
        if kinds <= _SMALL:
            return list(value)
        return [self.encode(item, depth + 1) for item in value]

    def _rare(self, value: Any, kind: type, depth: int) -> Any:
        if isinstance(value, dict):
            pairs = list(dict.items(value))
            return {"d": [self._items(pair, depth) for pair in self._count(pairs)]}
        for base, tag in ((frozenset, "z"), (set, "s"), (tuple, "t")):
            if isinstance(value, base):
                iterate: Any = base.__iter__  # the built-in way, whatever a subclass says
                return {tag: self._items(list(iterate(value)), depth)}
        if isinstance(value, list):
            return self._items(list(list.__iter__(value)), depth)
        return self._scalar(value, kind, depth)

    def _scalar(self, value: Any, kind: type, depth: int) -> Any:
        if isinstance(value, int):
            return self.encode(int.__add__(value, 0), depth)
        if isinstance(value, float):
            return float.__add__(value, 0.0)
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, (bytes, bytearray)):
            self._nodes += len(value)
            return {"b" if isinstance(value, bytes) else "y": bytes(value).hex()}
        if isinstance(value, complex):
            return {"c": [value.real, value.imag]}
        if kind is range:
            return {"r": [self.encode(part) for part in (value.start, value.stop, value.step)]}
        if kind.__name__ in ("dict_keys", "dict_items"):
            return {"s": self._items(list(value), depth)}
        return self._foreign(value, kind, depth)

    def _foreign(self, value: Any, kind: type, depth: int) -> Any:
        """Values of library types, recognised by the real class and only when the library is loaded."""
        if kind is _loaded("fractions", "Fraction"):
            return {"q": [self.encode(value.numerator), self.encode(value.denominator)]}
        if kind is _loaded("decimal", "Decimal"):
            return {"m": str(value)}
        generic, array = _loaded("numpy", "generic"), _loaded("numpy", "ndarray")
        if generic is not None and isinstance(value, generic) and value.dtype.kind in "biufc":
            return self.encode(value.item(), depth + 1)
        if array is not None and kind is array and value.dtype.kind in "biufcU":
            return {"a": [value.dtype.str, self.encode(value.tolist(), depth + 1)]}
        return self._other(value)

    def _count(self, items: list[Any]) -> list[Any]:
        self._nodes += len(items)
        if self._nodes > MAX_NODES:
            raise TooLarge("too many parts")
        return items


def type_name(value: object) -> str:
    """Return the name of a value's type, at most 80 characters, whatever the type says."""
    return str(type.__dict__["__name__"].__get__(type(value)))[:80]


def _loaded(module: str, name: str) -> Any:
    return getattr(sys.modules.get(module), name, None)


def encode(value: Any, other: Fallback | None = None) -> Any:
    """Encode one value; see the module's docstring."""
    return Encoder(other).encode(value)


def decode(data: Any, other: Fallback | None = None) -> Any:
    """Turn what `encode` wrote, or what a hostile program wrote in its place, back into Python values.

    Raises:
        ValueError: it is not what `encode` writes, or it is made to be slow (very many equal hashes).
    """
    kind = type(data)
    if kind in _PLAIN:
        return data
    if kind is list:
        return [item if type(item) in _PLAIN else decode(item, other) for item in data]
    if kind is not dict or len(data) != 1:
        raise ValueError("not an encoded value")
    (tag, body), = data.items()
    try:
        return _decode_tagged(tag, body, other)
    except (TypeError, KeyError, AttributeError, OverflowError, ArithmeticError) as error:
        raise ValueError(f"not an encoded value: {type(error).__name__}") from None


def _decode_tagged(tag: str, body: Any, other: Fallback | None) -> Any:
    if tag == "t":
        return tuple(decode(body, other))
    if tag in ("s", "z"):
        items = few_collisions(decode(body, other))
        return set(items) if tag == "s" else frozenset(items)
    if tag == "d":
        pairs = [decode(pair, other) for pair in body]
        few_collisions([key for key, _ in pairs])
        return dict(pairs)
    if tag == "i":
        return int(body, 16)
    if tag == "c":
        return complex(float(body[0]), float(body[1]))
    if tag in ("b", "y"):
        return bytes.fromhex(body) if tag == "b" else bytearray.fromhex(body)
    if tag == "r":
        return range(*(decode(part) for part in body))
    return _decode_library(tag, body, other)


def _decode_library(tag: str, body: Any, other: Fallback | None) -> Any:
    if tag == "q":
        from fractions import Fraction
        return Fraction(decode(body[0]), decode(body[1]))
    if tag == "m":
        from decimal import Decimal
        return Decimal(body)
    if other is not None:
        return other({tag: body})
    if tag in ("o", "a"):
        return Opaque(str(body)[:80] if tag == "o" else "numpy.ndarray")
    raise ValueError(f"unknown tag {tag!r}")


def few_collisions(items: list[Any]) -> list[Any]:
    """Refuse a set or dict whose members were chosen to have equal hashes: building it would take quadratic time."""
    if len(items) > _SAME_HASH:
        hashes = sorted(map(hash, items))
        for first, later in zip(hashes, hashes[_SAME_HASH:], strict=False):
            if first == later and len(set(map(repr, items[:1000]))) > 1:
                raise ValueError("too many equal hashes")
    return items
