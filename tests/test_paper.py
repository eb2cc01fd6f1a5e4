"""The paper's figures in replication/paper.py, against the paper's own text where it is at hand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import InputError
from replication import paper
from replication.paper import (
    ASSUMPTIONS,
    HYPERPARAMETERS,
    TABLES,
    TEXT_CLAIMS,
    Hyperparameter,
    TextClaim,
    published,
)

ROOT = Path(__file__).resolve().parent.parent
QWEN = ("Qwen3-4B-Base", "Qwen3-8B-Base", "Qwen2.5-3B")
Q4 = QWEN[0]
METHODS = "SFT|UNDIAL|NEFTune|SPIN|SSB|WMSS"


def shared_file(name: str) -> str:
    folder = Path(os.environ.get("WMSS_SHARED") or ROOT.parent / "shared")
    if not (folder / name).is_file():
        pytest.skip(f"{name} is not at hand (set WMSS_SHARED to its folder)")
    return (folder / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def paper_text() -> str:
    return shared_file("paper.txt").replace("\N{NO-BREAK SPACE}", " ")


def numbers(row: dict[str, Any]) -> list[float]:
    return [cell for cell in row.values() if isinstance(cell, int | float) and not isinstance(cell, bool)]


def table_text(text: str, number: int, end: str) -> str:
    """From the caption of a table to the text that follows its last row."""
    start = text.index(f"\nTable {number}: ")
    return text[start : text.index(end, start)]


def printed_rows(block: str, names: str) -> dict[str, list[float]]:
    """Rows that start with one of `names`; arrows become signs."""
    block = block.replace("\\downarrow", "-").replace("\\uparrow", "")
    return {
        name: [float(token) for token in cells.split()]
        for name, cells in re.findall(rf"^({names}) ([-\d. ]+)$", block, flags=re.MULTILINE)
    }


# --- against the paper's text


def test_table1_matches_the_text(paper_text: str) -> None:
    blocks = re.split(r"\n(\S+) as base model\.", table_text(paper_text, 1, "\nMechanistic interpretation."))[1:]
    assert tuple(blocks[::2]) == QWEN
    for model, block in zip(blocks[::2], blocks[1::2], strict=True):
        rows = printed_rows(block, METHODS)
        assert rows == {name: numbers(row) for name, row in TABLES["table1"].values[model].items()}
        assert [len(row) for row in rows.values()] == [13, 15, 15, 15, 15, 15]


def test_table2_matches_the_text(paper_text: str) -> None:
    block = paper_text[paper_text.index("6.3 Module ablation") : paper_text.index("\nTable 2:")]
    rows = printed_rows(block, r"Baseline|\+ WD-DS|\+ WD-JT|WMSS")
    assert rows == {name: numbers(row) for name, row in TABLES["table2"].values[Q4].items()}
    assert len(rows) == 4


def test_table3_matches_the_text(paper_text: str) -> None:
    block = table_text(paper_text, 3, "\nB.2 ")
    found = re.findall(r"^(\d+|final) ([\d.]+) / ([\d.]+) ([\d.]+) / ([\d.]+)$", block, flags=re.MULTILINE)
    printed = {name: [float(cell) for cell in cells] for name, *cells in found}
    assert printed == {name: numbers(row)[-4:] for name, row in TABLES["table3"].values[Q4].items()}
    assert [row["ck_rel"] for row in TABLES["table3"].values[Q4].values()] == [50, 100, 150, 200, None]


def test_table4_matches_the_text(paper_text: str) -> None:
    rows = printed_rows(table_text(paper_text, 4, "\nB.3 "), METHODS)
    assert rows == {name: numbers(row) for name, row in TABLES["table4"].values["Gemma-3-4B-PT"].items()}
    assert all(len(row) == 12 for row in rows.values()) and len(rows) == 6


def test_table5_matches_the_text(paper_text: str) -> None:
    rows = printed_rows(table_text(paper_text, 5, "\nB.4 "), METHODS)
    models = TABLES["table5"].values
    assert tuple(models) == (*QWEN, "Gemma-3-4B-PT")
    assert rows == {name: [cell for model in models.values() for cell in numbers(model[name])] for name in models[Q4]}
    assert all(len(row) == 12 for row in rows.values()) and len(rows) == 6


def undouble(token: str) -> float:
    """The text shows a formula twice: 35.8835.88, or 0.90 and then its bold form."""
    plain = token.split("\\mathbf")[0]
    if plain == token:
        assert token[: len(token) // 2] == token[len(token) // 2 :], token
        plain = token[: len(token) // 2]
    return float(plain)


def test_table6_matches_the_text(paper_text: str) -> None:
    block = table_text(paper_text, 6, "\nTable 6 provides")
    pattern = r"^(Target Strength|Distractors Mean|Target-to-Background Gap|Logit Std\.) \(.*\) (\S+) (\S+) \((\S+)%\)$"
    printed = {
        name: [undouble(sft), undouble(wmss), float(change)]
        for name, sft, wmss, change in re.findall(pattern, block, flags=re.MULTILINE)
    }
    assert printed == {name: numbers(row) for name, row in TABLES["table6"].values[Q4].items()}


def test_table7_matches_the_text(paper_text: str) -> None:
    block = table_text(paper_text, 7, "\nB.5 ")
    pattern = r"^([A-Z]\w+(?: [a-z]+)?) .* (-?[\d.]+) (-?[\d.]+) (-?[\d.]+) (-?[\d.]+) \(([+-][\d.]+)%\)$"
    printed = {name: [float(c) for c in cells] for name, *cells in re.findall(pattern, block, flags=re.MULTILINE)}
    assert printed == {name: numbers(row) for name, row in TABLES["table7"].values[Q4].items()}


def test_table8_matches_the_text(paper_text: str) -> None:
    block = table_text(paper_text, 8, "\nWe further investigate")
    found = re.findall(r"^(Config \w|Default) ([\d.]+(?: [\d.]+){4}) - ([\d.]+)$", block, flags=re.MULTILINE)
    assert len(found) == 6
    for setup, cells, narrow in found:
        wide = [float(cell) for cell in cells.split()]
        assert numbers(TABLES["table8"].values[Q4][setup]) == wide
        row = TABLES["table8"].values["Qwen2.5-3B"][setup]
        assert numbers(row) == [*wide[:3], float(narrow)]
        assert row["AIME 2025"] is None and "'-'" in str(row["note"])


def test_table9_matches_the_text(paper_text: str) -> None:
    block = table_text(paper_text, 9, "\nB.9 ")
    lambdas = re.search(r"^(0\.1(?: 0\.\d+)+)$", block, flags=re.MULTILINE)
    assert lambdas is not None
    rows = TABLES["table9"].values[Q4]
    assert list(rows) == lambdas[1].split()
    printed = printed_rows(block, r"AIME25|MATH500|AQUA|GSM8K|MAWPS|SVAMP|Avg\.")
    columns = [list(column) for column in zip(*(numbers(row) for row in rows.values()), strict=True)]
    assert columns == [[float(cell) for cell in lambdas[1].split()], *printed.values()]
    assert list(rows["0.1"])[1:] == [name.replace("AQUA", "AQuA") for name in printed]


def test_table10_matches_the_text(paper_text: str) -> None:
    rows = printed_rows(table_text(paper_text, 10, "\nWMSS outperforms"), r"\d+")
    stored = TABLES["table10"].values[Q4]
    assert {name: [float(name), *cells] for name, cells in rows.items()} == {
        name: numbers(row) for name, row in stored.items()
    }
    assert list(stored) == ["1", "4", "8", "16", "32", "64"]


def test_table11_matches_the_text(paper_text: str) -> None:
    block = table_text(paper_text, 11, "\nAppendix C")
    pattern = rf"^({METHODS})(?: \(.*?\))? (\\sim)?(\d+)h(?:(\d+)m(?:in)?)?(?: .*?([+-][\d.]+)\}}?)?$"
    found = re.findall(pattern, block, flags=re.MULTILINE)
    assert len(found) == 6
    for method, about, hours, minutes, change in found:
        row = TABLES["table11"].values[Q4][method]
        assert row["approximate"] == bool(about)
        assert (row["hours"], row["minutes"]) == (int(hours), int(minutes) if minutes else None)
        assert row["total_minutes"] == 60 * int(hours) + int(minutes or 0)
        assert row.get("Math-Avg change") == (float(change) if change else None)
        assert row.get("Math-Avg change") == published("table1", Q4, method, "Math Avg. change")


def test_table12_matches_the_text(paper_text: str) -> None:
    block = table_text(paper_text, 12, "\nMathematical reasoning.")
    printed = {
        name: int(count.replace(",", ""))
        for name, count in re.findall(r"^(Math|Code|Logic) ([\d,]+) ", block, flags=re.MULTILINE)
    }
    rows = TABLES["table12"].values["all models"]
    assert printed == {name: row["samples"] for name, row in rows.items()}
    assert len(printed) == 3


def section(text: str, place: str) -> str:
    """The stretch of the paper that a place names; tables and figures are searched for by caption."""
    if place.startswith(("Table", "Figure")):
        start = text.index(f"\n{place}: ")
        return text[start : start + 4000]
    number = re.escape(place.removeprefix("App. ").removeprefix("§"))
    heading = re.search(rf"^{number} [A-Z].*$", text, flags=re.MULTILINE)
    assert heading is not None, place
    rest = text[heading.end() :]
    following = re.search(r"^(Appendix [A-E]|[A-E]\.\d+|\d(\.\d)?) [A-Z]", rest, flags=re.MULTILINE)
    return rest[: following.start()] if following else rest


WORDS = {1: "one", 3: "three", 4: "four", 8: "eight"}


def spellings(value: Any) -> str:
    """A pattern of the ways the paper may print a value; the text shows many formulas twice in a row (512512)."""
    if isinstance(value, str):
        return re.escape(value)
    size = abs(value)
    plain = {f"{size:g}", f"{size:.1f}", f"{size:.2f}", f"{size:.3f}", f"{size:,}"}
    plain = {spelling for spelling in plain if float(spelling.replace(",", "")) == size}
    patterns = [rf"(?<![\d.])(?:{re.escape(spelling)}){{1,2}}(?!\.?\d)" for spelling in plain]
    if size < 1:
        patterns.append(rf"(?<![\d.]){re.escape(f'{100 * size:g}')}%")
    if size >= 1000:  # 20K, 2020\,K, 16\,384
        thousands, rest = divmod(int(size), 1000)
        patterns.append(rf"(?<![\d.])({thousands}){{1,2}}(\\,)?K" if rest == 0 else rf"{thousands}\\,{rest:03d}")
    if size in WORDS:
        patterns.append(rf"\b{WORDS[size]}\b")
    if size < 1e-3:
        mantissa, exponent = f"{size:e}".split("e")
        patterns.append(re.escape(f"{float(mantissa):g}\\times 10^{{{int(exponent)}}}"))
    return "|".join(patterns)


def test_each_value_stands_in_the_section_it_names(paper_text: str) -> None:
    missing = []
    entries: list[Hyperparameter | TextClaim] = [*HYPERPARAMETERS.values(), *TEXT_CLAIMS.values()]
    for entry in entries:
        values = entry.value if isinstance(entry.value, tuple) else (entry.value,)
        where = section(paper_text, entry.place)
        missing += [(entry, value) for value in values if not re.search(spellings(value), where)]
    assert not missing


PHRASES = {
    "train.max_grad_norm": "gradient clipping at 1.01.0",
    "train.warmup_fraction": "10%10\\% warm-up ratio",
    "train.epochs": "fixed to 2 epochs",
    "train.num_gpus": "eight NVIDIA H800",
    "train.gpu_memory": "H800 80GB",
    "wmss.alpha": "α=0.1",
    "wmss.beta": "β=0.8",
    "wmss.gamma": "γ=0.1",
    "wmss.lambda": "λ=0.5",
    "wmss.warmup_epochs": "1 SFT warm-up epoch",
    "wmss.weak_driven_epochs": "1 weak-driven epoch",
    "wmss.lambda_sweep_min": "over [0.1,",
    "wmss.lambda_sweep_max": ",0.9]",
    "wmss.lambda_fine_min": "finer grid in [0.4,",
    "wmss.lambda_fine_max": ",0.6]",
    "wmss.lambda_sweep_runs": "three independent training runs",
    "figure3.epochs": "over four epochs",
    "table6.epoch": "at Epoch 3",
    "undial.sigma": "σ=1.0",
    "neftune.alpha": "magnitude α=5",
    "spin.beta": "β=0.1",
    "spin.temperature": "sampling temperature 1.01.0",
    "spin.max_grad_norm": "gradient-norm clip 0.50.5",
    "spin.warmup_fraction": "10%10\\% warm-up ratio",
    "spin.sft_epochs": "SFT-epoch-1 checkpoint",
    "spin.epochs": "run 1 epoch of DPO",
    "ssb.num_rollouts": "draw 44 rollouts",
    "ssb.rollout_temperature": "sampling temperature 0.80.8",
    "ssb.teacher_temperature": "temperature 0.40.4",
    "ssb.lora_rank": "r=32",
    "ssb.lora_alpha": "α=32",
    "ssb.kd_temperature": "T=1.5",
    "ssb.epochs": ", 2 epochs, and a global batch",
    "ssb.micro_batch": "(1×32×8",
    "ssb.accumulation_steps": "×32×",
    "ssb.num_gpus": "×8",
    "ssb.gemma_sft_epochs": "1-epoch SFT checkpoint",
    "ssb.gemma_epochs": "one further SSB epoch",
    "dpo.num_rollouts": "sampling 44 rollouts",
    "dpo.temperature": "T=0.8",
    "pass_at_k.num_samples": "n=64",
    "pass_at_k.temperature": "T=0.7",
    "pass_at_k.top_p": "top-p=0.95",
    "eval.aime_problems": "AIME25, 30 problems",
    "logit_stats.num_examples": "200 randomly sampled examples",
    "data.reclor_val": "ReClor val split (500)",
    "data.logiqa_test": "LogiQA 2.0 test split (1,572)",
}
"""Where a value alone could be found by chance: the paper's words around it, typed from the text a second time."""


def test_small_settings_match_the_words_around_them(paper_text: str) -> None:
    for name, phrase in PHRASES.items():
        entry = HYPERPARAMETERS[name]
        assert phrase in section(paper_text, entry.place), name
        assert re.search(spellings(entry.value), phrase), name


def test_every_open_question_of_the_method_notes_is_an_assumption() -> None:
    asked = set(re.findall(r"^\| (A-\d\d) \|", shared_file("methods.md"), flags=re.MULTILINE))
    assert asked <= set(ASSUMPTIONS), asked - set(ASSUMPTIONS)
    assert set(ASSUMPTIONS) <= asked, set(ASSUMPTIONS) - asked


# --- without the paper's text


@pytest.mark.parametrize(
    ("table", "model", "row", "column", "expected"),
    [
        ("table1", Q4, "SFT", "AIME2025", 13.3),
        ("table1", Q4, "WMSS", "GSM8K", 88.5),
        ("table1", Q4, "UNDIAL", "Math Avg. change", -2.9),
        ("table1", Q4, "SFT", "Math Avg. change", None),
        ("table1", "Qwen3-8B-Base", "SSB", "Code Avg. change", -0.1),
        ("table1", "Qwen3-8B-Base", "SPIN", "AQuA", 78.3),
        ("table1", "Qwen2.5-3B", "WMSS", "LCB", 12.5),
        ("table2", Q4, "+ WD-JT", "Avg.", 58.2),
        ("table2", Q4, "Baseline", "MATH500", 66.1),
        ("table3", Q4, "200", "Frozen base GSM8K", 84.9),
        ("table3", Q4, "final", "ck_rel", None),
        ("table4", "Gemma-3-4B-PT", "SPIN", "AMC23", 7.5),
        ("table5", "Qwen3-8B-Base", "WMSS", "ReClor", 89.2),
        ("table6", Q4, "Distractors Mean", "change %", -56.9),
        ("table7", Q4, "L2 norm", "Delta", -177.37),
        ("table8", "Qwen2.5-3B", "Default", "AIME2025", None),
        ("table8", "Qwen2.5-3B", "Config E", "beta", 0.85),
        ("table9", Q4, "0.42", "Avg.", 75.5),
        ("table9", Q4, "0.1", "AIME2025", 7.8),
        ("table10", Q4, "64", "AMC23 DPO", 75.0),
        ("table11", Q4, "SPIN", "total_minutes", 473),
        ("table11", Q4, "SSB", "minutes", None),
        ("table12", "all models", "Code", "samples", 19457),
        ("table1", "tiny", "WMSS", "GSM8K", None),
        ("table1", Q4, "MyMethod", "GSM8K", None),
    ],
)
def test_published_returns_the_printed_number(
    table: str, model: str, row: str, column: str, expected: float | None
) -> None:
    assert published(table, model, row, column) == expected


def test_unknown_names_are_refused_with_the_choices() -> None:
    with pytest.raises(InputError, match="choose one of: table1, table2"):
        published("table13", Q4, "SFT", "GSM8K")
    with pytest.raises(InputError, match=r"train\.learning_rate"):
        paper.number("learning_rate")
    with pytest.raises(InputError, match="AdamW"):
        paper.number("train.optimizer")
    with pytest.raises(InputError, match="whole number"):
        paper.integer("wmss.alpha")


def test_numbers_of_settings() -> None:
    assert paper.number("train.learning_rate") == 1e-5
    assert paper.integer("train.global_batch") == 512
    assert paper.integer("data.math_examples") // paper.integer("train.global_batch") == 218
    assert paper.number("wmss.lambda") == 0.5
    candidates = paper.integer("data.logic_candidates")
    held_out = paper.integer("data.logiqa_test") + paper.integer("data.reclor_val")
    assert paper.integer("data.logic_raw") - held_out == candidates
    assert round(paper.integer("data.logic_examples") / candidates, 3) == paper.number("data.logic_kept")


def test_counts_of_numbers() -> None:
    counts = {name: paper.count_numbers(table.values) for name, table in TABLES.items()}
    assert counts == {
        "table1": 3 * (13 + 5 * 15), "table2": 16, "table3": 24, "table4": 72, "table5": 72, "table6": 12,
        "table7": 40, "table8": 6 * 5 + 6 * 4, "table9": 17 * 8, "table10": 42, "table11": 6 * 2 + 5 + 5, "table12": 3,
    }  # fmt: skip


def averages() -> list[tuple[tuple[str, str, str, str], list[float], float]]:
    from replication.paper_tables import CODE_BENCHMARKS, MATH_BENCHMARKS

    groups = {"Math Avg.": MATH_BENCHMARKS, "Code Avg.": CODE_BENCHMARKS, "Avg.": None}
    found = []
    for table in ("table1", "table2", "table4", "table5", "table9"):
        for model, rows in TABLES[table].values.items():
            for name, row in rows.items():
                for column in set(groups) & set(row):
                    parts = [c for c in groups[column] or row if c in row and c not in ("Avg.", "lambda")]
                    average = row[column]
                    assert isinstance(average, float)
                    found.append(((table, model, name, column), [float(str(row[c])) for c in parts], average))
    return found


def test_printed_averages_are_the_means_of_the_printed_scores() -> None:
    # 0.05 for the rounding of the average and less for that of its parts
    odd = {key: average for key, parts, average in averages() if abs(sum(parts) / len(parts) - average) > 0.075}
    assert len(averages()) == 3 * 12 + 4 + 12 + 24 + 17
    assert not odd


def test_printed_changes_are_differences_from_sft() -> None:
    for rows in TABLES["table1"].values.values():
        for name, row in rows.items():
            for group in ("Math", "Code"):
                change = row.get(f"{group} Avg. change")
                assert (change is None) == (name == "SFT")
                difference = float(str(row[f"{group} Avg."])) - float(str(rows["SFT"][f"{group} Avg."]))
                assert change is None or abs(difference - float(str(change))) < 0.01, (name, group)


def test_printed_logit_changes_follow_from_the_printed_statistics() -> None:
    for row in TABLES["table6"].values[Q4].values():
        sft, wmss, percent = numbers(row)
        assert abs(100 * (wmss / sft - 1) - percent) < 0.06
    for row in TABLES["table7"].values[Q4].values():
        _, before, after, change, percent = numbers(row)
        assert abs(after - before - change) < 0.006
        assert abs(100 * (after / before - 1) - percent) < 0.06


def test_assumptions_are_complete_entries() -> None:
    assert {"A-01", "A-16", "A-22", "A-29", "A-36", "A-44", "A-54", "A-68", "A-76", "A-83", "A-95"} <= set(ASSUMPTIONS)
    for key, entry in ASSUMPTIONS.items():
        assert entry.id == key
        assert entry.default in entry.options
        assert entry.question and entry.reason
    assert all(TABLES[key].id == key for key in TABLES)
    assert all(HYPERPARAMETERS[key].name == key for key in HYPERPARAMETERS)


def test_json_of_the_command_line_holds_every_table_and_loads_no_torch() -> None:
    code = (
        "import runpy, sys; sys.argv = ['paper', '--json']\n"
        "runpy.run_module('replication.paper', run_name='__main__')\n"
        "assert not {'torch', 'transformers', 'numpy', 'tyro'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    tables = json.loads(done.stdout)
    assert list(tables) == [f"table{number}" for number in range(1, 13)]
    assert tables["table1"][Q4]["SFT"]["AIME2025"] == 13.3
    lambdas = [row["lambda"] for row in tables["table9"][Q4].values()]
    assert len(lambdas) == 17 and lambdas[0] == 0.1 and lambdas[4] == 0.42 and lambdas[-1] == 0.9
    default = tables["table8"]["Qwen2.5-3B"]["Default"]
    assert (default["alpha"], default["beta"], default["gamma"]) == (0.1, 0.8, 0.1)
    assert [row["k"] for row in tables["table10"][Q4].values()] == [1, 4, 8, 16, 32, 64]


def test_overview_and_assumptions_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    paper.main([])
    overview = capsys.readouterr().out
    assert all(word in overview for word in (*TABLES, "train.learning_rate", "A-95", "0.484"))
    paper.main(["--assumptions"])
    listing = capsys.readouterr().out
    assert all(key in listing for key in ASSUMPTIONS) and "because" in listing
