"""From a table's declaration to steps, from finished steps to cells."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from evaluation.benchmarks import BENCHMARKS
from evaluation.statistics import (
    holm,
    mcnemar_exact,
    mean_of_proportions_interval,
    paired_average_test,
    paired_difference_interval,
    wilson,
)
from foundation.files import read_jsonl
from replication.declarations import Group, Table
from replication.paper import published
from replication.plan import Planner
from replication.run import RunReport
from replication.steps import Grade, Step
from replication.store import Store


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Graded answers of one row on one benchmark, in problem order."""

    step_id: str
    correct: tuple[bool, ...]
    outcomes: dict[str, int]
    truncated: int


Cell = dict[str, Any]


class TableRun:
    """One table for one request: which steps it needs, and what they gave."""

    def __init__(self, table: Table, planner: Planner, methods: tuple[str, ...], benchmarks: tuple[str, ...]) -> None:
        self.table, self.planner, self.benchmarks = table, planner, benchmarks
        self.methods = methods
        self.rows = (*table.reference_rows, *methods)
        self.grades: dict[tuple[str, str], Grade] = {
            (row, name): planner.grade(row, name) for row in self.rows for name in self._measured()
        }

    def _measured(self) -> list[str]:
        return [name for group in self.table.groups if group.unavailable is None for name in group.columns
                if name in self.benchmarks]

    @property
    def targets(self) -> list[Step]:
        """The steps whose results the cells are read from."""
        return list(self.grades.values())

    def warmup_notes(self, store: Store) -> dict[str, Any] | None:
        """Return what the shared warm-up's manifest says of updates and examples, if it has run."""
        warmup = self.planner.warmup()
        found: dict[str, Any] | None = store.read_manifest(warmup.id)["notes"] if store.is_done(warmup) else None
        return found

    def verdicts(self, store: Store) -> dict[tuple[str, str], Verdicts]:
        """Read the verdicts of every finished grade step."""
        return {key: _read_verdicts(step, store) for key, step in self.grades.items() if store.is_done(step)}

    def cells(self, verdicts: dict[tuple[str, str], Verdicts], report: RunReport) -> list[Cell]:
        """Return every cell of the table: measured, missing or failed, never left out."""
        result = []
        for row in self.rows:
            for group in self.table.groups:
                result += [self._cell(row, name, group, verdicts, report) for name in group.columns]
                result.append(self._average(row, group, verdicts))
        return result

    def _cell(self, row: str, name: str, group: Group, verdicts: dict[tuple[str, str], Verdicts],
              report: RunReport) -> Cell:
        column = BENCHMARKS[name].title if name in BENCHMARKS else name
        if (found := verdicts.get((row, name))) is not None:
            n, correct = len(found.correct), sum(found.correct)
            low, high = wilson(correct, n)
            return self._form(row, column, group, value=100 * correct / n, n=n, correct=correct,
                              ci95=[100 * low, 100 * high], step=found.step_id,
                              outcomes={**found.outcomes, "truncated": found.truncated})
        if group.unavailable is not None:
            return self._form(row, column, group, status="missing", reason=group.unavailable)
        if name not in self.benchmarks:
            return self._form(row, column, group, status="missing", reason="not asked for (--benchmarks)")
        failure = report.failed.get(self.grades[row, name].key)
        reason = "not run" if failure is None else failure.reason
        return self._form(row, column, group, status="missing" if failure is None else "failed", reason=reason)

    def _average(self, row: str, group: Group, verdicts: dict[tuple[str, str], Verdicts]) -> Cell:
        """Average over problems within a benchmark first, then over the table's fixed list of benchmarks (A-93)."""
        found = [verdicts.get((row, name)) for name in group.columns]
        present = [v for v in found if v is not None]
        if len(present) < len(found):
            reason = group.unavailable or f"needs all {len(found)} columns, {len(present)} were measured"
            return self._form(row, group.average, group, status="missing", reason=reason)
        counts = [(sum(v.correct), len(v.correct)) for v in present]
        low, high = mean_of_proportions_interval(counts)
        value = 100 * sum(correct / n for correct, n in counts) / len(counts)
        return self._form(row, group.average, group, value=value, n=sum(n for _, n in counts),
                          correct=sum(correct for correct, _ in counts), ci95=[100 * low, 100 * high])

    def _form(self, row: str, column: str, group: Group, *, value: float | None = None, n: int | None = None,
              correct: int | None = None, ci95: list[float] | None = None, status: str = "measured",
              reason: str | None = None, step: str | None = None, outcomes: dict[str, int] | None = None) -> Cell:
        title, model = self.planner.row_title(row), self.planner.model
        judged = model.published_as is not None and self.planner.comparable_with_the_paper
        value_of = published(self.table.paper_table or self.table.name, model.context, title, column)
        paper, context = (value_of, None) if judged else (None, value_of)
        return {"row": title, "column": column, "group": group.title, "value": value, "unit": "%", "n": n,
                "correct": correct, "ci95": ci95, "paper": paper, "paper_context": context, "status": status,
                "reason": reason, "step": step, "outcomes": outcomes}

    def comparisons(self, verdicts: dict[tuple[str, str], Verdicts]) -> list[dict[str, Any]]:
        """Return the paired tests of each method row against each anchor, per column and for each average."""
        rows = [row for row in self.methods if row not in self.table.against]
        result = [comparison for row in rows for anchor in self.table.against if anchor in self.methods
                  for group in self.table.groups for comparison in self._of_group(row, anchor, group, verdicts)]
        columns = [c for c in result if c["test"] == "mcnemar_exact"]
        for comparison, adjusted in zip(columns, holm([c["p"] for c in columns]), strict=True):
            comparison["p_holm"] = adjusted
        return result

    def _of_group(self, row: str, anchor: str, group: Group, verdicts: dict[tuple[str, str], Verdicts]
                  ) -> list[dict[str, Any]]:
        pairs = [(name, verdicts.get((row, name)), verdicts.get((anchor, name))) for name in group.columns]
        both = [(name, a, b) for name, a, b in pairs if a is not None and b is not None]
        titles = {"row": self.planner.row_title(row), "against": self.planner.row_title(anchor)}
        result = [titles | _compare(BENCHMARKS[name].title, a, b) for name, a, b in both]
        if both and len(both) == len(group.columns):
            result.append(titles | _compare_average(group.average, [(a, b) for _, a, b in both]))
        return result


def _compare(column: str, ours: Verdicts, theirs: Verdicts) -> dict[str, Any]:
    gained = sum(a and not b for a, b in zip(ours.correct, theirs.correct, strict=True))
    lost = sum(b and not a for a, b in zip(ours.correct, theirs.correct, strict=True))
    low, high = paired_difference_interval(ours.correct, theirs.correct)
    return {"column": column, "difference": 100 * (gained - lost) / len(ours.correct), "ci95": [100 * low, 100 * high],
            "p": mcnemar_exact(gained, lost), "test": "mcnemar_exact", "gained": gained, "lost": lost}


def _compare_average(column: str, pairs: list[tuple[Verdicts, Verdicts]]) -> dict[str, Any]:
    differences = [[int(a) - int(b) for a, b in zip(x.correct, y.correct, strict=True)] for x, y in pairs]
    test = paired_average_test(differences)
    return {"column": column, "difference": 100 * test.difference, "ci95": [100 * test.ci95[0], 100 * test.ci95[1]],
            "p": test.p, "p_holm": test.p, "test": test.test}


def _read_verdicts(step: Grade, store: Store) -> Verdicts:
    folder = store.use(step)
    rows = list(read_jsonl(folder / "verdicts.jsonl"))
    counts = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
    truncated = counts.pop("truncated", 0)
    counts.pop("n")
    return Verdicts(step.id, tuple(row["outcome"] == "correct" for row in rows), counts, truncated)
