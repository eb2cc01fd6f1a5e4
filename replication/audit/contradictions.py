"""One quantity or setting that the paper states in two places, where the two differ.

Figures are compared at the coarser of their decimals. Settings are sentences; each is put in our words with its place,
and counts as no check. A difference says nothing about which of the two is right. Where the two places are not of the
same runs (one averages three trainings, or they are other checkpoints) it is no contradiction: its kind is `differs`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from replication.audit.finding import Check, Finding, Where
from replication.audit.quantities import HUNDRED, Printed, exact, fixed, shown, unit
from replication.paper_tables import QWEN3_4B, QWEN25_3B

Spot = tuple[str, str, str]
"""(table, row, column), or ("text", claim, "") for a figure of the text."""

_FIGURE4 = "Figure 4 (§6.5)"
_THREE = "Table 9 averages three trainings, the other place does not say that it does"
_SAME_NAMES = ("MATH500", "AQuA", "GSM8K", "MAWPS", "SVAMP")
_ONE_SETTING = "the fixed alpha, beta, gamma and lambda"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two places that name one quantity."""

    first: Spot
    second: Spot
    why: str
    """Why they should agree, or what may explain that they do not."""
    model: str = QWEN3_4B
    kind: str = "contradiction"
    """`differs` where the two are not the same runs."""


def _pairs() -> Iterator[Pair]:
    for row, same in (("Baseline", "SFT"), ("WMSS", "WMSS")):
        for column, title in (("AIME", "AIME2025"), ("MATH", "MATH500"), ("GSM8K", "GSM8K")):
            yield Pair(("table2", row, column), ("table1", same, title), f"both are {same} on this backbone")
    for model in (QWEN3_4B, QWEN25_3B):
        for column, title in (("AIME 2025", "AIME2025"), ("MATH 500", "MATH500")):
            yield Pair(("table8", "Default", column), ("table1", "WMSS", title),
                       f"both are WMSS, {_ONE_SETTING}, greedy pass@1", model)
    for column, title in (("AIME25", "AIME2025"), *((name, name) for name in _SAME_NAMES)):
        yield Pair(("table9", "0.5", column), ("table1", "WMSS", title), f"both are WMSS, lambda fixed; {_THREE}",
                   kind="differs")
    for column, title in (("AIME25", "AIME 2025"), ("MATH500", "MATH 500")):
        yield Pair(("table9", "0.5", column), ("table8", "Default", title), f"both are the default setting; {_THREE}",
                   kind="differs")
    for name, table1, table3 in (("math500", "MATH500", "WD-JT only MATH500"), ("gsm8k", "GSM8K", "WD-JT only GSM8K")):
        table2 = {"math500": "MATH", "gsm8k": "GSM8K"}[name]
        with_, without = ("text", f"fig4_with_{name}", ""), ("text", f"fig4_without_{name}", "")
        yield Pair(with_, ("table1", "WMSS", table1), f"{_FIGURE4}: WMSS after its active schedule")
        yield Pair(with_, ("table2", "WMSS", table2), f"{_FIGURE4}: WMSS after its active schedule")
        yield Pair(without, ("table2", "+ WD-JT", table2), f"{_FIGURE4}: WD-JT without WD-DS after its full schedule")
        yield Pair(without, ("table3", "final", table3),
                   f"{_FIGURE4}: WD-JT without WD-DS after its full schedule; Table 3 does not name its backbone")
        yield Pair(("table3", "final", table3), ("table2", "+ WD-JT", table2),
                   "both are WD-JT without WD-DS; Table 3 does not name its backbone")


def checks(paper: Printed) -> Iterator[Check]:
    """Yield a check per pair of places, per comparison of Tables 6 and 7, and per pair of sentences."""
    for pair in _pairs():
        yield _compare(paper, pair)
    yield from _logit_tables(paper)
    for finding in _SENTENCES:
        yield Check("wording", finding, computed=False)


def _read(paper: Printed, spot: Spot, model: str) -> tuple[float | None, int]:
    """Return a figure in per cent and the decimals it is compared at."""
    table, row, column = spot
    if table == "text":
        return float(exact(paper.claims[row].value) * HUNDRED), 1
    return paper.value(table, model, row, column), 2 if table == "table10" else 1


def _named(paper: Printed, spot: Spot) -> str:
    table, row, column = spot
    return paper.claims[row].statement if table == "text" else f"{table.replace('table', 'Table ')}, {row}, {column}"


def _compare(paper: Printed, pair: Pair) -> Check:
    (first, decimals), (second, others) = (_read(paper, spot, pair.model) for spot in (pair.first, pair.second))
    table, row, column = pair.first
    where = Where(table=table, row=row if table != "text" else _named(paper, pair.first), column=column,
                  place=table.replace("table", "Table ") if table != "text" else paper.claims[row].place,
                  model=pair.model)
    if first is None or second is None:
        if first is second:
            return Check(pair.kind)
        dash, value = (pair.first, second) if first is None else (pair.second, first)
        said = (f"{_named(paper, dash)} is printed as '-' (no correct answer), {value:g} stands in "
                f"{_named(paper, pair.second if first is None else pair.first)}; {pair.why}")
        return Check(pair.kind, where.found(pair.kind, value, said))
    coarse = min(decimals, others)
    difference = exact(first) - exact(second)
    if abs(difference) < unit(coarse) / 2:
        return Check(pair.kind)
    said = (f"{_named(paper, pair.first)}: {fixed(exact(first), coarse)}; {_named(paper, pair.second)}: "
            f"{fixed(exact(second), coarse)}; differs by {shown(difference, coarse)}; {pair.why}")
    return Check(pair.kind, where.found(pair.kind, first, said))


def _logit_tables(paper: Printed) -> Iterator[Check]:
    """Tables 6 and 7 report the same statistics, of SFT and WMSS at epoch 3 and of the strong side before and after."""
    note = "Table 6 is SFT and WMSS at epoch 3, Table 7 the strong branch before and after WD-JT"
    rows = (("Std", "Logit Std.", ""), ("Mean logit", "Distractors Mean",
            "; the mean over all tokens exceeds that over the non-target ones by gap / |V| only, and by "
            f"{_vocabulary(paper)} the vocabulary is large"))
    for seventh, sixth, extra in rows:
        for column, other in (("Strong Pre", "SFT"), ("Strong Post", "WMSS")):
            yield _compare_logits(paper, seventh, column, sixth, other, note + extra)
    std = {table: paper.cell(table, QWEN3_4B, row, column) for table, row, column in
           (("table6", "Logit Std.", "change %"), ("table7", "Std", "Delta %"))}
    where = Where(table="table7", row="Std", column="Delta %", place="App. B.4", model=QWEN3_4B)
    opposite = std["table6"].plain * std["table7"].plain < 0
    said = (f"the change of the logits' standard deviation is printed as {std['table6'].text} % in Table 6 and as "
            f"{std['table7'].text} % in Table 7: opposite signs; {note}")
    yield Check("differs", where.found("differs", float(std["table7"].plain), said) if opposite else None)


def _vocabulary(paper: Printed) -> str:
    root = paper.cell("table7", QWEN3_4B, "Centered norm", "Strong Pre") / paper.cell(
        "table7", QWEN3_4B, "Std", "Strong Pre")
    return f"Eq. 48 ({root.text} = sqrt(|V|), |V| about {shown(root.plain * root.plain, 0)})"


def _compare_logits(paper: Printed, seventh: str, column: str, sixth: str, other: str, note: str) -> Check:
    here, there = paper.cell("table7", QWEN3_4B, seventh, column), paper.cell("table6", QWEN3_4B, sixth, other)
    if here.plain == there.plain:
        return Check("differs")
    where = Where(table="table7", row=seventh, column=column, place="App. B.4", model=QWEN3_4B)
    said = (f"Table 7, {seventh}, {column}: {here.text}; Table 6, {sixth}, {other}: {there.text}; differs by "
            f"{shown(here.plain - there.plain, 2)}; {note}")
    return Check("differs", where.found("differs", float(here.plain), said))


def _sentence(row: str, place: str, words: str) -> Finding:
    return Finding(kind="wording", table="text", row=row, column="", value=None, arithmetic=words, place=place)


_SENTENCES: tuple[Finding, ...] = (
    _sentence("Is the weak branch updated?", "§3.2, §4.1, Alg. 1 / App. B.4, D.4.2",
              "Eq. 3, §4.1 and line 18 of Algorithm 1 update both branches, and B.1 reports that freezing the weak one "
              "scores lower; B.4 calls it the frozen weak reference of which only the strong branch is updated, and "
              "D.4.2 says that the weak agent itself is not updated"),
    _sentence("Which methods train on 20K math examples?", "App. E.2 / App. E.6",
              "E.2: SSB and SPIN run on a 20K subsample of the math pool; E.6, under SSB: the subsampling applies only "
              "to the SSB math setting"),
    _sentence("Does SSB start from the SFT warm-start?", "Table 11 / App. E.6",
              "Table 11 reports SSB's time on Qwen3-4B-Base after the shared SFT warm-start; E.6 runs SSB on the Qwen "
              "bases directly from the base model, without it"),
    _sentence("Which figure shows the four-epoch trajectories?", "§6.4, App. E.5, D.6 / captions",
              "§6.4 describes Figure 4 as an extended trajectory over seven math datasets and E.5 and D.6 refer to it "
              "so; by the captions that is Figure 3, and Figure 4 is the average of MATH500 and GSM8K with and without "
              "WD-DS"),
)


def sentences() -> Mapping[str, str]:
    """Return the pairs of sentences that differ, question -> words."""
    return {finding.row: finding.arithmetic for finding in _SENTENCES}
