"""Sentences of the paper that order or bound printed figures: best, strongest, at every k, within 2 points, a plateau.

Each is put as a statement about printed figures and counted; one that the figures do not bear out as worded becomes a
finding with the figures beside it. Words without a measure (substantially, worse) are checked in their direction; where
we had to give a word a measure (close, nearly), the row names it.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

from replication.audit.finding import Check, Where
from replication.audit.quantities import Printed, Quantity, exact, mean, shown
from replication.paper_tables import GEMMA_4B, METHODS, QWEN3_4B, QWEN3_8B, QWEN25_3B

QWEN = (QWEN3_4B, QWEN3_8B, QWEN25_3B)
SIX = {"AIME25": "AIME2025", **{name: name for name in ("MATH500", "AQuA", "GSM8K", "MAWPS", "SVAMP")}}
"""Column of Table 9 -> column of Table 1: the benchmarks that both average (Table 1's average has AMC23 as well)."""
HARD = ("AIME 2025", "AMC23")


def checks(paper: Printed) -> Iterator[Check]:
    """Yield a check per comparison that a sentence makes."""
    for part in (_best, _ablation, _freezing, _headline, _mixing, _worst_mixing, _default, _configurations,
                 _pass_at_k, _ratios):
        yield from part(paper)


def claim(paper: Printed, place: str, row: str, holds: bool, arithmetic: str, *, model: str | None = QWEN3_4B,
          table: str = "text", column: str = "", value: Fraction | None = None) -> Check:
    """Return a check of one statement; `arithmetic` is kept where it does not hold."""
    where = Where(table=table, row=row, column=column, place=place, model=model)
    found = where.found("claim", None if value is None else float(value), arithmetic)
    return Check("claim", None if holds else found)


def _rivals(paper: Printed, table: str, model: str, column: str) -> tuple[Quantity, str, Quantity]:
    """Return WMSS's figure, and the best other method with its own."""
    others = {row: paper.cell(table, model, row, column) for row in METHODS if row != "WMSS"}
    name = max(others, key=lambda row: others[row].plain)
    return paper.cell(table, model, "WMSS", column), name, others[name]


def _best(paper: Printed) -> Iterator[Check]:
    """§6.2, B.2 and B.3: WMSS is the best of its column."""
    columns = [("table1", model, "Math Avg.", "§6.2") for model in QWEN]
    columns += [("table4", GEMMA_4B, column, "App. B.2") for column in ("Math Avg.", "Code Avg.")]
    columns += [("table5", model, column, "App. B.3") for model in (*QWEN, GEMMA_4B)
                for column in ("LogiQA2", "ReClor", "Avg.")]
    for table, model, column, place in columns:
        wmss, name, rival = _rivals(paper, table, model, column)
        yield claim(paper, place, "WMSS attains the best value", wmss.plain > rival.plain,
                    f"WMSS {wmss.text}, {name} {rival.text}: differs by {shown(wmss.plain - rival.plain)}",
                    model=model, table=table, column=column, value=wmss.plain)
    for table, model in (*(("table1", model) for model in QWEN), ("table4", GEMMA_4B)):
        wmss, sft = (paper.cell(table, model, row, "Math Avg.") for row in ("WMSS", "SFT"))
        yield claim(paper, "§6.2", "The Math-Avg gain over SFT is positive", wmss.plain > sft.plain,
                    f"{wmss.text} - {sft.text} = {shown(wmss.plain - sft.plain)}", model=model, table=table,
                    column="Math Avg.", value=wmss.plain)


def _ablation(paper: Printed) -> Iterator[Check]:
    """§6.3: each module helps alone, both help more; §6.5: the shorter schedule ends higher."""
    averages = {row: paper.cell("table2", QWEN3_4B, row, "Avg.") for row in ("Baseline", "+ WD-DS", "+ WD-JT", "WMSS")}
    for low, high in (("Baseline", "+ WD-DS"), ("Baseline", "+ WD-JT"), ("+ WD-DS", "WMSS"), ("+ WD-JT", "WMSS"),
                      ("+ WD-DS", "+ WD-JT")):
        yield claim(paper, "§6.3", f"{high} improves on {low}", averages[high].plain > averages[low].plain,
                    f"{high} {averages[high].text}, {low} {averages[low].text}", table="table2", column="Avg.",
                    value=averages[high].plain)
    for name in ("math500", "gsm8k"):
        with_, without = (paper.claim(f"fig4_{which}_{name}", 3) for which in ("with", "without"))
        yield claim(paper, "§6.5", f"WD-DS ends higher: {name}", with_.plain > without.plain,
                    f"with {with_.text}, without {without.text}", value=with_.plain)


def _freezing(paper: Printed) -> Iterator[Check]:
    """B.1: the frozen base scores lower at every checkpoint."""
    for row in paper.tables["table3"].values[QWEN3_4B]:
        for name in ("MATH500", "GSM8K"):
            joint, frozen = (paper.cell("table3", QWEN3_4B, row, f"{kind} {name}")
                             for kind in ("WD-JT only", "Frozen base"))
            yield claim(paper, "App. B.1", f"The frozen base scores lower at {row}", frozen.plain < joint.plain,
                        f"frozen {frozen.text}, joint {joint.text}", table="table3", column=name, value=frozen.plain)


def _headline(paper: Printed) -> Iterator[Check]:
    """§1: WMSS nearly doubles the strongest baseline's average gain on the main math/code settings."""
    gains = {(row, group): mean([paper.cell("table1", model, row, f"{group} Avg. change") for model in QWEN])
             for row in METHODS[1:] for group in ("Math", "Code")}
    own = mean([gains["WMSS", group] for group in ("Math", "Code")])
    rivals = {group: max((gains[row, group].plain, row) for row in METHODS[1:-1])[1] for group in ("Math", "Code")}
    ratio = own.plain / mean([gains[rivals[group], group] for group in rivals]).plain
    said = (f"mean gain of WMSS {shown(own.plain)}; strongest baseline by mean gain: Math {rivals['Math']} "
            f"{shown(gains[rivals['Math'], 'Math'].plain)}, Code {rivals['Code']} "
            f"{shown(gains[rivals['Code'], 'Code'].plain)}; ratio {shown(ratio, 2)}")
    holds = Fraction(18, 10) <= ratio <= 2
    yield claim(paper, "§1", "WMSS nearly doubles the gain of the strongest baseline (taken as 1.8 to 2 times)", holds,
                said, model=None, value=ratio)


def _mixing(paper: Printed) -> Iterator[Check]:
    """B.6, B.8, Table 9: where the best averages of the lambda sweep lie."""
    averages = {row: paper.cell("table9", QWEN3_4B, row, "Avg.") for row in paper.tables["table9"].values[QWEN3_4B]}
    best, worst = (pick(averages, key=lambda row: averages[row].plain) for pick in (max, min))
    low, high = (exact(paper.claims[f"plateau_{end}"].value) for end in ("low", "high"))
    inside = {row: q for row, q in averages.items() if low <= Fraction(row) <= high}
    floor = min(inside, key=lambda row: inside[row].plain)
    above = [f"{row} ({q.text})" for row, q in averages.items() if row not in inside and q.plain > inside[floor].plain]
    yield _sweep(paper, "lambda 0.42 has the best average", Fraction(best) == exact(paper.claims["best_lambda"].value),
                 f"the best average is {averages[best].text} at {best}", averages[best])
    yield _sweep(paper, "lambda 0.9 is the worst setting of the sweep", worst == "0.9",
                 f"the worst average is {averages[worst].text} at {worst}", averages[worst])
    yield _sweep(paper, "The strongest averages lie in [0.42, 0.50]", not above,
                 f"inside: {', '.join(f'{row} ({q.text})' for row, q in inside.items())}; outside, yet above "
                 f"the lowest inside ({inside[floor].text} at {floor}): {', '.join(above)}", inside[floor])
    turns = [f"{a} ({averages[a].text}) to {b} ({averages[b].text})" for a, b in pairwise(averages)
             if (averages[b].plain - averages[a].plain) * (1 if Fraction(b) <= Fraction(best) else -1) < 0]
    yield _sweep(paper, "The averages form an inverted U around 0.42", not turns,
                 f"steps against that shape: {'; '.join(turns)} (B.8 expects minor fluctuations on small sets)",
                 averages[best])
    crossing = paper.claim("lambda_cross", 3)
    yield _sweep(paper, "The crossover of Eq. 17 lies in the plateau", low <= crossing.plain <= high,
                 f"{crossing.text} and [{shown(low)}, {shown(high)}]", crossing)


def _sweep(paper: Printed, row: str, holds: bool, arithmetic: str, value: Quantity) -> Check:
    return claim(paper, "App. B.6, B.8", row, holds, arithmetic, table="table9", column="Avg.", value=value.plain)


def six_average(paper: Printed, row: str) -> Quantity:
    """Return a row of Table 1 averaged over the six benchmarks of Table 9."""
    return mean([paper.cell("table1", QWEN3_4B, row, column) for column in SIX.values()])


def _worst_mixing(paper: Printed) -> Iterator[Check]:
    """B.6 (ii): the worst lambda still exceeds the strongest non-WMSS baseline of Table 1, and SFT by more than 3."""
    others = {row: paper.cell("table1", QWEN3_4B, row, "Math Avg.") for row in METHODS if row != "WMSS"}
    strongest = max(others, key=lambda row: others[row].plain)
    yield claim(paper, "App. B.6 (ii)", "The strongest non-WMSS baseline in Table 1 is SSB", strongest == "SSB",
                f"Table 1, Math Avg.: {strongest} {others[strongest].text}, SSB {others['SSB'].text}",
                column="Math Avg.", value=others["SSB"].plain)
    worst = paper.cell("table9", QWEN3_4B, "0.9", "Avg.")
    margins = {"SSB": Fraction(0), "SPIN": Fraction(0), "SFT": exact(paper.claims["worst_lambda_lead_sft"].value)}
    for row, margin in margins.items():
        same = six_average(paper, row)
        words = f"exceeds {row}" + (f" by more than {shown(margin)}" if margin else "")
        yield claim(paper, "App. B.6 (ii)", f"lambda 0.9 {words}", worst.plain - same.plain > margin,
                    f"{worst.text} of Table 9 averages six benchmarks, {others[row].text} of Table 1 seven (with "
                    f"AMC23); over the same six {row} has {same.recomputed}: "
                    f"differs by {shown(worst.plain - same.plain)}",
                    column="Avg.", value=worst.plain)


def _default(paper: Printed) -> Iterator[Check]:
    """B.6 (i): the plateau is close to the headline; the default lies within 2 points of its neighbours."""
    within = exact(paper.claims["default_margin"].value)
    headline, seven = six_average(paper, "WMSS"), paper.cell("table1", QWEN3_4B, "WMSS", "Math Avg.")
    default = paper.cell("table9", QWEN3_4B, "0.5", "Avg.")
    yield claim(paper, "App. B.6 (i)", "Points inside the plateau are close to the headline (taken as within 1 point)",
                abs(default.plain - headline.plain) <= 1,
                f"Table 9 at the default 0.5: {default.text} over six benchmarks; Table 1, WMSS, over the same six: "
                f"{headline.recomputed} ({seven.text} over seven): differs by "
                f"{shown(default.plain - headline.plain)}",
                column="Avg.", value=default.plain)
    for model, columns in ((QWEN3_4B, ("AIME 2025", "MATH 500")), (QWEN25_3B, ("MATH 500",))):
        own = mean([paper.cell("table8", model, "Default", column) for column in columns])
        gaps = {row: own.plain - mean([paper.cell("table8", model, row, column) for column in columns]).plain
                for row in paper.tables["table8"].values[model] if row != "Default"}
        listed = ", ".join(f"{row} {shown(gap, 2)}" for row, gap in gaps.items())
        yield claim(paper, "App. B.6 (i)", "The default lies within about 2 points of its neighbours in Table 8",
                    max(map(abs, gaps.values())) <= within + Fraction(1, 2),
                    f"Table 8 prints no Math Avg.; over what it prints ({', '.join(columns)}) the default exceeds its "
                    f"neighbours by {listed} points", model=model, table="table8", column=" and ".join(columns))


def _configurations(paper: Printed) -> Iterator[Check]:
    """B.7: which setting of Table 8 is best where."""
    best = ((QWEN3_4B, "MATH 500", "Config C"), (QWEN3_4B, "AIME 2025", "Default"), (QWEN25_3B, "MATH 500", "Default"))
    for model, column, row in best:
        rows = {name: paper.cell("table8", model, name, column) for name in paper.tables["table8"].values[model]}
        top = max(rows, key=lambda name: rows[name].plain)
        yield claim(paper, "App. B.7", f"{row} is the best setting", top == row,
                    f"{top} {rows[top].text}, {row} {rows[row].text}", model=model, table="table8", column=column,
                    value=rows[row].plain)
    rows8 = paper.tables["table8"].values[QWEN25_3B]
    right = [name for name in rows8 if paper.value("table8", QWEN25_3B, name, "AIME 2025") is not None]
    yield claim(paper, "App. B.7", "No setting has a correct AIME answer", not right, f"printed for {', '.join(right)}",
                model=QWEN25_3B, table="table8", column="AIME 2025")


def _two(paper: Printed, k: str, benchmark: str) -> tuple[Quantity, Quantity]:
    return (paper.cell("table10", QWEN3_4B, k, f"{benchmark} WMSS"),
            paper.cell("table10", QWEN3_4B, k, f"{benchmark} DPO"))


def _pass_at_k(paper: Printed) -> Iterator[Check]:
    """B.9: WMSS beats DPO at every k on the hard sets, DPO catches up on MATH500, and gains more from sampling."""
    ks = list(paper.tables["table10"].values[QWEN3_4B])
    wanted = [(name, k, True) for name in HARD for k in ks]
    wanted += [("MATH500", k, k in ("1", "4")) for k in ks]
    for name, k, ahead in wanted:
        wmss, dpo = _two(paper, k, name)
        yield claim(paper, "App. B.9", f"{'WMSS' if ahead else 'DPO'} is ahead at k = {k}",
                    (wmss.plain > dpo.plain) == ahead and wmss.plain != dpo.plain,
                    f"WMSS {wmss.text}, DPO {dpo.text}", table="table10", column=name, value=wmss.plain)
    for name in (*HARD, "MATH500"):
        (w1, d1), (w64, d64) = _two(paper, ks[0], name), _two(paper, ks[-1], name)
        yield claim(paper, "App. B.9", "DPO grows more from pass@1 to pass@64",
                    d64.plain - d1.plain > w64.plain - w1.plain,
                    f"DPO {shown(d64.plain - d1.plain)}, WMSS {shown(w64.plain - w1.plain)}", table="table10",
                    column=name)


def _ratios(paper: Printed) -> Iterator[Check]:
    """B.9: the relative gap is largest at small k and shrinks as k grows."""
    ks = list(paper.tables["table10"].values[QWEN3_4B])
    for name in (*HARD, "MATH500"):
        pairs = [_two(paper, k, name) for k in ks]
        ratios = [wmss / dpo for wmss, dpo in pairs]
        listed = ", ".join(f"k {k}: {shown(ratio.plain, 4)}" for k, ratio in zip(ks, ratios, strict=True))
        yield claim(paper, "App. B.9", "The ratio WMSS / DPO is largest at k = 1",
                    all(ratios[0].plain > ratio.plain for ratio in ratios[1:]), listed, table="table10", column=name)
        rising = [f"k {a} to k {b}" for (a, first), (b, second) in pairwise(zip(ks, ratios, strict=True))
                  if second.low > first.high]
        yield claim(paper, "App. B.9", "The ratio WMSS / DPO shrinks as k grows", not rising,
                    f"{listed}; beyond the rounding of the printed figures it grows from {' and from '.join(rising)}",
                    table="table10", column=name)
