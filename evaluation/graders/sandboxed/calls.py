"""Run a program, call one of its functions with each input, and send back what it returned: outputs, never verdicts."""

from __future__ import annotations

import time
from typing import Any

from channel import Channel, describe  # type: ignore[import-not-found]
from values import TooLarge, decode, encode  # type: ignore[import-not-found]


def resolve(namespace: dict[str, Any], entry: str) -> Any:
    """Return the function that a path like `f` or `Solution().f` names."""
    owner, _, name = entry.rpartition("().")
    return getattr(namespace[owner](), name) if owner else namespace[name]


def run(request: dict[str, Any], channel: Channel) -> None:
    """Answer with one line when the program is loaded and one for each call; the first error ends it."""
    namespace: dict[str, Any] = {"__name__": "program"}
    try:
        exec(compile(request["code"], "<program>", "exec"), namespace)
        function = resolve(namespace, request["entry"])
    except BaseException as error:
        channel.write({"x": describe(error)})
        return
    channel.write({"loaded": True})
    for data in request["inputs"]:
        arguments = decode(data)
        started = time.perf_counter()
        try:
            value = function(*arguments)
        except BaseException as error:
            channel.write({"x": describe(error)})
            return
        seconds = time.perf_counter() - started
        try:
            channel.write({"v": encode(value), "s": seconds})
        except TooLarge as error:
            channel.write({"v": {"o": f"value {error}"}, "s": seconds})
        except BaseException as error:
            channel.write({"x": describe(error)})
            return
