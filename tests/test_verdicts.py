"""Whole contents of tables from made-up readings: the paper's values under the right cells, and what is judged how."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from test_tables import DECLARED, planners

from evaluation.benchmarks import BENCHMARKS
from evaluation.statistics import holm
from foundation.errors import InputError
from replication import table10
from replication.comparisons import compare_scores
from replication.derived import Derived
from replication.measures import Accuracy, Average, Gain, PassAtK, Reading, average
from replication.models import MODELS
from replication.page.summary import sentences
from replication.paper import TEXT_MODEL
from replication.results import contents
from replication.run import RunReport
from replication.store import Store
from replication.tables import TableRun

PUBLISHED = [name for name, model in MODELS.items() if model.published_as is not None]
QUESTIONS = 40


@pytest.fixture(scope="module")
def planned_for():
    """A planner for each model, made once, as where every benchmark has its data."""
    made = {}

    def of(table, model):
        if model not in made:
            made[model] = planners(model)
        return TableRun.plan(DECLARED[table], made[model])

    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(BENCHMARKS, "mawps", replace(BENCHMARKS["mawps"], hub_repo="made/up"))
        yield of


def made_up(run):
    """Return a reading for every planned cell, of its measure's kind, unit and sign."""
    return {i: _reading(cell, run.table.trainings) for i, cell in enumerate(run.cells) if cell.measure is not None}


def _reading(cell, trainings):
    value = 50.0 if cell.paper is None else cell.paper
    if isinstance(cell.measure, Accuracy):
        return _answers(round(QUESTIONS * value / 100), trainings)
    if isinstance(cell.measure, Average):
        return average([_answers(round(QUESTIONS * value / 100), trainings) for _ in cell.measure.columns])
    if isinstance(cell.measure, Derived):
        nothing = {name: {"status": "missing", "reason": ""} for name, _ in cell.measure.parts}
        form = next(one for one in cell.measure.make(nothing) if (one["row"], one["column"]) == (cell.row, cell.column))
        ci95 = None if cell.row in ("Max logit", "Min logit") else (value - 1, value + 3)
        return Reading(value=value + 1, unit=form["unit"], digits=form["digits"], ci95=ci95, n=200, step="logits-1")
    if isinstance(cell.measure, PassAtK):
        return Reading(value=value, ci95=(0.9 * value, min(100.0, 1.1 * value)), n=30, digits=2, step="samples-1")
    if isinstance(cell.measure, Gain):
        return Reading(value=value, unit="points", ci95=(value - 3, value + 3), n=300)
    return Reading(value=value + 1, unit="s", step="train-1")


def _answers(correct, trainings):
    scores = tuple(tuple(i < correct for i in range(QUESTIONS)) for _ in range(trainings))
    value = 100 * correct / QUESTIONS
    return Reading(value=value, n=QUESTIONS * trainings, correct=correct * trainings, scores=scores, step="grade-1",
                   ci95=(max(0.0, value - 22), min(100.0, value + 22)))  # as of shared passages: Wilson has 15


@pytest.fixture
def content_of(planned_for, tmp_path, monkeypatch):
    """The content of a table for a model, as if everything had been measured."""
    monkeypatch.setattr(TableRun, "readings", lambda run, store: made_up(run))

    def of(table, model):
        return contents(planned_for(table, model), RunReport(), Store(tmp_path / "store"))

    return of


def papers(content, key="paper"):
    return {(cell["row"], cell["column"]): cell[key] for cell in content["cells"] if cell[key] is not None}


@pytest.mark.parametrize("name", DECLARED)
def test_every_table_is_written_for_every_published_model(name, content_of):
    for model in PUBLISHED if DECLARED[name].backbone == "asked" else ["gemma-3-4b"]:
        content = content_of(name, model)
        json.dumps(content, allow_nan=False)
        for cell in content["cells"]:
            judgement = cell["judgement"]
            assert (judgement is not None) == (cell["paper"] is not None and cell["status"] == "measured")
            if judgement is not None:
                assert judgement["difference"] == pytest.approx(cell["value"] - cell["paper"])
                assert cell["ci95"] is not None or judgement["verdict"] == "cannot tell"


def test_a_change_in_per_cent_and_a_logit_are_no_shares(content_of):
    cells = {(cell["row"], cell["column"]): cell for name in ("table6", "table7")
             for cell in content_of(name, "qwen3-4b")["cells"] if cell["judgement"]}
    change = cells["Distractors Mean", "change %"]
    assert change["paper"] == -56.9 and change["judgement"]["margin"] is None
    assert "+1.0 percentage points" in change["judgement"]["text"]
    assert cells["Max logit", "Delta %"]["judgement"]["text"].endswith("no interval is known")
    assert {cell["judgement"]["verdict"] for cell in cells.values()} == {"cannot tell"}
    loss = {(cell["row"], cell["column"]): cell for cell in content_of("table11", "qwen3-4b")["cells"]}
    assert loss["UNDIAL", "Math-Avg change"]["judgement"]["margin"] == 2.4


@pytest.mark.parametrize(("table", "column"), [("table9", "GSM8K"), ("table5", "LogiQA2"), ("table1", "Math Avg.")])
def test_the_verdict_rests_on_the_cells_own_interval(table, column, content_of):
    for cell in content_of(table, "qwen3-4b")["cells"]:
        if cell["column"] == column and cell["judgement"]:
            low, high = cell["judgement"]["ci95"]
            own = cell["ci95"]
            # own limits and as much again for the paper's figure; Wilson on the answers counted is narrower
            assert high - low >= 1.2 * (own[1] - own[0])
            assert low <= own[0] - cell["paper"] < own[1] - cell["paper"] <= high
            covered = "the spread of 3 trainings" in cell["judgement"]["text"]
            assert covered == (table == "table9") != ("is not in the interval" in cell["judgement"]["text"])


def test_the_order_of_table_2_has_all_four_rows(content_of):
    (order,) = content_of("table2", "qwen3-4b")["ordering"]
    assert order["rows"] == ["Baseline", "+ WD-DS", "+ WD-JT", "WMSS"]


def test_figures_of_the_text_stand_under_their_model_and_pair_alone(content_of):
    norm = ("centered norm, strong", "M0 + M1")
    own, other, tiny = (content_of("theory", model) for model in ("qwen3-4b", "qwen3-8b", "tiny"))
    assert own["model"] == "qwen3-4b" and papers(own)[norm] == 1240.10 and papers(own, "paper_context") == {}
    assert {column for _, column in papers(own)} == {"M0 + M1"} and len(papers(own)) == 4
    assert papers(other) == papers(tiny) == {} and papers(other, "paper_context") == papers(own)
    assert other["paper_source"] == tiny["paper_source"] == f"{TEXT_MODEL}, for orientation"
    assert any(f"those of {TEXT_MODEL}, for orientation only" in note for note in other["notes"])
    assert own["paper_source"] == TEXT_MODEL and not any("orientation" in note for note in own["notes"])


@pytest.mark.parametrize(("name", "printed"), [
    ("figure4", {("Warm-up (M1)", "MATH500"): 65.8, ("Warm-up (M1)", "GSM8K"): 85.2,
                 ("with WD-DS, final", "MATH500"): 71.4, ("with WD-DS, final", "GSM8K"): 87.6,
                 ("without WD-DS, final", "MATH500"): 69.4, ("without WD-DS, final", "GSM8K"): 87.3}),
    ("figure5", {("ck-200", "MATH500"): 48.4, ("ck-200", "GSM8K"): 74.2})])
def test_the_figures_printed_values_stand_beside_their_cells(name, printed, content_of):
    assert papers(content_of(name, "qwen3-4b")) == papers(content_of(name, "tiny"), "paper_context") == printed
    assert papers(content_of(name, "qwen3-8b")) == {}


def test_p_values_of_averages_are_adjusted_among_themselves(planned_for, tmp_path, monkeypatch):
    def differing(run):
        return {i: replace(one, scores=(tuple(x and (i + k) % 7 > 1 for k, x in enumerate(one.scores[0])),))
                if one.scores else one for i, one in made_up(run).items()}

    monkeypatch.setattr(TableRun, "readings", lambda run, store: differing(run))
    found = contents(planned_for("table1", "tiny"), RunReport(), Store(tmp_path / "store"))["comparisons"]
    averages = [one for one in found if one["column"].endswith("Avg.")]
    columns = [one for one in found if one not in averages]
    assert len(averages) == 6 * 2 and len(columns) == 6 * 11  # six methods against SFT
    for family in (averages, columns):
        assert [one["p_holm"] for one in family] == holm([one["p"] for one in family])
    assert any(one["p_holm"] > one["p"] for one in averages)


class Samples:
    """A store in which the first row solved everything, the others every second problem, and each once in 64."""

    def __init__(self, root):
        self.root = root

    def is_done(self, step):
        return True

    def use(self, step):
        folder = self.root / step.id
        if not folder.is_dir():
            folder.mkdir()
            better = step.of == "WMSS"
            rows = [{"id": f"p{i}", "outcome": "correct" if k == 0 or (better and i % 2) else "wrong"}
                    for i in range(20) for k in range(64)]
            (folder / "verdicts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return folder


def test_pass_at_k_is_compared_by_problem(planned_for, tmp_path):
    run, store = planned_for("table10", "tiny"), Samples(tmp_path)
    found = table10.extras(run, store)["comparisons"]
    assert len(found) == 3 * len(table10.KS)
    assert {(one["row"], one["against"]) for one in found} == {("WMSS", "DPO")}
    at = {(cell.row, cell.column): cell.measure.read(store).value for cell in run.cells}
    for one in found:
        title, _, k = one["column"].partition(", k = ")
        assert one["difference"] == pytest.approx(at[k, f"{title} WMSS"] - at[k, f"{title} DPO"])
        assert one["ci95"][0] <= one["difference"] <= one["ci95"][1] and one["p_holm"] >= one["p"]
    first, last = (next(one for one in found if one["column"] == f"AMC23, k = {k}") for k in (1, 64))
    assert first["p"] < 0.05 and last["difference"] == 0 and last["p"] == 1


def test_without_the_row_compared_with_there_is_no_comparison(planned_for, tmp_path):
    run = planned_for("table10", "tiny")
    alone = TableRun.plan(replace(run.table, rows=("wmss",)), run.planners)
    assert table10.extras(alone, Samples(tmp_path))["comparisons"] == []


def test_scores_of_other_problems_are_not_compared():
    with pytest.raises(InputError, match="not the same ones"):
        compare_scores("AMC23, k = 1", {"a": 1.0}, {"b": 1.0})


def test_a_row_of_one_training_is_said_to_be_one(content_of):
    notes = content_of("ambiguities", "tiny")["notes"]
    assert any("Each row is one training" in note and "Table 9" in note for note in notes)
    assert any("k = 64" in note and "Wilson" in note for note in content_of("table10", "tiny")["notes"])


def test_the_summary_says_what_one_training_can_tell():
    compared = {"row": "WMSS", "against": "SFT", "column": "Math Avg.", "difference": 1.0, "p": 0.5}
    made = {"table1": {"comparisons": [compared], "cells": []}}
    for contents_made, mentioned in ((made, False), (made | {"table9": {"cells": []}}, True)):
        said = dict(sentences(contents_made, MODELS["tiny"]))["Main comparison"][-1]
        assert said.startswith("Each row is one training") and ("Table 9" in said) == mentioned
