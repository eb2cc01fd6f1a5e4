"""The command line that the tables share. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import tyro

from foundation.errors import InputError
from foundation.exits import exit_with_message
from replication.declarations import Table

if TYPE_CHECKING:
    from baselines.interface import Method
    from replication.configuration import Configuration
    from replication.plan import Request
    from replication.store import Store
    from replication.tables import TableRun


def _environment(name: str, default: str) -> Path:
    return Path(os.environ.get(name) or default)


STORE = _environment("WMSS_STORE", "runs")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every table understands. Only --model decides what is measured; the rest narrows or places it."""

    model: str = "tiny"
    """tiny | smollm2-135m | qwen3-4b | qwen3-8b | qwen2.5-3b | gemma-3-4b"""
    methods: Annotated[str | None, tyro.conf.arg(metavar="NAME,...")] = None
    """Rows, comma-separated (default: all rows of the table): sft,undial-original,wmss[wdjt.mix_weight=0.42]"""
    method: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="FILE.py:CLASS")] = ()
    """A method of your own as one more row (repeatable), or the name of one that an installed package offers;
    docs/new-method.md shows how to write one."""
    benchmarks: Annotated[str | None, tyro.conf.arg(metavar="NAME,...")] = None
    """Columns, comma-separated (default: all of the table): gsm8k,svamp,..."""
    data_root: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = field(
        default_factory=lambda: Path(os.environ["WMSS_DATA_ROOT"]) if os.environ.get("WMSS_DATA_ROOT") else None
    )
    """Folder of real data files (WMSS_DATA_ROOT); layout in docs/data.md."""
    store: Path = STORE
    """Where the results of steps live (WMSS_STORE)."""
    results: Path = Path("results")
    """Where result files are written, under <model>/."""
    limit_train: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Train on a seeded sample of at most this many examples."""
    limit_eval: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Evaluate on a seeded sample of at most this many problems of each benchmark."""
    seed: int = 0
    """Seed of training order, sampling and generated problems."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Change a setting: --set wdjt.mix_weight=0.42 (repeatable; a wrong name lists the right ones)."""
    jobs: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Worker processes (default: as many as fit the cores). Does not change results."""
    plan: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the steps: which are done, which are shared; run nothing."""
    unsafe_code_execution: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Where no isolation works here, grade programs WITHOUT any: they can do all that you can. The result says so."""
    repair: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Check every stored artifact and rebuild damaged ones."""


def main(table: Table) -> NoReturn:
    """Run a table from the command line and exit: 0 done, 2 a mistake that the message explains, 1 a defect."""
    exit_with_message(lambda: run_table(table, parse(table)),
                      interrupted="interrupted; finished steps are kept, the same command goes on from there")


def parse(table: Table) -> Options:
    """Read the command line of a table."""
    prog = f"python -m replication.{table.name}"
    return tyro.cli(Options, prog=prog, description=f"{table.place}. {table.title}.")


def run_table(table: Table, options: Options) -> int:
    """Plan, run, write and show a table; return the exit code."""
    from replication.isolation import require_isolation
    from replication.planning import print_plan
    from replication.results import contents, show, write
    from replication.run import missing_steps, run_steps
    from replication.store import Store

    table_run, request = resolve(table, options)
    store = Store(options.store, repair=options.repair)
    _try_out_own(table_run, store)
    if options.plan:
        print_plan(table_run, store)
        return 0
    require_isolation(missing_steps(table_run.targets, store), unsafe=options.unsafe_code_execution)
    damaged = store.repair_all(table_run.targets) if options.repair else []
    report = run_steps([*damaged, *table_run.targets], store, jobs=_jobs(options, request))
    content = contents(table_run, request, table_run.verdicts(store), report, store)
    paths = write(table_run, request, content, options.results)
    show(table_run, request, content, report, paths)
    return report.exit_code


def resolve(table: Table, options: Options) -> tuple[TableRun, Request]:
    """Turn names into objects, refusing what does not exist, and build the plan."""
    from evaluation.benchmarks import benchmark
    from replication.configuration import with_changes
    from replication.models import model_named, require_hardware
    from replication.plan import Planner, Request
    from replication.rows import known_rows, split_rows
    from replication.scales import SCALES
    from replication.tables import TableRun

    model = model_named(options.model)
    scale = SCALES[model.scale]
    registry, own = _registry(options)
    configuration = with_changes(scale.configuration, list(options.set), registry)
    rows = table.rows if options.methods is None else tuple(dict.fromkeys(split_rows(options.methods)))
    if not rows:
        raise InputError(f"--methods names none; choose from: {', '.join(known_rows(registry))}")
    methods = tuple(dict.fromkeys((*rows, *own)))
    columns = [name for group in table.groups if group.unavailable is None for name in group.columns]
    benchmarks = _names(options.benchmarks, tuple(columns), "benchmarks")
    for name in benchmarks:
        if benchmark(name).name not in columns:
            raise InputError(f"{table.place} has no column {name!r}; it has: {', '.join(columns)}")
    _check_numbers(options, configuration)
    if not options.plan:
        require_hardware(model)
    request = Request(model=model, scale=scale, configuration=configuration, data_root=options.data_root,
                      limit_train=options.limit_train, limit_eval=options.limit_eval, seed=options.seed,
                      registry=registry, unsafe_code_execution=options.unsafe_code_execution, plan_only=options.plan)
    return TableRun(table, Planner(request), methods, benchmarks), request


def _registry(options: Options) -> tuple[dict[str, type[Method]], list[str]]:
    """Return the methods at hand, and the names of those that --method gives a row."""
    from baselines import METHODS
    from baselines.method_registry import methods_at_hand
    from replication.configuration import Configuration
    from replication.plan import REFERENCE_TITLES
    from replication.rows import split_rows

    words = [*(row.partition("[")[0].strip() for row in split_rows(options.methods or "")),
             *(change.partition(".")[0].strip() for change in options.set)]
    reserved = [*(f.name for f in fields(Configuration)), *REFERENCE_TITLES, *REFERENCE_TITLES.values()]
    return methods_at_hand(METHODS, options.method, words, reserved)


def _try_out_own(run: TableRun, store: Store) -> None:
    """Try out each row from outside that is still to be trained, with its settings, before anything runs.

    Raises:
        InputError: a loss that cannot be trained with; file and line are named.
    """
    from baselines.user_methods import outside

    for text in run.methods:
        method = run.planner.row(text).method
        if outside(type(method)) and not all(store.is_done(step) for step in run.planner.plan(text).trainings):
            from baselines.trial import try_out

            try_out(method)


def _check_numbers(options: Options, configuration: Configuration) -> None:
    for flag, value in (("--limit-train", options.limit_train), ("--limit-eval", options.limit_eval),
                        ("--jobs", options.jobs)):
        if value is not None and value < 1:
            raise InputError(f"{flag} is {value}; it must be at least 1")
    batch = max(configuration.train.global_batch, configuration.second_epoch.global_batch)
    if options.limit_train is not None and options.limit_train < batch:
        raise InputError(
            f"--limit-train {options.limit_train}: {options.limit_train} examples give not one update with a global "
            f"batch of {batch}; raise the limit, or lower the batch with --set train.micro_batch=N "
            "--set train.global_batch=N"
        )


def _names(text: str | None, default: tuple[str, ...], what: str) -> tuple[str, ...]:
    """Split a comma-separated list; nothing twice."""
    if text is None:
        return default
    names = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    if not names:
        raise InputError(f"--{what} names none; choose from: {', '.join(default)}")
    return names


def _jobs(options: Options, request: Request) -> int:
    """As many workers as fit the cores this process may use; on GPUs, one for each."""
    from replication.provenance import gpu_names, usable_cores

    if options.jobs is not None:
        return options.jobs
    fitting = max(1, usable_cores() // request.scale.threads)
    return min(fitting, len(gpu_names())) if request.model.gpu_memory_gib else fitting
