"""The store: one folder per finished step, published by a rename, with a manifest that says all about it.

    <store>/<step id>/manifest.json + the step's files      finished, never changed again
    <store>/.building/<step id>/                            under construction, or left by a run that was killed
    <store>/.locks/<step id>                                flock: two processes that want one step run it once
    <store>/.damaged/<step id>-<n>/                         moved aside because its contents no longer match
    <store>/.failed/<step id>.json                          why its last attempt failed; gone once it succeeds
    <store>/.identity                                       a random name, by which nodes of a cluster know the store

Nothing here compares times: clocks of nodes that share a store may differ.

Checking whether a step is done reads its manifest and file sizes; contents are hashed when first used in a process.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foundation.errors import ArtifactError, InputError, StorageError
from foundation.files import sha256_file, storage_error, write_atomic
from replication.steps import Step, closure

SCHEMA = 1
MANIFEST = "manifest.json"
IDENTITY = ".identity"
VISIBLE_SECONDS = 60.0
"""How long a network file system may keep back a folder that another node has made (Linux NFS: up to a minute)."""


class Store:
    """Finds, locks, publishes and verifies the results of steps."""

    def __init__(self, root: Path, *, repair: bool = False) -> None:
        """Open (and create) a store folder.

        Args:
            root: the folder.
            repair: rebuild a damaged artifact at once instead of stopping.

        Raises:
            StorageError: the folder cannot be created.
            InputError: `root` is a file.
        """
        self.root, self.repair = root.absolute(), repair
        self._verified: set[str] = set()
        self._done: dict[str, dict[str, Any]] = {}
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"the store {root} is a file; name a folder (--store DIR or WMSS_STORE)")
        for folder in (".building", ".locks"):
            try:
                (self.root / folder).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise storage_error(error, self.root) or error from error

    def folder(self, step: Step) -> Path:
        """Return where the step's result lies, or would lie."""
        return self.root / step.id

    def is_done(self, step: Step) -> bool:
        """Say whether the step's result is there, judged by manifest and sizes.

        Raises:
            ArtifactError: a file is missing or has another size (moved aside; rebuilt at once under `repair`).
        """
        manifest_path = self.folder(step) / MANIFEST
        if not manifest_path.is_file():  # a worker may have moved it aside as damaged
            return False
        if step.key in self._done:
            return True
        manifest = self._manifest(step)
        for name, entry in manifest["files"].items():
            path = self.folder(step) / name
            size = path.stat().st_size if path.is_file() else None
            if size != entry["bytes"]:
                found = "is missing" if size is None else f"has {size} bytes instead of {entry['bytes']}"
                return self._damaged(step, f"{name} {found}")
        self._done[step.key] = manifest
        return True

    def is_whole(self, step: Step) -> bool:
        """Say whether the step is done and none of its files was freed, so that others can start from it."""
        return self.is_done(step) and not self._done[step.key].get("freed")

    def manifest(self, step: Step) -> dict[str, Any] | None:
        """Return the manifest of a step that is done, or None."""
        return self._done[step.key] if self.is_done(step) else None

    def _manifest(self, step: Step) -> dict[str, Any]:
        try:
            manifest = self.read_manifest(step.id)
            if "schema" in manifest:
                require_schema(manifest, self.root)
            if not {"schema", "key", "files"} <= set(manifest):
                raise ValueError("it lacks schema, key or files")
        except (OSError, ValueError) as error:
            self._damaged(step, f"its manifest is unreadable ({error})")
            raise ArtifactError(f"{step.id}: manifest unreadable") from error
        if manifest["key"] != step.key:
            raise ArtifactError(f"two different steps share the short name {step.id}; remove {self.folder(step)}")
        return manifest

    def read_manifest(self, step_id: str) -> dict[str, Any]:
        """Return the manifest of a finished step."""
        manifest = json.loads((self.root / step_id / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(manifest, dict):
            raise ValueError("it is not a JSON object")
        return manifest

    def use(self, step: Step) -> Path:
        """Return the folder of a finished step, contents verified once per process.

        Raises:
            ArtifactError: not there, or a sha256 that no longer matches (moved aside).
        """
        folder = self.folder(step)
        if not (folder / MANIFEST).is_file():
            raise ArtifactError(f"{step.id} ({step.label}) is not in the store {self.root}; run its table again")
        if step.key not in self._verified:
            for name, entry in self._manifest(step)["files"].items():
                path = folder / name
                found = sha256_file(path) if path.is_file() else "no file"
                if found != entry["sha256"]:
                    self._damaged(step, f"{name} has sha256 {found[:16]}..., recorded was {entry['sha256'][:16]}...")
                    raise ArtifactError(f"{step.id} was damaged and has been moved aside; run again to rebuild it")
            self._verified.add(step.key)
        return folder

    def repair_all(self, targets: Iterable[Step]) -> list[Step]:
        """Hash the contents of all that the targets come from; move aside and return what does not match."""
        damaged = []
        for step in closure(targets):
            if not self.folder(step).exists():
                continue
            try:
                if not self.is_done(step):
                    damaged.append(step)
                else:
                    self.use(step)
            except ArtifactError:
                damaged.append(step)
        return damaged

    def _damaged(self, step: Step, what: str) -> bool:
        """Move a damaged artifact aside; under `repair` report it as not done, else stop."""
        target = self.move_aside(step)
        if self.repair:
            return False
        raise ArtifactError(
            f"artifact {step.id} ({step.label}) is damaged: {what}. It was moved to {target}. "
            "Run the same command again to rebuild it (or pass --repair to rebuild whatever is damaged)"
        )

    def move_aside(self, step: Step) -> Path:
        """Move a step's folder to .damaged under a name of its own; another process may have done so already."""
        self._done.pop(step.key, None)
        target = self.root / ".damaged" / f"{step.id}-{time.time_ns()}"
        target.parent.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.folder(step), target)
        return target

    @contextmanager
    def lock(self, step: Step, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the step's lock; waits, after calling `on_wait`, while another process has it."""
        with (self.root / ".locks" / step.id).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def await_visible(self, steps: Iterable[Step], seconds: float = VISIBLE_SECONDS) -> None:
        """Wait for results that another node has published: a network file system may show them late.

        Raises:
            ArtifactError: one is still not there after so many seconds.
        """
        end = time.monotonic() + seconds
        while missing := [step for step in steps if not (self.folder(step) / MANIFEST).is_file()]:
            if time.monotonic() > end:
                raise ArtifactError(f"{missing[0].id} ({missing[0].label}) was published {seconds:.0f} s ago, and "
                                    f"{platform.node()} still does not see it in the store {self.root}")
            os.listdir(self.root)  # makes a network file system look again
            time.sleep(0.2)

    def identity(self) -> str:
        """Return the store's own random name, made at the first call: how other nodes know that they see this store."""
        path = self.root / IDENTITY
        with self.exclusively(".identity"):
            if not path.is_file():
                write_atomic(path, secrets.token_hex(16) + "\n")
        return path.read_text(encoding="utf-8").strip()

    @contextmanager
    def exclusively(self, name: str) -> Iterator[None]:
        """Hold a lock of the store's that is no step's; waits for it."""
        with (self.root / ".locks" / name).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def building_folder(self, step: Step) -> Path:
        """Return the step's folder under construction, made if needed, with what an interrupted run left in it."""
        folder = self.root / ".building" / step.id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def discard_building(self, step: Step) -> None:
        """Throw away what an interrupted run left."""
        shutil.rmtree(self.root / ".building" / step.id, ignore_errors=True)

    def publish(self, step: Step, output: Path, manifest: dict[str, Any]) -> None:
        """Make `output` the step's result: hash every file, write the manifest, flush, rename. All or nothing."""
        files = {}
        for path in sorted(p for p in output.rglob("*") if p.is_file()):
            with path.open("rb") as file:
                os.fsync(file.fileno())
            files[path.relative_to(output).as_posix()] = {"sha256": sha256_file(path), "bytes": path.stat().st_size}
        full = {"schema": SCHEMA, "id": step.id, "key": step.key, "label": step.label,
                **step.identity, "parents": {role: p.id for role, p in step.parents.items()}, **manifest,
                "files": files}
        write_atomic(output / MANIFEST, json.dumps(full, indent=1, ensure_ascii=False) + "\n")
        shutil.rmtree(self.folder(step), ignore_errors=True)  # a step of which files were freed is made anew
        os.rename(output, self.folder(step))
        (self.root / ".failed" / f"{step.id}.json").unlink(missing_ok=True)
        handle = os.open(self.root, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
        self._verified.add(step.key)

    def record_failure(self, step: Step, reason: str) -> None:
        """Keep why a step failed, for the status; a store that cannot be written keeps nothing."""
        with contextlib.suppress(OSError, StorageError):
            (self.root / ".failed").mkdir(exist_ok=True)
            write_atomic(self.root / ".failed" / f"{step.id}.json",
                         json.dumps({"id": step.id, "label": step.label, "reason": reason, "time": time.time()}) + "\n")

    def failures(self) -> list[dict[str, Any]]:
        """Return what failed at its last attempt: id, label, reason, time."""
        return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(self.root.glob(".failed/*.json"))]

    def is_running(self, step_id: str) -> bool:
        """Say whether a process holds the step's lock."""
        path = self.root / ".locks" / step_id
        if not path.is_file():
            return False
        with path.open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def free(self, step_id: str, names: Iterable[str]) -> int:
        """Delete files of a finished step and say so in its manifest; return the bytes.

        The step stays done: it runs again only when something that is still to be made starts from it.
        """
        manifest = self.read_manifest(step_id)
        freed = {name: manifest["files"].pop(name) for name in list(names) if name in manifest["files"]}
        manifest["freed"] = manifest.get("freed", {}) | freed
        write_atomic(self.root / step_id / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
        for name in freed:
            (self.root / step_id / name).unlink(missing_ok=True)
        self._done.pop(manifest["key"], None)
        return int(sum(entry["bytes"] for entry in freed.values()))

    def manifests(self) -> Iterator[dict[str, Any]]:
        """Yield the manifests of all finished steps (for the estimate and the status); unreadable ones are damage.

        Raises:
            ArtifactError: one is of another version of the suite.
        """
        for path in sorted(self.root.glob(f"*/{MANIFEST}")):
            try:
                manifest = self.read_manifest(path.parent.name)
            except (OSError, ValueError):
                continue
            if "schema" in manifest:
                require_schema(manifest, self.root)
                if set(manifest) >= {"id", "key", "label", "seconds", "files"}:
                    yield manifest


def require_schema(manifest: dict[str, Any], store: Path) -> None:
    """Refuse a manifest of another version of the suite.

    Raises:
        ArtifactError: its schema is not the one that this version writes.
    """
    if manifest["schema"] != SCHEMA:
        raise ArtifactError(f"the store {store} was written by another version of the suite (schema "
                            f"{manifest['schema']}, this one writes {SCHEMA}); name another folder with --store")
