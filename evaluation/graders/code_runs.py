"""One program, one run: what its isolated processes are asked, and what their answers or their end mean.

Each function takes ready sandboxes, ends them, and returns a Finding. Deadlines are set here, for each answer and for
the whole; the processes decide nothing about themselves.
"""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from evaluation.graders.sandboxed.values import decode, encode
from evaluation.isolation import Sandbox
from evaluation.isolation.sandbox import request, wait
from foundation.errors import GraderError

Outcome = Literal["pass", "wrong", "exception", "timeout", "memory", "crash", "no_code", "not_runnable",
                  "grader_failure"]
Mode = Literal["calls", "script", "split", "together", "none"]
_REPLY_BYTES = 1 << 20  # an answer may be this long, or several times the expected one


@dataclass(frozen=True, slots=True)
class Finding:
    """How one run ended; `passed` counts the answers that were right before that."""

    outcome: Outcome
    reason: str
    passed: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """One output of a program, with the seconds it took there.

    Of a long output that was not asked for there is only a digest, and whether it consists of floats.
    """

    value: Any
    seconds: float
    size: int
    digest: str | None = None
    floats: bool = False


class Unsplittable(Exception):
    """The tests must run together with the program; the message says why."""


def ending(sandbox: Sandbox, what: str) -> Finding:
    """Say why a tree gave no further answer, and end it."""
    late = not sandbox.ended
    code = sandbox.kill()
    excess = sandbox.excess
    if excess == "memory":
        return Finding("memory", f"more than {sandbox.limits.memory_mib} MiB used {what}")
    if excess == "processes":
        return Finding("crash", f"more than {sandbox.limits.processes} processes {what}")
    if excess == "output":
        return Finding("crash", f"an answer of more than {sandbox.limits.output_bytes} bytes {what}")
    if excess == "cpu" or code == 152:
        return Finding("timeout", f"processor time used up {what}")
    if late:
        return Finding("timeout", f"no answer in time {what}")
    if code > 128:
        return Finding("crash", f"ended by signal {code - 128} {what}")
    return Finding("crash", f"the process ended early with exit code {code} {what}")


def _message(sandbox: Sandbox, deadline: float, what: str, most: int = _REPLY_BYTES) -> dict[str, Any] | Finding:
    """Return the next answer, or the finding that ends the run."""
    line = sandbox.receive(deadline)
    if line is None:
        return ending(sandbox, what)
    if len(line) > most:
        return Finding("wrong", f"an output of {len(line)} bytes {what}")
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        return Finding("crash", f"something else than an answer was sent {what}")
    if "x" in message:
        return _raised(message["x"], what)
    message["size"] = len(line)
    return message


def _raised(error: Any, what: str) -> Finding:
    parts = [str(part)[:300] for part in error[:2]] if isinstance(error, list) else [str(error)[:300]]
    return Finding("memory" if parts[0] == "MemoryError" else "exception", f"{': '.join(parts)} {what}")


def answers(sandbox: Sandbox, message: dict[str, object], limits: Sequence[float], total: float,
            sizes: Sequence[int] | None = None,
            enough: Callable[[int, str], bool] = lambda place, digest: True) -> Iterator[Answer | Finding]:
    """Run a program in mode `calls` or `stdin` and yield its answers in order; a Finding is the last thing yielded.

    Args:
        sandbox: a ready one; it is ended when the iterator is closed or done.
        message: the request; `inputs` holds one entry for each of `limits`.
        limits: wall seconds for each answer; loading may take as long as the first and at least 10 s of `total`.
        total: wall seconds for all.
        sizes: how long each expected answer is as text; None allows any size.
        enough: says whether an output's digest will do; otherwise the output itself is asked for.
    """
    with sandbox:
        sandbox.send(request(**message, cpu=math.ceil(total) + 1))
        end = time.monotonic() + total
        loaded = _message(sandbox, min(end, time.monotonic() + max(10.0, limits[0])), "while loading the program")
        if isinstance(loaded, Finding):
            yield loaded
            return
        for place, limit in enumerate(limits):
            most = _REPLY_BYTES + 8 * sizes[place] if sizes is not None else sandbox.limits.output_bytes
            what = f"in test {place + 1} of {len(limits)}"
            reply = _message(sandbox, min(end, time.monotonic() + limit), what, most)
            if isinstance(reply, dict) and isinstance(reply.get("digest"), str):
                wanted = not enough(place, reply["digest"])
                sandbox.send(b'"send"' if wanted else b'"next"')
                if wanted:
                    reply = _message(sandbox, min(end, time.monotonic() + limit), what, most)
            if isinstance(reply, Finding):
                yield reply
                return
            yield _answer(reply)


def _answer(reply: dict[str, Any]) -> Answer:
    seconds = reply.get("s")
    seconds = float(seconds) if isinstance(seconds, (int, float)) else 0.0
    if "digest" in reply:
        return Answer(None, seconds, 0, str(reply["digest"]), reply.get("floats") is True)
    try:
        value = decode(reply.get("v"))
    except (ValueError, RecursionError):
        value = decode({"o": "unreadable"})
    return Answer(value, seconds, reply["size"])


def compare_answers(replies: Iterator[Answer | Finding], count: int,
                    right: Callable[[int, Answer], bool]) -> Finding:
    """Compare answers as they come; the first that is not right ends the run."""
    passed = 0
    for reply in replies:
        if isinstance(reply, Finding):
            return Finding(reply.outcome, reply.reason, passed)
        if not right(passed, reply):
            return Finding("wrong", f"another output than expected in test {passed + 1} of {count}", passed)
        passed += 1
    if passed != count or count == 0:
        return Finding("crash", f"{passed} of {count} tests were answered", passed)
    return Finding("pass", f"{count} tests", passed)


def encoded_inputs(inputs: Sequence[Sequence[Any]]) -> list[Any]:
    """Encode the arguments of each call."""
    return [encode(list(arguments)) for arguments in inputs]


def run_split(take: Callable[[str], Sandbox], code: str, tests: str, entry: str | None, seconds: float) -> Finding:
    """Run tests in one isolated process against a program in another.

    Raises:
        Unsplittable: the tests must run in the program's process.
        GraderError: the tests themselves cannot be read.
    """
    with take("judge") as judge, take("serve") as program:
        return _Split(judge, program, code, tests, entry, seconds).run()


class _Split:
    def __init__(self, judge: Sandbox, program: Sandbox, code: str, tests: str, entry: str | None,
                 seconds: float) -> None:
        self.judge, self.program, self.code, self.tests, self.entry = judge, program, code, tests, entry
        self.end = time.monotonic() + seconds
        self.cpu = math.ceil(seconds) + 1

    def run(self) -> Finding:
        self.judge.send(request(mode="judge", tests=self.tests, entry=self.entry, cpu=self.cpu))
        needs = self._from_judge(self.judge.receive(self.end))
        if "bad" in needs:
            raise GraderError(f"the tests cannot be read: {needs['bad']}")
        if needs["blockers"]:
            raise Unsplittable(f"the tests use {', '.join(needs['blockers'])}")
        names = needs["names"]
        if names is not None and self.entry is not None:
            names = [*names, self.entry]
        self.program.send(request(mode="serve", code=self.code, names=names, cpu=self.cpu))
        loaded = _message(self.program, self.end, "while loading the program", self.program.limits.output_bytes)
        if isinstance(loaded, Finding):
            return loaded
        if not all(isinstance(loaded.get(key), kind) for key, kind in
                   (("loaded", dict), ("functions", list), ("classes", list))):
            return Finding("crash", "something else than an answer was sent while loading the program")
        self.judge.send(json.dumps(loaded).encode())
        return self._relay()

    def _relay(self) -> Finding:
        """Carry requests and replies, unread, until the judge gives its verdict."""
        while True:
            wait([self.judge, self.program], self.end)
            if (line := self.judge.next_line()) is not None:
                if line.startswith(b"V"):
                    return self._verdict(self._from_judge(line[1:]))
                self.program.send(line[1:])
            elif (line := self.program.next_line()) is not None:
                self.judge.send(line)
            elif self.judge.ended and not self.program.ended:
                return ending(self.judge, "while the tests ran")
            else:
                return ending(self.program, "while the tests ran")

    def _verdict(self, verdict: dict[str, Any]) -> Finding:
        if "unsplittable" in verdict:
            raise Unsplittable(str(verdict["unsplittable"]))
        outcome, reason = verdict["outcome"], str(verdict["reason"])
        if outcome != "pass" and self.program.ended:
            return ending(self.program, "while the tests ran")
        return Finding(outcome, reason, int(verdict.get("checks", 0)))

    def _from_judge(self, line: bytes | None) -> dict[str, Any]:
        if line is None:
            raise GraderError("the test process gave no answer")
        return dict(json.loads(line))


def run_together(sandbox: Sandbox, code: str, tests: str, entry: str | None, seconds: float) -> Finding:
    """Run program and tests in one isolated process; see sandboxed/together.py for what that is worth.

    Raises:
        GraderError: the tests themselves cannot be read.
    """
    token = secrets.token_hex(16)
    with sandbox:
        sandbox.send(request(mode="together", code=code, tests=tests, entry=entry, token=token,
                             cpu=math.ceil(seconds) + 1))
        reply = _message(sandbox, time.monotonic() + seconds, "while the tests ran")
        if isinstance(reply, Finding):
            return reply
        if "bad" in reply:
            raise GraderError(f"the tests cannot be read: {reply['bad']}")
        if reply.get("token") != token or reply.get("outcome") not in ("pass", "wrong", "exception", "memory", "crash"):
            return Finding("crash", "something else than a verdict was sent")
        checks = reply.get("checks", 0)
        return Finding(reply["outcome"], str(reply.get("reason"))[:400], checks if isinstance(checks, int) else 0)
