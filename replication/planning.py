"""`--plan`: the steps that tables need, which are done, which are shared; nothing runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from replication.cost.estimate import TRAININGS, estimate
from replication.cost.machine import lacks
from replication.cost.report import lines
from replication.cost.shapes import SHAPES, shape_of
from replication.display import clock
from replication.run import missing_steps
from replication.source_steps import hub_revisions
from replication.steps import Step, closure
from replication.store import Store
from replication.tables import TableRun


def print_plan(runs: Sequence[TableRun], store: Store, gpus: int = 8,
               train_processes: int | None = None) -> None:
    """Print one line a step, parents first, then the sums; at paper scale an estimate for so many GPUs as well."""
    targets = [step for run in runs for step in run.targets]
    steps = closure(targets)
    missing = {step.key for step in missing_steps(targets, store)}
    users = Counter(parent.key for step in steps for parent in {p.key: p for p in step.parents.values()}.values())
    print(f"{_names(runs)}: {len(steps)} steps")
    for step in steps:
        state = "to run" if step.key in missing else "done" if store.is_done(step) else "not needed"
        shared = f"feeds {users[step.key]} steps" if users[step.key] > 1 else ""
        print(f"  {state:<10} {step.id:<24} {step.label:<34} {shared}".rstrip())
    seconds = sum(step.hint_seconds for step in steps if step.key in missing)
    print(f"{len(missing)} to run, {len(steps) - len(missing)} done or not needed; "
          f"{sum(n > 1 for n in users.values())} steps are shared"
          + (f"; about {clock(seconds)} of work on one core" if seconds else ""))
    print(sharing(runs))
    for line in _revisions(steps):
        print(line)
    for planners in {run.planners.request.model.name: run.planners for run in runs}.values():
        if (name := planners.request.model.name) in SHAPES:
            own = [run for run in runs if run.planners.request.model.name == name]
            wanted = [step for run in own for step in run.targets]
            absent = {why: None for run in own for why in run.absent.values()}
            shape = shape_of(name)
            found = estimate(wanted, missing_steps(wanted, store), shape, gpus=gpus, train_processes=train_processes)
            print("\n".join(lines(found, shape, lacks(found, planners.request, store.root, absent))))


def _revisions(steps: Sequence[Step]) -> list[str]:
    """Say which commits of the hub are read, and which repositories have none recorded yet."""
    found = hub_revisions(steps)
    lines = [f"hub: {repository} at {revision}" for repository, revision in found.items() if revision]
    if open_ones := [repository for repository, revision in found.items() if not revision]:
        lines.append(f"hub: not pinned yet: {', '.join(open_ones)}; the first fetch records the newest commit in "
                     "foundation/lock.json (or WMSS_LOCK)")
    return lines


def _names(runs: Sequence[TableRun]) -> str:
    models = dict.fromkeys(run.planners.request.model.name for run in runs)
    return f"{', '.join(dict.fromkeys(run.table.place for run in runs))}, model {', '.join(models)}"


def sharing(runs: Sequence[TableRun]) -> str:
    """Say how many trainings there are, and how many if each row of each table were made by itself."""
    distinct = [step for step in closure([step for run in runs for step in run.targets]) if step.kind in TRAININGS]
    alone = [step for run in runs for made in _checkpoints(run) for step in closure([made]) if step.kind in TRAININGS]
    text = (f"{len(distinct)} trainings, one for each distinct configuration; every row of every table by itself would "
            f"take {len(alone)}")
    ours, theirs = (sum(step.hint_seconds for step in steps) for steps in (distinct, alone))
    return text + (f": about {clock(ours)} instead of {clock(theirs)} of training on one core" if ours else "")


def _checkpoints(run: TableRun) -> list[Step]:
    """Return the trained checkpoints that a table's steps start from, each once."""
    found = {}
    for step in closure(run.targets):
        if step.kind in ("generate", "samples", "logit-statistics", "theory"):
            found.update({parent.key: parent for role, parent in step.parents.items()
                          if parent.kind in (*TRAININGS, "snapshot")})
    return list(found.values())
