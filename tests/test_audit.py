"""The audit of the paper's figures: exact arithmetic, hand-worked cases, findings that appear when a figure changes."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from fractions import Fraction

import pytest
from conftest import ROOT, SHARED

from foundation.errors import InputError
from replication import audit
from replication.audit import averages, claims, contradictions, grim, text_figures
from replication.audit.__main__ import main
from replication.audit.finding import Where, recompute
from replication.audit.quantities import PAPER, Printed, constant, exact, figure, fixed, mean, shown
from replication.paper_tables import QWEN3_4B, QWEN25_3B, TABLES, decimals
from replication.paper_values import TEXT_CLAIMS

CASES = [json.loads(line) for line in (ROOT / "tests/cases/audit_grim.jsonl").read_text().splitlines()]
GEMMA = "Gemma-3-4B-PT"
AS_PRINTED = audit.findings()


def changed(table, model, row, column, value):
    """The paper with another figure in one cell."""
    values = deepcopy(dict(TABLES[table].values))
    assert column in values[model][row]
    values[model][row][column] = value
    return Printed(tables={**TABLES, table: replace(TABLES[table], values=values)}, claims=TEXT_CLAIMS)


def retold(name, value):
    """The paper with another figure in its text."""
    return Printed(tables=TABLES, claims={**TEXT_CLAIMS, name: replace(TEXT_CLAIMS[name], value=value)})


def new_kinds(paper):
    """The kinds of the findings that a change brings, each (kind, table)."""
    before = {(f.kind, f.table, f.model, f.row, f.column) for f in AS_PRINTED}
    return {(f.kind, f.table) for f in audit.findings(paper)
            if (f.kind, f.table, f.model, f.row, f.column) not in before}


# --- GRIM


@pytest.mark.parametrize("case", CASES, ids=[f"{c['table']}-{c['value']}-of-{c['n']}" for c in CASES])
def test_grim_cases(case):
    decimals = len(case["value"].partition(".")[2])
    assert grim.possible(Fraction(case["value"]), decimals, case["n"]) == case["possible"], case["why"]


@pytest.mark.parametrize("n", [1, 7, 30, 40, 164, 378])
def test_grim_agrees_with_trying_every_count(n):
    printed = set()
    for k in range(n + 1):
        tenths, rest = divmod(1000 * k, n)  # k/n in tenths of a per cent, by whole numbers only
        printed.add(tenths)
        if 2 * rest >= n:
            printed.add(tenths + 1)
    assert {t for t in range(1005) if grim.possible(Fraction(t, 10), 1, n)} == printed


def test_grim_refuses_what_is_no_question():
    with pytest.raises(ValueError, match="0 answers"):
        grim.possible(Fraction(1), 1, 0)
    with pytest.raises(ValueError, match="more than 1 decimals"):
        grim.possible(Fraction("14.25"), 1, 30)


def test_grim_findings_on_the_paper():
    found = {(f.table, f.model, f.row, f.column) for f in AS_PRINTED if f.kind == "grim"}
    assert {("table2", QWEN3_4B, "Baseline", "MATH"), ("table2", QWEN3_4B, "WMSS", "MATH"),
            ("table5", GEMMA, "SFT", "ReClor"), ("table8", QWEN3_4B, "Config B", "AIME 2025"),
            ("table8", QWEN3_4B, "Config D", "MATH 500"), ("table10", QWEN3_4B, "1", "AMC23 DPO")} <= found
    assert not any(column in ("AMC23", "LCB", "GSM8K") for _, _, _, column in found)
    assert all(f.n is not None and str(f.n) in f.arithmetic for f in AS_PRINTED if f.kind == "grim")


def test_every_score_is_tested_or_left_out_with_a_reason():
    counted = sum(1 for check in grim.checks(PAPER) if check.kind == "grim")
    # Table 1: 18 rows x 11; Table 2: 4 x 3; 3: 5 x 4; 4: 6 x 10; 5: 24 x 2; 8: 12 + 6; 9: 17 x 6; 10: 2 x 6; text: 8
    assert counted == 198 + 12 + 20 + 60 + 48 + 18 + 102 + 12 + 8
    assert grim.answers("table10", "MATH500 DPO", "8") is None and "k = 4 to 32" in grim.LEFT_OUT[0]
    assert grim.answers("table9", "AIME25", "0.5") == 90
    assert grim.answers("table10", "AMC23 WMSS", "1") == 2560 and grim.answers("table10", "AMC23 WMSS", "64") == 40


# --- arithmetic


def test_figures_are_exact():
    assert exact(0.1) == Fraction(1, 10)
    assert fixed(exact(14.2), 2) == "14.20" and fixed(Fraction(-1, 2), 1) == "-0.5" and fixed(Fraction(30), 0) == "30"
    assert shown(Fraction(2, 3), 2) == "0.67" and shown(Fraction(200), 2) == "200"
    assert shown(Fraction(-1, 1000), 2) == "0"
    average = mean([figure(1.0, 1), figure(2.0, 1)])
    assert (average.plain, average.low, average.high) == (Fraction(3, 2), Fraction(29, 20), Fraction(31, 20))
    gap = figure(2.0, 1) - figure(1.0, 1)
    assert (gap.low, gap.high) == (Fraction(9, 10), Fraction(11, 10))
    ratio = figure(1.0, 1) / figure(2.0, 1)
    assert ratio.low == Fraction("0.95") / Fraction("2.05") and ratio.high == Fraction("1.05") / Fraction("1.95")
    assert (constant(3) * (constant(1) + constant(2))).text == "3 x (1 + 2)"


@pytest.mark.parametrize(("printed", "kind"), [
    ("1.5", None), ("1.6", "recomputed"), ("1.4", "recomputed"), ("1.7", "average"), ("1.3", "average")])
def test_a_mean_is_allowed_what_rounding_allows_and_no_more(printed, kind):
    # 1.0 and 2.0: the mean of what they stand for lies in [1.45, 1.55], which prints as 1.4, 1.5 or 1.6
    parts = mean([figure(1.0, 1), figure(2.0, 1)])
    where = Where(table="table1", row="r", column="c", place="p")
    found = recompute("average", where, Fraction(printed), 1, parts).finding
    assert (None if found is None else found.kind) == kind


def test_the_headline_average_is_recomputed():
    found = [f for f in AS_PRINTED if f.kind == "recomputed" and f.table == "table1"]
    assert {(f.model, f.row, f.value) for f in found} == {
        (QWEN3_4B, "WMSS", 69.1), ("Qwen3-8B-Base", "UNDIAL", 67.6), (QWEN25_3B, "SPIN", 54.1)}
    headline = next(f for f in found if f.row == "WMSS")
    # 20.0 + 71.4 + 50.0 + 67.7 + 88.5 + 96.2 + 90.3 = 484.1; / 7 = 69.157
    assert "69.1571" in headline.arithmetic and "cutting off further digits gives 69.1" in headline.arithmetic
    assert "do not give 69.1 by rounding" in headline.arithmetic


# --- a changed figure is found


@pytest.mark.parametrize(("cell", "value", "expected"), [
    (("table1", QWEN3_4B, "WMSS", "Math Avg."), 69.3, {("average", "table1"), ("difference", "table1")}),
    (("table1", QWEN3_4B, "SSB", "GSM8K"), 78.1, {("average", "table1")}),
    (("table1", "Qwen3-8B-Base", "SPIN", "Code Avg. change"), 1.8, {("difference", "table1")}),
    (("table1", QWEN3_4B, "SFT", "AMC23"), 47.4, {("grim", "table1")}),
    (("table2", QWEN3_4B, "+ WD-DS", "Avg."), 56.6, {("average", "table2"), ("text", "text")}),
    (("table4", GEMMA, "SPIN", "Code Avg."), 34.8, {("average", "table4"), ("claim", "table4")}),
    (("table5", QWEN25_3B, "SSB", "ReClor"), 73.8, {("average", "table5"), ("claim", "table5")}),
    (("table6", QWEN3_4B, "Logit Std.", "change %"), 17.1, {("difference", "table6")}),
    (("table6", QWEN3_4B, "Target-to-Background Gap", "WMSS"), 35.30, {("difference", "table6"), ("text", "text")}),
    (("table7", QWEN3_4B, "L2 norm", "Delta"), -178.37, {("difference", "table7")}),
    (("table7", QWEN3_4B, "Centered norm", "Weak init"), 1211.33, {("difference", "table7"), ("text", "text")}),
    (("table8", QWEN3_4B, "Config C", "MATH 500"), 70.4, {("text", "text")}),
    (("table8", QWEN25_3B, "Config A", "AIME 2025"), 3.3, {("claim", "table8")}),
    (("table9", QWEN3_4B, "0.42", "Avg."), 74.9, {("average", "table9"), ("text", "text")}),
    (("table10", QWEN3_4B, "8", "AMC23 WMSS"), 60.06, {("difference", "table10"), ("claim", "table10")}),
    (("table11", QWEN3_4B, "SPIN", "Math-Avg change"), 2.5, {("difference", "table11")}),
    (("table12", "all models", "Code", "samples"), 21457, {("count", "text")}),
])  # fmt: skip
def test_a_changed_cell_is_found(cell, value, expected):
    assert expected <= new_kinds(changed(*cell, value))


@pytest.mark.parametrize(("name", "value", "kind"), [
    ("mean_gain_baselines", 1.4, "text"), ("gemma_math_gain", 4.6, "text"), ("lambda_cross", 0.480, "text"),
    ("active_share", 57, "count"), ("aime_growth_dpo", 15.9, "text"), ("logic_retention", 98.4, "count"),
    ("worst_lambda_lead_sft", 4, "text"), ("amc_ratio_64", 1.05, "text")])
def test_a_changed_figure_of_the_text_is_found(name, value, kind):
    assert (kind, "text") in new_kinds(retold(name, value))


def test_a_figure_within_the_rounding_is_not_called_a_difference():
    assert new_kinds(changed("table2", QWEN3_4B, "+ WD-DS", "Avg.", 56.3)) == set()
    assert ("average", "table9") not in new_kinds(changed("table9", QWEN3_4B, "0.1", "Avg.", 71.6))


# --- what the paper says


def by_row(kind):
    return {f.row: f for f in AS_PRINTED if f.kind == kind}


def test_claims_that_the_tables_do_not_bear_out():
    found = by_row("claim")
    assert "SPIN 66.6, SSB 66.1" in found["The strongest non-WMSS baseline in Table 1 is SSB"].arithmetic
    # six benchmarks of SSB: 10.0 + 70.6 + 66.1 + 87.1 + 95.4 + 88.8 = 418.0; / 6 = 69.667
    assert "69.6667: differs by -2.067" in found["lambda 0.9 exceeds SSB"].arithmetic
    assert "66.9833: differs by 0.617" in found["lambda 0.9 exceeds SFT by more than 3"].arithmetic
    assert "0.4 (74.9)" in found["The strongest averages lie in [0.42, 0.50]"].arithmetic
    assert not any("attains the best" in row or "is ahead" in row for row in found)


def test_one_quantity_in_two_places():
    found = {(f.table, f.model, f.row, f.column) for f in AS_PRINTED if f.kind == "contradiction"}
    assert ("table2", QWEN3_4B, "Baseline", "MATH") in found and ("table2", QWEN3_4B, "Baseline", "GSM8K") not in found
    assert ("table8", QWEN25_3B, "Default", "AIME 2025") in found  # a dash against 6.7


def test_runs_that_are_not_the_same_may_differ_and_contradict_nothing():
    """Table 9 averages three trainings; Tables 6 and 7 are of other checkpoints."""
    found = {kind: {(f.table, f.row, f.column) for f in AS_PRINTED if f.kind == kind}
             for kind in ("differs", "contradiction")}
    assert ("table9", "0.5", "AIME25") in found["differs"]  # 20.0 against Table 8's 16.7
    assert ("table7", "Std", "Strong Pre") in found["differs"]  # 3.18 against Table 6's 2.93
    assert not [place for place in found["contradiction"] if place[0] in ("table6", "table7", "table9")]
    assert "differ" in audit.KINDS["differs"] and "contradict" not in audit.KINDS["differs"]


def test_what_was_only_read_is_a_finding_and_no_check():
    made = audit.content()
    read = {f.row for f in AS_PRINTED if f.kind == "wording"}
    assert read == set(contradictions.sentences()) and "wording" not in made["checked"]
    agreeing = [check for check in contradictions.checks(PAPER) if check.computed]
    assert len(agreeing) == made["checked"]["contradiction"] + made["checked"]["differs"]
    assert sum(check.finding is None for check in agreeing) > 0


def test_a_count_with_its_further_digits_cut_off_is_recomputed():
    """111,657 as "about 111 K": the rule of GRIM accepts it; 110 it would not."""
    name = TEXT_CLAIMS["math_thousands"].statement
    assert next(f.kind for f in AS_PRINTED if f.row == name) == "recomputed"
    assert next(f.kind for f in audit.findings(retold("math_thousands", 110)) if f.row == name) == "count"
    assert not [f for f in audit.findings(retold("math_thousands", 112)) if f.row == name]


def test_two_places_that_agree_give_no_finding():
    same = changed("table2", QWEN3_4B, "Baseline", "MATH", 66.2)
    found = {(f.table, f.row, f.column) for f in audit.findings(same) if f.kind == "contradiction"}
    assert ("table2", "Baseline", "MATH") not in found


def test_every_figure_of_the_text_is_checked_or_named():
    checked = {recipe.claim for recipe in text_figures.RECIPES}
    assert checked | set(text_figures.UNCHECKED) == set(TEXT_CLAIMS)
    assert not checked & set(text_figures.UNCHECKED)


def test_the_figures_of_the_text_keep_their_printed_digits():
    for recipe in text_figures.RECIPES:
        printed = TEXT_CLAIMS[recipe.claim].printed
        assert len(printed.partition(".")[2]) == recipe.digits, recipe.claim
    assert TEXT_CLAIMS["lambda_cross"].text == "about 0.490" and TEXT_CLAIMS["modules_aime_both"].text == "20.0"
    assert all(float(claim.printed) == claim.value for claim in TEXT_CLAIMS.values())


def test_each_finding_shows_its_figures_and_a_known_kind():
    assert {f.kind for f in AS_PRINTED} <= set(audit.KINDS)
    for finding in AS_PRINTED:
        assert finding.arithmetic and finding.place and finding.row
        assert finding.table == "text" or finding.table in TABLES
    for word in ("wrong", "error", "false", "suspicious", "fraud", "manipulat"):
        assert not [f for f in AS_PRINTED if word in f.arithmetic.lower() + f.row.lower()]


# --- the printed digits


def test_the_decimals_are_those_of_the_text():
    if not (SHARED / "paper.txt").is_file():
        pytest.skip(f"the paper's text is not at {SHARED / 'paper.txt'}; set WMSS_SHARED to its folder")
    text = (SHARED / "paper.txt").read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")
    for arrow, sign in (("\\downarrow", "-"), ("\\uparrow", "")):
        text = text.replace(arrow, sign)
    lines = [line for table in ("table1", "table2", "table4", "table10") for line in _lines(table)]
    missing = [line for line in lines if line not in text]
    blocks = TABLES["table5"].values
    for row in blocks[QWEN3_4B]:
        missing += [line for line in [" ".join([row, *(_cells("table5", model, row) for model in blocks)])]
                    if line not in text]
    rows = TABLES["table9"].values[QWEN3_4B]
    for column in averages._PARTS["table9"]["Avg."]:
        line = " ".join(PAPER.cell("table9", QWEN3_4B, row, column).text for row in rows)
        missing += [line] if f"{column.replace('AQuA', 'AQUA')} {line}\n" not in text else []
    for row in TABLES["table7"].values[QWEN3_4B]:
        line = " ".join(PAPER.cell("table7", QWEN3_4B, row, c).text for c in ("Weak init", "Strong Pre", "Strong Post",
                                                                              "Delta"))
        missing += [line] if f" {line} (" not in text else []
    assert not missing


def _cells(table, model, row):
    cells = TABLES[table].values[model][row]
    return " ".join(fixed(exact(cells[c]), decimals(table, c)) for c in cells if c != "k")


def _lines(table):
    return [f"\n{row} {_cells(table, model, row)}\n" for model, rows in TABLES[table].values.items() for row in rows]


# --- files and the command line


def test_files_hold_the_same_findings(tmp_path):
    paths = audit.write(tmp_path / "new")
    assert [path.name for path in paths] == ["audit.json", "audit.md", "audit.csv"]
    made = json.loads(paths[0].read_text())
    assert (made["schema"], made["table"]) == (1, "audit")
    assert made["findings"] == [f.as_dict() for f in AS_PRINTED]
    assert made["checked"]["grim"] == 478 and sum(made["differing"].values()) == len(made["findings"])
    assert all(made["checked"][kind] >= made["differing"].get(kind, 0) for kind in made["checked"])
    rows = list(csv.DictReader(paths[2].open(encoding="utf-8")))
    assert [row["arithmetic"] for row in rows] == [f["arithmetic"] for f in made["findings"]]
    text = paths[1].read_text()
    assert text.startswith("# Audit") and text.count("\n| ") == len(rows) + len(made["differing"])


def test_the_command_line_prints_a_json_list():
    done = subprocess.run([sys.executable, "-m", "replication.audit", "--json", "--kind", "grim"], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 15
    assert {"kind", "table", "row", "column", "value", "n", "arithmetic"} <= set(found[0])
    assert {"table": "table2", "row": "Baseline", "value": 66.1, "n": 500}.items() <= next(
        f for f in found if f["table"] == "table2").items()


def test_the_command_line_prints_text_and_refuses_what_it_cannot_do(tmp_path, capsys):
    assert main(["--out", str(tmp_path)]) == 0
    assert "grim: 478 checked, 15 differ" in capsys.readouterr().out
    assert (tmp_path / "audit.json").is_file()
    with pytest.raises(SystemExit) as refused:
        main(["--kind", "guess"])
    assert refused.value.code == 2
    (tmp_path / "file").write_text("")
    for blocked in ("file", "file/below"):
        with pytest.raises(InputError, match="name a folder"):
            main(["--out", str(tmp_path / blocked)])


def test_claims_count_what_holds_too():
    found = [check.finding for check in claims.checks(PAPER)]
    assert len(found) > 70 and sum(f is not None for f in found) < 15
