"""Table 12: how many training examples each domain has, and what each filter dropped.

    python -m replication.table12 --model tiny
"""

from foundation.prompts import Domain
from replication.cells import PlannedCell
from replication.cli import main
from replication.declarations import Group, Table
from replication.measures import Dropped, Noted
from replication.paper import TABLES, published
from replication.plan import Planners

DOMAINS: tuple[Domain, ...] = ("math", "code", "logic")
ALL_MODELS = next(iter(TABLES["table12"].values))


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


TABLE = Table(
    name="table12",
    title="Training examples by domain, with what was read and dropped on the way",
    place="Table 12",
    groups=(Group(title="Math", columns=()), Group(title="Code", columns=(), domain="code"),
            Group(title="Logic", columns=(), domain="logic")),
    cells=cells,
    notes=("What was dropped is listed by reason in the pool's own report (`python -m replication.explain`).",),
)

if __name__ == "__main__":
    main(TABLE)
