"""Result files of other settings are kept, mixtures on the page are named, one bad file stops no other table."""

from __future__ import annotations

import copy
import json

import pytest
from page_results import table

from evaluation.isolation import kinds
from foundation.errors import PrerequisiteError
from replication import all_tables, running
from replication.catalogue import tables
from replication.cli import Options
from replication.made_with import made_with
from replication.models import MODELS
from replication.page.mixture import mixture
from replication.page.render import render
from replication.results import write
from replication.run import RunReport

SUFFIXES = (".json", ".csv", ".md", ".tex")


def content(name="table1", *, without=(), configuration=(), model="tiny", scale="tiny", **settings):
    """A result as `replication.results.contents` gives it, made with such settings."""
    found = table(name) | {"asked": "tiny", "model": model, "scale": scale, "paper_source": "", "budget": [],
                           "ordering": []}
    found["cells"] = [cell for cell in found["cells"] if cell["row"] not in without]
    found["provenance"] = copy.deepcopy(found["provenance"])
    own = found["provenance"]["settings"]
    own |= {"trainings": 1, "limit_train": None, "limit_eval": None} | settings
    for section, field, value in configuration:
        own["configuration"].setdefault(section, {})[field] = value
    return found


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
            for path in sorted(folder.rglob("*")) if path.is_file()}


# --------------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize(("changes", "words"), [
    ({"limit_eval": 5}, "limit_eval none (now 5)"),
    ({"limit_train": 64}, "limit_train none (now 64)"),
    ({"seed": 1}, "seed 0 (now 1)"),
    ({"scale": "small"}, "scale tiny (now small)"),
    ({"model": "tiny-gemma"}, "model tiny (now tiny-gemma)"),
    ({"configuration": [("train", "learning_rate", 0.5)]}, "train.learning_rate 0.002 (now 0.5)"),
    ({"without": ("WMSS", "SPIN")}, "that this run has not measured (of SPIN, WMSS)"),
])
def test_a_table_made_otherwise_is_kept_whole_and_that_is_said(tmp_path, capsys, changes, words):
    write(content(), tmp_path)
    before = files(tmp_path / "tiny")
    assert capsys.readouterr().out == ""
    write(content(**changes), tmp_path)
    (said,) = capsys.readouterr().out.splitlines()
    (kept,) = (tmp_path / "tiny/replaced").glob("*.json")
    assert words in said and str(kept) in said
    after = files(tmp_path / "tiny")
    for suffix in SUFFIXES:
        assert after[f"replaced/{kept.stem}{suffix}"] == before[f"table1{suffix}"]
    assert json.loads(after["table1.json"]) == json.loads(json.dumps(content(**changes)))


@pytest.mark.parametrize("changes", [
    {}, {"configuration": [("train", "micro_batch", 4)]}, {"configuration": [("engine", "gpus_per_engine", 2)]},
    {"configuration": [("eval", "a_setting_of_a_later_suite", "its default")]},
])
def test_the_same_table_made_anew_keeps_nothing(tmp_path, capsys, changes):
    write(content(without=("WMSS",)), tmp_path)
    write(content(**changes), tmp_path)  # one row more, too
    assert capsys.readouterr().out == "" and not (tmp_path / "tiny/replaced").exists()


def test_a_setting_of_several_values_is_the_same_when_it_is_read_back(tmp_path, capsys):
    for _ in range(2):
        write(content(configuration=[("eval", "of_several", ("sft", ("wmss",)))]), tmp_path)
    assert capsys.readouterr().out == "" and not (tmp_path / "tiny/replaced").exists()


def test_each_kept_table_has_a_place_of_its_own(tmp_path):
    for limit in (None, 5, None, 6, None, 5, None):
        write(content(limit_eval=limit), tmp_path)
    kept = [json.loads(path.read_text()) for path in (tmp_path / "tiny/replaced").glob("*.json")]
    assert sorted(str(made_with(one)["limit_eval"]) for one in kept) == ["5", "6", "None"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"cells": 1}', '{"cells": [1], "provenance": {}}', "\udcff"])
def test_a_file_that_is_no_result_is_kept_too(tmp_path, capsys, text):
    path = tmp_path / "tiny/table1.json"
    path.parent.mkdir()
    path.write_bytes(data := text.encode(errors="surrogateescape"))
    write(content(), tmp_path)
    (kept,) = (tmp_path / "tiny/replaced").iterdir()
    assert kept.read_bytes() == data and "no result file of this suite" in capsys.readouterr().out


def test_cells_that_failed_this_time_do_not_cost_the_measured_ones(tmp_path):
    write(content(), tmp_path)
    failed = content()
    failed["cells"][0] |= {"status": "failed", "value": None, "ci95": None, "reason": "the disk is full"}
    write(failed, tmp_path)
    (kept,) = (tmp_path / "tiny/replaced").glob("*.json")
    assert json.loads(kept.read_text())["cells"][0]["status"] == "measured"


# -------------------------------------------------------------------------------------------------------- the page


def test_sections_made_otherwise_are_named_in_the_summary_and_at_their_place():
    contents = {"table1": content(seed=7, limit_eval=5), "table2": content("table2"), "table3": content("table3")}
    text = " ".join(render(contents, MODELS["tiny"]).split())
    what = "seed 7 (0 in most others), limit_eval 5 (none in most others)"
    assert f"<li>Table 1 was made with {what}.</li>" in text and "Mixed settings" in text
    assert f"Made with {what}: not comparable" in text.partition('id="table1"')[2].partition("</section>")[0]
    assert text.count("not comparable with the sections") == 1


def test_what_tables_differ_in_by_nature_is_no_mixture():
    contents = {"table1": content(), "table2": content("table2", trainings=3, pool_sources={"logic": ["synthetic"]}),
                "table4": content("table4", model="tiny-gemma", configuration=[("train", "learning_rate", 0.5)])}
    assert mixture(contents) == {}
    assert "Mixed settings" not in render(contents, MODELS["tiny"])
    contents["table4"]["provenance"]["settings"]["seed"] = 1
    assert list(mixture(contents)) == ["table4"]


# ------------------------------------------------------------------------------------------------------ all tables


@pytest.fixture
def only(monkeypatch):
    """Let there be a single table."""
    return lambda name: monkeypatch.setattr(all_tables, "tables", lambda: [t for t in tables() if t.name == name])


def options(folder, **more):
    return Options(store=folder / "store", results=folder / "results", **more)


def test_a_page_that_cannot_be_made_stops_neither_tables_nor_other_pages(tmp_path, monkeypatch, capsys, only):
    only("table6")
    monkeypatch.setattr(all_tables, "execute_plan", lambda runs, store, asked: RunReport())
    old = tmp_path / "results/tiny/figure3.json"
    old.parent.mkdir(parents=True)
    old.write_text("{}")
    assert all_tables.all_tables(options(tmp_path, model=("tiny", "tiny-gemma"))) == 2
    said = capsys.readouterr()
    assert "no page of tiny: " in said.err and "figure3.json" in said.err
    assert (tmp_path / "results/tiny/table6.json").is_file() and not (old.parent / "report.html").exists()
    assert (tmp_path / "results/tiny-gemma/report.html").is_file() and "tiny-gemma/report.html" in said.out
    old.unlink()
    assert all_tables.all_tables(options(tmp_path, model=("tiny", "tiny-gemma"))) == 0


def test_all_tables_ask_for_isolation_before_anything_runs(tmp_path, monkeypatch, capsys, only):
    only("table1")
    ran = []
    monkeypatch.setattr(kinds, "probe", lambda name: "not installed")
    monkeypatch.setattr(running, "run_steps", lambda steps, store, **more: ran.append(steps) or RunReport())
    with pytest.raises(PrerequisiteError, match="--unsafe-code-execution"):
        all_tables.all_tables(options(tmp_path))
    assert ran == []
    assert all_tables.all_tables(options(tmp_path, unsafe_code_execution=True)) == 0
    assert len(ran) == 1 and "WITHOUT ISOLATION" in capsys.readouterr().err
