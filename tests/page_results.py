"""Made-up result files in the contract's shape for every section of the page, with failures and gaps: no run."""

from __future__ import annotations

import random
import zlib

from replication.models import MODELS
from replication.page.sections import SECTIONS, published_models
from replication.paper_tables import ALL_MODELS, TABLES

WEAK = ("base", "ck-50", "ck-100", "ck-150", "ck-200")
HOSTILE = "<script>alert('row')</script> \"quoted\" & 'single'"
LONG_WORD = "Donaudampfschifffahrtsgesellschaft" * 4

PROVENANCE = {
    "settings": {"configuration": {"train": {"learning_rate": 0.002, "global_batch": 32}, "methods": []}, "seed": 0,
                 "limit_train": None},
    "computed_at": [{"commit": "a" * 40, "dirty": False, "steps": 117}],
    "trainings": ["train-1", "train-2", "train-pairs-3"], "rendered_at": {"commit": "b" * 40, "dirty": True},
    "python": "3.11.7", "packages": {"torch": "2.13.0+cpu", "transformers": "5.23.0"},
    "hardware": {"processor": "a processor", "cores": 2, "memory_mib": 24105, "gpus": []},
}
NOTE = "tiny scale: a 0.8M-parameter model on generated problems; not a replication of the paper's numbers."


def cell(row, column, value=None, *, group="", unit="%", n=200, paper=None, context=None, digits=1, **more):
    """One cell; measured where it has a value, else missing."""
    wide = 6.0 if unit == "%" else 0.1 * abs(value or 0)
    found = {
        "row": row, "column": column, "group": group, "value": value, "unit": unit, "n": n,
        "correct": round(value * n / 100) if value is not None and unit == "%" and n else None,
        "ci95": None if value is None else [value - wide, value + wide], "paper": paper, "paper_context": context,
        "status": "missing" if value is None else "measured",
        "reason": "needs a model of another family" if value is None else None,
        "step": f"grade-{zlib.crc32((row + column).encode()):08x}" if value is not None else None, "digits": digits,
        "judgement": None,
    }
    return found | more


def content(name, cells, model="tiny", scale="tiny", **more):
    """One result file around cells."""
    section = SECTIONS[name]
    return {"schema": 1, "table": name, "place": section.place, "title": section.title, "model": model, "scale": scale,
            "heading": f"{section.place} ({scale} scale). {section.title}", "provenance": PROVENANCE, "cells": cells,
            "comparisons": [], "notes": [NOTE], "footnotes": []} | more


def table(name, *, judged=False, model="tiny", scale="tiny", backbone=None):
    """A table with the paper's rows and columns and made-up values."""
    draw = random.Random(name)
    values = TABLES[name].values
    rows = values[backbone or (ALL_MODELS if ALL_MODELS in values else next(iter(values)))]
    unit = {"table6": "", "table7": "", "table11": "s", "table12": ""}.get(name, "%")
    cells = []
    for row, columns in rows.items():
        for column, printed in columns.items():
            if isinstance(printed, str | bool):
                continue
            number = None if printed is None else float(printed)
            value = draw.uniform(10, 90) if unit == "%" else (number or 1.0) * draw.uniform(0.8, 1.2)
            group = "Code" if column.startswith(("HE+", "MBPP+", "BCB", "LCB", "Code Avg.")) else "Math"
            shown = {"paper": number} if judged else {"context": number}
            found = cell(row, column, value, unit=unit, digits=1 if unit == "%" else 2, **shown,
                         group=group if name in ("table1", "table4") else "")
            if judged and number is not None and unit == "%":
                found["judgement"] = judgement(value - number)
            cells.append(found)
    more = {"comparisons": comparisons(rows)} if name in ("table1", "table4", "table5") else {}
    return content(name, cells, model, scale, **more)


def judgement(difference):
    """A verdict on a difference."""
    verdict = "different" if abs(difference) > 20 else "consistent" if abs(difference) < 6 else "cannot tell"
    return {"verdict": verdict, "difference": difference, "detectable": 9.8,
            "text": f"Measured minus printed is {difference:+.1f} points; this n shows differences from 9.8 points on."}


def comparisons(rows):
    """Every row against the first, on the averages."""
    first, *others = rows
    columns = [column for column in rows[first] if column.endswith("Avg.")]
    return [{"row": row, "against": first, "column": column, "difference": 4.1, "ci95": [1.2, 7.0], "p": 0.006,
             "p_holm": 0.03, "test": "stratified_sign_flip_exact"} for row in others for column in columns]


def series(name, points, kind="measured", band=0.0):
    """One line of a plot."""
    return {"name": name, "kind": kind, "points": [{"x": x, "y": y, "low": y - band, "high": y + band} if band else
                                                   {"x": x, "y": y} for x, y in points]}


def plots():
    """The plots that the result files carry, by file."""
    lambdas = [float(row) for row in TABLES["table9"].values["Qwen3-4B-Base"]]
    paper9 = [TABLES["table9"].values["Qwen3-4B-Base"][f"{x:g}"]["Avg."] for x in lambdas]
    ks = [1, 4, 8, 16, 32, 64]
    steps = [0, 25, 50, 75, 100, 123]
    return {
        "table9": [{"id": "lambda-curve", "title": "Average over the weight of the strong logits",
                    "x": {"label": "λ", "scale": "linear"}, "y": {"label": "Avg. (%)"},
                    "series": [series("measured", [(x, 60 - 40 * (x - 0.5) ** 2) for x in lambdas], band=2.5),
                               series("paper (Qwen3-4B-Base)", zip(lambdas, paper9, strict=True), "paper")]}],
        "table10": [{"id": f"pass-at-k-{slug}", "title": f"pass@k on {slug}", "x": {"label": "k", "scale": "log2"},
                     "y": {"label": "pass@k (%)"},
                     "series": [series(row, [(k, base + 7 * i) for i, k in enumerate(ks)], kind, band)
                                for row, base, kind, band in (("WMSS", 20, "measured", 3), ("DPO", 17, "measured", 3),
                                                              ("WMSS, paper", 18, "paper", 0),
                                                              ("DPO, paper", 14, "paper", 0))]}
                    for slug in ("aime2025", "amc23", "math500")],
        "figure3": [{"id": "convergence", "title": "Math benchmarks over four epochs",
                     "x": {"label": "epoch", "scale": "linear"}, "y": {"label": "pass@1 (%)"},
                     "series": [series(name, [(e, 30 + 5 * e + 4 * i) for e in range(1, 5)], band=3)
                                for i, name in enumerate(("AIME2025", "MATH500", "AMC23", "AQuA", "GSM8K", "MAWPS",
                                                          "SVAMP"))]}],
        "figure4": [{"id": "wd-ds-rise", "title": "Average of MATH500 and GSM8K after the shared initialization",
                     "x": {"label": "updates", "scale": "linear"}, "y": {"label": "Avg. (%)"},
                     "series": [series("with WD-DS", [(s, 40 + s / 10) for s in steps], band=2),
                                series("without WD-DS", [(s, 40 + s / 14) for s in [*steps, 218]], band=2),
                                series("SFT", [(0, 44), (218, 44)], "reference")]}],
        "figure5": [{"id": "entropy-gap", "title": "Accuracy against the checkpoint on the weak side",
                     "x": {"label": "weak side", "scale": "category"}, "y": {"label": "pass@1 (%)"},
                     "series": [series(name, [(x, b - 3 * i) for i, x in enumerate(WEAK)], band=4)
                                for name, b in (("MATH500", 66), ("GSM8K", 80))]},
                    {"id": "entropy-gap-nats", "title": "Accuracy by the entropy gap",
                     "x": {"label": "weak minus strong (nats per token)", "scale": "linear"},
                     "y": {"label": "pass@1 (%)"},
                     "series": [{"name": "MATH500", "kind": "measured", "points": [
                         {"x": gap, "y": 60.0 - i, "low": 55.0, "high": 65.0, "label": name}
                         for i, (name, gap) in enumerate(zip(WEAK, (1.07, 0.2, 0.21, 0.22, 0.225), strict=True))]}]}],
        "table11": [{"id": "cost-gain", "title": "Training time against gain over SFT",
                     "x": {"label": "seconds after the warm-start", "scale": "linear"},
                     "y": {"label": "Math Avg. over SFT (points)"},
                     "series": [series(row, [(50 + 30 * i, 2 * i - 3)], band=1.5) for i, row in
                                enumerate(("NEFTune", "UNDIAL", "SSB", "SPIN", "WMSS"))]}],
    }  # fmt: skip


def all_contents():
    """Every section filled at tiny scale: all tables, figures, theory, audit, ambiguities; with failures and gaps."""
    found = {name: table(name) for name in TABLES if not published_models(name) or "Qwen3-4B-Base" in
             published_models(name)}
    found["table4"] = table("table4", model="tiny-gemma" if "tiny-gemma" in MODELS else "tiny") | {"asked": "tiny"}
    for name in ("figure3", "figure4", "figure5"):
        found[name] = content(name, [])
    found["theory"] = content("theory", [
        cell(row, column, value, unit=unit, n=4096, digits=3 if unit != "%" else 1) for column, shift in
        (("M0 + M1", 0.0), ("M1 + WMSS", 2.0)) for row, value, unit in
        (("Theorem 1: condition holds", 41.2 + shift, "%"), ("Theorem 1: violations of the conclusion", 0.0, "%"),
         ("Share of hard negatives", 3.4 + shift, "%"), ("λ at the crossover", 0.49, ""),
         ("Entropy of the mix", 1.21, "nats"))])
    found["ambiguities"] = content("ambiguities", [cell(f"{key}: {reading}", column, 40.0 + i) for i, (key, reading) in
                                                   enumerate((("A-60", "eq9"), ("A-60", "official_termnorm"),
                                                              ("A-61", "weak"))) for column in ("Math Avg.", "GSM8K")])
    found["overlap"] = content("overlap", [cell("Math pool", column, 0.0, n=6400) for column in ("GSM8K", "SVAMP")])
    found["audit"] = audit()
    for name, drawn in plots().items():
        found[name]["plots"] = drawn
    _damage(found)
    return {name: found[name] for name in SECTIONS if name in found}


def _damage(found):
    """Some cells fail, some are missing, some carry text from outside; Table 5 spans backbones."""
    cells = found["table1"]["cells"]
    cells[3] |= {"status": "failed", "value": None, "ci95": None, "step": None, "reason": f"worker died: {HOSTILE}"}
    for entry in cells:
        if entry["group"] == "Code" and entry["row"] == "SPIN":
            entry |= {"status": "missing", "value": None, "ci95": None, "step": None, "reason": "not run"}
    cells += [cell(HOSTILE, "MATH500", 12.5, group="Math"), cell(LONG_WORD, "MATH500", 22.5, group="Math")]
    found["table1"]["notes"] = [NOTE, HOSTILE, LONG_WORD]
    found["table1"]["footnotes"] = ["SPIN departs from the shared protocol: trains on pairs of replies."]
    found["table1"]["ordering"] = [{"column": "Math Avg.", "rows": [], "measured": [], "paper": [],
                                    "tau": 0.2, "p": 0.7, "text": "Kendall's tau between the measured and the printed "
                                                                  "order of six methods is 0.20 (p = 0.72)."}]
    blocks = [entry | {"group": group} for group in ("tiny", "tiny-gemma") for entry in found["table5"]["cells"]]
    found["table5"]["cells"] = blocks


def audit():
    """Findings of several kinds."""
    def finding(kind, row, column, value, arithmetic, n=None):
        return {"kind": kind, "table": "table8", "row": row, "column": column, "value": value, "n": n,
                "arithmetic": arithmetic, "model": "Qwen3-4B-Base", "place": "Table 8"}
    return {"schema": 1, "table": "audit", "place": "Audit", "title": "Printed figures", "model": None, "scale": None,
            "heading": "Nothing here was measured.", "kinds": {"grim": "no number of right answers gives it"},
            "footnotes": ["Left out: pass@k."], "findings": [
        finding("grim", "Config A", "AIME 2025", 10.7, "no k of 30 gives 10.7: 3/30 = 10.0, 4/30 = 13.3", 30),
        finding("grim", HOSTILE, LONG_WORD, "9.7", "no k of 30 gives 9.7", 30),
        *(finding("average", f"row {i}", "Avg.", 50.1, "printed 50.1, recomputed 50.3 to 50.5") for i in range(14)),
        finding("contradiction", "WMSS", "MATH500", 71.3, "Table 1 prints 71.4"),
        *(finding("differs", f"lambda {i}", "Avg.", 73.3, "Table 8: 68.2; Table 9 averages three") for i in (1, 2)),
        finding("wording", "Is it updated?", "", None, "§3.2 says that it is, B.4 that it is not"),
        finding("recomputed", "SFT", "Avg.", None, "recomputed 50.25, within the rounding of its parts"),
    ], "checked": {"grim": 640, "average": 72, "contradiction": 40, "claim": 31, "differs": 9}}


def judged_contents():
    """Table 1 at the paper's scale, each cell judged."""
    return {"table1": table("table1", judged=True, model="qwen3-4b", scale="paper")}
