"""Many steps on N GPUs: greedy list scheduling, as discrete events.

GPUs stand in nodes of eight; a step takes all of its GPUs in one node. Whenever GPUs are free, the ready step that the
longest chain of work waits for is started, the next one if it does not fit. Steps without GPUs are never held up.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from foundation.errors import InputError
from foundation.seeds import stream
from replication.cost.step_costs import StepCost
from replication.steps import Step, closure

NODE = 8
"""GPUs of a node."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """What a simulated run came to, in seconds."""

    gpus: int
    makespan: float
    critical_path: float
    """Of the drawn durations: no number of GPUs is faster."""
    busy: float
    """GPU-seconds of work."""
    starts: Mapping[str, float]
    """By the key of the step."""

    @property
    def utilisation(self) -> float:
        """The part of the GPUs' time that was work; 1 where nothing took time."""
        return self.busy / (self.gpus * self.makespan) if self.makespan and self.busy else 1.0


def simulate(targets: Iterable[Step], gpus: int, cost: Callable[[Step], StepCost], *, spread: float = 0.0,
             seed: int = 0, done: Callable[[Step], bool] = lambda step: False) -> Schedule:
    """Run the targets and all they need, each step once, on paper.

    Args:
        targets: of any tables and models.
        gpus: that there are.
        cost: of a step.
        spread: standard deviation of the logarithm of each step's duration around the model's; 0: exactly the model's.
        seed: of the durations; a step's draw depends on its own key and this alone.
        done: steps that are there already.

    Raises:
        InputError: fewer than one GPU, a negative spread, or a step that needs more GPUs than a node has.
    """
    if gpus < 1:
        raise InputError(f"{gpus} GPUs; there must be at least 1")
    if not 0 <= spread < math.inf:
        raise InputError(f"a spread of {spread}; it must be 0 or more")
    steps = [step for step in closure(targets) if not done(step)]
    costs = {step.key: cost(step) for step in steps}
    widest = min(NODE, gpus)
    for step in steps:
        if costs[step.key].gpus > widest:
            raise InputError(f"{step.label} needs {costs[step.key].gpus} GPUs in one node, and there are {widest}; "
                             "give the cost model fewer GPUs per training")
    seconds = {key: own.seconds * _factor(key, spread, seed) for key, own in costs.items()}
    held = {key: own.gpus for key, own in costs.items()}
    return _Simulation(steps, seconds, held, gpus).run()


def _factor(key: str, spread: float, seed: int) -> float:
    return math.exp(stream("simulated-duration", seed, key).normal(0.0, spread)) if spread else 1.0


class _Simulation:
    """Time, free GPUs, and what is ready."""

    def __init__(self, steps: list[Step], seconds: dict[str, float], held: dict[str, int], gpus: int) -> None:
        self.steps = {step.key: step for step in steps}
        self.seconds, self.held, self.gpus = seconds, held, gpus
        self.waits_for = {key: {p.key for p in step.parents.values() if p.key in self.steps}
                          for key, step in self.steps.items()}
        self.children: dict[str, list[str]] = {key: [] for key in self.steps}
        for key, parents in self.waits_for.items():
            for parent in parents:
                self.children[parent].append(key)
        self.chain = self._chains(steps)
        self.free = [min(NODE, gpus - first) for first in range(0, gpus, NODE)]
        self.running: list[tuple[float, str, int | None]] = []
        self.starts: dict[str, float] = {}

    def _chains(self, steps: list[Step]) -> dict[str, float]:
        """Return the seconds of the longest chain that begins with each step."""
        chain: dict[str, float] = {}
        for step in reversed(steps):
            chain[step.key] = self.seconds[step.key] + max((chain[c] for c in self.children[step.key]), default=0.0)
        return chain

    def run(self) -> Schedule:
        ready = [(-self.chain[key], key) for key, parents in self.waits_for.items() if not parents]
        heapq.heapify(ready)
        now = 0.0
        while ready or self.running:
            ready = self._start(ready, now)
            now, key, node = heapq.heappop(self.running)
            if node is not None:
                self.free[node] += self.held[key]
            for child in self.children[key]:
                self.waits_for[child].discard(key)
                if not self.waits_for[child]:
                    heapq.heappush(ready, (-self.chain[child], child))
        busy = sum(self.held[key] * self.seconds[key] for key in self.steps)
        return Schedule(gpus=self.gpus, makespan=now, critical_path=max(self.chain.values(), default=0.0), busy=busy,
                        starts=self.starts)

    def _start(self, ready: list[tuple[float, str]], now: float) -> list[tuple[float, str]]:
        """Start what fits, most urgent first; return what does not."""
        left = []
        while ready:
            priority, key = heapq.heappop(ready)
            node = self._fullest_node(self.held[key]) if self.held[key] else None
            if self.held[key] and node is None:
                left.append((priority, key))
                continue
            if node is not None:
                self.free[node] -= self.held[key]
            self.starts[key] = now
            heapq.heappush(self.running, (now + self.seconds[key], key, node))
        return left  # popped in order: already a heap

    def _fullest_node(self, gpus: int) -> int | None:
        """Return the node with the fewest free GPUs among those that have enough, so that whole nodes stay free."""
        fitting = [(free, node) for node, free in enumerate(self.free) if free >= gpus]
        return min(fitting)[1] if fitting else None


def by_checkpoint(targets: Iterable[Step]) -> list[list[Step]]:
    """Group targets by the checkpoint they look at: what would be run together if nothing were shared.

    The nearest ancestor (or the target itself) that leaves a checkpoint decides.
    """
    groups: dict[str, list[Step]] = {}
    for target in targets:
        groups.setdefault(_nearest_checkpoint(target), []).append(target)
    return list(groups.values())


def _nearest_checkpoint(target: Step) -> str:
    level = [target]
    while level:
        for step in level:
            if step.kind in ("pretrain", "fetch", "train", "train-pairs", "snapshot"):
                return step.key
        level = [parent for step in level for parent in step.parents.values()]
    return target.key


def gpu_hours(targets: Iterable[Step], cost: Callable[[Step], StepCost], *, shared: bool = True) -> float:
    """Return the GPU-hours of the targets, each step once, or once for each checkpoint that is looked at."""
    groups = [list(targets)] if shared else by_checkpoint(targets)
    return sum(cost(step).gpu_hours for group in groups for step in closure(group))
