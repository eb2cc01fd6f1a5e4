"""The program's side of split tests: run the program, then do to it what the test process elsewhere asks.

Plain data crosses by value; whatever else the program makes stays here and crosses as a handle. Nothing in this process
knows what the tests expect. Requests are `{"do": name, "a": arguments, "k": keyword arguments}`; replies `{"v": value}`
or `{"x": [type, message, names of its classes]}`, with `m` (arguments changed in place) and `out` (printed text) where
there are any. `{"c": [callback, arguments]}` asks the test process to call a function of the tests.
"""

from __future__ import annotations

import io
import operator
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from channel import Channel, describe  # type: ignore[import-not-found]
from values import TooLarge, decode, encode, type_name  # type: ignore[import-not-found]

_PRINTED = 1 << 20
_MUTABLE = (list, dict, set, bytearray)
_OPERATORS = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "lshift",
              "rshift", "neg", "pos", "invert", "lt", "le", "gt", "ge", "eq", "ne", "getitem", "setitem", "delitem",
              "contains", "index")
_PLAIN_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "call": lambda function, *arguments, **named: function(*arguments, **named),
    "getattr": getattr, "setattr": setattr, "len": len, "iter": iter, "next": next, "str": str, "repr": repr,
    "bool": bool, "hash": hash, "abs": abs, "int": int, "float": float, "reversed": reversed,
    "isinstance": isinstance, "issubclass": issubclass,
}
FUNCTIONS = _PLAIN_FUNCTIONS | {name: getattr(operator, name) for name in _OPERATORS}


class _Printed(io.TextIOBase):
    """Standard output for the program: kept for the tests, to a bound."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.size < _PRINTED:
            self.parts.append(str(text)[:_PRINTED])
            self.size += len(text)
        return len(text)

    def take(self) -> str:
        text = "".join(self.parts)
        self.parts, self.size = [], 0
        return text


class Server:
    """Holds the program's objects and answers requests about them."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._objects: list[Any] = []
        self._known: dict[int, int] = {}
        self._printed = _Printed()

    def load(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run the program and say what the names are that the tests use."""
        sys.stdout = self._printed
        module = types.ModuleType("program")
        sys.modules["program"] = module
        namespace = module.__dict__
        try:
            exec(compile(request["code"], "<program>", "exec"), namespace)
        except BaseException as error:
            return {"x": self._error(error)}
        functions = [name for name, value in namespace.items()
                     if isinstance(value, types.FunctionType) and value.__code__.co_filename == "<program>"]
        classes = [name for name, value in namespace.items()
                   if isinstance(value, type) and value.__module__ == "program"]
        names = request["names"] if request["names"] is not None else [
            name for name in namespace if not name.startswith("_")]
        found = {name: self.value(namespace[name]) for name in [*names, *functions[-1:], *classes[-1:]]
                 if name in namespace}
        return {"loaded": found, "functions": functions, "classes": classes, "out": self._printed.take()}

    def serve(self) -> None:
        """Answer requests for ever; the owner ends the process."""
        while True:
            self._channel.write(self.answer(self._channel.read()))

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what one request asks."""
        reply: dict[str, Any] = {}
        try:
            arguments = [decode(item, self._from_tests) for item in request["a"]]
            named = {name: decode(item, self._from_tests) for name, item in request.get("k", {}).items()}
            before = {place: encode(item, self.handle) for place, item in enumerate(arguments)
                      if isinstance(item, _MUTABLE)}
            result = FUNCTIONS[request["do"]](*arguments, **named)
            if isinstance(result, types.CoroutineType):
                import asyncio
                reply = {"v": {"w": self.value(asyncio.run(result))}}
            else:
                reply = {"v": self.value(result)}
            changed = [[place, after] for place, data in before.items()
                       if (after := encode(arguments[place], self.handle)) != data]
            if changed:
                reply["m"] = changed
        except TooLarge as error:
            reply = {"x": ["ValueError", f"value {error}", ["ValueError"]]}
        except BaseException as error:
            reply = {"x": self._error(error)}
        printed = self._printed.take()
        return reply | {"out": printed} if printed else reply

    def value(self, value: Any) -> Any:
        """Encode one value; an instance of a program's class that extends a built-in one is both handle and data."""
        kind = type(value)
        if isinstance(value, (int, float, str, bytes, list, tuple, dict, set, frozenset)) and \
                type.__dict__["__module__"].__get__(kind) == "program":
            return self.handle(value, encode(value, self.handle))
        return encode(value, self.handle)

    def handle(self, value: Any, plain: Any = None) -> dict[str, Any]:
        """Return the handle of an object that stays here."""
        number = self._known.get(id(value))
        if number is None:
            number = self._known[id(value)] = len(self._objects)
            self._objects.append(value)
        named = value if isinstance(value, type) else type(value)
        kind = ("class" if isinstance(value, type) else "module" if isinstance(value, types.ModuleType) else
                "iterator" if isinstance(value, Iterator) else "function" if callable(value) else "object")
        name = value.__name__ if kind == "module" else named.__name__
        return {"h": [number, kind, name, [base.__name__ for base in named.__mro__], plain]}

    def _from_tests(self, data: dict[str, Any]) -> Any:
        (tag, body), = data.items()
        if tag == "h":
            return self._objects[body]
        if tag == "g":
            return getattr(__import__("builtins"), body)
        if tag == "f":
            return lambda *arguments, **named: self._call_back(body, arguments, named)
        if tag == "a":
            import numpy
            return numpy.array(decode(body[1]), dtype=body[0])
        raise ValueError(tag)

    def _call_back(self, number: int, arguments: Any, named: dict[str, Any]) -> Any:
        self._channel.write({"c": [number, [self.value(item) for item in arguments],
                                   {name: self.value(item) for name, item in named.items()}]})
        while True:
            message = self._channel.read()
            if "do" in message:
                self._channel.write(self.answer(message))
            elif "x" in message:
                name, text = message["x"]
                kind = getattr(__import__("builtins"), name, RuntimeError)
                raise kind(text) if isinstance(kind, type) and issubclass(kind, BaseException) else RuntimeError(text)
            else:
                return decode(message["v"], self._from_tests)

    def _error(self, error: BaseException) -> list[Any]:
        return [*describe(error), [base.__name__ for base in type(error).__mro__]]


def run(request: dict[str, Any], channel: Channel) -> None:
    """Load the program, then serve."""
    server = Server(channel)
    reply = server.load(request)
    try:
        channel.write(reply)
    except (TypeError, ValueError):
        channel.write({"x": ["TypeError", f"a {type_name(reply)} cannot be described", ["TypeError"]]})
    if "x" not in reply:
        server.serve()
