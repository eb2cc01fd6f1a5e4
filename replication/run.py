"""Runs the steps that a table needs; the only orchestrator. Who runs them is behind `replication.executors`.

What is done is left alone, what is shared runs once, what fails takes only its descendants with it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from replication.cost.step_costs import GPUS_PER_TRAINING
from replication.display import Display, display
from replication.executors import Executor, OpenExecutor
from replication.executors.local import local
from replication.expected import with_expected_seconds
from replication.steps import Step, closure
from replication.store import Store
from replication.worker import Done, Failed, Lost, Message, Progress

WHICH_FAILED = "which failed: "
"""Stands in the reason of a step that was not run, before the reason of the one it needs."""
MOST_LOSSES = 3
"""Nodes that a step may be lost with before it counts as failed."""


@dataclass(slots=True)
class RunReport:
    """What a run did: steps found done, steps run, and why the failed ones failed."""

    done_before: int = 0
    ran: list[Step] = field(default_factory=list)
    failed: dict[str, Failed] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0, or the worst exit code of a failed step."""
        codes = {failure.exit_code for failure in self.failed.values()}
        return 0 if not codes else 1 if 1 in codes else max(codes)


def missing_steps(targets: Iterable[Step], store: Store) -> list[Step]:
    """Return the steps still to run for the targets, parents first: what a finished step came from is not needed."""
    needed: dict[str, Step] = {}
    found: set[str] = set()

    def visit(step: Step) -> None:
        if step.key in needed or step.key in found:
            return
        if store.is_whole(step):
            found.add(step.key)
            return
        for parent in step.parents.values():
            visit(parent)
        needed[step.key] = step

    for target in targets:
        if not store.is_done(target):  # of a target it is enough to be read; what others start from must be whole
            visit(target)
    return list(needed.values())


def run_steps(targets: Sequence[Step], store: Store, *, jobs: int, open_executor: OpenExecutor | None = None,
              gpus_per_training: int = GPUS_PER_TRAINING) -> RunReport:
    """Bring every target into the store.

    Args:
        targets: the steps wanted; what they need is found from them.
        store: where results live.
        jobs: worker processes, where they run on this machine.
        open_executor: opens what runs the steps (default: worker processes on this machine); asked for only if there
            is something to run.
        gpus_per_training: as far as expected durations depend on it.

    Returns:
        The report; failed steps and their descendants are in `failed`, never raised.
    """
    started = time.monotonic()
    pending = with_expected_seconds(missing_steps(targets, store), gpus_per_training)
    report = RunReport(done_before=len(closure(targets)) - len(pending))
    if pending:
        executor = (open_executor or local(store, jobs))(pending)
        try:
            with display(pending, report.done_before, executor.width) as shown:
                _Scheduler(pending, store, executor, report, shown).run()
        finally:
            executor.close()
    report.seconds = time.monotonic() - started
    return report


class _Scheduler:
    """Hands ready steps to the executor, longest remaining chain first."""

    def __init__(self, pending: list[Step], store: Store, executor: Executor, report: RunReport, shown: Display
                 ) -> None:
        self.pending = {step.key: step for step in pending}
        self.running: dict[str, Step] = {}
        self.lost: Counter[str] = Counter()
        self.store, self.executor, self.report, self.shown = store, executor, report, shown
        self.priority = _chain_seconds(pending)

    def run(self) -> None:
        while self.pending or self.running:
            self._assign()
            for step, message in self.executor.events(1.0):
                self._handle(step, message)
            self.shown.tick()

    def _assign(self) -> None:
        blocked = set(self.pending) | set(self.running)
        ready = [step for step in self.pending.values()
                 if not any(parent.key in blocked for parent in step.parents.values())]
        ready.sort(key=lambda step: -self.priority[step.key])
        for step in self.executor.start(ready):
            del self.pending[step.key]
            self.running[step.key] = step
            self.shown.start(step)
        for step in ready:
            if step.key in self.pending and (why := self.executor.hopeless(step)) is not None:
                del self.pending[step.key]
                self._fail(step, Failed(step.key, why, 2, None))

    def _handle(self, step: Step, message: Message) -> None:
        if isinstance(message, Progress):
            self.shown.progress(step, message.fraction, message.waiting)
            return
        del self.running[step.key]
        if isinstance(message, Done):
            if message.ran:
                self.report.ran.append(step)
            self.shown.finish(step, message.seconds)
        elif isinstance(message, Lost):
            self._again(step, message)
        else:
            self._fail(step, message)

    def _again(self, step: Step, message: Lost) -> None:
        """Let a step that vanished with its node run elsewhere; it may be what takes nodes down, so not for ever."""
        self.lost[step.key] += 1
        if self.lost[step.key] > MOST_LOSSES:
            self._fail(step, Failed(step.key, f"{message.reason}; that was loss {self.lost[step.key]} of this step, so "
                                    "it may be what takes the nodes down; run again to go on from here", 1, None))
            return
        self.pending[step.key] = step
        self.shown.again(step, message.reason)

    def _fail(self, step: Step, failure: Failed) -> None:
        self.report.failed[step.key] = failure
        self.store.record_failure(step, failure.reason)
        self.shown.fail(step, failure)
        for other in list(self.pending.values()):
            if any(parent.key in self.report.failed for parent in other.parents.values()):
                reason = f"needs {step.id} ({step.label}), {WHICH_FAILED}{failure.reason}"
                self.report.failed[other.key] = Failed(other.key, reason, failure.exit_code, None)
                self.shown.estimate.finished(other, 0.0)
                del self.pending[other.key]


def _chain_seconds(steps: list[Step]) -> dict[str, float]:
    """Return for each step the expected seconds of the longest chain that begins with it."""
    longest = {step.key: 0.0 for step in steps}
    for step in reversed(steps):
        own = step.hint_seconds + 0.01 + longest[step.key]
        longest[step.key] = own
        for parent in step.parents.values():
            if parent.key in longest:
                longest[parent.key] = max(longest[parent.key], own)
    return longest
