"""What the tables and figures plan: every cell of the paper, each training once, the paper's numbers beside."""

from __future__ import annotations

from dataclasses import replace

import pytest

from foundation import locks
from foundation.errors import InputError, PrerequisiteError
from replication import formats, table12
from replication.catalogue import tables
from replication.cli import Options
from replication.diagnostics import cell
from replication.models import MODELS
from replication.paper import TABLES
from replication.plan import Planners, Request
from replication.planning import TRAININGS, print_plan, sharing
from replication.results import contents
from replication.run import RunReport
from replication.running import prepare
from replication.scales import SCALES
from replication.source_steps import hub_revisions
from replication.steps import closure
from replication.store import Store
from replication.tables import TableRun

DECLARED = {table.name: table for table in tables()}
# of the paper's columns, those that are settings or remarks, or that the comparisons show
NOT_CELLS = {"ck_rel", "alpha", "beta", "gamma", "lambda", "k", "hours", "minutes", "approximate", "note", "source",
             "Math Avg. change", "Code Avg. change"}


def planners(model="tiny"):
    scale = SCALES[MODELS[model].scale]
    return Planners(Request(model=MODELS[model], scale=scale, configuration=scale.configuration, data_root=None,
                            limit_train=None, limit_eval=None, seed=0, plan_only=True))


@pytest.fixture(scope="module")
def planned():
    """Every table at tiny scale, on the model it is about."""
    made = {name: planners(name) for name in ("tiny", "tiny-gemma")}
    return {name: TableRun.plan(table, made["tiny-gemma" if table.backbone == "gemma" else "tiny"])
            for name, table in DECLARED.items()}


def test_all_twelve_tables_and_three_figures_are_declared():
    assert set(DECLARED) >= {*(f"table{k}" for k in range(1, 13)), "figure3", "figure4", "figure5"}


@pytest.mark.parametrize("name", DECLARED)
def test_no_cell_is_planned_twice_and_each_is_measured_at_tiny(planned, name):
    places = [(cell.row, cell.column) for cell in planned[name].cells]
    assert len(set(places)) == len(places)
    assert [cell for cell in planned[name].cells if cell.measure is None] == []


@pytest.mark.parametrize("name", [name for name in DECLARED if name in TABLES])
def test_each_number_that_the_paper_prints_stands_beside_a_cell(planned, name):
    context = planned[name].planners.request.model.context
    values = TABLES[name].values.get(context) or next(iter(TABLES[name].values.values()))
    printed = sorted(float(value) for row in values.values() for column, value in row.items()
                     if column not in NOT_CELLS and isinstance(value, int | float) and not isinstance(value, bool))
    shown = [cell.paper for cell in planned[name].cells if cell.paper is not None]
    if name == "table10":  # besides, the gains that B.9 derives from them
        shown = [cell.paper for cell in planned[name].cells if cell.row != "Diversity gain"]
    if name == "table11":  # in minutes there, in seconds here
        printed = sorted(60 * v if v > 100 else v for v in printed)
    assert sorted(shown) == pytest.approx(printed)


@pytest.mark.parametrize(("name", "row", "column", "said"), [
    ("table7", "Entropy", "Weak init", "0.52"), ("table7", "Max prob", "Strong Pre", "0.85"),
    ("table7", "Mean logit", "Delta", "-1.90"), ("table7", "Centered norm", "Strong Pre", "1,240.10"),
    ("table10", "1", "AIME 2025 DPO", "14.20"), ("table12", "Math", "samples", "111,657"),
    ("table11", "SFT", "Total training time", "4 h 30 min"), ("table11", "SSB", "Total training time", "about 18 h"),
    ("table11", "SPIN", "Total training time", "about 7 h 53 min"), ("table11", "WMSS", "Math-Avg change", "4.9"),
    ("table1", "WMSS", "AIME2025", "20.0"), ("theory", "alpha (Eq. 16)", "M0 + M1", "about 1.08"),
    ("theory", "lambda_cross (Eq. 17)", "M0 + M1", "about 0.490"),
])  # fmt: skip
def test_the_papers_numbers_are_shown_as_it_prints_them(planned, tmp_path, name, row, column, said):
    content = contents(planned[name], RunReport(), Store(tmp_path / "store"))
    shown = next(c for c in content["cells"] if (c["row"], c["column"]) == (row, column))
    assert shown["paper_text"] == said and isinstance(shown["paper_context"], float)
    assert f" {said} |" in formats.as_markdown(content | {"cells": [shown | {"status": "failed"}]})


@pytest.mark.parametrize("name", DECLARED)
def test_what_is_shown_of_the_paper_is_the_number_beside_it(planned, tmp_path, name):
    """Whether digits were lost or gained: what is written, read again, is the number."""
    for found in contents(planned[name], RunReport(), Store(tmp_path / "store"))["cells"]:
        if found["paper_text"] is not None and " h" not in found["paper_text"]:
            assert float(found["paper_text"].removeprefix("about ").replace(",", "")) == found["paper_context"]


def test_table_12_belongs_to_no_model(planned, tmp_path):
    content = contents(planned["table12"], RunReport(), Store(tmp_path / "store"))
    assert content["paper_source"] == "all models, for orientation"
    assert "Qwen3-4B" not in formats.as_markdown(content)


def test_table_9_trains_each_lambda_three_times_from_one_base(planned):
    run = planned["table9"]
    pairs = [step for step in closure(run.targets) if step.kind == "train" and step.weak is not None]
    assert len(pairs) == 17 * 3 and len({step.seed for step in pairs}) == 3
    assert len({step.key for step in closure(run.targets) if step.kind in ("pretrain", "pool")}) == 2


def test_the_headline_training_is_the_sweeps_training_and_the_first_of_a_longer_course(planned):
    headline = planned["table1"].planners().final("wmss").key
    for name in ("table2", "table8", "table9", "table11", "figure3", "figure4", "figure5", "ambiguities"):
        assert headline in {step.key for step in closure(planned[name].targets)}, name
    sft = planned["table1"].planners().final("sft").key
    assert sft in {step.key for step in closure(planned["figure3"].targets)}


def test_epochs_of_a_chain_differ_in_order_and_go_on_counting(planned):
    plan = planned["figure3"].planners().plan("sft[sft.epochs=4]")
    assert [step.first_epoch for step in plan.trainings] == [1, 2, 3]
    assert planned["figure3"].planners().warmup().first_epoch == 0


def test_checkpoints_inside_an_epoch_come_from_the_training_that_others_use(planned):
    run = planned["table3"]
    trainings = [step for step in closure(run.targets) if step.kind == "train"]
    assert len(trainings) == 3  # M1, trained along, frozen
    assert all(step.snapshots for step in trainings)
    sweep = planned["table9"].planners().final("wmss[wdjt.mix_weight=0.1]")
    assert sweep.snapshots == ()


def test_the_union_of_all_plans_trains_each_configuration_once(planned):
    steps = closure([step for run in planned.values() for step in run.targets])
    trainings = [step for step in steps if step.kind in ("train", "train-pairs")]
    assert len({step.key for step in trainings}) == len(trainings)
    said = sharing(list(planned.values()))
    assert said.startswith(f"{len(trainings)} trainings, one for each distinct configuration")


def test_domains_have_pools_and_trainings_of_their_own(planned):
    code = [step for step in closure(planned["table1"].targets) if step.kind == "train" and step.pool.domain == "code"]
    assert {step.title for step in code} >= {"warm-up", "SFT", "WMSS"}
    assert planned["table1"].planners("code").base().key == planned["table1"].planners("math").base().key


def test_a_domain_without_a_pool_is_missing_with_the_reason(tmp_path):
    scale = SCALES["small"]
    request = Request(model=MODELS["smollm2-135m"], scale=scale, configuration=scale.configuration, data_root=None,
                      limit_train=None, limit_eval=None, seed=0, plan_only=True)
    run = TableRun.plan(DECLARED["table5"], Planners(request))
    assert all(cell.measure is None and "no logic pool" in cell.reason for cell in run.cells)


def test_table_4_takes_the_gemma_style_model_of_the_scale():
    options = Options(plan=True)
    assert prepare((DECLARED["table4"],), options, "tiny")[0].run.planners.request.model.name == "tiny-gemma"
    with pytest.raises(PrerequisiteError, match="gemma-3-4b"):
        prepare((DECLARED["table4"],), options, "smollm2-135m")


@pytest.mark.parametrize("methods", ["sft,wmss", "wmss,sft"])
def test_figure_5_keeps_the_row_of_a_method_that_compares_no_entropies(methods, tmp_path):
    run = prepare((DECLARED["figure5"],), Options(plan=True, methods=methods))[0].run
    gaps = {cell.row: cell for cell in run.cells if cell.column == "Entropy gap"}
    assert list(gaps) == [{"sft": "SFT", "wmss": "base"}[name] for name in methods.split(",")]
    assert gaps["base"].measure is not None and gaps["SFT"].measure is None
    cells = {(c["row"], c["column"]): c for c in contents(run, RunReport(), Store(tmp_path / "store"))["cells"]}
    assert len(cells) == 2 * 4
    shown = cells["SFT", "Entropy gap"]
    assert (shown["status"], shown["reason"]) == ("missing", "selects nothing: it compares no entropies")


def test_table_10_says_on_how_few_problems_it_was_measured(planned, tmp_path):
    notes = {name: [note for note in contents(planned[name], RunReport(), Store(tmp_path / "store"))["notes"]
                    if note.startswith("Limits: ")] for name in ("table10", "table9", "table1")}
    assert "on 50 problems" in notes["table10"][0] and "on 100 problems" in notes["table9"][0] and not notes["table1"]


class Pools:
    """A store that holds the pools' manifests and nothing else."""

    def __init__(self, run, reports):
        self.notes = {run.planners(domain).pool().key: notes for domain, notes in reports.items()}

    def is_done(self, step):
        return step.key in self.notes

    def read_manifest(self, step_id):
        (found,) = [notes for key, notes in self.notes.items() if key.startswith(step_id.rpartition("-")[2])]
        return {"notes": found}


def test_table_12_shows_what_each_filter_dropped(planned):
    run = planned["table12"]
    report = {"read": 10, "dropped": {"answer differs": 3, "malformed": 1}}
    store = Pools(run, {"math": {"examples": 6, "report": report}, "code": {"examples": 4},
                        "logic": {"examples": 4, "report": {"read": 9, "dropped": {"malformed": 5}}}})
    made = table12.losses(run, store)
    values = {(cell["row"], cell["column"]): cell["value"] for cell in made["cells"]}
    assert list(dict.fromkeys(column for _, column in values)) == ["dropped: malformed", "dropped: answer differs"]
    assert values == {("Math", "dropped: malformed"): 1, ("Math", "dropped: answer differs"): 3,
                      ("Code", "dropped: malformed"): 0, ("Code", "dropped: answer differs"): 0,
                      ("Logic", "dropped: malformed"): 5, ("Logic", "dropped: answer differs"): 0}
    assert all(cell["status"] == "measured" and cell["step"] for cell in made["cells"]) and made["notes"] == []
    half = table12.losses(run, Pools(run, {"math": {"examples": 6, "report": report}}))["cells"]
    assert {(cell["status"], cell["reason"]) for cell in half if cell["row"] == "Code"} == {("missing", "not run")}
    generated = table12.losses(run, Pools(run, {"math": {"examples": 6}}))
    assert generated == {"cells": [], "notes": [table12.NOTHING]}


def test_cells_that_only_finished_steps_know_stand_after_the_planned_ones(planned, tmp_path):
    more = [cell("Math", "dropped: malformed", 1, group="Pools", digits=0)]
    run = replace(planned["table12"], table=replace(DECLARED["table12"], extras=lambda run, store: {"cells": more}))
    made = contents(run, RunReport(), Store(tmp_path / "store"))
    assert made["cells"][-1]["column"] == "dropped: malformed" and len(made["cells"]) == 3 * 3 + 1
    assert "dropped: malformed" in formats.as_markdown(made)


@pytest.mark.parametrize("name", DECLARED)
def test_every_training_behind_a_table_has_its_budget_below_it(planned, tmp_path, name):
    """Whatever its rows are called: each training but the warm-up stands in the budget of some row."""
    run = planned[name]
    content = contents(run, RunReport(), Store(tmp_path / "store"))
    texts = [text for text in (*run.methods, *run.table.trained) if text not in ("M0", "M1")]
    shown = {step.key for domain in ("math", "code", "logic") for text in texts
             for step in run.planners(domain).plan(text).trainings}
    warmups = {run.planners(domain).warmup().key for domain in ("math", "code", "logic")}
    seeds = {run.planners.request.seed}
    behind = {step.key for step in closure(run.targets)
              if step.kind in TRAININGS and step.seed in seeds and step.key not in warmups}
    assert behind <= shown and bool(content["budget"]) == bool(behind)


def test_rows_and_columns_that_a_table_does_not_know_are_refused():
    with pytest.raises(InputError, match="no column 'reclor'"):
        prepare((DECLARED["table2"],), Options(plan=True, benchmarks="reclor"))
    with pytest.raises(InputError, match="choose from"):
        prepare((DECLARED["table2"],), Options(plan=True, methods="nothing"))
    with pytest.raises(InputError, match="no rows to choose"):
        prepare((DECLARED["table3"],), Options(plan=True, methods="sft"))
    with pytest.raises(InputError, match="benchmark 'gsm9k' is unknown"):
        prepare((DECLARED["table2"],), Options(plan=True, benchmarks="gsm9k"))


def test_a_changed_setting_takes_the_papers_values_away():
    run = prepare((replace(DECLARED["table2"]),), Options(plan=True, set=("wdjt.mix_weight=0.3",)))[0].run
    with_values = {cell.row for cell in run.cells if cell.paper is not None}
    assert "WMSS" not in with_values and "+ WD-JT" not in with_values


@pytest.mark.parametrize("commit", [None, "c" * 40])
def test_the_revisions_of_hub_models_and_data_are_planned_and_recorded(commit, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locks, "hub_entry", lambda repo_id, *_: locks.HubEntry(type="model", revision=commit, files={}))
    run = TableRun.plan(DECLARED["table4"], planners("gemma-3-4b"))
    assert hub_revisions(closure(run.targets))["google/gemma-3-4b-pt"] == commit
    found = contents(run, RunReport(), Store(tmp_path / "store"))["provenance"]["revisions"]
    assert set(found.values()) == {commit} and {"google/gemma-3-4b-pt", "openai/gsm8k"} <= set(found)
    print_plan([run], Store(tmp_path / "store"))
    printed = capsys.readouterr().out
    if commit is None:
        assert "hub: not pinned yet: google/gemma-3-4b-pt, " in printed and "hub: google" not in printed
    else:
        assert f"hub: google/gemma-3-4b-pt at {commit}\n" in printed and "not pinned yet" not in printed


def test_what_comes_from_no_hub_records_no_revision(planned, tmp_path):
    content = contents(planned["table1"], RunReport(), Store(tmp_path / "store"))
    assert "revisions" not in content["provenance"]


def test_a_hub_model_has_a_code_version_of_its_own():
    hub, package = (planners(model)("math").base() for model in ("gemma-3-4b", "smollm2-135m"))
    assert hub.identity["version"] == hub.hub_version and package.identity["version"] == package.version
    assert hub.repository == "google/gemma-3-4b-pt" and package.repository is None


@pytest.mark.parametrize("name", DECLARED)
def test_every_table_can_be_written_before_anything_has_run(name, tmp_path):
    """Missing cells with a reason, no comparison, no point in a plot; and the same for other rows than its own."""
    for methods in (None, "wmss,sft") if DECLARED[name].rows else (None,):
        run = prepare((DECLARED[name],), Options(methods=methods))[0].run
        content = contents(run, RunReport(), Store(tmp_path / "store"))
        expected = {("missing", "not run")}
        if (name, methods) == ("figure5", "wmss,sft"):
            expected.add(("missing", "selects nothing: it compares no entropies"))
        assert {(cell["status"], cell["reason"]) for cell in content["cells"]} == expected
        assert content["comparisons"] == [] and content["scale"] in content["heading"]
        measured = [s for plot in content.get("plots", []) for s in plot["series"] if s["kind"] == "measured"]
        assert measured == []
        assert content["heading"] in formats.as_markdown(content) and "tabular" in formats.as_latex(content)
