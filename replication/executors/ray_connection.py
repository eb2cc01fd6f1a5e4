"""The way into a Ray cluster, with every obstacle told within seconds: no Ray, a wrong address, unfit nodes."""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from foundation.errors import InputError, PrerequisiteError
from replication.executors.identity import code_identity, differences
from replication.placement import Node
from replication.store import Store

HOW = "python -m pip install -c constraints.txt -e '.[ray]'"
REACH_SECONDS = 5.0
ANSWER_SECONDS = 25.0
LOOK_SECONDS = 90.0
CLOCK_SECONDS = 2.0
_TRY = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False, logging_level=40)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Looked:
    """What the nodes said."""

    fit: tuple[str, ...]
    """Ids of nodes that steps may run on."""
    wrong: tuple[str, ...]
    """Why others are not."""
    locks: bool
    """Whether file locks of the store exclude across all of them."""
    remarks: tuple[str, ...] = field(default=())


def require_ray() -> None:
    """Check that Ray is installed.

    Raises:
        PrerequisiteError: it is not; the message says how to get it.
    """
    if importlib.util.find_spec("ray") is None:
        raise PrerequisiteError(f"--executor ray needs the package ray, which is not installed; on every node: {HOW}")


def check_form(address: str) -> tuple[str, int] | None:
    """Return host and port of an address, None for `auto`.

    Raises:
        InputError: neither `auto` nor `host:port`.
    """
    if address == "auto":
        return None
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 65536) or "/" in host:
        raise InputError(f"--address {address!r} is neither auto nor host:port, such as 10.0.0.1:6379 (what "
                         "`ray start --head` prints; the ray:// client is not meant, run this command on a node)")
    return host.strip("[]"), int(port)


def check_address(address: str) -> None:
    """Refuse an address that nothing listens at, before Ray is asked, which waits for 40 seconds.

    Raises:
        InputError: not of the right form.
        PrerequisiteError: nothing listens there.
    """
    place = check_form(address)
    if place is None:
        return
    try:
        socket.create_connection(place, timeout=REACH_SECONDS).close()
    except OSError as error:
        raise PrerequisiteError(f"nothing answers at --address {address} ({error}); start the cluster with "
                                f"`ray start --head --port {place[1]}` there, or correct the address") from error


def connect(address: str, environment: Mapping[str, str]) -> None:
    """Join the cluster as its driver; workers get the environment before they import anything.

    Raises:
        InputError, PrerequisiteError: no Ray, or no cluster that can be joined from here.
    """
    require_ray()
    check_address(address)
    _try_to_join(address)
    import ray

    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR,
             runtime_env={"env_vars": dict(environment)})


def _try_to_join(address: str) -> None:
    """Join in a process that can be ended: against a wrong address Ray waits long and then takes its process down."""
    try:
        done = subprocess.run([sys.executable, "-c", _TRY, address], capture_output=True, text=True,
                              timeout=ANSWER_SECONDS, env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"})
    except subprocess.TimeoutExpired as error:
        raise PrerequisiteError(f"no Ray cluster answered at --address {address} within {ANSWER_SECONDS:.0f} s: what "
                                "listens there is something else, or a cluster that has ended; start one with "
                                "`ray start --head`, or correct the address") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise PrerequisiteError(f"cannot join a Ray cluster at --address {address}: {lines[-1] if lines else 'no word'}"
                                "; run this command on a node of the cluster (`ray start --address HOST:PORT` makes "
                                "this machine one), with the same versions of Python and ray")


def alive_nodes() -> dict[str, Node]:
    """Return what the living nodes of the cluster have, by id; devices are numbered, which they are is Ray's word."""
    import ray

    found = {}
    for entry in ray.nodes():
        if entry["Alive"]:
            has = entry["Resources"]
            gpus = tuple(str(i) for i in range(int(has.get("GPU", 0))))
            found[entry["NodeID"]] = Node(name=entry["NodeID"], gpus=gpus, cores=has.get("CPU", 0.0),
                                          memory_gib=has.get("memory", 0.0) / 2**30)
    return found


def look_at(nodes: Mapping[str, Node], store: Store, paths: Sequence[str], modules: Sequence[str] = ()) -> Looked:
    """Ask nodes whether they see the store and the data, feel its locks, and have the same code and packages.

    Nodes with GPUs must have `modules`. A node that vanishes meanwhile is left out.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    identity, here, began = store.identity(), code_identity(), time.time()
    ask = ray.remote(num_cpus=0, max_retries=0)(_by_value())
    with store.exclusively(".nodes"):
        asked = {ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            str(store.root), identity, list(paths), list(modules) if nodes[node].gpus else []): node for node in nodes}
        answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=LOOK_SECONDS)
        answers = {asked[ref]: _answer(ref) for ref in answered}
    wrong = [f"node {asked[ref]} did not answer within {LOOK_SECONDS:.0f} s" for ref in silent]
    fit, remarks, locks = [], [], True
    for node, answer in answers.items():
        if answer is None:
            continue
        faults = list(answer["wrong"])
        if other := differences(here, answer.get("code", here)):
            faults.append(f"node {answer['host']} has other code or packages: {'; '.join(other)}; install the same "
                          "there (the same commit, constraints.txt)")
        if not faults:
            fit.append(node)
            locks = locks and answer["locks"]
            remarks += _clock(answer, began)
        wrong += faults
    return Looked(fit=tuple(fit), wrong=tuple(wrong), locks=locks, remarks=tuple(remarks))


def _clock(answer: Mapping[str, Any], began: float) -> list[str]:
    off = max(began - answer["time"], answer["time"] - time.time())
    return [f"the clock of node {answer['host']} differs by at least {off:.0f} s; times in manifests are its own, "
            "nothing depends on them"] if off > CLOCK_SECONDS else []


def _answer(ref: Any) -> dict[str, Any] | None:
    """Return a node's answer, None if the node is gone."""
    import ray

    try:
        found: dict[str, Any] = ray.get(ref)
        return found
    except (ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError, ray.exceptions.WorkerCrashedError):
        return None


def _by_value() -> Any:
    """Return the function that nodes run; it travels by value, so that a node without the suite can say so."""

    def ask(root: str, identity: str, paths: list[str], modules: list[str]) -> dict[str, Any]:
        import pathlib
        import platform
        import sys

        host = platform.node()
        try:
            from replication.executors.ray_node import look
        except ImportError as error:
            return {"host": host, "wrong": [f"node {host} lacks the suite ({error}; Python there: {sys.executable}); "
                                            "install the same commit there"]}
        return {"host": host} | look(pathlib.Path(root), identity, paths, modules)

    return ask
