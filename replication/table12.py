"""Table 12: how many training examples each domain has, and what each filter dropped.

    python -m replication.table12 --model tiny
"""

from collections import Counter
from typing import Any

from foundation.prompts import Domain
from replication.cells import PlannedCell
from replication.cli import main
from replication.declarations import Group, Table
from replication.diagnostics import cell
from replication.measures import Dropped, Noted, pool_report
from replication.paper import TABLES, published
from replication.plan import Planners
from replication.store import Store
from replication.tables import TableRun

DOMAINS: tuple[Domain, ...] = ("math", "code", "logic")
ALL_MODELS = next(iter(TABLES["table12"].values))
NOTHING = "Nothing was dropped, so that no reason has a column: a generated pool keeps whatever it makes."


def cells(planners: Planners, table: Table) -> list[PlannedCell]:
    """Samples kept, and those read and dropped where a pool was filtered."""
    planned = []
    for domain in DOMAINS:
        planner, row = planners(domain), domain.capitalize()
        reason = planner.unavailable
        pool = None if reason else planner.pool()
        for column in ("samples", "read", "dropped"):
            kept = column == "samples"
            measure = None if pool is None else Noted((pool,), "examples") if kept else Dropped(pool, column)
            planned.append(PlannedCell(row=row, column=column, group="Pools", measure=measure, reason=reason,
                                       paper=published("table12", ALL_MODELS, row, "samples") if kept else None))
    return planned


def losses(run: TableRun, store: Store) -> dict[str, list[Any]]:
    """One column for each reason that any of the pools' reports names, most records first; 0 where a pool lacks it."""
    pools = {domain.capitalize(): None if run.planners(domain).unavailable else run.planners(domain).pool()
             for domain in DOMAINS}
    found = {row: (pool.id, pool_report(pool, store)["dropped"]) for row, pool in pools.items()
             if pool is not None and store.is_done(pool)}
    counted = sum((Counter(dropped) for _, dropped in found.values()), Counter[str]())
    columns = sorted(counted, key=lambda reason: (-counted[reason], reason))
    reasons = {domain.capitalize(): run.planners(domain).unavailable or "not run" for domain in DOMAINS}
    made = []
    for row in pools:
        for reason in columns:
            column = f"dropped: {reason}"
            if row in found:
                step, dropped = found[row]
                made.append(cell(row, column, dropped.get(reason, 0), group="Pools", digits=0, step=step))
            else:
                made.append(cell(row, column, None, group="Pools", digits=0, status="missing", reason=reasons[row]))
    return {"cells": made, "notes": [] if columns or not found else [NOTHING]}


TABLE = Table(
    name="table12",
    title="Training examples by domain, with what was read and dropped on the way",
    place="Table 12",
    groups=(Group(title="Math", columns=()), Group(title="Code", columns=(), domain="code"),
            Group(title="Logic", columns=(), domain="logic")),
    cells=cells,
    extras=losses,
    notes=("read = samples + dropped, unless the pool was limited; each reason for dropping has a column of its own.",),
)

if __name__ == "__main__":
    main(TABLE)
