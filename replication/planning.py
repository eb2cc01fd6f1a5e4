"""`--plan`: the steps a table needs, which are done, which are shared; nothing runs."""

from __future__ import annotations

from collections import Counter

from replication.cost.estimate import TRAININGS, estimate
from replication.cost.machine import lacks
from replication.cost.report import lines
from replication.cost.shapes import SHAPES, shape_of
from replication.display import clock
from replication.run import missing_steps
from replication.steps import closure
from replication.store import Store
from replication.tables import TableRun


def print_plan(run: TableRun, store: Store, gpus: int = 8) -> None:
    """Print one line a step, parents first, then the sums; at paper scale an estimate for so many GPUs as well."""
    steps = closure(run.targets)
    missing = {step.key for step in missing_steps(run.targets, store)}
    users = Counter(parent.key for step in steps for parent in {p.key: p for p in step.parents.values()}.values())
    print(f"{run.table.place}, model {run.planner.model.name}: {len(steps)} steps")
    for step in steps:
        state = "to run" if step.key in missing else "done" if store.is_done(step) else "not needed"
        shared = f"feeds {users[step.key]} steps" if users[step.key] > 1 else ""
        print(f"  {state:<10} {step.id:<24} {step.label:<34} {shared}".rstrip())
    trainings = [step for step in steps if step.kind in TRAININGS]
    seconds = sum(step.hint_seconds for step in steps if step.key in missing)
    print(f"{len(missing)} to run, {len(steps) - len(missing)} done or not needed; {len(trainings)} trainings; "
          f"{sum(n > 1 for n in users.values())} steps are shared"
          + (f"; about {clock(seconds)} of work on two cores" if seconds else ""))
    if run.planner.model.name in SHAPES:
        request, shape = run.planner.request, shape_of(run.planner.model.name)
        found = estimate(run.targets, missing_steps(run.targets, store), shape, gpus=gpus)
        print("\n".join(lines(found, shape, lacks(found, request, store.root))))
