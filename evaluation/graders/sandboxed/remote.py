"""The tests' side of split tests: stand-ins for the program's functions, classes and objects.

A stand-in forwards what is done to it and gets plain data back. What it does not forward is equality with data: an
object of the program's own class equals another only if the tests themselves made one of the two by calling its class,
and never a number, a string or a list, whatever its `__eq__` says; nor is it true or false by itself. Calculating with
an object that a function returned fails the check: `abs(f() - 12.5) < 1e-6` is not for the program to decide.
"""

from __future__ import annotations

import builtins
import operator
import sys
from collections.abc import Callable
from typing import Any

from channel import Channel, describe  # type: ignore[import-not-found]
from values import decode, encode, type_name  # type: ignore[import-not-found]


class Unsplittable(BaseException):
    """The tests do something that only works in the program's own process; `reason` outlives a bare `except`."""

    reason: str | None = None

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        Unsplittable.reason = reason


class Suspect(AssertionError):
    """The program returned an object of its own where the tests expect data."""


class Broken(BaseException):
    """The program's process sent what its harness never sends."""


class Link:
    """The line to the program's process."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._callbacks: list[Callable[..., Any]] = []
        self._errors: dict[str, type[BaseException]] = {}
        self.requests = 0

    def do(self, name: str, *arguments: Any, **named: Any) -> Any:
        """Have one function applied there; raises what it raised."""
        self.requests += 1
        self._channel.write({"do": name, "a": [self._encode(item) for item in arguments],
                             "k": {key: self._encode(item) for key, item in named.items()}}, b"R")
        while True:
            message = self._channel.read()
            if not isinstance(message, dict):
                raise Broken
            sys.stdout.write(str(message.get("out", "")))
            if "c" not in message:
                return self._result(message, arguments)
            self._channel.write(self._called_back(message["c"]), b"R")

    def decode(self, data: Any) -> Any:
        """Turn a reply's data into a value or a stand-in."""
        try:
            return decode(data, self._other)
        except (ValueError, TypeError, LookupError, RecursionError):
            raise Broken from None

    def error(self, name: str, bases: list[str]) -> type[BaseException]:
        """Return the class of that name: a built-in one, or a stand-in for the program's."""
        known = getattr(builtins, name, None)
        if isinstance(known, type) and issubclass(known, BaseException):
            return known
        if name not in self._errors:
            kinds = (getattr(builtins, base, None) for base in bases)
            found: type[BaseException] = next((kind for kind in kinds if isinstance(kind, type)
                                               and issubclass(kind, BaseException)), Exception)
            own = [base for base in bases[1:bases.index(found.__name__)] if base] if found.__name__ in bases else []
            parent = self.error(own[0], bases[bases.index(own[0]):]) if own else found
            self._errors[name] = type(name, (parent,), {})
        return self._errors[name]

    def _result(self, message: dict[str, Any], arguments: tuple[Any, ...]) -> Any:
        if "x" in message:
            name, text, bases = message["x"]
            error = self._raise_as(str(name), str(text), [str(base) for base in bases])
            error.from_program = True  # type: ignore[attr-defined]
            raise error
        for place, data in message.get("m", []):
            _replace(arguments[place], self.decode(data))
        return self.decode(message["v"])

    def _raise_as(self, name: str, text: str, bases: list[str]) -> BaseException:
        kind = self.error(name, bases)
        try:
            return kind(text)
        except TypeError:  # UnicodeError and its kin want more arguments
            return type(kind.__name__, (next(base for base in kind.__mro__ if base in (ValueError, Exception)),),
                        {})(text)

    def _called_back(self, call: Any) -> dict[str, Any]:
        number, arguments, named = call
        try:
            result = self._callbacks[number](*map(self.decode, arguments),
                                             **{key: self.decode(item) for key, item in named.items()})
            return {"v": self._encode(result)}
        except Exception as error:
            return {"x": describe(error)}

    def _encode(self, value: Any) -> Any:
        return encode(value, self._to_program)

    def _to_program(self, value: Any) -> dict[str, Any]:
        if isinstance(value, Remote):
            return {"h": object.__getattribute__(value, "_number")}
        name = value.__name__ if isinstance(value, type) else ""
        if name and vars(builtins).get(name) is value:
            return {"g": name}
        if isinstance(value, type) and value in self._errors.values():
            raise Unsplittable(f"the tests pass {value}")
        if callable(value) and not isinstance(value, type):
            self._callbacks.append(value)
            return {"f": len(self._callbacks) - 1}
        raise Unsplittable(f"the tests pass a {type_name(value)}")

    def _other(self, data: dict[str, Any]) -> Any:
        (tag, body), = data.items()
        if tag == "h":
            number, kind, name, bases, plain = body
            if kind == "class" and "BaseException" in bases:
                return self.error(str(name), bases)
            if kind == "module":
                return _module(str(name))
            return (RemoteClass if kind == "class" else RemoteIterator if kind == "iterator" else Remote)(
                self, int(number), str(name), list(bases), None if plain is None else self.decode(plain))
        if tag == "w":
            return _finished(self.decode(body))
        if tag == "a":
            import numpy
            return numpy.array(decode(body[1]), dtype=str(body[0]))
        if tag == "o":
            raise Suspect(f"the program returned a {str(body)[:80]}")
        raise ValueError(tag)


async def _finished(value: Any) -> Any:
    return value


def _module(name: str) -> Any:
    try:
        return __import__("importlib").import_module(name)
    except ImportError:
        raise Unsplittable(f"the tests use the program's module {name}") from None


def _replace(old: Any, new: Any) -> None:
    if isinstance(old, (list, bytearray)):
        old[:] = new
    elif isinstance(old, (dict, set)):
        old.clear()
        old.update(new)


class Remote:
    """A stand-in for one object; see the module's docstring."""

    __slots__ = ("_bases", "_link", "_made_by_tests", "_name", "_number", "_plain")

    def __init__(self, link: Link, number: int, name: str, bases: list[str], plain: Any) -> None:
        for key, value in (("_link", link), ("_number", number), ("_name", name), ("_bases", bases),
                           ("_plain", plain), ("_made_by_tests", False)):
            object.__setattr__(self, key, value)

    def __getattr__(self, name: str) -> Any:
        return self._link.do("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._link.do("setattr", self, name, value)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call it there."""
        return self._link.do("call", self, *arguments, **named)

    def __eq__(self, other: object) -> bool:
        if self._plain is not None:
            return bool(self._plain == (other._plain if isinstance(other, Remote) else other))
        if not isinstance(other, Remote):
            return False
        if self._number == other._number:
            return True
        if (self._made_by_tests or other._made_by_tests) and self._name == other._name:
            return self._link.do("eq", self, other) is True
        return False

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self._plain) if self._plain is not None else hash(("program", self._number))

    def __bool__(self) -> bool:
        if self._plain is not None:
            return bool(self._plain)
        if self._made_by_tests:
            return bool(self._link.do("bool", self))
        raise Suspect(f"the program returned a {self._name} object where the tests ask for true or false")

    def __enter__(self) -> Any:
        return self._link.do("getattr", self, "__enter__")()

    def __exit__(self, *details: Any) -> Any:
        return self._link.do("getattr", self, "__exit__")(None, None, None)


# What decides a check by itself, or shows the program an expected value: only objects that the tests made may do it.
_DECIDING = frozenset((
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "lt", "le", "gt", "ge",
    "contains", "abs", "int", "float", "index", "neg", "pos", "invert"))
_LOCAL = {name: getattr(operator, name, None) or getattr(builtins, name) for name in (
    *_DECIDING, "len", "str", "repr", "getitem", "setitem", "delitem", "reversed", "iter")}


def _apply(name: str, subject: Remote, arguments: tuple[Any, ...]) -> Any:
    """Do one thing to an object: there, or here with what it holds where it extends a built-in type."""
    if not subject._made_by_tests:
        if subject._plain is not None:
            return _LOCAL[name](*(item._plain if item is subject else item for item in arguments))
        if name in _DECIDING:
            raise Suspect(f"the program returned a {subject._name} object where the tests calculate with data")
    result = subject._link.do(name, *arguments)
    if isinstance(result, Remote) and result._name == subject._name:
        object.__setattr__(result, "_made_by_tests", subject._made_by_tests)
    return result


def _forward(name: str) -> Callable[..., Any]:
    return lambda self, *arguments: _apply(name, self, (self, *arguments))


def _reflected(name: str) -> Callable[..., Any]:
    return lambda self, other: _apply(name, self, (other, self))


for _name in ("len", "str", "repr", "abs", "int", "float", "index", "neg", "pos", "invert", "getitem", "setitem",
              "delitem", "lt", "le", "gt", "ge", "reversed", "contains", "iter"):
    setattr(Remote, f"__{_name}__", _forward(_name))
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor"):
    setattr(Remote, f"__{_name.rstrip('_')}__", _forward(_name))
    setattr(Remote, f"__r{_name.rstrip('_')}__", _reflected(_name))


class RemoteIterator(Remote):
    """A stand-in for an iterator or generator."""

    __slots__ = ()

    def __iter__(self) -> RemoteIterator:
        return self

    def __next__(self) -> Any:
        return self._link.do("next", self)


class RemoteClass(Remote):
    """A stand-in for a class of the program's; objects that the tests make with it may be compared with each other."""

    __slots__ = ()

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Make an object there."""
        if len(arguments) == 3 and isinstance(arguments[2], dict) and "__qualname__" in arguments[2]:
            raise Unsplittable("the tests extend a class of the program's")
        made = self._link.do("call", self, *arguments, **named)
        if isinstance(made, Remote):
            object.__setattr__(made, "_made_by_tests", True)
        return made

    def __instancecheck__(self, value: Any) -> bool:
        return isinstance(value, Remote) and self._name in value._bases

    def __subclasscheck__(self, kind: Any) -> bool:
        return isinstance(kind, RemoteClass) and self._name in kind._bases

    @property
    def __name__(self) -> str:
        return self._name
