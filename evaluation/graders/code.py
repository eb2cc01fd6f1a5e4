"""The grader of programs: a task and a program in, a verdict out, whatever the program does.

A program under test never shares a process with expected values, comparison or verdict, with one exception that its
verdict names (`mode` "together"): tests that reach into the process they run in. Functions and scripts are run on the
inputs and their outputs compared here; tests written as Python text run in a process of their own, which calls the
program in another.

A time-out is run once more, alone: while no other program of this grader runs. So is what fails because a process
could not be started or a reference was late; after that it is a grader failure, never a wrong answer.
"""

from __future__ import annotations

import compileall
import importlib.util
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from evaluation.graders.code_compare import NOT_NONE, FunctionComparison, same_text, same_value
from evaluation.graders.code_runs import (
    Answer,
    Finding,
    Mode,
    Outcome,
    Unsplittable,
    answers,
    compare_answers,
    encoded_inputs,
    run_split,
    run_together,
)
from evaluation.graders.code_tasks import JUDGE_PRELUDE, AssertTask, FunctionTask, OutputTask, Task
from evaluation.graders.in_order import in_order
from evaluation.graders.sandboxed.values import Opaque
from evaluation.graders.turnstile import Turnstile
from evaluation.isolation import Isolation, Limits, Pool, Sandbox, find_isolation
from evaluation.isolation.view import interpreter_view
from foundation.errors import GraderError, InputError

CODE_GRADER_VERSION = 2  # raise it with every change that can move a verdict
HARNESS_FOLDER = Path(__file__).with_name("sandboxed")
TOTAL_SECONDS = 60.0  # for all tests of one program, as in evalplus; twice the reference's time if that is more
REFERENCE_FACTOR = 4.0
REFERENCE_SECONDS = 300.0  # a reference is right, however busy the machine: one of MBPP+ (Mbpp/599) takes 20 to 40 s
LONGEST_PROGRAM = 16 << 20
_REFERENCES = 600  # kept, the last used; a long-lived process grades many models' answers to the same tasks
_SLOW_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class CodeVerdict:
    """What became of one program.

    `seconds` are wall seconds, a retry included, the start of processes not. `base_correct` tells, for HumanEval+ and
    MBPP+, whether the original tests passed. `mode` tells how program and tests met; `retried` marks a second run.
    """

    outcome: Outcome
    reason: str
    seconds: float
    mode: Mode = "none"
    base_correct: bool | None = None
    retried: bool = False

    @property
    def correct(self) -> bool:
        """Whether the program is right."""
        return self.outcome == "pass"


@dataclass(frozen=True, slots=True)
class _Reference:
    answers: list[Answer]
    inputs: list[Any]
    base: int

    @property
    def pauses(self) -> list[int]:
        """Tests before which all earlier answers must have been sent: the first extra one, and the slow ones."""
        return [self.base, *(place for place, answer in enumerate(self.answers) if answer.seconds > _SLOW_SECONDS)]


_references: OrderedDict[str, tuple[FunctionTask, _Reference]] = OrderedDict()
_references_lock = threading.Lock()


class CodeGrader:
    """Context manager; `grade` one program at a time, or `grade_all` of many on `workers` processes.

    Args:
        isolation: the kind to use; None takes the best that works here.
        workers: programs run at the same time by `grade_all`; None takes the number of cores.
        time_limit_seconds: wall seconds for one test with outputs to compare (at least; four times the reference's
            time if that is more), and for all of a text of tests (at least; BigCodeBench's have 30 s).
        limits: bounds of each isolated tree.
        packages: packages that programs may import besides the standard library; ("*",) for all that are installed.

    Raises:
        PrerequisiteError: no isolation works here, or a package is missing.
    """

    def __init__(self, isolation: Isolation | None = None, *, workers: int | None = None,
                 time_limit_seconds: float = 4.0, limits: Limits | None = None,
                 packages: tuple[str, ...] = ("numpy",)) -> None:
        self.isolation = isolation or find_isolation()
        self.workers = workers or len(os.sched_getaffinity(0))
        if self.workers < 1 or time_limit_seconds <= 0:
            raise InputError(f"workers {workers} and time limit {time_limit_seconds} s must be positive")
        self.time_limit_seconds = time_limit_seconds
        self.limits = limits or Limits()
        compileall.compile_dir(str(HARNESS_FOLDER), quiet=2, ddir=None)  # so that each process starts faster
        self._packages = packages
        self._view = interpreter_view(str(HARNESS_FOLDER), packages)
        self._local = threading.local()
        self._pools: list[Pool] = []
        self._turnstile = Turnstile()
        self._lock = threading.Lock()

    def __enter__(self) -> CodeGrader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End all waiting processes."""
        for pool in self._pools:
            pool.close()

    def settings(self) -> dict[str, Any]:
        """Return what a stored verdict must name: version, isolation with missing layers, limits, interpreter."""
        return self.verdict_settings() | {"isolation": self.isolation.name,
                                          "missing_layers": list(self.isolation.missing)}

    def verdict_settings(self) -> dict[str, Any]:
        """Return the part of `settings` that can move a verdict: all but the kind of isolation."""
        return {"grader": CODE_GRADER_VERSION, "time_limit_seconds": self.time_limit_seconds,
                "python": sys.version.split()[0], "packages": list(self._packages), "unsafe": not self.isolation.safe,
                "limits": {name: getattr(self.limits, name) for name in self.limits.__slots__}}

    def grade(self, task: Task, code: str | None) -> CodeVerdict:
        """Grade one program. Nothing a program does raises."""
        if code is None or not code.strip():
            return CodeVerdict("no_code", "no program to run", 0.0)
        if len(code) > LONGEST_PROGRAM:
            return CodeVerdict("exception", f"a program of {len(code)} characters; at most {LONGEST_PROGRAM} are read",
                               0.0)
        absent = absent_packages(task)
        if absent:
            return CodeVerdict("not_runnable", f"not installed here: {', '.join(absent)}", 0.0)
        return self._grade(task, code)

    def grade_all(self, items: Iterable[tuple[Task, str | None]]) -> Iterator[CodeVerdict]:
        """Grade many; verdicts come in the order of the items, whatever the number of workers."""
        return in_order(lambda item: self.grade(*item), items, self.workers)

    def _grade(self, task: Task, code: str) -> CodeVerdict:
        run = _Run(self, task, code)
        with self._turnstile.shared():
            finding = run.once()
        if finding.outcome in ("timeout", "grader_failure"):
            with self._turnstile.alone():
                finding = run.once()
        return run.verdict(finding)

    def take(self, mode: str = "calls") -> Sandbox:
        """Return a ready isolated process of this thread's pool, with what the mode needs already loaded."""
        pools: dict[str, Pool] = self._local.__dict__.setdefault("pools", {})
        pool = pools.get(mode)
        if pool is None:
            pool = pools[mode] = Pool(self.isolation, self._view, self.limits, harness=f"child:{mode}")
            with self._lock:
                self._pools.append(pool)
        try:
            return pool.take()
        except GraderError:
            time.sleep(0.5)
            return pool.take()

    def reference(self, task: FunctionTask) -> _Reference:
        """Return the reference's outputs and times, measured here in isolation like any program.

        Raises:
            GraderError: the reference does not run to its end.
        """
        with _references_lock:
            known = _references.get(task.id)
            if known is not None and known[0] == task:
                _references.move_to_end(task.id)
                return known[1]
        inputs = encoded_inputs([*task.base_input, *task.plus_input])
        request: dict[str, Any] = {"mode": "calls", "code": task.reference, "entry": task.entry_point,
                                   "inputs": inputs, "digests": task.entry_point not in NOT_NONE}
        found: list[Answer] = []
        for reply in answers(self.take(), request, [REFERENCE_SECONDS] * len(inputs), REFERENCE_SECONDS):
            if isinstance(reply, Finding):
                raise GraderError(f"the reference solution of {task.id} fails: {reply.reason}; the task cannot be "
                                  "graded here")
            if isinstance(reply.value, Opaque) and task.entry_point not in NOT_NONE:
                raise GraderError(f"the reference solution of {task.id} returns a {reply.value.name} in test "
                                  f"{len(found) + 1}, which cannot be compared")
            if task.entry_point in NOT_NONE:
                reply = Answer(reply.value is not None, reply.seconds, reply.size)
            found.append(reply)
        reference = _Reference(found, inputs, len(task.base_input))
        with _references_lock:
            _references[task.id] = task, reference
            if len(_references) > _REFERENCES:
                _references.popitem(last=False)
        return reference


    def reference_value(self, task: FunctionTask, place: int) -> Any:
        """Return one long output of the reference, of which only the digest is kept.

        Raises:
            GraderError: the reference fails this time.
        """
        arguments = [*task.base_input, *task.plus_input][place]
        request: dict[str, Any] = {"mode": "calls", "code": task.reference, "entry": task.entry_point,
                                   "inputs": encoded_inputs([arguments])}
        reply = next(iter(list(answers(self.take(), request, [REFERENCE_SECONDS], REFERENCE_SECONDS))))
        if isinstance(reply, Finding):
            raise GraderError(f"the reference solution of {task.id} fails: {reply.reason}")
        return reply.value


class _Run:
    """The runs of one program, one or two."""

    def __init__(self, grader: CodeGrader, task: Task, code: str) -> None:
        self.grader, self.task, self.code = grader, task, code
        self.mode: Mode = "none"
        self.runs = 0
        self._seconds = 0.0
        self._started: float | None = None

    def once(self) -> Finding:
        """Run it once; processes that do not start, a reference that fails and unreadable tests are grader failures."""
        self.runs += 1
        self._started = None
        try:
            if isinstance(self.task, FunctionTask):
                return self._function(self.task)
            if isinstance(self.task, OutputTask):
                return self._output(self.task)
            return self._asserts(self.task)
        except GraderError as error:
            return Finding("grader_failure", str(error))
        finally:
            if self._started is not None:
                self._seconds += time.perf_counter() - self._started

    def verdict(self, finding: Finding) -> CodeVerdict:
        """Return the verdict on the last run."""
        base = None
        if isinstance(self.task, FunctionTask) and finding.outcome != "grader_failure":
            base = finding.passed >= len(self.task.base_input)
        return CodeVerdict(finding.outcome, finding.reason, self._seconds, self.mode, base, self.runs > 1)

    def _take(self, mode: str) -> Sandbox:
        """Take a process; its start is not part of the seconds."""
        before = time.perf_counter()
        sandbox = self.grader.take(mode)
        now = time.perf_counter()
        self._started = now if self._started is None else self._started + now - before
        return sandbox

    def _function(self, task: FunctionTask) -> Finding:
        self.mode = "calls"
        reference = self.grader.reference(task)
        limits = [max(self.grader.time_limit_seconds, REFERENCE_FACTOR * answer.seconds)
                  for answer in reference.answers]
        inputs = [*task.base_input, *task.plus_input]
        comparisons = FunctionComparison(task), FunctionComparison(task)

        def right(place: int, answer: Answer) -> bool:
            comparison, expected = comparisons[place >= reference.base], reference.answers[place]
            if answer.digest is not None and answer.digest == expected.digest:
                comparison.saw_equal(floats=expected.floats)
                return True
            value = expected.value if expected.digest is None else self.grader.reference_value(task, place)
            return comparison.same(inputs[place], answer.value, value)
        request: dict[str, Any] = {"mode": "calls", "code": self.code, "entry": task.entry_point, "digests": True,
                                   "inputs": reference.inputs, "flush_before": reference.pauses}
        most = max(TOTAL_SECONDS, 2 * sum(answer.seconds for answer in reference.answers))
        replies = answers(self._take("calls"), request, limits, min(most, sum(limits)) + 1,
                          [LONGEST_PROGRAM if answer.digest else answer.size for answer in reference.answers],
                          lambda place, digest: digest == reference.answers[place].digest)
        return compare_answers(replies, len(inputs), right)

    def _output(self, task: OutputTask) -> Finding:
        limits = [self.grader.time_limit_seconds] * len(task.inputs)
        longest = max(map(len, task.outputs))
        request: dict[str, Any]
        if task.entry_point is None:
            self.mode = "script"
            request = {"mode": "stdin", "code": self.code, "inputs": list(task.inputs),
                       "output_bytes": (1 << 20) + 4 * longest}
        else:
            self.mode = "calls"
            inputs = encoded_inputs([_arguments(text) for text in task.inputs])
            request = {"mode": "calls", "code": f"{JUDGE_PRELUDE}\n{self.code}", "entry": task.entry_point,
                       "inputs": inputs}
        same = same_text if task.entry_point is None else same_value
        replies = answers(self._take(request["mode"]), request, limits, min(TOTAL_SECONDS, sum(limits)) + 1,
                          [(1 << 20) + 4 * longest] * len(limits))
        return compare_answers(replies, len(limits), lambda place, answer: same(answer.value, task.outputs[place]))

    def _asserts(self, task: AssertTask) -> Finding:
        seconds = max(self.grader.time_limit_seconds, task.seconds)
        if not task.together:
            try:
                self.mode = "split"
                return run_split(self._take, self.code, task.tests, task.entry_point, seconds)
            except Unsplittable:
                pass
        self.mode = "together"
        return run_together(self._take("together"), self.code, task.tests, task.entry_point, seconds)


def _arguments(text: str) -> list[Any]:
    """The arguments of a LiveCodeBench function test: one JSON value a line."""
    import json
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def absent_packages(task: Task) -> list[str]:
    """Return the packages that a task says it needs and that are not installed here."""
    if not isinstance(task, AssertTask):
        return []
    return [name for name in task.modules
            if name not in sys.stdlib_module_names and importlib.util.find_spec(name.partition(".")[0]) is None]
