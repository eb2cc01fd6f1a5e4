"""Which step runs on which node and GPUs: packed, urgent steps first, none starved. Pure; who runs them is elsewhere.

Steps come in order of urgency. What fits is placed: GPU steps on the node with the fewest free GPUs that suffice, so
that whole nodes stay free for trainings, the rest where most cores are free. The first steps that do not fit each hold
one node back: what comes after them may only use what they would leave over, so that a stream of one-GPU steps cannot
keep an eight-GPU training waiting for ever. Equal calls give equal places.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from replication.needs import Needs

_ROUNDING = 1e-6
"""GiB that taking and giving back may lose."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """What a machine has for steps."""

    name: str
    gpus: tuple[str, ...] = ()
    """Device names, as CUDA_VISIBLE_DEVICES takes them."""
    cores: float = math.inf
    memory_gib: float = math.inf
    slots: float = math.inf
    """Steps at a time."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a step runs: the node's name, and the devices that are its own meanwhile."""

    node: str
    gpus: tuple[str, ...] = ()


@dataclass(slots=True)
class _Free:
    node: Node
    gpus: list[str]
    cores: float
    memory_gib: float
    slots: float


class Placement:
    """Keeps what is free on each node."""

    def __init__(self, nodes: Iterable[Node] = ()) -> None:
        self.free: dict[str, _Free] = {}
        for node in nodes:
            self.add(node)

    def add(self, node: Node) -> None:
        """Take a node into use, with everything on it free."""
        self.free[node.name] = _Free(node, list(node.gpus), node.cores, node.memory_gib, node.slots)

    def drop(self, name: str) -> None:
        """Use a node no more; what is given back to it later is forgotten."""
        self.free.pop(name, None)

    def could_hold(self, needs: Needs) -> bool:
        """Say whether a node is large enough, were it free."""
        return any(_within(needs, _whole(free.node)) for free in self.free.values())

    def place(self, wanted: Sequence[Needs]) -> list[Place | None]:
        """Take what fits, most urgent first; None for a step that has to wait."""
        held_back: dict[str, Needs] = {}
        places: list[Place | None] = []
        for needs in wanted:
            free = self._best(needs, held_back)
            if free is None:
                self._hold_back(needs, held_back)
            places.append(None if free is None else _take(free, needs))
        return places

    def give_back(self, needs: Needs, place: Place) -> None:
        """Free what a step held."""
        free = self.free.get(place.node)
        if free is None:
            return
        free.gpus = [name for name in free.node.gpus if name in free.gpus or name in place.gpus]
        free.cores += needs.cores
        free.memory_gib += needs.memory_gib
        free.slots += 1

    def _best(self, needs: Needs, held_back: dict[str, Needs]) -> _Free | None:
        fitting = [free for name, free in self.free.items() if _within(needs, free, held_back.get(name))]
        if needs.gpus:
            return min(fitting, key=lambda free: len(free.gpus), default=None)
        return max(fitting, key=lambda free: free.cores, default=None)

    def _hold_back(self, needs: Needs, held_back: dict[str, Needs]) -> None:
        """Keep for a waiting step the node where most is free already; one step a node."""
        able = [free for name, free in self.free.items() if name not in held_back and _within(needs, _whole(free.node))]
        if able:
            chosen = max(able, key=lambda free: (len(free.gpus), free.cores))
            held_back[chosen.node.name] = needs


def _whole(node: Node) -> _Free:
    return _Free(node, list(node.gpus), node.cores, node.memory_gib, node.slots)


def _within(needs: Needs, free: _Free, held: Needs | None = None) -> bool:
    """Say whether a step fits into what is free; of what is held back it may touch only what it does not need.

    Slots are not held back: whenever one is given back, the most urgent step is the first that is asked.
    """
    kept = held or Needs(gpus=0, cores=0, memory_gib=0.0)
    return (free.slots >= 1 and (not needs.gpus or needs.gpus <= len(free.gpus) - kept.gpus)
            and needs.cores <= free.cores - kept.cores
            and needs.memory_gib <= free.memory_gib - kept.memory_gib + _ROUNDING)


def _take(free: _Free, needs: Needs) -> Place:
    chosen = tuple(free.gpus[: needs.gpus])
    free.gpus = free.gpus[needs.gpus:]
    free.cores -= needs.cores
    free.memory_gib -= needs.memory_gib
    free.slots -= 1
    return Place(free.node.name, chosen)
