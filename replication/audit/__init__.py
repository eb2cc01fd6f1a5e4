"""An audit of the paper from its own figures: what does not come out, with the arithmetic shown.

    python -m replication.audit             what differs, and how much was checked
    python -m replication.audit --json      the findings as a JSON list

Source: "Weak-Driven Learning: How Weak Agents Make Strong Agents Stronger", arXiv:2602.08222v2, as transcribed in
replication/paper_tables.py and replication/paper_values.py. Nothing is measured here.
"""

from __future__ import annotations

from replication.audit.finding import KINDS, Finding
from replication.audit.report import content, findings, write

__all__ = ["KINDS", "Finding", "content", "findings", "write"]
