"""What runs on the nodes of a Ray cluster: a look at the node, and one step at a time in a worker process of Ray's.

Ray starts its workers with the environment that the suite's own workers have, and uses one again only with the same
devices. A worker dies with its raylet (kernel) and with the driver (Ray): an orphan must never publish.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foundation.errors import StorageError, SuiteError
from replication.store import IDENTITY, Store
from replication.worker import Assignment, Done, Failed, attempt, die_with_parent, stop_if_orphan

TOLD_EVERY_SECONDS = 1.0
ASKED_EVERY_SECONDS = 5.0
SILENCE_SECONDS = 50.0
"""After so long without an answer of the driver's side a worker ends: it may have been given up, and replaced."""


class ProgressBox:
    """An actor beside the driver that keeps the last word of each running step until the driver asks."""

    def __init__(self) -> None:
        self.said: dict[str, tuple[float, bool]] = {}

    def tell(self, key: str, fraction: float, waiting: bool) -> None:
        """Keep what a step told."""
        self.said[key] = (fraction, waiting)

    def answer(self) -> None:
        """Let a worker know that the driver's side is there."""

    def drain(self) -> dict[str, tuple[float, bool]]:
        """Return what was told since the last call."""
        said, self.said = self.said, {}
        return said


def run_step(assignment: Assignment, store_root: Path, identity: str, box: Any, argv: Sequence[str], folder: str
             ) -> Done | Failed:
    """Run a step here.

    Args:
        assignment: the step; which devices it has is Ray's word.
        store_root: where the store lies on every node.
        identity: the store's, so that an empty mount point is not taken for it.
        box: handle of the ProgressBox.
        argv: the driver's command line, for the manifest.
        folder: the driver's working folder, for relative paths.
    """
    parent, step = os.getppid(), assignment.step
    die_with_parent(parent)
    sys.argv = list(argv)
    if os.path.isdir(folder):
        os.chdir(folder)
    given = Assignment(step, _devices(assignment), assignment.processes)
    try:
        seen = store_seen(store_root, identity)
        if seen is not None:
            raise StorageError(seen)
        store = Store(store_root)
        store.await_visible(step.parents.values())
    except SuiteError as error:
        return Failed(step.key, str(error), error.exit_code, None)
    with _ending_in_silence(box):
        return attempt(given, store, _reporter(step.key, box, parent))


@contextmanager
def _ending_in_silence(box: Any) -> Iterator[None]:
    """Ask the driver's side now and then, and end this process when it has not answered for long.

    A node that is cut off would else go on beside the node that its step was given to meanwhile.
    """
    import ray

    done = threading.Event()

    def ask() -> None:
        heard = time.monotonic()
        while not done.wait(ASKED_EVERY_SECONDS):
            asked = time.monotonic()
            try:
                ray.get(box.answer.remote(), timeout=ASKED_EVERY_SECONDS)
                heard = time.monotonic()
            except ray.exceptions.RayError:  # no answer, or the box is being started anew
                if asked - heard > SILENCE_SECONDS - ASKED_EVERY_SECONDS:
                    os._exit(1)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _devices(assignment: Assignment) -> tuple[str, ...]:
    """Ray names a task's devices in CUDA_VISIBLE_DEVICES; a step that was given none must see none."""
    if not assignment.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return ()
    return tuple(os.environ["CUDA_VISIBLE_DEVICES"].split(","))


def _reporter(key: str, box: Any, parent: int) -> Callable[..., None]:
    last = -TOLD_EVERY_SECONDS

    def report(fraction: float, waiting: bool = False) -> None:
        nonlocal last
        stop_if_orphan(parent)
        now = time.monotonic()
        if waiting or now - last >= TOLD_EVERY_SECONDS:
            last = now
            box.tell.remote(key, fraction, waiting)

    return report


def store_seen(root: Path, identity: str) -> str | None:
    """Return what is wrong with the store as this node sees it, or None."""
    import platform

    try:
        found = (root / IDENTITY).read_text(encoding="utf-8").strip()
    except OSError:
        return (f"node {platform.node()} does not see the store {root}; it must be one folder under the same path on "
                "all nodes (a network file system): mount it there, or name another with --store DIR or WMSS_STORE")
    if found != identity:
        return (f"node {platform.node()} has another store under {root} than the node that this command runs on; the "
                "store must be one folder under the same path on all nodes")
    return None


def look(root: Path, identity: str, paths: Sequence[str], modules: Sequence[str]) -> dict[str, Any]:
    """Return what a run must know of this node: `wrong` (texts), `locks`, `code`, `time`.

    Args:
        root: of the store.
        identity: the store's.
        paths: of data, which must be there as well.
        modules: that must be installed.
    """
    import importlib.util
    import platform

    from replication.executors.identity import code_identity

    host = platform.node()
    found: dict[str, Any] = {"wrong": [], "locks": True, "code": code_identity(), "time": time.time()}
    seen = store_seen(root, identity)
    if seen is not None:
        return found | {"wrong": [seen]}
    found["wrong"] += [f"node {host} does not see {path}; it must lie under the same path on all nodes"
                       for path in paths if not os.path.exists(path)]
    found["wrong"] += [f"node {host} lacks the package {name}, with which steps are to run there; install it on every "
                       f"node with GPUs: python -m pip install {name}"
                       for name in modules if importlib.util.find_spec(name) is None]
    found["wrong"] += _not_writable(root, host)
    if not found["wrong"]:
        found["locks"] = _locks_exclude(root)
    return found


def _not_writable(root: Path, host: str) -> list[str]:
    from foundation.files import storage_error, write_atomic

    trial = root / ".building" / f".trial-{host}-{os.getpid()}"
    try:
        write_atomic(trial, b"x" * 4096)
        trial.unlink()
    except StorageError as error:
        return [f"node {host}: {error}"]
    except OSError as error:
        return [f"node {host}: {storage_error(error, root) or error}"]
    return []


def _locks_exclude(root: Path) -> bool:
    """Say whether the lock that the driver holds at this moment is felt here."""
    import fcntl

    with (root / ".locks" / ".nodes").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return False
