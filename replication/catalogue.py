"""Every table and figure, in the paper's order; each module declares one."""

from __future__ import annotations

from importlib import import_module

from replication.declarations import Table

MODULES = (*(f"table{number}" for number in (1, 2, 3, 4, 5, 8, 9, 10, 11, 12)), "figure3", "figure4", "figure5",
           "ambiguities")


def tables() -> list[Table]:
    """Return all declarations."""
    return [import_module(f"replication.{name}").TABLE for name in MODULES]
