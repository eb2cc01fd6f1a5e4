"""A Ray cluster of real raylets on this machine: nodes that are killed, that see another file system, other code."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
from conftest import ROOT

SMALL = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
# a token that an earlier Ray left in the home folder would be asked for by some processes and not given by others
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled",
               "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))}


class Nodes:
    """A head node, and whatever is added; all ends with `close`."""

    def __init__(self):
        from ray.cluster_utils import Cluster

        os.environ.update(ENVIRONMENT)
        self.cluster = Cluster(initialize_head=True, head_node_args=SMALL | {"include_dashboard": False})
        self.address = self.cluster.address
        self.others = []

    def add(self, **has):
        """Add a node; return its raylet. GPUs may be claimed that are not there: Ray names them all the same."""
        node = self.cluster.add_node(**(SMALL | has))
        return psutil.Process(node.all_processes["raylet"][0].process.pid)

    def add_apart(self, name, before="true", **environment):
        """Add a node with a mount namespace and a host name of its own; `before` is a shell command run in there."""
        start = " ".join([sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={self.address}", "--block",
                          "--num-cpus=1", f"--object-store-memory={100 * 2**20}"])
        script = f"hostname {name} && {before} && exec {start}"
        process = subprocess.Popen(["unshare", "--mount", "--uts", "--propagation", "private", "sh", "-c", script],
                                   env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.others.append(process)
        until(lambda: self.alive() >= 1 + len(self.others))
        return process

    def alive(self):
        """Count the living nodes."""
        return sum(node["Alive"] for node in self.cluster.global_state.node_table())

    def close(self):
        """End all nodes."""
        for process in self.others:
            kill(process.pid)
        with contextlib.suppress(Exception):
            self.cluster.shutdown()


def kill(pid, *, workers=True):
    """Kill a raylet, with or without what it started; return its worker processes."""
    try:
        process = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return []
    children = process.children(recursive=True)
    steps = [child for child in children if " ".join(child.cmdline()).startswith(("ray::write", "ray::run_step"))]
    for one in [process, *(children if workers else [])]:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    return steps


def lives(process):
    """Say whether a process still runs."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


def can_unshare():
    """Say whether namespaces and mounts are allowed here."""
    return Path("/usr/bin/unshare").exists() and not subprocess.run(
        ["unshare", "--mount", "--uts", "--propagation", "private", "true"], capture_output=True).returncode
