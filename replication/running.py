"""From options to finished result files: names become objects, tables become one plan, the plan is run once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from baselines import METHODS
from baselines.interface import Method
from baselines.method_registry import methods_at_hand
from baselines.user_methods import outside
from evaluation.benchmarks import benchmark
from foundation.errors import InputError
from replication.backends import require_backends
from replication.cli import Options
from replication.configuration import Configuration, with_changes
from replication.cost.step_costs import GPUS_PER_TRAINING
from replication.declarations import FINAL, Line, Table
from replication.executors import OpenExecutor
from replication.executors.local import local
from replication.executors.ray_connection import check_form, require_ray
from replication.isolation import require_isolation
from replication.layout import check_memory, check_trainings, gpus_of_training, processes_here
from replication.models import Model, backbone, has_hardware, model_named, require_hardware
from replication.plan import REFERENCE_TITLES, Planners, Request
from replication.planning import print_plan
from replication.provenance import gpu_devices, gpu_memory, usable_cores
from replication.results import contents, write
from replication.rows import known_rows, split_rows
from replication.run import RunReport, missing_steps, run_steps
from replication.scales import SCALES, configuration_of
from replication.steps import Step
from replication.store import Store
from replication.tables import TableRun


@dataclass(frozen=True, slots=True)
class Prepared:
    """A planned table, and the model on the command line, whose results folder it goes to."""

    run: TableRun
    asked: str


def prepare(tables: Sequence[Table], options: Options, asked: str = "tiny",
            shared: Sequence[Prepared] = ()) -> list[Prepared]:
    """Turn names into objects, refusing what does not exist, and plan the tables for one model.

    Args:
        tables: what to plan.
        options: the command line.
        asked: the model's name.
        shared: tables planned before, whose planners are used again.

    Raises:
        InputError: an unknown name, or a value that is not allowed.
        PrerequisiteError: hardware, data or a model is missing.
    """
    planners = {one.run.planners.request.model.name: one.run.planners for one in shared}
    result = []
    registry, own = _registry(options)
    for table in tables:
        model = backbone(model_named(asked), table.backbone)
        if model.name not in planners:
            planners[model.name] = Planners(_request(model, options, registry))
        chosen = _with_rows(table, options, own, registry)
        result.append(Prepared(TableRun.plan(chosen, planners[model.name].limited(_columns(table, options))), asked))
    return result


def run_prepared(prepared: Sequence[Prepared], options: Options) -> int:
    """Run the union of the plans once, then write and show each table; return the exit code.

    Raises:
        PrerequisiteError: the machine cannot run a model; the plan was shown, with what is missing. Or what
            `execute_plan` refuses.
    """
    from replication.terminal import show

    runs = [one.run for one in prepared]
    store = Store(options.store, repair=options.repair)
    if only_planned(runs, store, options):
        return 0
    for run in runs:
        try_out_own(run, store)
    report = execute_plan(runs, store, options)
    for one in prepared:
        content = contents(one.run, report, store, one.asked)
        show(content, report, write(content, options.results))
    return report.exit_code


def only_planned(runs: Sequence[TableRun], store: Store, options: Options) -> bool:
    """Print the plan where that was asked for, or where the machine cannot do more; say whether that is all.

    Raises:
        PrerequisiteError: more was asked for than the machine can do.
    """
    if not any(run.planners.request.plan_only for run in runs):
        return False
    print_plan(runs, store, options.gpus, options.train_processes)
    if not options.plan:
        for run in runs:
            require_hardware(run.planners.request.model)
    return True


def execute_plan(runs: Sequence[TableRun], store: Store, options: Options) -> RunReport:
    """Bring every target of every table into the store.

    Raises:
        PrerequisiteError: programs are to be graded and no isolation works here, a backend that is to generate cannot
            run here, trainings that do not fit the GPUs, or ZeRO without DeepSpeed; nothing was run.
        InputError: trainings that the processes cannot share.
    """
    for why in {why: None for run in runs for why in run.absent.values()}:
        print(f"a column stays missing: {why}", file=sys.stderr, flush=True)
    targets: list[Step] = list({step.key: step for run in runs for step in run.targets}.values())
    missing = missing_steps(targets, store)
    require_isolation(missing, unsafe=options.unsafe_code_execution)  # its warning is heard here: workers are mute
    if options.executor == "local":  # the nodes of a cluster are asked themselves
        require_backends(missing)
        processes = processes_here(options.train_processes, gpu_devices())
        check_trainings(missing, processes)
        check_memory(missing, processes, gpu_memory())
    damaged = store.repair_all(targets) if options.repair else []
    there = len(gpu_devices()) if options.executor == "local" else GPUS_PER_TRAINING
    return run_steps([*damaged, *targets], store, jobs=_jobs(options, runs),
                     open_executor=_executor(options, store, runs),
                     gpus_per_training=gpus_of_training(options.train_processes, there))


def _executor(options: Options, store: Store, runs: Sequence[TableRun]) -> OpenExecutor:
    """Return what opens the executor that was asked for; nothing of Ray is imported for another."""
    asked = options.train_processes
    if options.executor == "local":
        return local(store, _jobs(options, runs), gpus_per_training=asked, processes=asked or 1)
    from replication.executors.ray_cluster import on_cluster

    paths = [] if options.data_root is None else [str(options.data_root.absolute())]
    return on_cluster(store, options.address or "auto", gpus_per_training=asked, processes=asked or 1, paths=paths)


def _request(model: Model, options: Options, registry: dict[str, type[Method]]) -> Request:
    scale = SCALES[model.scale]
    chosen = () if options.backend == "auto" else [f"{part}.backend={options.backend}" for part in ("eval", "rollouts")]
    configuration = with_changes(configuration_of(model.name, scale), [*chosen, *options.set], registry)
    _check_numbers(options, configuration)
    if options.pool == "files" and scale.problems_source != "hub":
        raise InputError(f"--pool files is for models of paper scale; {model.name} has its own pool")
    return Request(model=model, scale=scale, configuration=configuration, data_root=options.data_root,
                   limit_train=options.limit_train, limit_eval=options.limit_eval, seed=options.seed,
                   registry=registry, unsafe_code_execution=options.unsafe_code_execution,
                   pool_files=options.pool == "files",
                   plan_only=options.plan or not (options.executor == "ray" or has_hardware(model)))


def _with_rows(table: Table, options: Options, own: list[str], registry: dict[str, type[Method]]) -> Table:
    """Return the table with the rows asked for, and a row for each method of the user's."""
    rows: tuple[str | Line, ...] = table.rows
    if options.methods is not None:
        if not table.rows:
            raise InputError(f"{table.place} has no rows to choose: leave --methods out")
        named = {line.text: line for line in table.lines if line.at == FINAL}
        rows = tuple(named.get(text, Line(text)) for text in dict.fromkeys(split_rows(options.methods)))
        if not rows:
            raise InputError(f"--methods names none; choose from: {', '.join(known_rows(registry))}")
    if own and not table.rows:
        raise InputError(f"{table.place} has no rows for methods: leave --method out, or take another table")
    there = {row.text if isinstance(row, Line) else row for row in rows}
    return replace(table, rows=(*rows, *(name for name in own if name not in there)))


def _columns(table: Table, options: Options) -> tuple[str, ...]:
    names = tuple(benchmark(name).name for name in _names(options.benchmarks, table.columns, "benchmarks"))
    for name in names:
        if name not in table.columns:
            raise InputError(f"{table.place} has no column {name!r}; it has: "
                             f"{', '.join(table.columns) or 'no benchmarks to choose from'}")
    return names


def _registry(options: Options) -> tuple[dict[str, type[Method]], list[str]]:
    """Return the methods at hand, and the names of those that --method gives a row."""
    words = [*(row.partition("[")[0].strip() for row in split_rows(options.methods or "")),
             *(change.partition(".")[0].strip() for change in options.set)]
    reserved = [*(f.name for f in fields(Configuration)), *REFERENCE_TITLES, *REFERENCE_TITLES.values()]
    return methods_at_hand(METHODS, options.method, words, reserved)


def try_out_own(run: TableRun, store: Store) -> None:
    """Try out each row from outside that is still to be trained, with its settings, before anything runs.

    Raises:
        InputError: a loss that cannot be trained with; file and line are named.
    """
    planner = run.planners()
    for text in run.methods:
        if text in REFERENCE_TITLES or not outside(type(method := planner.row(text).method)):
            continue
        if not all(store.is_done(step) for step in planner.plan(text).trainings):
            from baselines.trial import try_out

            try_out(method)


def _check_numbers(options: Options, configuration: Configuration) -> None:
    for flag, value in (("--limit-train", options.limit_train), ("--limit-eval", options.limit_eval),
                        ("--jobs", options.jobs), ("--gpus", options.gpus),
                         ("--train-processes", options.train_processes)):
        if value is not None and value < 1:
            raise InputError(f"{flag} is {value}; it must be at least 1")
    _check_executor(options)
    batch = max(configuration.train.global_batch, configuration.second_epoch.global_batch)
    if options.limit_train is not None and options.limit_train < batch:
        raise InputError(
            f"--limit-train {options.limit_train}: {options.limit_train} examples give not one update with a global "
            f"batch of {batch}; raise the limit, or lower the batch with --set train.micro_batch=N "
            "--set train.global_batch=N"
        )


def _check_executor(options: Options) -> None:
    if options.executor == "local" and options.address is not None:
        raise InputError(f"--address {options.address} is of a Ray cluster: add --executor ray")
    if options.executor == "ray" and options.jobs is not None:
        raise InputError("--jobs is for --executor local; on a cluster, as many steps run as its nodes have room for")
    if options.executor == "ray" and not options.plan:
        require_ray()
        check_form(options.address or "auto")


def _names(text: str | None, default: tuple[str, ...], what: str) -> tuple[str, ...]:
    """Split a comma-separated list; nothing twice."""
    if text is None:
        return default
    names = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    if not names:
        raise InputError(f"--{what} names none; choose from: {', '.join(default)}")
    return names


def _jobs(options: Options, runs: Sequence[TableRun]) -> int:
    """As many workers as fit the cores this process may use; on GPUs, at least one for each and one beside."""
    if options.jobs is not None:
        return options.jobs
    requests = [run.planners.request for run in runs]
    threads = max(request.scale.threads for request in requests)
    on_gpus = any(request.model.gpu_memory_gib for request in requests)
    if on_gpus:
        return max(1, usable_cores() // threads, len(gpu_devices()) + 1)
    return max(1, usable_cores() // (threads * (options.train_processes or 1)))
