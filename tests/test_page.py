"""The report page as text: what the result files hold is on it, escaped; files it cannot show are refused."""

from __future__ import annotations

import copy
import dataclasses
import json
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser

import pytest
from conftest import ROOT
from page_results import HOSTILE, NOTE, all_contents, content, judged_contents, table
from page_results import cell as made_up

from foundation.errors import InputError
from replication.models import MODELS
from replication.page import counts, render, write
from replication.page.numbers import p_text, value_text
from replication.page.render import drawings
from replication.page.sections import SECTIONS
from replication.page.tables import table_view
from replication.paper import ASSUMPTIONS

TINY = MODELS["tiny"]


class Page(HTMLParser):
    """Ids, addresses, tags and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.addresses, self.tags, self.words = [], [], Counter(), []
        self.feed(text)
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        self.words.append("" if tag == "wbr" else " ")
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.addresses.append(value)
            assert not name.startswith("on"), f"<{tag} {name}>"

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def contents():
    return all_contents()


@pytest.fixture(scope="module")
def drawn(contents):
    return drawings(contents)


@pytest.fixture(scope="module")
def text(contents, drawn):
    return render(contents, TINY, drawn=drawn)


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_every_table_and_figure_has_its_place(page):
    for name, section in SECTIONS.items():
        assert section.optional or page.ids.count(name) == 1, name
    assert {"summary", "contents", "departures", "assumptions", "provenance"} <= set(page.ids)
    assert [key for key, times in Counter(page.ids).items() if times > 1] == []


def test_nothing_is_loaded_from_elsewhere(text, page):
    assert [address for address in page.addresses if not address.startswith("#")] == []
    assert "@import" not in text and text.count("url(") == text.count("url(#")
    assert page.tags["script"] == 1 and not page.tags["link"] and not page.tags["img"]


def test_text_of_result_files_is_escaped(text, page):
    assert "<script>alert" not in text
    assert page.text.count("<script>alert('row')") >= 4  # a row, a reason, a note, the audit


def test_every_cell_is_on_the_page(contents, page):
    for name in ("table1", "table7", "theory"):
        for cell in contents[name]["cells"]:
            if cell["status"] == "measured":
                assert value_text(cell["value"], cell["unit"], cell["digits"]) in page.text
    assert "failed: worker died" in page.text and "missing: not run" in page.text


def test_every_open_question_and_departure_is_listed(page):
    assert all(entry.id in page.text and entry.question in page.text for entry in ASSUMPTIONS.values())
    assert "SPIN departs from the shared protocol" in page.text


def test_a_note_of_every_table_is_printed_once(page):
    assert page.text.count(NOTE) == 1


def test_the_same_files_give_the_same_page_and_are_left_alone(contents, drawn, text):
    before = copy.deepcopy(contents)
    backwards = dict(reversed(contents.items()))
    assert render(backwards, TINY, drawn=drawn) == text
    assert contents == before


def test_the_scale_is_said_and_nothing_tiny_is_called_a_replication(page):
    assert "Nothing on this page is a replication of the paper's numbers." in page.text
    assert page.text.count("tiny scale") > len(SECTIONS)


def test_only_judged_cells_bear_a_verdict(text):
    judged = render(judged_contents(), MODELS["qwen3-4b"])
    for word in ("consistent", "different", "cannot-tell"):
        assert f'class="chip {word}"' in judged and f'class="chip {word}"' not in text
    assert 'class="paper context"' in text and 'class="paper context"' not in judged
    assert "Nothing on this page is a replication" not in judged
    assert "Cells judged against the published value: 88" in Page(judged).text


def test_the_main_comparison_is_said_in_words(contents):
    changed = copy.deepcopy(contents)
    found = next(c for c in changed["table1"]["comparisons"] if (c["row"], c["column"]) == ("WMSS", "Math Avg."))
    found |= {"difference": -10.6, "ci95": [-13.1, 0.4], "p": 2e-14}
    said = Page(render({"table1": changed["table1"]}, TINY)).text
    assert "Math: WMSS is 10.6 points below SFT" in said
    assert "95 % interval −13.1 to +0.4, which includes zero; p < 0.0001 (Table 1)." in said


@pytest.mark.parametrize(("cells", "trainings", "legend", "span"), [
    ([{"n": 200}, {"n": 200}], 1, "n = 200 questions a cell", "200"),
    ([{"n": 300}, {"n": 300}], 3, "n = 100 questions a cell, each answered by 3 trainings", "100"),
    ([{"n": 30}, {"n": 500}], 1, "n: 30 questions (c0), 500 questions (c1)", "30 to 500"),
    ([{"n": 50, "correct": None, "outcomes": {"samples": 3200, "correct": 374}}], 1, "n = 50 questions a cell", "50"),
    ([{"n": 200}, {"n": 400, "step": None}], 1, "n = 200 questions a cell", "200"),
    ([{"n": 100}, {"n": 3840, "correct": None, "unit": "nats"}], 1,
     "n: 100 questions (c0), 3,840 examples (c1)", "100"),
    ([{"n": None, "correct": None}], 1, "", None),
])
def test_what_a_cell_rests_on_is_said_under_the_table_and_first(cells, trainings, legend, span):
    made = [made_up("row", f"c{i}", 50.0) | changes for i, changes in enumerate(cells)]
    found = content("table2", made)
    found["provenance"] = found["provenance"] | {"settings": {"trainings": trainings}}
    assert counts.legend(found) == legend
    said = Page(render({"table2": found}, TINY)).text
    assert f"Value, 95 % interval{'; ' if legend else ''}{legend}." in said
    assert ("Each graded cell rests on" in said) == (span is not None)
    assert span is None or f"Each graded cell rests on {span} questions." in said


def test_what_is_absent_is_named_with_its_command():
    said = Page(render({"table1": table("table1")}, TINY)).text
    assert "Not part of this version." in said or "python -m replication.table" in said
    gone = Page(render({"table2": table("table2")}, TINY)).text
    assert "Not there yet, run python -m replication.table1 --model tiny" in gone
    assert "1 of 12 tables 3 trainings" in gone


def test_control_and_direction_characters_do_not_reach_the_page():
    said = render({"table2": content("table2", [], notes=["a\x00b\u202ec"])}, TINY)
    assert "\x00" not in said and "\u202e" not in said and "a\ufffdb\ufffdc" in said


def test_a_row_that_recurs_in_several_groups_makes_blocks(contents):
    view = table_view(contents["table5"])
    assert [block.title for block in view.blocks] == ["tiny", "tiny-gemma"] and not view.groups
    assert [title for title, _ in table_view(contents["table1"]).groups] == ["Math", "Code"]


def test_the_papers_number_keeps_its_printed_digits():
    cells = [made_up("Mean logit", "Delta", -1.91234, unit="", context=-1.9, paper_text="-1.90", digits=3),
             made_up("SSB", "Delta", 64.0, unit="s", context=64800.0, paper_text="about 18 h"),
             made_up("Std", "Delta", 3.06, unit="", context=3.06, digits=2)]
    found = [row[0].paper for _, row in table_view(content("table7", cells)).blocks[0].rows]
    assert found == ["−1.90", "about 18 h", "3.06"]


def test_a_table_of_no_model_names_none():
    said = Page(render({"table12": table("table12") | {"paper_source": "all models, for orientation"}}, TINY)).text
    assert "paper's value (all models) for orientation" in said


@pytest.mark.parametrize(("value", "unit", "digits", "sign", "shown"), [
    (50.96, "%", None, False, "51.0"), (-0.04, "%", None, False, "0.0"), (-10.64, "%", None, True, "−10.6"),
    (0.0, "%", None, True, "+0.0"), (1191.33, "", 2, False, "1,191.33"), (0.48963, "", None, False, "0.49"),
    (111657.0, "", None, False, "111,657"), (12.4, "s", None, False, "12"),
])  # fmt: skip
def test_numbers_are_rounded_for_display(value, unit, digits, sign, shown):
    assert value_text(value, unit, digits, sign=sign) == shown


def test_p_values():
    shown = {None: "", 1e-30: "< 0.0001", 0.00123: "0.0012", 0.048: "0.048", 0.999: "1", 1.0: "1"}
    assert [p_text(p) for p in shown] == list(shown.values())


# ------------------------------------------------------------------------------------------------------------ files


@pytest.fixture
def results(tmp_path):
    """A results folder with a good Table 2 of the tiny model."""
    put(tmp_path, "table2", table("table2"))
    return tmp_path


def put(results, name, found, model="tiny"):
    """Write a result file, or any text in its place."""
    path = results / model / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(found if isinstance(found, str) else json.dumps(found), encoding="utf-8")


def page_command(results, *arguments):
    return subprocess.run([sys.executable, "-m", "replication.page", "--results", str(results), *arguments],
                          cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_command_writes_page_and_figures(results):
    found = all_contents()
    put(results, "table9", found["table9"])
    put(results, "my-notes", "not even JSON")
    done = page_command(results)
    assert done.returncode == 0, done.stderr
    assert "my-notes.json is no table or figure that the page knows" in done.stdout
    folder = results / "tiny"
    assert sorted(path.name for path in (folder / "figures").iterdir()) == ["lambda-curve.png", "lambda-curve.svg"]
    assert "my-notes.json" in (folder / "report.html").read_text(encoding="utf-8")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    write(results, TINY)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _damaged(**changes):
    return table("table1") | changes


def _with_cell(**changes):
    found = table("table1")
    found["cells"][4] |= changes
    return found


@pytest.mark.parametrize(("found", "words"), [
    ('{"schema": 1,\n "table": ', ["table1.json:2:", "not JSON"]),
    ('{"schema": NaN}', ["NaN is no number"]),
    ("[1]", ["expected an object", "list"]),
    (_damaged(schema=2), ["schema is 2", "needs 1"]),
    (_damaged(model="qwen3-4b"), ["model is 'qwen3-4b' (of another model)", "needs 'tiny'"]),
    (_damaged(scale="paper"), ["scale is 'paper'", "needs 'tiny'"]),
    (_damaged(table="table2"), ["table is 'table2'", "needs 'table1'"]),
    (_damaged(cells="many"), ["cells", '"many"', "a list"]),
    (_damaged(notes=[["a"]]), ["notes[0]", "a text"]),
    (_with_cell(value="high"), ["cells[4].value", '"high"', "a number"]),
    (_with_cell(value=None), ["cells[4] is measured but has no value"]),
    (_with_cell(status="guessed"), ["cells[4].status is 'guessed'", "measured, missing or failed"]),
    (_with_cell(ci95=[1.0]), ["cells[4].ci95 has 1 entries"]),
    (_with_cell(row=None), ["cells[4].row is missing"]),
    (_with_cell(judgement={"verdict": "fine"}), ["verdict is 'fine'", "cannot tell"]),
    (_with_cell(column="AIME2025"), ["cells[4] is a second cell", "'AIME2025'"]),
    (_damaged(plots=[{"id": "p", "title": "", "x": {"scale": "log7"}, "y": {}, "series": []}]), ["log7", "log2"]),
    (_damaged(plots=[{"id": "p", "title": "", "x": {"scale": "log2"}, "y": {},
                      "series": [{"name": "a", "points": [{"x": 0, "y": 1}]}]}]), ["points[0].x is 0"]),
])  # fmt: skip
def test_a_file_that_cannot_be_shown_is_refused_by_name(results, found, words):
    put(results, "table1", found)
    with pytest.raises(InputError) as refusal:
        write(results, TINY)
    assert all(word in str(refusal.value) for word in ["table1.json", "replication.table1", *words]), refusal.value
    assert sorted(path.name for path in (results / "tiny").iterdir()) == ["table1.json", "table2.json"]


@pytest.mark.parametrize(("arguments", "words"), [
    (["--model", "qwen4"], ["'qwen4' is unknown", "tiny, tiny-gemma, smollm2-135m"]),
    (["--model", "smollm2-135m"], ["no result files in", "replication.table1 --model smollm2-135m"]),
])
def test_a_mistake_on_the_command_line_ends_with_code_2(results, arguments, words):
    done = page_command(results, *arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words), done.stderr


def test_a_table_of_another_backbone_lies_in_the_folder_of_the_model_asked_for(results, monkeypatch):
    gemma = dataclasses.replace(TINY, name="tiny-other", title="another tiny model", context="Gemma-3-4B-PT")
    monkeypatch.setitem(MODELS, "tiny-other", gemma)
    put(results, "table4", table("table4", model="tiny-other") | {"asked": "tiny"})
    said = Page(write(results, TINY).page.read_text(encoding="utf-8")).text
    assert "The paper prints this table for Gemma-3-4B-PT; measured here with another tiny model." in said
    put(results, "table4", table("table4", model="tiny-other") | {"asked": "tiny-other"})
    with pytest.raises(InputError, match="of another model"):
        write(results, TINY)


def test_the_audit_may_lie_beside_the_models(results):
    (results / "audit.json").write_text(json.dumps(all_contents()["audit"]), encoding="utf-8")
    said = Page(write(results, TINY).page.read_text(encoding="utf-8")).text
    assert "783 checks of printed numbers and statements, of which 17 do not come out (grim 2 of 640" in said
    assert "A further 1 comes out only within the rounding of its parts, or with further digits cut off." in said
    assert "2 of 9 comparisons of runs that are not the same differ, as such runs may. 1 pair of passages" in said
    assert HOSTILE in said and "Left out: pass@k." in said and "grim, no number of right answers gives it" in said


@pytest.mark.parametrize("model", ["tiny", "smollm2-135m"])
def test_the_committed_results_can_be_shown(model, tmp_path):
    folder = ROOT / "results" / model
    for path in folder.glob("*.json"):
        put(tmp_path, path.stem, path.read_text(encoding="utf-8"), model)
    said = Page(write(tmp_path, MODELS[model]).page.read_text(encoding="utf-8")).text
    assert f"Report at {MODELS[model].scale} scale" in said and "WMSS" in said
