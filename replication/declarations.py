"""What a table's module declares. Nothing heavy is imported here: `--help` must answer at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Columns of one domain and their average. `unavailable` is the reason why a domain cannot be measured yet."""

    title: str
    columns: tuple[str, ...]
    """Benchmark names, or column titles where the domain is unavailable."""
    average: str
    unavailable: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table of the paper, or one like it: rows are methods, columns benchmarks."""

    name: str
    title: str
    place: str
    groups: tuple[Group, ...]
    rows: tuple[str, ...]
    reference_rows: tuple[str, ...] = ()
    """Checkpoints shown for orientation above the methods: M0, M1."""
    against: tuple[str, ...] = ("sft",)
    """The rows that every other method row is compared with, in paired tests; they are not compared with each other."""
    paper_table: str | None = None
    """The table of the paper whose values stand beside, where it is not the one of the same name."""
