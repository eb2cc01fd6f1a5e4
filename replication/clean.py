"""Free disk space in a store without losing a number.

    python -m replication.clean --keep-tables --model tiny       checkpoints that tables of tiny do not need any more
    python -m replication.clean --everything                     the whole store

Finished steps keep their manifests, verdicts and answers: every table reads as before and nothing runs again. A
checkpoint that was freed is made anew only if a later wish (another row, say) starts from it. What belongs to no table
of the models named, at the settings given, is left alone: it may be another model's, seed's or setting's.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from foundation.errors import InputError, SuiteError
from foundation.exits import exit_with_message
from replication.cli import STORE, Options, arg, data_root, models, named_or_none
from replication.models import MODELS
from replication.store import Store

if TYPE_CHECKING:
    from replication.running import Prepared

_WEIGHTS = (".safetensors", ".bin")


@dataclass(frozen=True, kw_only=True)
class Clean:
    """What to free."""

    store: Path = field(default_factory=lambda: STORE)
    """Where the results of steps live (WMSS_STORE)."""
    keep_tables: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Free the weights of the named models' tables that no unfinished table needs; all tables stay as they are."""
    others: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """With --keep-tables: also the weights of all other models, seeds, settings and rows in the store. Their unfinished
    tables will train again what they still need."""
    everything: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Remove the whole store; result files stay."""
    model: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME")] = ()
    """Models whose tables are meant: tiny (default), ..."""
    data_root: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint=named_or_none)] = field(
        default_factory=data_root)
    """As the tables were run: folder of real data files (WMSS_DATA_ROOT)."""
    pool: Literal["own", "files"] = "own"
    """As the tables were run."""
    limit_train: Annotated[int | None, arg("N", "no limit")] = None
    """As the tables were run."""
    limit_eval: Annotated[int | None, arg("N", "no limit")] = None
    """As the tables were run."""
    seed: int = 0
    """As the tables were run."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="SETTING=VALUE")] = ()
    """As the tables were run: --set wdjt.mix_weight=0.42."""


@dataclass(frozen=True, slots=True)
class _Wishes:
    """What tables have to do with the steps of a store, as ids of steps."""

    ours: set[str]
    """Behind the tables of the models named."""
    needed: set[str]
    """That unfinished tables start from, those of other models that were begun included."""


def clean(options: Clean) -> int:
    """Free what was asked for; return 0.

    Raises:
        InputError: neither or both of the two ways, no store, or steps that run right now.
        ArtifactError: a store of another version.
    """
    if options.keep_tables == options.everything:
        raise InputError("say what to free: --keep-tables (checkpoints no table needs) or --everything (the store)")
    if options.others and options.everything:
        raise InputError("--others is for --keep-tables: --everything removes the whole store anyway")
    if not (options.store / ".building").is_dir():  # whatever else the folder is, it is not ours to remove
        raise InputError(f"there is no store {options.store}; name one with --store")
    store = Store(options.store)
    if running := [path.name for path in (store.root / ".building").iterdir() if store.is_running(path.name)]:
        raise InputError(f"{len(running)} steps are running ({', '.join(running[:3])}); wait until they have ended")
    if options.everything:
        shutil.rmtree(store.root)
        print(f"removed {store.root}")
        return 0
    wishes = _wishes(store, options)
    freed, alone = [], []
    for manifest, names in _weights(store):
        if manifest["id"] in wishes.needed:
            continue
        if manifest["id"] in wishes.ours or options.others:
            freed.append(store.free(manifest["id"], names))
        else:
            alone.append(sum(manifest["files"][name]["bytes"] for name in names))
    print(f"freed {sum(freed) / 2**20:.1f} MiB of weights in {len(freed)} steps")
    if alone:
        print(f"left alone: {sum(alone) / 2**20:.1f} MiB of weights in {len(alone)} steps that are behind no table of "
              f"{', '.join(models(_tables(options)))} at these settings. Name their --model, --seed, --set, "
              "--limit-train, --limit-eval or --data-root as they were run, or free them all with --others")
    return 0


def _wishes(store: Store, options: Clean) -> _Wishes:
    """Plan the tables of the models named, and of every other model of which the store holds a step of its own."""
    from replication.all_tables import plan_all

    prepared, _ = plan_all(_tables(options))
    ours, needed = _behind(prepared), _starts(prepared, store)
    for name in MODELS.keys() - set(models(_tables(options))):
        try:
            others, _ = plan_all(replace(_tables(options), model=(name,)))
        except SuiteError:  # it cannot run here at these settings: nobody can have begun it
            continue
        if any((store.root / step_id).is_dir() for step_id in _behind(others) - ours):
            needed |= _starts(others, store)
    return _Wishes(ours, needed)


def _tables(options: Clean) -> Options:
    return Options(model=options.model, store=options.store, data_root=options.data_root, seed=options.seed,
                   limit_train=options.limit_train, limit_eval=options.limit_eval, set=options.set,
                   pool=options.pool, plan=True)


def _behind(prepared: Sequence[Prepared]) -> set[str]:
    from replication.steps import closure

    return {step.id for step in closure([step for one in prepared for step in one.run.targets])}


def _starts(prepared: Sequence[Prepared], store: Store) -> set[str]:
    """Return the steps that what is still to be run starts from."""
    from replication.run import missing_steps

    missing = missing_steps([step for one in prepared for step in one.run.targets], store)
    return {parent.id for step in missing for parent in step.parents.values()}


def _weights(store: Store) -> list[tuple[dict[str, Any], list[str]]]:
    """Return finished steps that hold weights, with the names of these files."""
    found = [(manifest, [name for name in manifest["files"] if name.endswith(_WEIGHTS)])
             for manifest in store.manifests()]
    return [(manifest, names) for manifest, names in found if names]


def main() -> None:
    """Run from the command line."""
    exit_with_message(lambda: clean(tyro.cli(Clean, prog="python -m replication.clean",
                                             description="Free disk space in a store without losing a number.")))


if __name__ == "__main__":
    main()
