"""Paired tests between rows that answered the same questions: exact McNemar per column, sign flips for averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evaluation.benchmarks import BENCHMARKS
from evaluation.statistics import (
    PairedAverage,
    holm,
    mcnemar_exact,
    paired_average_test,
    paired_difference_interval,
)
from foundation.errors import InputError
from replication.declarations import Group, Line

if TYPE_CHECKING:
    from replication.measures import Reading
    from replication.tables import TableRun

Answers = tuple[bool, ...]
Found = dict[tuple[str, str], Answers]


def comparisons(run: TableRun, readings: dict[int, Reading]) -> list[dict[str, Any]]:
    """Return the paired tests of each method row against each anchor, and of the table's pairs.

    Holm's adjustment is within the tests of single columns, and within those of averages: averages sum the columns up,
    and would only count their tests twice.

    Rows of several trainings, or of checkpoints inside one, are not compared: their answers do not pair up one to one.
    """
    if run.table.trainings > 1:
        return []
    found: Found = {cell.key: readings[i].scores[0] for i, cell in enumerate(run.cells)
                    if cell.key is not None and i in readings}
    lines = {line.text: line for line in run.table.lines}
    result = [comparison for row, anchor in _asked(run, lines) for group in run.table.groups
              for comparison in _of_group(run, lines[row], lines[anchor], group, found)]
    columns = {benchmark.title for benchmark in BENCHMARKS.values()}
    adjust([found for found in result if found["column"] in columns])
    adjust([found for found in result if found["column"] not in columns])
    return result


def adjust(family: Sequence[dict[str, Any]]) -> None:
    """Give each comparison of a family Holm's `p_holm`."""
    for comparison, adjusted in zip(family, holm([found["p"] for found in family]), strict=True):
        comparison["p_holm"] = adjusted


def compare_scores(column: str, ours: Mapping[str, float], theirs: Mapping[str, float]) -> dict[str, Any]:
    """Compare two models by their scores, each in [0, 1], on the same problems, by problem id; shown in points.

    Raises:
        InputError: no problem, or not the same ones.
    """
    if ours.keys() != theirs.keys():
        raise InputError(f"{column}: scores of {len(ours)} and {len(theirs)} problems that are not the same ones")
    return _tested(column, paired_average_test([[ours[name] - theirs[name] for name in ours]]))


def _asked(run: TableRun, lines: dict[str, Line]) -> list[tuple[str, str]]:
    anchors = [anchor for anchor in run.table.against if anchor in lines]
    asked = [(row, anchor) for row in lines if row not in run.table.against for anchor in anchors]
    return asked + [pair for pair in run.table.pairs if pair not in asked and set(pair) <= set(lines)]


def _of_group(run: TableRun, row: Line, anchor: Line, group: Group, found: Found) -> list[dict[str, Any]]:
    pairs = [(name, found.get((row.text, name)), found.get((anchor.text, name))) for name in group.columns]
    both = [(name, a, b) for name, a, b in pairs if a is not None and b is not None]
    planner = run.planners(group.domain)
    titles = {side: line.title or planner.row_title(line.text) for side, line in (("row", row), ("against", anchor))}
    result = [titles | _compare(BENCHMARKS[name].title, a, b) for name, a, b in both]
    if group.average is not None and both and len(both) == len(group.columns):
        result.append(titles | _compare_average(group.average, [(a, b) for _, a, b in both]))
    return result


def _compare(column: str, ours: Answers, theirs: Answers) -> dict[str, Any]:
    gained = sum(a and not b for a, b in zip(ours, theirs, strict=True))
    lost = sum(b and not a for a, b in zip(ours, theirs, strict=True))
    low, high = paired_difference_interval(ours, theirs)
    return {"column": column, "difference": 100 * (gained - lost) / len(ours), "ci95": [100 * low, 100 * high],
            "p": mcnemar_exact(gained, lost), "test": "mcnemar_exact", "gained": gained, "lost": lost}


def _compare_average(column: str, pairs: list[tuple[Answers, Answers]]) -> dict[str, Any]:
    differences = [[int(a) - int(b) for a, b in zip(x, y, strict=True)] for x, y in pairs]
    return _tested(column, paired_average_test(differences))


def _tested(column: str, test: PairedAverage) -> dict[str, Any]:
    return {"column": column, "difference": 100 * test.difference, "ci95": [100 * test.ci95[0], 100 * test.ci95[1]],
            "p": test.p, "test": test.test}
