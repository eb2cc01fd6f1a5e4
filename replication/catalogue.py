"""Every table and figure, in the paper's order; each module declares one."""

from __future__ import annotations

from importlib import import_module

from replication.declarations import Table

MODULES = (*(f"table{number}" for number in range(1, 13)), "figure3", "figure4", "figure5", "theory", "ambiguities")


def tables() -> list[Table]:
    """Return all declarations."""
    return [import_module(f"replication.{name}").TABLE for name in MODULES]
