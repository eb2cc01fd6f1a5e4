"""What the store holds: finished steps with their time and size, what was interrupted, what was damaged.

    python -m replication.status --verify       also hashes every file
"""

from __future__ import annotations

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
    interrupted = sorted(path.name for path in (store.root / ".building").iterdir())
    verified = ", contents verified" if options.verify else ""
    print(f"{len(manifests)} steps done, {total_bytes / 2**20:.1f} MiB{verified}")
    if interrupted:
        print(f"interrupted or running: {', '.join(interrupted)}")
    if damaged:
        raise ArtifactError(f"{len(damaged)} files differ from their manifest: {', '.join(damaged[:5])}; run the table "
                            "again with --repair to rebuild them")
    return 0


def _differences(folder: Path, manifest: dict[str, Any]) -> list[str]:
    return [name for name, entry in manifest["files"].items()
            if not (folder / name).is_file() or sha256_file(folder / name) != entry["sha256"]]


def main() -> None:
    """Run from the command line."""
    exit_with_message(lambda: status(tyro.cli(Options, prog="python -m replication.status",
                                              description="What the store holds.")))


if __name__ == "__main__":
    main()
