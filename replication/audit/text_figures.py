"""Figures of the running text, each recomputed from the table or count it refers to.

A figure that the text marks as approximate is compared at the digits it is printed with, and "more than" and "within"
as stated. Every figure of TEXT_CLAIMS is either checked here or named in UNCHECKED with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from replication.audit.finding import Check, Where, recompute
from replication.audit.quantities import (
    Printed,
    Quantity,
    constant,
    fixed,
    mean,
    percent_change,
    setting,
    shown,
)
from replication.paper_tables import GEMMA_4B, METHODS, QWEN3_4B, QWEN3_8B, QWEN25_3B

_GAP = "Target-to-Background Gap"
BASELINES = METHODS[1:-1]
QWEN = (QWEN3_4B, QWEN3_8B, QWEN25_3B)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one figure of the text follows from printed ones."""

    claim: str
    digits: int
    parts: Callable[[Printed], Quantity]
    kind: str = "text"
    relation: str = "is"
    """`is` (at the printed digits), `more than`, or `within` (at most)."""
    model: str | None = QWEN3_4B


def gain(paper: Printed, table: str, model: str, column: str, row: str = "WMSS") -> Quantity:
    """Return a method's difference from SFT in one column."""
    return paper.cell(table, model, row, column) - paper.cell(table, model, "SFT", column)


def change(paper: Printed, model: str, row: str) -> Quantity:
    """Return the Math-Avg change that Table 1 prints beside the arrow."""
    return paper.cell("table1", model, row, "Math Avg. change")


def _cell(table: str, row: str, column: str, model: str = QWEN3_4B) -> Callable[[Printed], Quantity]:
    return lambda paper: paper.cell(table, model, row, column)


def _minus(table: str, first: tuple[str, str], second: tuple[str, str], model: str = QWEN3_4B
           ) -> Callable[[Printed], Quantity]:
    return lambda paper: paper.cell(table, model, *first) - paper.cell(table, model, *second)


def _over(table: str, first: tuple[str, str], second: tuple[str, str]) -> Callable[[Printed], Quantity]:
    return lambda paper: paper.cell(table, QWEN3_4B, *first) / paper.cell(table, QWEN3_4B, *second)


def _largest(column: str) -> Callable[[Printed], Quantity]:
    def parts(paper: Printed) -> Quantity:
        blocks = [gain(paper, "table1", model, column) for model in QWEN]
        return max([*blocks, gain(paper, "table4", GEMMA_4B, column)], key=lambda found: found.plain)
    return parts


def mean_gain_baselines(paper: Printed) -> Quantity:
    """Return the mean Math-Avg change of the four baselines on the three Qwen models."""
    return mean([change(paper, model, row) for model in QWEN for row in BASELINES])


def mean_gain_wmss(paper: Printed) -> Quantity:
    """Return the mean Math-Avg change of WMSS on the three Qwen models."""
    return mean([change(paper, model, "WMSS") for model in QWEN])


def _norm_ratio(paper: Printed) -> Quantity:
    return paper.cell("table7", QWEN3_4B, "Centered norm", "Strong Pre") / paper.cell(
        "table7", QWEN3_4B, "Centered norm", "Weak init")


def _crossover(paper: Printed) -> Quantity:
    """Eq. 16 and 17: alpha is the squared ratio, so that 1 / (1 + sqrt(alpha)) needs no root."""
    return constant(1) / (constant(1) + _norm_ratio(paper))


def _math_catch_up(paper: Printed) -> Quantity:
    leads = [_minus("table10", (k, "MATH500 DPO"), (k, "MATH500 WMSS"))(paper) for k in ("8", "16", "32", "64")]
    return max(leads, key=lambda lead: lead.plain)


def _main_gains() -> Iterator[Recipe]:
    for suffix, model in (("4b", QWEN3_4B), ("8b", QWEN3_8B), ("3b", QWEN25_3B)):
        yield Recipe(f"math_avg_sft_{suffix}", 1, _cell("table1", "SFT", "Math Avg.", model), model=model)
        yield Recipe(f"math_avg_wmss_{suffix}", 1, _cell("table1", "WMSS", "Math Avg.", model), model=model)
        yield Recipe(f"math_gain_{suffix}", 1, _minus("table1", ("WMSS", "Math Avg."), ("SFT", "Math Avg."), model),
                     model=model)
    for suffix, model in (("4b", QWEN3_4B), ("8b", QWEN3_8B)):
        yield Recipe(f"code_gain_{suffix}", 1, _minus("table1", ("WMSS", "Code Avg."), ("SFT", "Code Avg."), model),
                     model=model)
        yield Recipe(f"logic_gain_{suffix}", 1, _minus("table5", ("WMSS", "Avg."), ("SFT", "Avg."), model), model=model)
    for group in ("math", "code"):
        column = f"{group.capitalize()} Avg."
        yield Recipe(f"gemma_{group}_gain", 1, _minus("table4", ("WMSS", column), ("SFT", column), GEMMA_4B),
                     model=GEMMA_4B)
        yield Recipe(f"max_{group}_gain", 1, _largest(column), model=None)


def _pass_at_k() -> Iterator[Recipe]:
    for name, benchmark in (("aime", "AIME 2025"), ("amc", "AMC23"), ("math", "MATH500")):
        wmss, dpo = f"{benchmark} WMSS", f"{benchmark} DPO"
        for k in ("1", "64"):
            yield Recipe(f"{name}_ratio_{k}", 2, _over("table10", (k, wmss), (k, dpo)))
        yield Recipe(f"{name}_pass1_lead", 1, _minus("table10", ("1", wmss), ("1", dpo)))
        for method, column in (("wmss", wmss), ("dpo", dpo)):
            yield Recipe(f"{name}_growth_{method}", 1, _minus("table10", ("64", column), ("1", column)))
            if name != "math":
                yield Recipe(f"{name}_pass1_{method}", 2, _cell("table10", "1", column))
        if name != "math":
            yield Recipe(f"{name}_pass64_lead", 1, _minus("table10", ("64", wmss), ("64", dpo)))
    yield Recipe("math_pass4_lead", 1, _minus("table10", ("4", "MATH500 WMSS"), ("4", "MATH500 DPO")))
    yield Recipe("math_catch_up", 1, _math_catch_up, relation="within")


RECIPES: tuple[Recipe, ...] = (
    *_main_gains(),
    Recipe("mean_gain_baselines", 1, mean_gain_baselines, model=None),
    Recipe("mean_gain_wmss", 1, mean_gain_wmss, model=None),
    Recipe("mean_gain_ratio", 0, lambda p: mean_gain_wmss(p) / mean_gain_baselines(p), relation="more than",
           model=None),
    Recipe("modules_none", 1, _cell("table2", "Baseline", "Avg.")),
    Recipe("modules_selection", 1, _cell("table2", "+ WD-DS", "Avg.")),
    Recipe("modules_joint", 1, _cell("table2", "+ WD-JT", "Avg.")),
    Recipe("modules_both", 1, _cell("table2", "WMSS", "Avg.")),
    Recipe("modules_aime_none", 1, _cell("table2", "Baseline", "AIME")),
    Recipe("modules_aime_both", 1, _cell("table2", "WMSS", "AIME")),
    Recipe("active_share", 0, lambda p: constant(100) * setting("wmss.active_steps") / setting("wmss.full_steps"),
           kind="count"),
    Recipe("background_sft", 2, _cell("table6", "Distractors Mean", "SFT")),
    Recipe("background_wmss", 2, _cell("table6", "Distractors Mean", "WMSS")),
    Recipe("background_discussed_sft", 2, _cell("table6", "Distractors Mean", "SFT")),
    Recipe("background_discussed_wmss", 2, _cell("table6", "Distractors Mean", "WMSS")),
    Recipe("background_change", 1, lambda p: percent_change(
        p.cell("table6", QWEN3_4B, "Distractors Mean", "WMSS"), p.cell("table6", QWEN3_4B, "Distractors Mean", "SFT"))),
    Recipe("target_sft", 2, _cell("table6", "Target Strength", "SFT")),
    Recipe("target_wmss", 2, _cell("table6", "Target Strength", "WMSS")),
    Recipe("gap_growth", 2, _minus("table6", (_GAP, "WMSS"), (_GAP, "SFT"))),
    Recipe("worst_lambda_avg", 1, _cell("table9", "0.9", "Avg.")),
    Recipe("worst_lambda_ssb", 1, _cell("table1", "SSB", "Math Avg.")),
    Recipe("worst_lambda_sft", 1, _cell("table1", "SFT", "Math Avg.")),
    Recipe("worst_lambda_lead_ssb", 1, lambda p: p.cell("table9", QWEN3_4B, "0.9", "Avg.") - p.cell(
        "table1", QWEN3_4B, "SSB", "Math Avg.")),
    Recipe("worst_lambda_lead_sft", 0, lambda p: p.cell("table9", QWEN3_4B, "0.9", "Avg.") - p.cell(
        "table1", QWEN3_4B, "SFT", "Math Avg."), relation="more than"),
    Recipe("best_lambda_avg", 1, _cell("table9", "0.42", "Avg.")),
    Recipe("config_c_math_4b", 1, _cell("table8", "Config C", "MATH 500")),
    Recipe("config_c_aime_4b", 1, _cell("table8", "Config C", "AIME 2025")),
    Recipe("default_math_4b", 1, _cell("table8", "Default", "MATH 500")),
    Recipe("default_aime_4b", 1, _cell("table8", "Default", "AIME 2025")),
    Recipe("default_math_3b", 1, _cell("table8", "Default", "MATH 500", QWEN25_3B), model=QWEN25_3B),
    Recipe("config_c_math_3b", 1, _cell("table8", "Config C", "MATH 500", QWEN25_3B), model=QWEN25_3B),
    Recipe("config_d_math_3b", 1, _cell("table8", "Config D", "MATH 500", QWEN25_3B), model=QWEN25_3B),
    Recipe("aime_gain_repair", 1, _minus("table8", ("Default", "AIME 2025"), ("Config C", "AIME 2025"))),
    Recipe("math_loss_repair_4b", 1, _minus("table8", ("Default", "MATH 500"), ("Config C", "MATH 500"))),
    Recipe("math_gain_repair_3b", 1, _minus("table8", ("Default", "MATH 500"), ("Config C", "MATH 500"), QWEN25_3B),
           model=QWEN25_3B),
    Recipe("norm_strong", 2, _cell("table7", "Centered norm", "Strong Pre")),
    Recipe("norm_weak", 2, _cell("table7", "Centered norm", "Weak init")),
    Recipe("sensitivity_ratio", 2, lambda p: _norm_ratio(p) * _norm_ratio(p)),
    Recipe("lambda_cross", 3, _crossover),
    *_pass_at_k(),
    Recipe("math_thousands", 0, lambda p: p.cell("table12", "all models", "Math", "samples") / constant(1000),
           kind="count", model=None),
    Recipe("math_over_code", 1, lambda p: p.cell("table12", "all models", "Math", "samples") / p.cell(
        "table12", "all models", "Code", "samples"), kind="count", model=None),
    Recipe("math_over_logic", 1, lambda p: p.cell("table12", "all models", "Math", "samples") / p.cell(
        "table12", "all models", "Logic", "samples"), kind="count", model=None),
    Recipe("logic_retention", 1, lambda p: constant(100) * setting("data.logic_examples")
           / setting("data.logic_candidates"), kind="count", model=None),
)  # fmt: skip

_FIGURES = "read off a figure, for which no table is printed; used under 'contradiction', and tested under 'grim'"
UNCHECKED: dict[str, str] = {
    **{f"fig4_{which}_{benchmark}": _FIGURES for which in ("start", "without", "with") for benchmark in
       ("math500", "gsm8k")},
    "fig5_ck200_math500": _FIGURES, "fig5_ck200_gsm8k": _FIGURES,
    "best_lambda": "checked under 'claim'", "plateau_low": "checked under 'claim'",
    "plateau_high": "checked under 'claim'", "default_margin": "checked under 'claim'",
    "lambda_low_math500": "a weaker model that no table shows",
}  # fmt: skip


def checks(paper: Printed) -> Iterator[Check]:
    """Yield a check per figure of the text, and per count."""
    for recipe in RECIPES:
        yield _check(paper, recipe)
    yield from _counts()


def _check(paper: Printed, recipe: Recipe) -> Check:
    claim = paper.claims[recipe.claim]
    where = Where(table="text", row=claim.statement, column="", place=claim.place, model=recipe.model)
    printed, found = paper.claim(recipe.claim, recipe.digits).plain, recipe.parts(paper)
    if recipe.relation == "is":
        return recompute(recipe.kind, where, printed, recipe.digits, found)
    return _bounded(recipe, where, printed, found)


def _bounded(recipe: Recipe, where: Where, printed: Fraction, found: Quantity) -> Check:
    """Check "more than" and "within"; a bound that holds at the printed digits is a matter of rounding."""
    above = found.plain - printed if recipe.relation == "more than" else printed - found.plain
    if above > 0 or (above == 0 and recipe.relation == "within"):
        return Check(recipe.kind)
    near = abs(above) <= Fraction(1, 2 * 10**recipe.digits)
    said = (f"printed '{recipe.relation} {fixed(printed, recipe.digits)}'; recomputed {found.recomputed}; differs by "
            f"{shown(found.plain - printed, 4)}" + (", less than half a unit of the printed digit" if near else ""))
    return Check(recipe.kind, where.found("recomputed" if near else recipe.kind, float(printed), said))


def _counts() -> Iterator[Check]:
    """Counts that follow from counts: E.3's pool, and E.5's updates per epoch."""
    pool = setting("data.logic_raw") - setting("data.logiqa_test") - setting("data.reclor_val")
    yield recompute("count", Where(table="text", row="Logic candidates", column="questions", place="App. E.3"),
                    setting("data.logic_candidates").plain, 0, pool)
    steps = setting("data.math_examples") / setting("train.global_batch")
    whole = Quantity(Fraction(int(steps.plain)), steps.low, steps.high, f"whole part of {steps.text}")
    yield recompute("count", Where(table="text", row="updates of a full epoch", column="steps", place="§6.5"),
                    setting("wmss.full_steps").plain, 0, whole)
    batch = setting("ssb.micro_batch") * setting("ssb.accumulation_steps") * setting("ssb.num_gpus")
    yield recompute("count", Where(table="text", row="global batch of SSB", column="examples", place="App. E.6"),
                    setting("ssb.global_batch").plain, 0, batch)



