"""From measured logit statistics to the cells of Tables 6 and 7, and from theory statistics to its table and plots.

Pure functions of plain dicts: what a step wrote goes in, cells and plots of the result file come out. A measurement is
`{"statistics", "examples", "step"}` as `measurement` reads it, or `{"status": "failed" | "missing", "reason": ...}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.logit_stats import paired_change
from evaluation.theory import GRID_MARK
from foundation.files import read_jsonl
from replication.paper import published
from replication.paper_values import TEXT_CLAIMS
from replication.plots import plot

Measured = Mapping[str, Any]
Cell = dict[str, Any]

TABLE6_ROWS = {"Target Strength": "target_logit", "Distractors Mean": "background_mean",
               "Target-to-Background Gap": "gap", "Logit Std.": "std"}
TABLE7_ROWS = {"Mean logit": "mean", "Std": "std", "Centered norm": "centered_norm", "Max logit": "highest_logit",
               "Min logit": "lowest_logit", "L2 norm": "l2_norm", "Entropy": "entropy", "Max prob": "max_prob",
               "Max logit, mean over tokens": "max_logit", "Min logit, mean over tokens": "min_logit"}
"""The paper's rows, and below them the extremes that have an interval."""
CLAIMED_PAIR = "M0 + M1"
"""The pair whose norms the paper prints: the base, the weak side, and the warm-up, the strong one before WD-JT."""
_UNITS = {"entropy": "nats", "max_prob": ""}

TABLE7_NOTES = (
    "Everything is a mean over supervised tokens, except Max and Min logit: the extremes over the whole sample, which "
    "have no interval (the paper prints multiples of 1/4 and 1/8, the spacing of bfloat16 there: single logits).",
    "Delta % is over the value before, sign included, as in the paper: a negative value that falls further has a plus.",
    "Intervals are 95 %, clustered by example; those of a change are paired by example.",
)
TABLE6_NOTES = (
    "The paper's Tables 6 and 7 are not of the same checkpoints: over a vocabulary this large the non-target mean is "
    "the mean logit, yet they print 2.09 and 2.87 before, 0.90 and 0.97 after, and Std 3.45 and 3.16 after.",
    "A change in per cent is over SFT's value, sign included: where that is negative, a rise has a minus.",
)

# quantity, row, group, unit, decimals, claim of the paper's text; shares are shown in per cent
_THEORY: tuple[tuple[str, str, str, str, int, str | None], ...] = (
    ("condition", "condition holds", "Theorem 1", "%", 2, None),
    ("theorem_violations", "conclusion violated where it holds", "Theorem 1", "tokens", 0, None),
    ("mass_grows", "negative mass grows", "Theorem 1", "%", 1, None),
    ("grows_where_condition_holds", "grows, where the condition holds", "Theorem 1", "%", 1, None),
    ("grows_where_condition_fails", "grows, where the condition fails", "Theorem 1", "%", 1, None),
    ("weak_less_confident", "weak model less confident than strong", "Theorem 1", "%", 1, None),
    ("mix_above_both", "mixture more confident than both", "Theorem 1", "%", 1, None),
    ("p_target_weak", "P(y), weak", "Target", "", 4, None),
    ("p_target_strong", "P(y), strong", "Target", "", 4, None),
    ("p_target_mix", "P(y), mixture", "Target", "", 4, None),
    ("negative_mass_strong", "negative mass, strong", "Target", "", 4, None),
    ("negative_mass_mix", "negative mass, mixture", "Target", "", 4, None),
    ("has_hard_negative", "tokens with a hard negative", "Hard negatives", "%", 1, None),
    ("hard_share", "hard negatives among all negatives", "Hard negatives", "%", 1, None),
    ("hard_mass_share", "strong model's negative mass on them", "Hard negatives", "%", 1, None),
    ("hard_pairs_amplified", "their probability grows (Corollary 2's condition)", "Hard negatives", "%", 1, None),
    ("corollary_violations", "Corollary 2 violated", "Hard negatives", "pairs", 0, None),
    ("lemma6_violations", "Lemma 6 violated", "Hard negatives", "pairs", 0, None),
    ("residual_growth", "norm of P_mix - e_y over SFT's", "Gradients", "times", 2, None),
    ("strong_gradient_growth", "strong branch's gradient over SFT's", "Gradients", "times", 2, None),
    ("strong_gradient_exceeds_sft", "strong branch's gradient exceeds SFT's", "Gradients", "%", 1, None),
    ("hessian_trace_strong", "trace of the Hessian, strong", "Gradients", "", 4, None),
    ("hessian_trace_mix", "trace of the Hessian, mixture", "Gradients", "", 4, None),
    ("centered_norm_weak", "centered norm, weak", "Crossover", "", 2, "norm_weak"),
    ("centered_norm_strong", "centered norm, strong", "Crossover", "", 2, "norm_strong"),
    ("alpha", "alpha (Eq. 16)", "Crossover", "", 2, "sensitivity_ratio"),
    ("lambda_cross", "lambda_cross (Eq. 17)", "Crossover", "", 3, "lambda_cross"),
    ("alpha_measured", "alpha from gradients (Eq. 60)", "Crossover", "", 3, None),
    ("alpha_above_one", "strong branch more sensitive (Assumption 11)", "Crossover", "%", 1, None),
    ("lambda_cross_measured", "lambda_cross from gradients (Eq. 63)", "Crossover", "", 3, None),
    ("strong_share", "strong branch's share of the loss decrease", "Crossover", "%", 1, None),
    ("mean_shift", "mean logit, post - pre", "Drift", "", 3, None),
    ("null_norm", "norm of the change along all-ones", "Drift", "", 2, None),
    ("centered_change_norm", "norm of the centred change", "Drift", "", 2, None),
    ("null_share", "null space's share of the squared change", "Drift", "%", 1, None),
    ("centered_norm_change", "centered norm, post - pre", "Drift", "", 2, None),
)
THEORY_CLAIMS = {row: claim for _, row, _, _, _, claim in _THEORY if claim is not None}
"""Row of the theory's table: the paper's statement of that number."""


def measurement(folder: Path, step_id: str) -> dict[str, Any]:
    """Read what a logit-statistics or theory step wrote."""
    return {"statistics": json.loads((folder / "statistics.json").read_text(encoding="utf-8")),
            "examples": list(read_jsonl(folder / "examples.jsonl")), "step": step_id}


def cell(row: str, column: str, value: float | None, *, group: str = "", unit: str = "", digits: int = 2,
         ci95: Sequence[float] | None = None, n: int | None = None, paper: float | None = None,
         paper_context: float | None = None, status: str = "measured", reason: str | None = None,
         step: str | None = None) -> Cell:
    """Return one cell of a result file; `n` counts examples."""
    return {"row": row, "column": column, "group": group, "value": value, "unit": unit, "n": n, "correct": None,
            "ci95": None if ci95 is None else [float(end) for end in ci95], "paper": paper,
            "paper_context": paper_context, "status": status, "reason": reason, "step": step, "digits": digits,
            "judgement": None}


# --------------------------------------------------------------------------------------------------- Tables 6 and 7


def table6_cells(sft: Measured, wmss: Measured, *, context: str, comparable: bool = False) -> list[Cell]:
    """Return Table 6: SFT, WMSS, and the relative change in per cent.

    Args:
        sft: logit statistics of SFT's final checkpoint.
        wmss: of WMSS's, on the same tokens.
        context: the model whose published values stand beside the cells.
        comparable: whether that is this very model, on the paper's data: `paper` is then set, else `paper_context`.

    Raises:
        InputError: the two were measured on different examples.
    """
    columns = {"SFT": sft, "WMSS": wmss}
    return _statistics_cells("table6", TABLE6_ROWS, columns, ("SFT", "WMSS"), {"change %": "percent"}, context,
                             comparable)


def table7_cells(weak: Measured, pre: Measured, post: Measured, *, context: str,
                 comparable: bool = False) -> list[Cell]:
    """Return Table 7: weak initialization, strong model before and after WD-JT, and the latter two's change.

    Args:
        weak: logit statistics of the weak side's initialization.
        pre: of the strong branch before WD-JT.
        post: of the strong branch after it.
        context: see `table6_cells`.
        comparable: see `table6_cells`.

    Raises:
        InputError: two of them were measured on different examples.
    """
    columns = {"Weak init": weak, "Strong Pre": pre, "Strong Post": post}
    return _statistics_cells("table7", TABLE7_ROWS, columns, ("Strong Pre", "Strong Post"),
                             {"Delta": "delta", "Delta %": "percent"}, context, comparable)


def _statistics_cells(table: str, rows: Mapping[str, str], columns: Mapping[str, Measured], ends: tuple[str, str],
                      changes: Mapping[str, str], context: str, comparable: bool) -> list[Cell]:
    cells = []
    for row, name in rows.items():
        unit, digits = _UNITS.get(name, ""), 3 if name in _UNITS else 2
        cells += [_estimate_cell(row, column, found, name, unit=unit, digits=digits)
                  for column, found in columns.items()]
        cells += [_change_cell(row, column, columns[ends[0]], columns[ends[1]], name, field, unit, digits)
                  for column, field in changes.items()]
    for one in cells:
        one["paper" if comparable else "paper_context"] = published(table, context, one["row"], one["column"])
    return cells


def _estimate_cell(row: str, column: str, found: Measured, name: str, *, scale: float = 1.0,
                   shown: str = "", **more: Any) -> Cell:
    """Return the cell of one statistic; `shown` explains a value that is None."""
    if "statistics" not in found:
        return cell(row, column, None, status=found["status"], reason=found["reason"], **more)
    entry = found["statistics"].get(name)
    if entry is None or entry["value"] is None:
        return cell(row, column, None, status="missing", reason=shown or "not measured", step=found["step"], **more)
    ci95 = None if entry["ci95"] is None else [scale * end for end in entry["ci95"]]
    return cell(row, column, scale * entry["value"], ci95=ci95, n=entry["n_examples"], step=found["step"], **more)


def _change_cell(row: str, column: str, before: Measured, after: Measured, name: str, field: str, unit: str,
                 digits: int) -> Cell:
    unit, digits = ("%", 1) if field == "percent" else (unit, digits)
    for found in (before, after):
        if "statistics" not in found:
            return cell(row, column, None, unit=unit, digits=digits, status=found["status"], reason=found["reason"])
    change = paired_change(before["examples"], after["examples"], name)
    if change[field] is None:
        return cell(row, column, None, unit=unit, digits=digits, status="missing", step=after["step"],
                    reason="the value before is 0: a change has no percentage")
    return cell(row, column, change[field], unit=unit, digits=digits, ci95=change[f"{field}_ci95"],
                n=len(before["examples"]), step=after["step"])


# ------------------------------------------------------------------------------------------------------- the theory


def theory_cells(pairs: Mapping[str, Measured], *, comparable: bool = False) -> list[Cell]:
    """Return the theory's table: one column per pair, e.g. `M0 + M1`, rows grouped by the statement they test.

    Args:
        pairs: column heading -> theory statistics of that pair.
        comparable: see `table6_cells`; the paper states four of these numbers, of CLAIMED_PAIR (App. B.8).
    """
    cells = []
    for name, row, group, unit, digits, claim in _THEORY:
        said = None if claim is None else TEXT_CLAIMS[claim].value
        for column, found in pairs.items():
            one = _estimate_cell(row, column, found, name, scale=100.0 if unit == "%" else 1.0, group=group, unit=unit,
                                 digits=digits, shown=_why_absent(name, group))
            one["paper" if comparable else "paper_context"] = said if column == CLAIMED_PAIR else None
            cells.append(one)
    return cells


def _why_absent(name: str, group: str) -> str:
    if name.startswith("grows_where"):
        return "no such token"
    if group == "Drift":
        return "no strong model after training was given"
    return "not measured for this pair"


def theory_plots(pairs: Mapping[str, Measured], scale: str) -> list[dict[str, Any]]:
    """Return two plots over lambda: where the negative mass grows, and where the strong branch outdoes SFT's gradient.

    Beside each pair's growing share stand its two bounds, which do not depend on lambda: the share of tokens that meet
    Theorem 1's condition (below) and of those where the weak model is the less confident one (above).
    """
    whole = {name: found for name, found in pairs.items() if "statistics" in found}
    growth = [_grid_series(name, found, "mass_grows") for name, found in whole.items()]
    bounds = []
    for series, found in zip(growth, whole.values(), strict=True):
        for quantity, words in (("weak_less_confident", "weak model less confident"), ("condition", "condition holds")):
            entry = found["statistics"][quantity]
            points = [_point(point["x"], entry) for point in series["points"]]
            bounds.append({"name": f"{series['name']}: {words}", "kind": "reference", "of": series["name"],
                           "points": points})
    gradient = [_grid_series(name, found, "strong_gradient_exceeds_sft") for name, found in whole.items()]
    axes = "λ", "tokens (%)"
    return [plot("theory-negative-mass", f"Tokens whose negative mass grows under the mixture ({scale} scale)", *axes,
                 growth + bounds),
            plot("theory-strong-gradient", f"Tokens where the strong branch's gradient exceeds SFT's ({scale} scale)",
                 *axes, gradient)]


def _grid_series(name: str, found: Measured, quantity: str) -> dict[str, Any]:
    prefix = quantity + GRID_MARK
    at = {float(key.removeprefix(prefix)): entry for key, entry in found["statistics"].items()
          if key.startswith(prefix)}
    return {"name": name, "kind": "measured", "points": [_point(x, at[x]) for x in sorted(at)]}


def _point(x: float, entry: Mapping[str, Any]) -> dict[str, float | None]:
    values = (entry["value"], *(entry["ci95"] or (None, None)))
    y, low, high = (None if share is None else 100 * share for share in values)
    return {"x": x, "y": y, "low": low, "high": high}


def theory_notes(pairs: Mapping[str, Measured]) -> list[str]:
    """Return what a reader of the theory's table must know, with the violations counted."""
    notes = ["Theorem 1's condition is sufficient, and asks that the weak model separates every token of the "
             "vocabulary less; the negative mass can grow only where the weak model is the less confident one "
             "(log P_mix(y) is concave in lambda), which bounds the share of such tokens from above.",
             "By Eq. 32 Corollary 2's condition holds exactly where its conclusion does, that the hard negative's "
             "probability grows: no violation of it says that the computation is right, not that a prediction held.",
             "Intervals are 95 %, clustered by example; counts of violations have none."]
    for name, found in pairs.items():
        if "statistics" in found:
            values = found["statistics"]
            entry, broken = values["condition"], int(values["theorem_violations"]["value"])
            notes.append(f"{name}: condition met on {100 * entry['value']:.2f} % of {entry['n_tokens']} tokens, the "
                         f"conclusion violated on {broken} of them.")
    return notes
