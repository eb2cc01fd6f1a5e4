"""What a person sees while steps run: what runs, what is left, an estimate. Plain lines when there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import TaskID as RichTask

from replication.steps import Step
from replication.worker import Failed

console = Console(stderr=True)
QUIET_SECONDS = 30


class Estimate:
    """Seconds left: the hints of what is left, scaled by how the finished steps compared with their hints.

    Two bounds hold at once: all the work spread over the workers, and the longest chain of steps that wait for
    each other.
    """

    def __init__(self, steps: list[Step], jobs: int) -> None:
        self.steps, self.jobs = {step.key: step for step in steps}, jobs
        self.fractions: dict[str, float] = {}
        self.expected_seconds = self.actual_seconds = 0.0

    def finished(self, step: Step, seconds: float) -> None:
        """Take a finished step out of what is left, and learn from its time."""
        self.steps.pop(step.key, None)
        if seconds > 0 and step.hint_seconds > 0:
            self.expected_seconds += step.hint_seconds
            self.actual_seconds += seconds

    def seconds_left(self) -> float | None:
        """Return the estimate, or None where the steps carry no hints."""
        chain: dict[str, float] = {}
        total = 0.0
        for key, step in self.steps.items():
            own = step.hint_seconds * (1 - self.fractions.get(key, 0.0))
            total += own
            chain[key] = own + max((chain.get(p.key, 0.0) for p in step.parents.values()), default=0.0)
        if total == 0:
            return None
        pace = (self.actual_seconds + 20) / (self.expected_seconds + 20)
        return pace * max(total / self.jobs, max(chain.values()))


class Display:
    """Plain lines: one when a step starts to matter, one when it ends."""

    def __init__(self, steps: list[Step], done_before: int, jobs: int) -> None:
        self.total, self.done = len(steps), 0
        self.estimate = Estimate(steps, jobs)
        self.running: dict[str, Step] = {}
        self.last_said = time.monotonic()
        console.print(f"{self.total} steps to run, {done_before} done before, {jobs} at a time"
                      f"{self._left(' - about ')}", highlight=False)

    def _left(self, prefix: str) -> str:
        seconds = self.estimate.seconds_left()
        return "" if seconds is None else f"{prefix}{clock(seconds)} left"

    def start(self, step: Step) -> None:
        """A step was handed to a worker."""
        self.running[step.key] = step

    def progress(self, step: Step, fraction: float, waiting: bool) -> None:
        """A running step told how far it is."""
        self.estimate.fractions[step.key] = fraction

    def finish(self, step: Step, seconds: float) -> None:
        """A step is in the store."""
        self.done += 1
        self.running.pop(step.key, None)
        self.estimate.finished(step, seconds)
        self.say(f"[{self.done}/{self.total}] {step.label}: {clock(seconds)}{self._left(', ')}")

    def fail(self, step: Step, failure: Failed) -> None:
        """A step failed."""
        self.running.pop(step.key, None)
        self.estimate.finished(step, 0.0)
        self.say(f"FAILED {step.label} ({step.id}): {failure.reason}")
        if failure.trace:
            self.say(failure.trace)

    def again(self, step: Step, reason: str) -> None:
        """A step was lost with its node and will run again."""
        self.running.pop(step.key, None)
        self.estimate.fractions.pop(step.key, None)
        self.say(f"LOST {step.label} ({step.id}): {reason}; it runs again")

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self.last_said = time.monotonic()
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    def tick(self) -> None:
        """Called about once a second: after half a minute of silence, say what runs."""
        if time.monotonic() - self.last_said > QUIET_SECONDS:
            fractions = self.estimate.fractions
            running = ", ".join(f"{step.label} {100 * fractions.get(key, 0):.0f} %" for key, step in
                                self.running.items())
            self.say(f"[{self.done}/{self.total}] running: {running}{self._left(', about ')}")


class LiveDisplay(Display):
    """A bar for each running step, and one line for the whole with what is left."""

    def __init__(self, steps: list[Step], done_before: int, jobs: int, bars: Progress) -> None:
        super().__init__(steps, done_before, jobs)
        self.bars = bars
        self.whole = bars.add_task("all steps", total=float(self.total), note="")
        self.tasks: dict[str, RichTask] = {}

    def start(self, step: Step) -> None:
        """Open a bar."""
        super().start(step)
        self.tasks[step.key] = self.bars.add_task(step.label, total=1.0, note="")

    def progress(self, step: Step, fraction: float, waiting: bool) -> None:
        """Move the bar."""
        super().progress(step, fraction, waiting)
        note = "waits for another process" if waiting else ""
        self.bars.update(self.tasks[step.key], completed=fraction, note=note)

    def finish(self, step: Step, seconds: float) -> None:
        """Close the bar and print the line."""
        self.bars.remove_task(self.tasks.pop(step.key))
        super().finish(step, seconds)

    def fail(self, step: Step, failure: Failed) -> None:
        """Close the bar and print the reason."""
        if step.key in self.tasks:
            self.bars.remove_task(self.tasks.pop(step.key))
        super().fail(step, failure)

    def again(self, step: Step, reason: str) -> None:
        """Close the bar and say so."""
        if step.key in self.tasks:
            self.bars.remove_task(self.tasks.pop(step.key))
        super().again(step, reason)

    def tick(self) -> None:
        """Move the whole."""
        self.bars.update(self.whole, completed=float(self.done), note=self._left("about "))


@contextmanager
def display(steps: list[Step], done_before: int, jobs: int) -> Iterator[Display]:
    """Yield the display that suits where standard error goes."""
    if not (sys.stderr.isatty() and console.is_terminal):
        yield Display(steps, done_before, jobs)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
               TimeElapsedColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=console, transient=True) as bars:
        yield LiveDisplay(steps, done_before, jobs, bars)


def clock(seconds: float) -> str:
    """Return a duration as a person reads it: 4 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
