"""Steps on the nodes of a Ray cluster, over a store that is a shared folder.

This process is the only scheduler of its run: it chooses a node for each step (packed, none starved), Ray holds the
resources there and gives the devices. A step whose node vanished is handed back as lost and runs elsewhere. A step
whose worker process died on a node that lives failed by itself, which is not tried again.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from foundation.errors import ArtifactError, PrerequisiteError
from replication.backends import uses_vllm
from replication.display import console
from replication.executors.ray_connection import Looked, alive_nodes, connect, look_at
from replication.executors.ray_node import ProgressBox, run_step
from replication.layout import Processes, check_trainings, gpus_of_training, uses_deepspeed
from replication.needs import Needs, needs_of
from replication.placement import Node, Place, Placement
from replication.steps import Step
from replication.store import Store
from replication.worker import ENVIRONMENT, Assignment, Failed, Lost, Message, Progress

LOOK_EVERY_SECONDS = 5.0
VERDICT_SECONDS = 20.0
"""A node's death is known to Ray up to 15 seconds after that of a worker on it."""
HOPELESS_SECONDS = 120.0
"""How long to wait for a node that is large enough, once there is none."""
UNLOCKED_WAIT_SECONDS = 75.0
"""Where locks do not exclude across nodes: a worker that is cut off ends itself within 60 s (ray_node)."""


@dataclass(slots=True)
class _Running:
    step: Step
    needs: Needs
    place: Place


class RayExecutor:
    """Runs steps as Ray tasks, each on a node chosen here."""

    def __init__(self, store: Store, steps: Sequence[Step], address: str, *, gpus_per_training: int | None = None,
                 processes: int = 1, paths: Sequence[str] = (), needs: Callable[[Step], Needs] | None = None) -> None:
        """Join the cluster, look at its nodes, and refuse what cannot work before anything starts.

        Args:
            store: a folder that all nodes share.
            steps: that are to run.
            address: `auto` or `host:port`.
            gpus_per_training: default: those of the largest node, up to eight.
            processes: that share a training of a model that needs no GPU.
            paths: of data that nodes must see.
            needs: of a step (default: `needs_of`).

        Raises:
            InputError, PrerequisiteError: no cluster there, or nodes that are not fit.
        """
        self.store, self.paths = store, paths
        connect(address, ENVIRONMENT)
        self.running: dict[Any, _Running] = {}
        self.suspects: list[tuple[float, _Running, str]] = []
        self.not_before: dict[str, float] = {}
        self.gone: set[str] = set()
        self.hopeless_since: dict[str, float] = {}
        self.placement = Placement()
        try:
            nodes = alive_nodes()
            trained_on = gpus_per_training or gpus_of_training(None, max((len(n.gpus) for n in nodes.values()),
                                                                         default=0))
            self.needs = needs or (lambda step: needs_of(step, trained_on, processes))
            self.modules = modules_of(steps, lambda step: self.needs(step).processes)
            check_trainings(steps, lambda step: self.needs(step).processes)
            self.locks = True
            self._take_in(nodes, refuse=True)
            self._require_room(steps)
            self.box = self._box()
        except BaseException:
            self.close()
            raise
        self.width = self._width(steps)
        self.looked = time.monotonic()

    def _take_in(self, nodes: dict[str, Node], *, refuse: bool) -> None:
        """Look at nodes and use the fit ones; unfit ones stop the run at its begin, later they are left out, aloud."""
        found = look_at(nodes, self.store, self.paths, self.modules)
        if found.wrong and refuse:
            raise PrerequisiteError("; ".join(found.wrong))
        for name in found.fit:
            self.placement.add(nodes[name])
        self.gone |= set(nodes) - set(found.fit)
        self._say(found)

    def _say(self, found: Looked) -> None:
        for text in (*found.wrong, *found.remarks):
            console.print(text, highlight=False, markup=False, soft_wrap=True)
        if self.locks and not found.locks:
            console.print("file locks of the store do not exclude between nodes: start no second run on this store; "
                          "a step that is lost with its node waits before it runs again (docs/cluster.md)",
                          highlight=False, markup=False, soft_wrap=True)
        self.locks = self.locks and found.locks

    def _require_room(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if (why := self._too_large(step)) is not None:
                raise PrerequisiteError(why)

    def _too_large(self, step: Step) -> str | None:
        needs = self.needs(step)
        if self.placement.could_hold(needs):
            return None
        nodes = ", ".join(sorted(f"{len(free.node.gpus)} GPUs, {free.node.cores:g} cores, "
                                 f"{free.node.memory_gib:.0f} GiB" for free in self.placement.free.values()))
        return (f"{step.label} needs {needs.gpus} GPUs, {needs.cores} cores and {needs.memory_gib:.1f} GiB on one "
                f"node; the nodes of the cluster have: {nodes or 'nothing'}. --train-processes N asks for fewer GPUs")

    def _width(self, steps: Sequence[Step]) -> int:
        """Return how many of the steps with the commonest needs run at a time, at least one."""
        most = max((self.needs(step) for step in steps), key=lambda needs: (needs.gpus, needs.cores))
        fitting = sum(min(len(free.node.gpus) // most.gpus if most.gpus else free.node.cores // most.cores,
                          free.node.cores // most.cores) for free in self.placement.free.values())
        return max(1, min(int(fitting), len(steps)))

    def _box(self) -> Any:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        return ray.remote(num_cpus=0, max_restarts=-1)(ProgressBox).options(scheduling_strategy=here).remote()

    def start(self, ready: Sequence[Step]) -> list[Step]:
        """Hand steps to Ray, each for the node that was chosen for it."""
        now = time.monotonic()
        due = [step for step in ready if self.not_before.get(step.key, now) <= now]
        needs = [self.needs(step) for step in due]
        started = []
        for step, need, place in zip(due, needs, self.placement.place(needs), strict=True):
            if place is not None:
                self.running[self._submit(step, need, place)] = _Running(step, need, place)
                started.append(step)
        return started

    def _submit(self, step: Step, needs: Needs, place: Place) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        devices = {"WMSS_DEVICES": str(needs.gpus)}  # a worker that saw no GPU is not used again for a step with one
        task = remote_step(needs).options(
            name=step.label, num_cpus=needs.cores, num_gpus=needs.gpus, memory=int(needs.memory_gib * 2**30),
            scheduling_strategy=NodeAffinitySchedulingStrategy(place.node, soft=False),
            runtime_env={"env_vars": ENVIRONMENT | devices})
        return task.remote(Assignment(step, place.gpus, needs.processes), self.store.root, self.store.identity(),
                           self.box, sys.argv, os.getcwd())

    def events(self, seconds: float) -> Iterator[tuple[Step, Message]]:
        """Return what running steps told, which of them ended, and which were lost."""
        import ray

        ended: list[Any] = []
        if self.running:
            ended, _ = ray.wait(list(self.running), num_returns=1, timeout=seconds)
        elif not self.suspects:
            time.sleep(seconds)
        self._look_again()
        yield from self._progress()
        for ref in ended:
            run = self.running.pop(ref)
            message = self._outcome(ref, run)
            self.placement.give_back(run.needs, run.place)
            if message is not None:
                yield run.step, message
        yield from self._judge_suspects()

    def _progress(self) -> Iterator[tuple[Step, Message]]:
        import ray

        steps = {run.step.key: run.step for run in self.running.values()}
        try:
            said = ray.get(self.box.drain.remote(), timeout=LOOK_EVERY_SECONDS)
        except ray.exceptions.RayError:  # only progress is lost with the box
            return
        for key, (fraction, waiting) in said.items():
            if key in steps:
                yield steps[key], Progress(key, fraction, waiting)

    def _outcome(self, ref: Any, run: _Running) -> Message | None:
        """Return how a step ended; None while it is open whether its worker died alone or with its node."""
        import ray

        errors = ray.exceptions
        key = run.step.key
        try:
            message: Message = ray.get(ref)
        except (errors.NodeDiedError, errors.TaskUnschedulableError, errors.RuntimeEnvSetupError,
                errors.LocalRayletDiedError) as error:
            return self._lost(run, type(error).__name__)
        except errors.OutOfMemoryError:
            return Failed(key, f"Ray ended it because the memory of {self._node(run)} ran out; run again to go on from "
                          "here, with fewer steps on a node (ray start --num-cpus)", 1, None)
        except errors.WorkerCrashedError:
            self.suspects.append((time.monotonic() + VERDICT_SECONDS, run, self._node(run)))
            return None
        except errors.RayError as error:
            return Failed(key, f"Ray could not run it: {type(error).__name__}: {error}", 1, str(error))
        return self._seen_here(run, message)

    def _seen_here(self, run: _Running, message: Message) -> Message:
        if isinstance(message, Failed):
            return message
        try:
            self.store.await_visible([run.step])
        except ArtifactError as error:
            return Failed(run.step.key, str(error), error.exit_code, None)
        return message

    def _lost(self, run: _Running, what: str) -> Lost:
        reason = f"{self._node(run)} was lost ({what})"
        self._forget(run.place.node)
        if not self.locks:
            self.not_before[run.step.key] = time.monotonic() + UNLOCKED_WAIT_SECONDS
        return Lost(run.step.key, reason)

    def _node(self, run: _Running) -> str:
        import ray

        hosts = {entry["NodeID"]: entry["NodeManagerHostname"] for entry in ray.nodes()}
        return f"node {hosts.get(run.place.node, 'unknown')} ({run.place.node[:8]})"

    def _forget(self, node: str) -> None:
        """A node that was lost is not used again; when it comes back, it has another id."""
        self.placement.drop(node)
        self.gone.add(node)

    def _judge_suspects(self) -> Iterator[tuple[Step, Message]]:
        """A worker died: with its node the step is lost, alone it failed."""
        for suspect in list(self.suspects):
            until, run, node = suspect
            if run.place.node in self.gone:
                message: Message = self._lost(run, "its worker died first")
            elif time.monotonic() > until:
                message = Failed(run.step.key, f"its worker process on {node} died (out of memory?); run again to go "
                                 "on from here", 1, None)
            else:
                continue
            self.suspects.remove(suspect)
            yield run.step, message
        if self.suspects and not self.running:
            time.sleep(0.5)

    def _look_again(self) -> None:
        """Now and then: leave out nodes that died, take in new ones."""
        if time.monotonic() - self.looked < LOOK_EVERY_SECONDS:
            return
        self.looked = time.monotonic()
        alive = alive_nodes()
        for name in [name for name in self.placement.free if name not in alive]:
            self._forget(name)
        new = {name: node for name, node in alive.items() if name not in self.placement.free and name not in self.gone}
        if new:
            self._take_in(new, refuse=False)

    def hopeless(self, step: Step) -> str | None:
        """Say so when, for a while, no node has been large enough."""
        why = self._too_large(step)
        if why is None:
            self.hopeless_since.pop(step.key, None)
            return None
        since = self.hopeless_since.setdefault(step.key, time.monotonic())
        return f"{why} (nodes were lost)" if time.monotonic() - since > HOPELESS_SECONDS else None

    def close(self) -> None:
        """Leave the cluster; Ray ends the workers of a driver that has left, at once."""
        import ray

        for ref in self.running:
            ray.cancel(ref, force=True)
        ray.shutdown()


def modules_of(steps: Sequence[Step], processes: Processes) -> list[str]:
    """Return what nodes with GPUs must have installed for these steps."""
    return [*(["vllm"] if any(map(uses_vllm, steps)) else []),
            *(["deepspeed"] if uses_deepspeed(steps, processes) else [])]


def remote_step(needs: Needs) -> Any:
    """Return the task that runs a step; a worker that computed on GPUs ends with it.

    Ray sees to that by itself only where `ray.remote` is told of the GPUs, not its options: the worker would keep
    their memory and the devices that it saw, and be used again for others.
    """
    import ray

    return ray.remote(max_retries=0, max_calls=1 if needs.gpus else 0)(run_step)


def on_cluster(store: Store, address: str, *, gpus_per_training: int | None = None, processes: int = 1,
               paths: Sequence[str] = ()) -> Callable[[Sequence[Step]], RayExecutor]:
    """Return what opens this executor for the steps of a run."""
    return lambda steps: RayExecutor(store, steps, address, gpus_per_training=gpus_per_training, processes=processes,
                                     paths=paths)
