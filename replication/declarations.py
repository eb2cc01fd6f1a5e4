"""What a table's module declares. Nothing heavy is imported here: `--help` must answer at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from foundation.prompts import Domain

if TYPE_CHECKING:
    from replication.cells import PlannedCell
    from replication.plan import Planners
    from replication.store import Store
    from replication.tables import TableRun

FINAL = "final"
Plot = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Columns of one domain and their average; a method is trained once for each domain (E.5)."""

    title: str
    columns: tuple[str, ...]
    """Benchmark names."""
    average: str | None = None
    """Heading of the columns' average; None: there is none."""
    domain: Domain = "math"


@dataclass(frozen=True, slots=True)
class Line:
    """A row: a method by the text of replication.rows (or M0, M1), a heading, a checkpoint of its training."""

    text: str
    title: str | None = None
    """None: the method's own."""
    at: str = FINAL
    """`final`, `ck-50` to `ck-200` (that fraction of the last training, B.5), or the name of an earlier one: `M2`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table or figure: rows are methods, columns benchmarks; what has another shape gives its own `cells`."""

    name: str
    title: str
    place: str
    groups: tuple[Group, ...] = ()
    rows: tuple[str | Line, ...] = ()
    reference_rows: tuple[str, ...] = ()
    """Checkpoints shown for orientation above the methods: M0, M1."""
    trained: tuple[str, ...] = ()
    """Methods whose trainings the cells are read from, where the rows are no methods: their budgets are shown."""
    against: tuple[str, ...] = ("sft",)
    """The rows that every other method row is compared with, in paired tests; they are not compared with each other."""
    pairs: tuple[tuple[str, str], ...] = ()
    """Further comparisons, row against row."""
    notes: tuple[str, ...] = ()
    """What a reader of this table must know besides."""
    paper_table: str | None = None
    """The table of the paper whose values stand beside, where it is not the one of the same name."""
    claims: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """What the paper's text prints of a cell: (row's heading, column's) -> its id in TEXT_CLAIMS."""
    trainings: int = 1
    """Trainings behind each cell, with seeds that follow each other (Table 9: three)."""
    sweep: bool = False
    """Whether it is evaluated on the scale's smaller number of problems."""
    backbone: Literal["asked", "gemma"] = "asked"
    """`gemma`: the Gemma-style model that belongs to the model asked for (Table 4)."""
    cells: Callable[[Planners, Table], list[PlannedCell]] | None = None
    """Plans the cells of a table that is not a grid of methods and benchmarks."""
    plots: Callable[[dict[str, Any]], list[Plot]] | None = None
    """Makes plots of the finished content (docs/results.md)."""
    extras: Callable[[TableRun, Store], dict[str, list[Any]]] | None = None
    """Reads from finished steps what cannot be planned: `plots`, `notes`, `comparisons`, and `cells` whose columns only
    they know."""

    @property
    def lines(self) -> tuple[Line, ...]:
        """The rows as lines."""
        return tuple(row if isinstance(row, Line) else Line(row) for row in self.rows)

    @property
    def columns(self) -> tuple[str, ...]:
        """The benchmarks of all groups."""
        return tuple(name for group in self.groups for name in group.columns)
