"""Tables 1 to 12 of the paper, figure by figure as printed (arXiv:2602.08222v2).

Each table keeps its own figures, also where two tables name the same quantity and disagree (the SFT row has MATH500 at
66.2 in Table 1 and at 66.1 in Table 2). Nothing is corrected. Columns bear the printed headings, with three exceptions:
AQuA (printed in capitals), the two `Avg.` of Tables 1 and 4 (told apart by their group), and headings of two storeys,
which are joined. Percentages and accuracies are in per cent. Standard library only.
"""

from __future__ import annotations

from replication.paper_types import Cell, PaperTable, Rows

QWEN3_4B, QWEN3_8B, QWEN25_3B, GEMMA_4B = "Qwen3-4B-Base", "Qwen3-8B-Base", "Qwen2.5-3B", "Gemma-3-4B-PT"
ALL_MODELS = "all models"
METHODS = ("SFT", "UNDIAL", "NEFTune", "SPIN", "SSB", "WMSS")

MATH_BENCHMARKS = ("AIME2025", "MATH500", "AMC23", "AQuA", "GSM8K", "MAWPS", "SVAMP")
CODE_BENCHMARKS = ("HE+", "MBPP+", "BCB", "LCB")
TABLE1_COLUMNS = (
    *MATH_BENCHMARKS, "Math Avg.", "Math Avg. change", *CODE_BENCHMARKS, "Code Avg.", "Code Avg. change",
)  # fmt: skip
TABLE4_COLUMNS = (*MATH_BENCHMARKS[1:], "Math Avg.", *CODE_BENCHMARKS, "Code Avg.")


def _rows(columns: tuple[str, ...], rows: dict[str, tuple[Cell, ...]]) -> Rows:
    return {name: dict(zip(columns, cells, strict=True)) for name, cells in rows.items()}


def _without_blanks(rows: Rows) -> Rows:
    return {name: {column: cell for column, cell in row.items() if cell is not None} for name, row in rows.items()}


# fmt: off
_TABLE1: dict[str, dict[str, tuple[Cell, ...]]] = {
    QWEN3_4B: {
        "SFT":     (13.3, 66.2, 47.5, 61.8, 83.9, 91.2, 85.5, 64.2, None, 73.8, 64.0, 38.5, 17.8, 48.5, None),
        "UNDIAL":  (13.3, 63.2, 40.0, 55.1, 82.9, 90.8, 84.1, 61.3, -2.9, 72.6, 66.8, 39.6, 17.5, 49.1, 0.6),
        "NEFTune": (16.7, 68.2, 42.5, 59.1, 86.7, 93.7, 87.7, 64.9, 0.7, 75.0, 66.9, 40.3, 16.0, 49.6, 1.1),
        "SPIN":    (20.0, 70.8, 47.5, 66.9, 85.8, 87.4, 87.6, 66.6, 2.4, 76.2, 66.7, 39.1, 18.8, 50.2, 1.7),
        "SSB":     (10.0, 70.6, 45.0, 66.1, 87.1, 95.4, 88.8, 66.1, 1.9, 78.0, 67.4, 42.5, 18.0, 51.5, 3.0),
        "WMSS":    (20.0, 71.4, 50.0, 67.7, 88.5, 96.2, 90.3, 69.1, 4.9, 78.7, 68.2, 43.5, 21.0, 52.9, 4.4),
    },
    QWEN3_8B: {
        "SFT":     (16.7, 72.2, 45.0, 63.0, 87.5, 95.0, 88.6, 66.9, None, 80.5, 69.2, 44.5, 21.0, 53.8, None),
        "UNDIAL":  (10.0, 71.6, 47.5, 66.9, 89.9, 96.6, 91.2, 67.6, 0.7, 79.9, 69.4, 45.7, 21.5, 54.1, 0.3),
        "NEFTune": (16.7, 73.8, 40.0, 71.3, 90.3, 97.5, 91.5, 68.7, 1.8, 81.1, 70.4, 45.9, 21.0, 54.6, 0.8),
        "SPIN":    (16.7, 72.4, 47.5, 78.3, 88.8, 95.4, 92.7, 70.3, 3.4, 81.7, 70.0, 46.3, 21.8, 55.0, 1.2),
        "SSB":     (16.7, 74.6, 52.5, 76.4, 89.3, 93.3, 93.0, 70.8, 3.9, 81.1, 66.9, 46.0, 20.8, 53.7, -0.1),
        "WMSS":    (20.0, 75.4, 52.5, 77.2, 92.5, 97.9, 94.0, 72.8, 5.9, 84.1, 71.4, 47.1, 22.3, 56.2, 2.4),
    },
    QWEN25_3B: {
        "SFT":     (3.3, 47.0, 20.0, 51.2, 76.6, 91.6, 84.4, 53.4, None, 58.5, 59.0, 27.5, 11.0, 39.0, None),
        "UNDIAL":  (3.3, 50.8, 17.5, 49.2, 77.4, 91.2, 83.2, 53.2, -0.2, 56.1, 59.5, 28.9, 12.5, 39.3, 0.3),
        "NEFTune": (3.3, 51.2, 22.5, 47.2, 78.1, 90.3, 84.7, 53.9, 0.5, 56.1, 59.5, 29.6, 11.5, 39.2, 0.2),
        "SPIN":    (3.3, 51.6, 20.0, 49.6, 77.4, 91.2, 86.1, 54.1, 0.7, 59.8, 60.6, 31.4, 12.0, 41.0, 2.0),
        "SSB":     (3.3, 51.4, 22.5, 52.0, 79.9, 92.0, 84.9, 55.1, 1.7, 54.3, 52.9, 30.4, 9.3, 36.7, -2.3),
        "WMSS":    (6.7, 52.0, 22.5, 53.9, 80.9, 92.4, 86.0, 56.3, 2.9, 62.2, 61.9, 32.7, 12.5, 42.3, 3.3),
    },
}

_TABLE2: dict[str, tuple[Cell, ...]] = {
    "Baseline": (13.3, 66.1, 83.9, 54.4),
    "+ WD-DS":  (13.3, 69.4, 86.2, 56.3),
    "+ WD-JT":  (16.7, 70.2, 87.6, 58.2),
    "WMSS":     (20.0, 71.3, 88.5, 59.9),
}

_TABLE3: dict[str, tuple[Cell, ...]] = {
    "50":    (50, 66.6, 86.2, 62.0, 79.6),
    "100":   (100, 69.0, 86.4, 62.2, 82.9),
    "150":   (150, 68.0, 86.6, 63.2, 85.4),
    "200":   (200, 69.4, 87.6, 63.8, 84.9),
    "final": (None, 68.8, 86.4, 63.2, 86.1),
}

_TABLE4: dict[str, tuple[Cell, ...]] = {
    "SFT":     (28.0, 17.5, 46.5, 54.0, 83.6, 68.3, 49.7, 36.6, 43.1, 18.5, 7.5, 26.4),
    "UNDIAL":  (31.8, 20.0, 43.7, 58.8, 86.6, 70.9, 52.0, 36.6, 47.1, 19.2, 7.8, 27.7),
    "NEFTune": (32.6, 17.5, 46.1, 59.2, 86.6, 70.8, 52.1, 37.8, 46.3, 20.1, 8.0, 28.1),
    "SPIN":    (30.6, 7.5, 48.0, 58.6, 84.5, 66.1, 49.2, 37.2, 34.7, 19.6, 7.5, 24.8),
    "SSB":     (31.2, 5.0, 43.7, 51.1, 69.3, 58.7, 43.2, 39.0, 39.7, 19.0, 7.3, 26.3),
    "WMSS":    (33.2, 22.5, 51.2, 60.5, 87.4, 69.5, 54.1, 41.5, 48.9, 21.8, 9.0, 30.3),
}

_TABLE5: dict[str, dict[str, tuple[Cell, ...]]] = {
    QWEN3_4B: {
        "SFT": (66.1, 74.6, 70.4), "UNDIAL": (69.1, 75.4, 72.3), "NEFTune": (68.2, 73.0, 70.6),
        "SPIN": (68.3, 76.8, 72.6), "SSB": (67.5, 74.6, 71.1), "WMSS": (69.5, 79.2, 74.4),
    },
    QWEN3_8B: {
        "SFT": (69.2, 79.8, 74.5), "UNDIAL": (71.3, 81.8, 76.6), "NEFTune": (72.3, 83.8, 78.1),
        "SPIN": (71.3, 80.6, 76.0), "SSB": (69.0, 81.0, 75.0), "WMSS": (74.6, 89.2, 81.9),
    },
    QWEN25_3B: {
        "SFT": (48.5, 52.0, 50.3), "UNDIAL": (54.8, 60.0, 57.4), "NEFTune": (54.1, 59.0, 56.6),
        "SPIN": (51.5, 58.8, 55.2), "SSB": (50.8, 53.8, 52.3), "WMSS": (58.0, 67.6, 62.8),
    },
    GEMMA_4B: {
        "SFT": (55.4, 63.3, 59.4), "UNDIAL": (55.7, 67.4, 61.6), "NEFTune": (56.1, 68.2, 62.2),
        "SPIN": (58.1, 71.0, 64.6), "SSB": (57.1, 70.8, 64.0), "WMSS": (60.5, 75.6, 68.1),
    },
}

_TABLE6: dict[str, tuple[Cell, ...]] = {
    "Target Strength":          (35.88, 36.10, 0.6),
    "Distractors Mean":         (2.09, 0.90, -56.9),
    "Target-to-Background Gap": (33.79, 35.20, 4.2),
    "Logit Std.":               (2.93, 3.45, 17.7),
}

_TABLE7: dict[str, tuple[Cell, ...]] = {
    "Mean logit":    (3.65, 2.87, 0.97, -1.90, -66.2),
    "Std":           (3.06, 3.18, 3.16, -0.02, -0.6),
    "Centered norm": (1191.33, 1240.10, 1229.79, -10.31, -0.8),
    "Max logit":     (43.25, 48.75, 60.50, 11.75, 24.1),
    "Min logit":     (-24.00, -26.63, -35.75, -9.12, 34.2),
    "L2 norm":       (1978.92, 1865.96, 1688.59, -177.37, -9.5),
    "Entropy":       (0.52, 0.44, 0.48, 0.04, 9.1),
    "Max prob":      (0.83, 0.85, 0.83, -0.02, -2.4),
}

# Setup: alpha, beta, gamma, then AIME 2025 and MATH 500 of Qwen3-4B-Base, then MATH 500 of Qwen2.5-3B.
_TABLE8: dict[str, tuple[float, float, float, float, float, float]] = {
    "Config A": (0.2, 0.7, 0.1, 10.0, 68.2, 44.6),
    "Default":  (0.1, 0.8, 0.1, 16.7, 68.2, 48.2),
    "Config B": (0.2, 0.6, 0.2, 10.7, 67.8, 42.0),
    "Config C": (0.1, 0.9, 0.0, 10.3, 70.2, 47.6),
    "Config D": (0.0, 1.0, 0.0, 9.7, 68.3, 47.0),
    "Config E": (0.05, 0.85, 0.1, 14.0, 69.5, 47.2),
}
_TABLE8_DASH = "AIME 2025 is printed as '-': no correct answer under any configuration"

_TABLE9_LAMBDAS = (
    0.1, 0.2, 0.3, 0.4, 0.42, 0.44, 0.46, 0.48, 0.5, 0.52, 0.54, 0.56, 0.58, 0.6, 0.7, 0.8, 0.9,
)
_TABLE9: dict[str, tuple[float, ...]] = {
    "AIME25":  (7.8, 10.0, 12.2, 16.7, 20.0, 20.0, 16.7, 20.0, 20.0, 21.1, 16.7, 16.7, 16.7, 10.0, 20.0, 20.0, 12.2),
    "MATH500": (71.4, 67.1, 70.8, 73.1, 74.9, 74.5, 73.2, 73.3, 73.3, 70.7, 74.0, 73.0, 73.3, 68.9, 71.7, 70.9, 66.1),
    "AQuA":    (77.2, 72.8, 74.7, 75.2, 73.9, 73.1, 72.4, 71.8, 73.9, 71.0, 71.3, 71.9, 70.2, 64.8, 66.9, 61.4, 60.8),
    "GSM8K":   (88.2, 89.1, 89.4, 91.9, 91.8, 91.7, 91.0, 91.4, 91.0, 91.2, 91.4, 90.6, 90.9, 89.2, 89.3, 88.1, 85.7),
    "MAWPS":   (94.9, 96.6, 95.5, 97.8, 98.2, 97.8, 97.8, 98.0, 95.7, 96.5, 97.2, 96.8, 97.5, 94.7, 96.2, 95.5, 93.6),
    "SVAMP":   (90.4, 91.8, 93.3, 94.9, 94.1, 93.6, 93.5, 92.9, 92.6, 92.4, 93.5, 92.8, 92.9, 90.8, 91.9, 89.6, 87.4),
    "Avg.":    (71.7, 71.2, 72.7, 74.9, 75.5, 75.1, 74.1, 74.6, 74.4, 73.8, 74.0, 73.6, 73.6, 69.7, 72.7, 70.9, 67.6),
}

_TABLE10: dict[str, tuple[Cell, ...]] = {
    "1":  (1, 17.97, 14.20, 49.49, 42.80, 75.32, 70.90),
    "4":  (4, 24.69, 22.40, 63.25, 56.70, 84.36, 84.00),
    "8":  (8, 26.59, 24.90, 68.06, 61.00, 87.20, 87.40),
    "16": (16, 28.57, 27.30, 71.79, 65.20, 89.48, 89.90),
    "32": (32, 30.83, 29.10, 75.13, 69.80, 91.49, 91.80),
    "64": (64, 33.33, 30.00, 77.50, 75.00, 93.20, 93.40),
}

# Hours and minutes as printed (None: not printed), whether the paper marks the time as approximate, Math-Avg change.
_TABLE11: dict[str, tuple[int, int | None, bool, float | None]] = {
    "SFT":     (4, 30, False, None),
    "NEFTune": (4, 30, False, 0.7),
    "UNDIAL":  (4, 31, False, -2.9),
    "SSB":     (18, None, True, 1.9),
    "SPIN":    (7, 53, True, 2.4),
    "WMSS":    (4, 49, False, 4.9),
}

_TABLE12: dict[str, tuple[Cell, ...]] = {
    "Math":  (111657, "AM-DeepSeek-R1-1.4M, whole math subset, verified by math_verify"),
    "Code":  (19457, "AM-DeepSeek-R1-1.4M, code subset, verified by running the provided unit tests"),
    "Logic": (14882, "distilled reasoning on LogiQA 2.0 and ReClor, kept where the answer matches"),
}
# fmt: on


def _table8() -> dict[str, Rows]:
    wide: Rows = {}
    narrow: Rows = {}
    for setup, (alpha, beta, gamma, aime_4b, math_4b, math_3b) in _TABLE8.items():
        wide[setup] = {"alpha": alpha, "beta": beta, "gamma": gamma, "AIME 2025": aime_4b, "MATH 500": math_4b}
        narrow[setup] = {
            "alpha": alpha, "beta": beta, "gamma": gamma, "AIME 2025": None, "MATH 500": math_3b, "note": _TABLE8_DASH,
        }  # fmt: skip
    return {QWEN3_4B: wide, QWEN25_3B: narrow}


def _table9() -> Rows:
    rows: Rows = {}
    for position, mix_weight in enumerate(_TABLE9_LAMBDAS):
        scores = {name: column[position] for name, column in _TABLE9.items()}
        rows[f"{mix_weight:g}"] = {"lambda": mix_weight, **scores}
    return rows


def _table11() -> Rows:
    rows: Rows = {}
    for method, (hours, minutes, approximate, change) in _TABLE11.items():
        rows[method] = {
            "hours": hours, "minutes": minutes, "total_minutes": 60 * hours + (minutes or 0),
            "approximate": approximate,
        }  # fmt: skip
        if change is not None:
            rows[method]["Math-Avg change"] = change
    return rows


def _blocks(columns: tuple[str, ...], blocks: dict[str, dict[str, tuple[Cell, ...]]]) -> dict[str, Rows]:
    return {model: _without_blanks(_rows(columns, rows)) for model, rows in blocks.items()}


_TABLE3_COLUMNS = (
    "ck_rel", "WD-JT only MATH500", "WD-JT only GSM8K", "Frozen base MATH500", "Frozen base GSM8K",
)  # fmt: skip
_TABLE10_COLUMNS = (
    "k", "AIME 2025 WMSS", "AIME 2025 DPO", "AMC23 WMSS", "AMC23 DPO", "MATH500 WMSS", "MATH500 DPO",
)  # fmt: skip

_ALL = (
    PaperTable(
        id="table1", place="§6.2", runs_per_cell=1, values=_blocks(TABLE1_COLUMNS, _TABLE1),
        caption="Main results: pass@1 accuracy (%) under greedy decoding, two epochs for every method",
        note="'change' is the printed difference from SFT with its arrow as the sign; SFT has none",
    ),
    PaperTable(
        id="table2", place="§6.3", runs_per_cell=None,
        values={QWEN3_4B: _rows(("AIME", "MATH", "GSM8K", "Avg."), _TABLE2)},
        caption="Ablation of the modules of WMSS",
        note="'Baseline' is the two-epoch SFT model; its MATH500 and that of WMSS are 0.1 below Table 1",
    ),
    PaperTable(
        id="table3", place="App. B.1", runs_per_cell=None, values={QWEN3_4B: _rows(_TABLE3_COLUMNS, _TABLE3)},
        caption="Freezing the weak agent: MATH500 and GSM8K pass@1 (%) at checkpoints after the shared initialization",
        note="the paper does not name the backbone here; ck_rel is null for the row printed as 'final'",
    ),
    PaperTable(
        id="table4", place="App. B.2", runs_per_cell=1, values={GEMMA_4B: _rows(TABLE4_COLUMNS, _TABLE4)},
        caption="Results on Gemma-3-4B-PT: pass@1 accuracy (%) under greedy decoding",
    ),
    PaperTable(
        id="table5", place="App. B.3", runs_per_cell=None, values=_blocks(("LogiQA2", "ReClor", "Avg."), _TABLE5),
        caption="Logical reasoning on four base models: pass@1 accuracy (%) under greedy decoding",
    ),
    PaperTable(
        id="table6", place="App. B.4", runs_per_cell=None,
        values={QWEN3_4B: _rows(("SFT", "WMSS", "change %"), _TABLE6)},
        caption="Logit dynamics at epoch 3: SFT against WMSS, with the relative change in per cent",
    ),
    PaperTable(
        id="table7", place="App. B.4", runs_per_cell=None,
        values={QWEN3_4B: _rows(("Weak init", "Strong Pre", "Strong Post", "Delta", "Delta %"), _TABLE7)},
        caption="Extended logit statistics before and after WD-JT; Delta is strong Post minus Pre",
    ),
    PaperTable(
        id="table8", place="App. B.7", runs_per_cell=None, values=_table8(),
        caption="Sensitivity to alpha, beta, gamma: pass@1 accuracy (%) under greedy decoding",
        note="AIME 2025 has 30 problems, yet 9.7, 10.3, 10.7 and 14.0 are no multiples of 1/30: not single greedy runs",
    ),
    PaperTable(
        id="table9", place="App. B.8", runs_per_cell=3, values={QWEN3_4B: _table9()},
        caption="Sensitivity to lambda, the weight of the strong logits: mean greedy pass@1 (%) of three trainings",
        note="Avg. is over these six benchmarks, without the AMC23 of Table 1",
    ),
    PaperTable(
        id="table10", place="App. B.9", runs_per_cell=None, values={QWEN3_4B: _rows(_TABLE10_COLUMNS, _TABLE10)},
        caption="pass@k (%) of WMSS and DPO: T 0.7, top-p 0.95, 64 samples per problem",
    ),
    PaperTable(
        id="table11", place="App. B.10", runs_per_cell=None, values={QWEN3_4B: _table11()},
        caption="Wall-clock time of training after the shared SFT warm-start, and the Math-Avg change from Table 1",
        note="minutes is null where only hours are printed; WMSS is printed as 'WMSS (dedup WD-DS)'",
    ),
    PaperTable(
        id="table12", place="App. E.2", runs_per_cell=None,
        values={ALL_MODELS: _rows(("samples", "source"), _TABLE12)}, caption="Training data of the three domains",
    ),
)  # fmt: skip

TABLES: dict[str, PaperTable] = {table.id: table for table in _ALL}

# Decimals of the tables' figures; every other column has one.
_TWO = {"table6": ("SFT", "WMSS"), "table7": ("Weak init", "Strong Pre", "Strong Post", "Delta")}


def decimals(table: str, column: str) -> int:
    """Return the decimals that a column's figures are printed with."""
    if table == "table12" or column in ("k", "ck_rel", "hours", "minutes", "total_minutes"):
        return 0
    return 2 if table == "table10" or column in _TWO.get(table, ()) else 1
