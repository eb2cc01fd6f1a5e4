"""GRIM: can a printed percentage come from a whole number of right answers?

With n answers only k/n for k = 0..n can occur. A value is called impossible when neither rounding half up (nor half to
even) nor cutting off the further digits of any k/n gives it. Exact arithmetic. n is the problems of the benchmark as
this suite loads it; Table 9 averages three trainings (3 n answers), and pass@1 of Table 10 is the mean over 64 samples
(64 n answers). If the paper used another version of a benchmark, n and with it the finding would change.

After N. Brown and J. Heathers, The GRIM test, Social Psychological and Personality Science 8 (2017) 363.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

from evaluation.benchmarks import BENCHMARKS
from replication.audit.finding import Check, Where
from replication.audit.quantities import HUNDRED, Printed, exact, fixed, shown, unit
from replication.paper_tables import QWEN3_4B, decimals

PROBLEMS = {entry.title: entry.expected_count for entry in BENCHMARKS.values()}
"""Column title -> problems."""

LEFT_OUT = ("Table 10, k = 4 to 32: the pass@k estimator averages 1 - C(n-c, k) / C(n, k) over problems, which is no "
            "multiple of 1/n: the test does not apply; at k = 64 = n it is the share of problems solved at least once",
            "§B.8, 'only 13%' on MATH500 of a weaker model: printed without decimals, which every n above 100 allows",
            "Tables 6 and 7 (logits), 11 (times) and 12 (counts): no percentages of problems")

_SAME = {"AIME": "AIME2025", "AIME25": "AIME2025", "AIME 2025": "AIME2025", "MATH": "MATH500", "MATH 500": "MATH500"}
_PREFIXES = ("WD-JT only ", "Frozen base ")
_SUFFIXES = (" WMSS", " DPO")
_TESTED = ("table1", "table2", "table3", "table4", "table5", "table8", "table9", "table10")
_TEXT = tuple((f"{figure}_{benchmark}", title) for figure in ("fig4_start", "fig4_without", "fig4_with", "fig5_ck200")
              for benchmark, title in (("math500", "MATH500"), ("gsm8k", "GSM8K")))


def possible(value: Fraction, decimals: int, n: int) -> bool:
    """Say whether some k of n answers is printed as `value` per cent.

    Args:
        value: the printed percentage, with no more than `decimals` decimals.
        decimals: decimals it is printed with.
        n: answers.

    Raises:
        ValueError: n is not positive, or the value has more decimals.
    """
    return bool(counts(value, decimals, n))


def counts(value: Fraction, decimals: int, n: int, *, truncation: bool = True) -> range:
    """Return every k in 0..n whose share is printed as `value` per cent: rounded (a tie either way) or cut off."""
    if n < 1:
        raise ValueError(f"{n} answers: a share needs at least one")
    last = unit(decimals)
    if (value / last).denominator != 1:
        raise ValueError(f"{value} has more than {decimals} decimals")
    per_cent = Fraction(n) / HUNDRED
    first = math.ceil((value - last / 2) * per_cent)
    # cutting off gives `value` up to, but without, the next printed value
    end = math.ceil((value + last) * per_cent) if truncation else math.floor((value + last / 2) * per_cent) + 1
    return range(max(first, 0), min(end, n + 1))


def arithmetic(value: Fraction, decimals: int, n: int) -> str:
    """Return why a value is impossible: the neighbouring shares."""
    below = min(max(math.floor(value * n / HUNDRED), 0), n)
    shares = ", ".join(f"{k}/{n} = {shown(HUNDRED * k / n, decimals + 2)} %" for k in (below, below + 1) if k <= n)
    said = f"{fixed(value, decimals)} % of {n} is {shown(value * n / HUNDRED, 3)} right answers; {shares}"
    shorter = value * 10 ** (decimals - 1)
    if decimals > 1 and shorter.denominator == 1 and possible(value, decimals - 1, n):
        found = counts(value, decimals - 1, n)[0]
        said += (f"; with one decimal less, {fixed(value, decimals - 1)} is possible ({found}/{n}): the last digit may "
                 "be a zero appended")
    return said


def answers(table: str, column: str, row: str) -> int | None:
    """Return the answers behind a percentage of a table, None where the column is no score or no simple share."""
    name = column
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    for suffix in _SUFFIXES if table == "table10" else ():
        name = name.removesuffix(suffix)
    problems = PROBLEMS.get(_SAME.get(name, name))
    if problems is None or table not in _TESTED:
        return None
    if table == "table10":
        return {"1": 64 * problems, "64": problems}.get(row)
    return 3 * problems if table == "table9" else problems


def checks(paper: Printed) -> Iterator[Check]:
    """Yield one check per printed percentage of a known number of answers."""
    for table in _TESTED:
        for model, rows in paper.tables[table].values.items():
            for row, cells in rows.items():
                for column in cells:
                    value, n = paper.value(table, model, row, column), answers(table, column, row)
                    if value is not None and n is not None:
                        where = Where(table=table, row=row, column=column, place=table.replace("table", "Table "),
                                      model=model)
                        yield _check(where, exact(value), decimals(table, column), n)
    for name, title in _TEXT:
        claim = paper.claims[name]
        where = Where(table="text", row=claim.statement, column=title, place=claim.place, model=QWEN3_4B)
        yield _check(where, exact(claim.value) * HUNDRED, 1, PROBLEMS[title])


def _check(where: Where, value: Fraction, decimals: int, n: int) -> Check:
    if possible(value, decimals, n):
        return Check("grim")
    return Check("grim", where.found("grim", float(value), arithmetic(value, decimals, n), n))
