"""Free disk space in a store without losing a number.

    python -m replication.clean --keep-tables --model tiny       checkpoints that no table still needs
    python -m replication.clean --everything                     the whole store

Finished steps keep their manifests, verdicts and answers: every table reads as before and nothing runs again. A
checkpoint that was freed is made anew only if a later wish (another row, say) starts from it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from foundation.errors import InputError
from foundation.exits import exit_with_message
from replication.cli import STORE, Options
from replication.store import Store

_WEIGHTS = (".safetensors", ".bin")


@dataclass(frozen=True, kw_only=True)
class Clean:
    """What to free."""

    store: Path = field(default_factory=lambda: STORE)
    """Where the results of steps live (WMSS_STORE)."""
    keep_tables: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Free the weights that no table of the models named still needs; all tables stay as they are."""
    everything: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Remove the whole store; result files stay."""
    model: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME")] = ()
    """Models whose unfinished tables keep what they need (default: tiny)."""
    data_root: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """As for the tables: without it, tables on real files count as unfinished wishes of nobody."""
    pool: Literal["own", "files"] = "own"
    """As for the tables."""


def clean(options: Clean) -> int:
    """Free what was asked for; return 0.

    Raises:
        InputError: neither or both of the two ways, no store, or steps that run right now.
    """
    if options.keep_tables == options.everything:
        raise InputError("say what to free: --keep-tables (checkpoints no table needs) or --everything (the store)")
    if not options.store.is_dir():
        raise InputError(f"there is no store {options.store}; name one with --store")
    store = Store(options.store)
    if running := [path.name for path in (store.root / ".building").iterdir() if store.is_running(path.name)]:
        raise InputError(f"{len(running)} steps are running ({', '.join(running[:3])}); wait until they have ended")
    if options.everything:
        shutil.rmtree(store.root)
        print(f"removed {store.root}")
        return 0
    freed = [store.free(manifest["id"], names) for manifest, names in _freeable(store, _needed(store, options))]
    print(f"freed {sum(freed) / 2**20:.1f} MiB of weights in {len(freed)} steps")
    return 0


def _needed(store: Store, options: Clean) -> set[str]:
    """Return the ids of the steps that unfinished tables start from."""
    from replication.all_tables import plan_all
    from replication.run import missing_steps

    wanted = Options(model=options.model, store=options.store, data_root=options.data_root, pool=options.pool,
                     plan=True)
    prepared, _ = plan_all(wanted)
    missing = missing_steps([step for one in prepared for step in one.run.targets], store)
    return {parent.id for step in missing for parent in step.parents.values()}


def _freeable(store: Store, needed: set[str]) -> list[tuple[dict[str, Any], list[str]]]:
    """Return finished steps that hold weights nobody needs, with the names of these files."""
    found = []
    for manifest in store.manifests():
        names = [name for name in manifest["files"] if name.endswith(_WEIGHTS)]
        if names and manifest["id"] not in needed:
            found.append((manifest, names))
    return found


def main() -> None:
    """Run from the command line."""
    exit_with_message(lambda: clean(tyro.cli(Clean, prog="python -m replication.clean",
                                             description="Free disk space in a store without losing a number.")))


if __name__ == "__main__":
    main()
