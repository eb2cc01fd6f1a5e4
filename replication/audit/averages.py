"""Averages, differences and relative changes inside the tables, recomputed from the figures beside them.

An average is taken over the printed scores, each within half a unit of its last digit. Where plain recomputation gives
another figure that this rounding would explain, it is taken a second time over the shares k/n that are printed so: they
are narrower, and can exclude a value that the first interval still allows. The finding then says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

from replication.audit import grim
from replication.audit.finding import Check, Where, recompute
from replication.audit.quantities import (
    HUNDRED,
    Printed,
    Quantity,
    exact,
    figure,
    fixed,
    mean,
    percent_change,
    shown,
    unit,
)
from replication.paper_tables import CODE_BENCHMARKS, MATH_BENCHMARKS, QWEN3_4B, decimals

_PARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "table1": {"Math Avg.": MATH_BENCHMARKS, "Code Avg.": CODE_BENCHMARKS},
    "table2": {"Avg.": ("AIME", "MATH", "GSM8K")},
    "table4": {"Math Avg.": MATH_BENCHMARKS[1:], "Code Avg.": CODE_BENCHMARKS},
    "table5": {"Avg.": ("LogiQA2", "ReClor")},
    "table9": {"Avg.": ("AIME25", "MATH500", "AQuA", "GSM8K", "MAWPS", "SVAMP")},
}
LOGITS_GROUP = ("Target Strength", "Distractors Mean", "Target-to-Background Gap")


def place(table: str) -> str:
    """Return a table's name as the paper writes it."""
    return table.replace("table", "Table ")


def checks(paper: Printed) -> Iterator[Check]:
    """Yield a check per printed average, change, difference and relative change."""
    yield from _averages(paper)
    yield from _changes(paper)
    yield from _logit_changes(paper)
    yield from _cost_changes(paper)
    yield from _growing(paper)


def _averages(paper: Printed) -> Iterator[Check]:
    for table, groups in _PARTS.items():
        for model, rows in paper.tables[table].values.items():
            for row in rows:
                for column, parts in groups.items():
                    where = Where(table=table, row=row, column=column, place=place(table), model=model)
                    printed = paper.cell(table, model, row, column).plain
                    average = mean([paper.cell(table, model, row, part) for part in parts])
                    check = recompute("average", where, printed, decimals(table, column), average)
                    yield _with_counts(paper, check, parts)


def _with_counts(paper: Printed, check: Check, parts: Sequence[str]) -> Check:
    """Add to a finding that rounding would explain what the shares k/n behind the scores say."""
    found = check.finding
    if found is None or found.value is None or found.kind != "recomputed":
        return check
    where = Where(table=found.table, row=found.row, column=found.column, place=found.place, model=found.model)
    spans = [_shares(paper, where, part) for part in parts]
    average, printed, places = mean(spans), exact(found.value), decimals(found.table, found.column)
    half = unit(places) / 2
    verdict = "allow" if average.low - half <= printed <= average.high + half else "do not give"
    said = (f"{found.arithmetic}; the shares k/n printed so ({', '.join(s.text for s in spans)}) have a mean within "
            f"{average.interval} and {verdict} {fixed(printed, places)} by rounding")
    return Check(check.kind, replace(found, arithmetic=said))


def _shares(paper: Printed, where: Where, part: str) -> Quantity:
    """Return the range of k/n behind a score; its rounding interval where n is not known or no k is possible."""
    cell = paper.cell(where.table, str(where.model), where.row, part)
    n = grim.answers(where.table, part, where.row)
    found = grim.counts(cell.plain, decimals(where.table, part), n, truncation=False) if n else range(0)
    if not n or not found:
        return cell
    low, high = HUNDRED * found[0] / n, HUNDRED * found[-1] / n
    text = f"{part} {found[0]}/{n}" + (f" to {found[-1]}/{n}" if len(found) > 1 else "")
    return Quantity(cell.plain, low, high, text)


def _changes(paper: Printed) -> Iterator[Check]:
    """Table 1: the arrows beside the averages are differences from SFT."""
    for model, rows in paper.tables["table1"].values.items():
        for row in rows:
            for group in ("Math Avg.", "Code Avg."):
                value = paper.value("table1", model, row, f"{group} change")
                if value is not None:
                    where = Where(table="table1", row=row, column=f"{group} change", place="Table 1", model=model)
                    own, sft = (paper.cell("table1", model, name, group) for name in (row, "SFT"))
                    yield recompute("difference", where, exact(value), 1, own - sft)


def _logit_changes(paper: Printed) -> Iterator[Check]:
    """Tables 6 and 7: the gap, the differences and the relative changes."""
    six, seven = paper.tables["table6"].values[QWEN3_4B], paper.tables["table7"].values[QWEN3_4B]
    for row in six:
        sft, wmss, change = (paper.cell("table6", QWEN3_4B, row, name) for name in ("SFT", "WMSS", "change %"))
        yield recompute("difference", _logit("table6", row, "change %"), change.plain, 1, percent_change(wmss, sft))
    for column in ("SFT", "WMSS"):
        target, background, gap = (paper.cell("table6", QWEN3_4B, name, column) for name in LOGITS_GROUP)
        yield recompute("difference", _logit("table6", LOGITS_GROUP[2], column), gap.plain, 2, target - background)
    for row in seven:
        before, after, delta, change = (paper.cell("table7", QWEN3_4B, row, name)
                                        for name in ("Strong Pre", "Strong Post", "Delta", "Delta %"))
        yield recompute("difference", _logit("table7", row, "Delta"), delta.plain, 2, after - before)
        yield recompute("difference", _logit("table7", row, "Delta %"), change.plain, 1, percent_change(after, before))
    yield _one_vocabulary(paper)


def _logit(table: str, row: str, column: str) -> Where:
    return Where(table=table, row=row, column=column, place=place(table), model=QWEN3_4B)


def _one_vocabulary(paper: Printed) -> Check:
    """Eq. 48: centered norm = sqrt(|V|) Std, so that one vocabulary size must explain all three columns of Table 7."""
    columns = ("Weak init", "Strong Pre", "Strong Post")
    roots = [paper.cell("table7", QWEN3_4B, "Centered norm", c) / paper.cell("table7", QWEN3_4B, "Std", c)
             for c in columns]
    low, high = max(root.low for root in roots), min(root.high for root in roots)
    if low <= high:
        return Check("difference")
    said = "; ".join(f"{name}: {root.text} within {root.interval}" for name, root in zip(columns, roots, strict=True))
    where = Where(table="table7", row="Centered norm", column="Std", place="Eq. 48", model=QWEN3_4B)
    return Check("difference", where.found("difference", None, f"norm / Std = sqrt(|V|) has no common value: {said}"))


def _cost_changes(paper: Printed) -> Iterator[Check]:
    """Table 11 repeats the Math-Avg changes of Table 1."""
    for row in paper.tables["table11"].values[QWEN3_4B]:
        value = paper.value("table11", QWEN3_4B, row, "Math-Avg change")
        if value is None:
            continue
        change = paper.cell("table1", QWEN3_4B, row, "Math Avg. change")
        where = Where(table="table11", row=row, column="Math-Avg change", place="Table 11", model=QWEN3_4B)
        yield recompute("difference", where, exact(value), 1, change)


def _growing(paper: Printed) -> Iterator[Check]:
    """Table 10: pass@k of one set of samples never falls with k, and a further sample adds no more than the last."""
    rows = paper.tables["table10"].values[QWEN3_4B]
    for column in (name for name in next(iter(rows.values())) if name != "k"):
        points = [(int(row), paper.cell("table10", QWEN3_4B, row, column)) for row in rows]
        slopes = [(later - earlier) / figure(Fraction(k - j), 9, f"{k - j}")
                  for (j, earlier), (k, later) in pairwise(points)]
        falls = any(slope.high < 0 for slope in slopes)
        bends = any(second.low > first.high for first, second in pairwise(slopes))
        said = f"per further sample: {', '.join(shown(slope.plain, 4) for slope in slopes)} points"
        where = Where(table="table10", row="all k", column=column, place="Table 10", model=QWEN3_4B)
        yield Check("difference", where.found("difference", None, said) if falls or bends else None)
