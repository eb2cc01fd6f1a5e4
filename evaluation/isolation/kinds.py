"""The kinds of isolation there are, and the choice among them: bubblewrap, else namespaces, else refusal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import lru_cache

from evaluation.isolation import bubblewrap, namespaces
from evaluation.isolation.cgroups import Group, make_group
from evaluation.isolation.limits import Limits
from evaluation.isolation.sandbox import Sandbox
from evaluation.isolation.view import ENVIRONMENT, HARNESS, START, START_FOLDER, View, interpreter_view
from foundation.errors import GraderError, InputError, PrerequisiteError

UNSAFE = "none"
_OPTIONS = ["-s", "-S", "-P", "-B"]  # no site packages, no folder of the script's, no bytecode written

# What a working isolation reports about itself; any difference makes the kind unusable.
_PROBE = """
import os, socket
def reachable(path):
    try:
        return bool(os.listdir(path)) if os.path.isdir(path) else os.path.exists(path)
    except OSError:
        return False
def writable(path):
    try:
        with open(path + "/probe", "w") as file:
            file.write("x")
        return True
    except OSError:
        return False
def capabilities():
    with open("/proc/self/status") as file:
        return max(int(line.split()[1], 16) for line in file if line.startswith(("CapPrm", "CapEff", "CapBnd")))
report({
    "interfaces": [name for _, name in socket.if_nameindex() if name not in ("lo", "tunl0", "sit0", "ip6tnl0")],
    "environment": sorted(set(os.environ) - set(ALLOWED)),
    "visible": [path for path in ("/etc/passwd", "/home", "/root/.ssh", "/var/log", "/sys/kernel") if reachable(path)],
    "writable": [path for path in ("/", "/dev", "/harness", "/start", "/usr/lib") if writable(path)]
    + [path for path in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger") if os.access(path, os.W_OK)],
    "scratch": writable("/tmp"), "init": os.getpid() < 10, "capabilities": capabilities(),
})
"""
_EXPECTED = {"interfaces": [], "environment": [], "visible": [], "writable": [], "scratch": True, "init": True,
             "capabilities": 0}


@dataclass(frozen=True, slots=True)
class Isolation:
    """A kind that works here; `missing` names the layers of protection that this machine cannot give."""

    name: str
    missing: tuple[str, ...] = ()

    @property
    def safe(self) -> bool:
        """Whether it isolates at all."""
        return self.name != UNSAFE

    def spawn(self, view: View, limits: Limits, harness: str, group: Group | None) -> subprocess.Popen[bytes]:
        """Start a harness in a new isolated tree; standard input and output are its channel."""
        settings: dict[str, object] = {"harness": harness, "limits": _resource_limits(limits), "root": None,
                                       "path": [START, HARNESS, *view.import_path]}
        start, prefix, inherited = f"{START}/start.py", [], None
        if self.name == bubblewrap.NAME:
            inherited = bubblewrap.seccomp_file()
            prefix = bubblewrap.command(view, limits, inherited)
        else:
            start = str(START_FOLDER / "start.py")
            if self.name == namespaces.NAME:
                prefix, settings["root"] = namespaces.command(), namespaces.plan(view, limits)
            else:
                outside = {place: source for source, place in view.binds}
                settings["path"] = [outside[START], outside[HARNESS], *(path for path in sys.path if path)]
        command = [*prefix, view.interpreter, *_OPTIONS, start, json.dumps(settings)]
        if group is not None:
            command = group.entering(command)
        try:
            return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                    env=dict(ENVIRONMENT), cwd="/", start_new_session=True, bufsize=0,
                                    pass_fds=() if inherited is None else (inherited,))
        except OSError as error:
            raise GraderError(f"an isolated process could not be started: {error}; the machine may be out of memory "
                              "or processes: try again with fewer workers") from error
        finally:
            if inherited is not None:
                os.close(inherited)


def _resource_limits(limits: Limits) -> dict[str, int]:
    found = {
        "RLIMIT_AS": limits.memory_mib << 20, "RLIMIT_CPU": limits.cpu_seconds, "RLIMIT_FSIZE": limits.file_mib << 20,
        "RLIMIT_NOFILE": limits.open_files, "RLIMIT_STACK": 64 << 20,
        "RLIMIT_CORE": 1,  # with 0 a core pattern that is a pipe still runs its program
    }
    if not _groups_work():
        found["RLIMIT_NPROC"] = limits.processes  # counts per user namespace; does not bind root
    return found


@lru_cache(maxsize=1)
def _groups_work() -> bool:
    group = make_group(Limits())
    if group is None:
        return False
    group.close()
    return True


def find_isolation(name: str | None = None, *, unsafe: bool = False) -> Isolation:
    """Return the best kind of isolation that works here, or the one named.

    Args:
        name: "bubblewrap" or "namespaces"; None tries them in this order.
        unsafe: allow running without any isolation, only when no kind works.

    Raises:
        InputError: the name is unknown.
        PrerequisiteError: no kind works and `unsafe` is not set.
    """
    kinds = {module.NAME: module for module in (bubblewrap, namespaces)}
    if name == UNSAFE and unsafe:
        return unsafe_isolation()
    if name is not None and name not in kinds:
        raise InputError(f"isolation {name!r} is unknown; choose one of: {', '.join(kinds)}")
    reasons = []
    for kind in [name] if name else list(kinds):
        found = probe(kind)
        if isinstance(found, Isolation):
            return found
        reasons.append(f"{kind}: {found} ({kinds[kind].HINT})")
    if unsafe:
        return unsafe_isolation()
    raise PrerequisiteError("generated code is only run in isolation, and none works here. " + "; ".join(reasons)
                            + ". To run it without isolation, at your own risk, pass --unsafe-code-execution")


def unsafe_isolation() -> Isolation:
    """Return the kind that isolates nothing, and say so loudly."""
    print("WARNING: generated code runs WITHOUT ISOLATION (--unsafe-code-execution): it can read and change all that "
          "you can.", file=sys.stderr)
    return Isolation(UNSAFE, ("everything",))


@lru_cache(maxsize=4)
def probe(name: str) -> Isolation | str:
    """Try one kind: return it when a process in it sees what it should, else the reason why it cannot be used."""
    module = {bubblewrap.NAME: bubblewrap, namespaces.NAME: namespaces}[name]
    if module.program() is None:
        return "not installed"
    missing = list(module.missing_layers())
    if not _groups_work():
        missing.append("control groups (memory and processes of the tree are watched every 20 ms instead)")
    kind = Isolation(name, tuple(missing))
    try:
        with Sandbox(kind, interpreter_view(str(START_FOLDER)), Limits()).ready() as sandbox:
            sandbox.send(json.dumps(f"ALLOWED = {sorted([*ENVIRONMENT, 'PWD', 'LC_CTYPE'])}\n{_PROBE}").encode())
            line = sandbox.receive(time.monotonic() + 20)
    except GraderError:
        return "a process cannot be started in it here"
    facts = json.loads(line) if line else None
    if facts is None:
        return "a process in it did not answer"
    wrong = sorted(key for key, value in _EXPECTED.items() if facts.get(key) != value)
    return f"it does not protect here: {', '.join(f'{key} {facts.get(key)}' for key in wrong)}" if wrong else kind
