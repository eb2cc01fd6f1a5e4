"""How long the tables take on N GPUs: a simulation with durations from the cost model. Nothing is run or fetched.

    python -m replication.simulate --gpus 8,64,512
    python -m replication.simulate --models qwen3-4b --tables table1 --spread 0.3 --runs 50

An estimate: docs/paper-scale.md says what it rests on. Durations are drawn around the model's (log-normal, one stream a
step), the schedule is greedy by the longest chain.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

import replication
from foundation.errors import InputError, SuiteError
from foundation.exits import exit_with_message
from replication.cost.schedule import NODE, Schedule, gpu_hours, simulate
from replication.cost.shapes import SHAPES, shape_of
from replication.cost.step_costs import GPUS_PER_TRAINING, CostModel, StepCost
from replication.display import clock
from replication.steps import Step, closure


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is simulated."""

    gpus: Annotated[str, tyro.conf.arg(metavar="N,...")] = "8,64,512"
    """Numbers of GPUs, in nodes of eight."""
    models: Annotated[str, tyro.conf.arg(metavar="NAME,...")] = ",".join(SHAPES)
    """Backbones."""
    tables: Annotated[str | None, tyro.conf.arg(metavar="NAME,...", help_behavior_hint="(default: all)")] = None
    """Tables."""
    spread: float = 0.15
    """Standard deviation of the logarithm of each duration."""
    runs: int = 20
    """Simulated runs; the median and the range are shown."""
    seed: int = 0
    """Of the durations."""


def tables() -> list[str]:
    """Return the names of the tables that can be asked for, in order."""
    found = [module.name for module in pkgutil.iter_modules(replication.__path__)
             if re.fullmatch(r"table\d+", module.name)]
    return sorted(found, key=lambda name: int(name.removeprefix("table")))


def targets_of(table: str, model: str) -> list[Step]:
    """Return the steps that a table's cells are read from, at paper scale.

    Raises:
        InputError: no such table, or one that the model has no part in.
    """
    from replication.cli import Options
    from replication.running import prepare

    if table not in tables():
        raise InputError(f"table {table!r} is unknown; choose from: {', '.join(tables())}")
    declared = importlib.import_module(f"replication.{table}").TABLE
    prepared = prepare((declared,), Options(model=(model,), data_root=None, plan=True), model)
    return prepared[0].run.targets


def lines(targets: Mapping[str, Sequence[Step]], gpus: Sequence[int], *, spread: float, runs: int, seed: int
          ) -> list[str]:
    """Return makespan and utilisation of each model and of all together, and what sharing saves.

    Args:
        targets: by model.
        gpus: numbers of GPUs.
        spread: of the durations.
        runs: with different durations.
        seed: of the first of them.
    """
    said = [f"{'':<12} {'GPUs':>5}  {'makespan':>13}  {'5 % to 95 %':>29}  {'busy':>5}  {'longest chain':>13}"]
    sets = dict(targets) | ({"all": [step for steps in targets.values() for step in steps]} if len(targets) > 1 else {})
    for count in gpus:
        cost = _cost(targets, min(GPUS_PER_TRAINING, NODE, count))
        for name, wanted in sets.items():
            said.append(_line(name, [simulate(wanted, count, cost, spread=spread, seed=seed + i)
                                     for i in range(runs)]))
    cost = _cost(targets, GPUS_PER_TRAINING)
    return [*said, "", "Shared steps", *(_sharing(name, wanted, cost) for name, wanted in sets.items())]


def _cost(targets: Mapping[str, Sequence[Step]], gpus_per_training: int) -> Callable[[Step], StepCost]:
    """Return the cost of a step of any of the models; equal steps of two models (problems) cost the same."""
    models = {name: CostModel(shape=shape_of(name), gpus_per_training=gpus_per_training) for name in targets}
    owner = {step.key: models[name] for name, steps in targets.items() for step in closure(steps)}
    return lambda step: owner[step.key].cost(step)


def _line(name: str, runs: Sequence[Schedule]) -> str:
    spans = sorted(run.makespan for run in runs)
    low, high = spans[round(0.05 * (len(spans) - 1))], spans[round(0.95 * (len(spans) - 1))]
    return (f"{name:<12} {runs[0].gpus:>5}  {clock(statistics.median(spans)):>13}  "
            f"{clock(low) + ' to ' + clock(high):>29}  {statistics.median(run.utilisation for run in runs):>5.0%}  "
            f"{clock(statistics.median(run.critical_path for run in runs)):>13}")


def _sharing(name: str, wanted: Sequence[Step], cost: Callable[[Step], StepCost]) -> str:
    shared, alone = gpu_hours(wanted, cost), gpu_hours(wanted, cost, shared=False)
    saved = 1 - shared / alone if alone else 0.0
    return (f"{name:<12} {len(closure(wanted))} steps, {shared:,.0f} GPU-hours; {alone:,.0f} if each evaluated "
            f"checkpoint were made from nothing: {saved:.0%} saved")


def _numbers(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise InputError(f"--gpus {text!r} is not a list of whole numbers above 0, such as 8,64,512")
    return [int(word) for word in words]


def main() -> int:
    """Simulate what the command line asks for."""
    options = tyro.cli(Options, prog="python -m replication.simulate", description=(__doc__ or "").partition("\n")[0])
    gpus = _numbers(options.gpus)
    if options.runs < 1:
        raise InputError(f"--runs {options.runs}: simulate at least one run")
    names = [name.strip() for name in (options.tables or ",".join(tables())).split(",") if name.strip()]
    targets: dict[str, list[Step]] = {}
    for model in [name.strip() for name in options.models.split(",") if name.strip()]:
        shape_of(model)
        targets[model] = _targets(model, names)
    print(f"Simulated, not measured: {', '.join(names)}; {options.runs} runs, spread {options.spread:g}")
    print("\n".join(lines(targets, gpus, spread=options.spread, runs=options.runs, seed=options.seed)))
    return 0


def _targets(model: str, names: Sequence[str]) -> list[Step]:
    """Return the targets of several tables, leaving out, and naming, those that a model has no part in."""
    found: list[Step] = []
    for name in names:
        if name not in tables():
            raise InputError(f"table {name!r} is unknown; choose from: {', '.join(tables())}")
        try:
            found += targets_of(name, model)
        except SuiteError as error:
            print(f"{name} of {model} left out: {error}")
    return list({step.key: step for step in found}.values())


if __name__ == "__main__":
    exit_with_message(main)
