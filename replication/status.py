"""What the store holds: finished steps with their time and size, what runs, what was interrupted, failed or damaged.

    python -m replication.status --verify       also hashes every file
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from foundation.errors import ArtifactError, InputError
from foundation.exits import exit_with_message
from foundation.files import sha256_file
from replication.cli import STORE
from replication.display import clock
from replication.store import Store

_SHOWN = 8  # interrupted steps named


@dataclass(frozen=True, kw_only=True)
class Options:
    """Where to look, and how closely."""

    store: Path = field(default_factory=lambda: STORE)
    """Where the results of steps live (WMSS_STORE)."""
    verify: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Hash every file (about a second per GB); a difference ends with exit code 2."""


def status(options: Options) -> int:
    """Print one line per finished step and the sums; return 0."""
    if not options.store.is_dir():
        raise InputError(f"there is no store {options.store}; name one with --store, or run a table first")
    store = Store(options.store)
    damaged, total_bytes = [], 0
    manifests = list(store.manifests())
    for manifest in manifests:
        size = sum(entry["bytes"] for entry in manifest["files"].values())
        total_bytes += size
        wrong = _differences(store.root / manifest["id"], manifest) if options.verify else []
        damaged += [f"{manifest['id']}/{name}" for name in wrong]
        print(f"  {manifest['id']:<26} {manifest['label']:<34} {clock(manifest['seconds']):>11} {size / 2**20:9.1f} MiB"
              + ("   DAMAGED" if wrong else ""))
    verified = ", contents verified" if options.verify else ""
    freed = sum(bool(manifest.get("freed")) for manifest in manifests)
    print(f"{len(manifests)} steps done, {total_bytes / 2**20:.1f} MiB{verified}"
          + (f"; files of {freed} of them were freed" if freed else ""))
    _unfinished(store)
    if damaged:
        raise ArtifactError(f"{len(damaged)} files differ from their manifest: {', '.join(damaged[:5])}; run the table "
                            "again with --repair to rebuild them")
    return 0


def _unfinished(store: Store) -> None:
    """Print what runs now, what was interrupted, what failed, and the disk."""
    begun = sorted(path.name for path in (store.root / ".building").iterdir())
    running = [name for name in begun if store.is_running(name)]
    if running:
        print(f"running: {', '.join(running)}")
    failures = list(store.failures())
    settled = {*running, *(failure["id"] for failure in failures)}
    if interrupted := [name for name in begun if name not in settled]:
        more = f" and {len(interrupted) - _SHOWN} more" if len(interrupted) > _SHOWN else ""
        print(f"interrupted (the next run goes on with them): {', '.join(interrupted[:_SHOWN])}{more}")
    for failure in failures:
        print(f"failed: {failure['label']} ({failure['id']}): {failure['reason']}")
    aside = sum(path.stat().st_size for path in store.root.glob(".damaged/**/*") if path.is_file())
    if aside:
        print(f"moved aside as damaged: {aside / 2**20:.1f} MiB in {store.root / '.damaged'}")
    usage = shutil.disk_usage(store.root)
    print(f"disk: {usage.free / 2**30:.1f} GiB free of {usage.total / 2**30:.1f} GiB")


def _differences(folder: Path, manifest: dict[str, Any]) -> list[str]:
    return [name for name, entry in manifest["files"].items()
            if not (folder / name).is_file() or sha256_file(folder / name) != entry["sha256"]]


def main() -> None:
    """Run from the command line."""
    exit_with_message(lambda: status(tyro.cli(Options, prog="python -m replication.status",
                                              description="What the store holds.")))


if __name__ == "__main__":
    main()
