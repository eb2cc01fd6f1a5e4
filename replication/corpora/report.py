"""The account of a pool: what each source gave, why records were dropped, and how that compares with Table 12."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from replication.data.pool import PoolReport
from replication.paper_tables import TABLES

ROWS = {"math": "Math", "code": "Code", "logic": "Logic"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceReport:
    """One source file: its name, its content's hash, what was read and what became of it."""

    name: str
    sha256: str
    pool: PoolReport


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusReport:
    """A finished pool. `limit` is the number of records that was asked for, None for all."""

    kind: str
    sources: tuple[SourceReport, ...]
    pool_sha256: str
    limit: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def total(self) -> PoolReport:
        """The sum over the sources."""
        total = self.sources[0].pool
        for source in self.sources[1:]:
            total = total + source.pool
        return total

    @property
    def printed(self) -> int:
        """The paper's count (Table 12)."""
        return printed_count(self.kind)

    def to_row(self) -> dict[str, Any]:
        """Return the JSON form."""
        total = self.total
        return {"kind": self.kind, "pool": total.to_row(), "limit": self.limit, "pool_sha256": self.pool_sha256,
                "table12": {"printed": self.printed, "kept": total.kept, "difference": total.kept - self.printed,
                            "equal": total.kept == self.printed},
                "settings": dict(self.settings),
                "sources": [{"file": s.name, "sha256": s.sha256} | s.pool.to_row() for s in self.sources]}


def printed_count(kind: str) -> int:
    """Return the paper's number of examples of a domain (Table 12)."""
    (values,) = TABLES["table12"].values.values()
    return int(float(str(values[ROWS[kind]]["samples"])))


def as_text(row: Mapping[str, Any]) -> str:
    """Return a report's JSON form for a person to read."""
    pool, table = row["pool"], row["table12"]
    lines = [f"{ROWS[row['kind']]} pool: {pool['kept']:,} of {pool['read']:,} records kept",
             f"Table 12 prints {table['printed']:,}: {_judgement(row)}", "", "dropped:"]
    lines += [f"  {count:>10,}  {reason}" for reason, count in sorted(pool["dropped"].items(), key=lambda x: -x[1])]
    lines += ["", "sources:"]
    lines += [f"  {s['file']}: {s['kept']:,} of {s['read']:,} kept (sha256 {s['sha256'][:16]}...)"
              for s in row["sources"]]
    if pool["malformed"]:
        lines += ["", f"malformed ({len(pool['malformed'])}):", *(f"  {item}" for item in pool["malformed"][:20])]
    if pool["checked_against"]:
        lines += ["", f"questions of these test sets were left out: {', '.join(pool['checked_against'])}"]
    return "\n".join(lines) + "\n"


def _judgement(row: Mapping[str, Any]) -> str:
    if row["table12"]["equal"]:
        return "equal"
    partial = f", of the first {row['limit']:,} records only" if row["limit"] is not None else ""
    return f"{row['table12']['difference']:+,} here{partial}"
