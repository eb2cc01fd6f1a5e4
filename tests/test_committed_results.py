"""The committed tiny results are whole and what the code gives.

Every table has the cells that its declaration plans, the other formats and the page are what the JSON files give, and
some cells are computed anew, from nothing, by a command.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys

import pytest
from conftest import ROOT

from replication import audit, figures, formats
from replication.audit.report import as_csv, as_markdown
from replication.catalogue import MODULES, tables
from replication.models import MODELS
from replication.page import render
from replication.page.reading import read
from replication.plan import Planners, Request
from replication.provenance import hardware
from replication.scales import SCALES
from replication.tables import TableRun

FOLDER = ROOT / "results/tiny"
TINY = MODELS["tiny"]
DECLARED = {table.name: table for table in tables()}
_DRAWING = re.compile(r"<svg.*?</svg>", re.DOTALL)
RECOMPUTED = ("Base (M0)", "Warm-up (M1)", "SFT")


def committed(name):
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def planned_places(name):
    """The (row, column) of every cell that a table plans at tiny scale."""
    model, scale = MODELS["tiny-gemma" if DECLARED[name].backbone == "gemma" else "tiny"], SCALES["tiny"]
    request = Request(model=model, scale=scale, configuration=scale.configuration, data_root=None, limit_train=None,
                      limit_eval=None, seed=0, plan_only=True)
    return [(cell.row, cell.column) for cell in TableRun.plan(DECLARED[name], Planners(request)).cells]


@pytest.mark.parametrize("name", MODULES)
def test_every_table_and_figure_is_committed_whole(name):
    """As many cells as its plan, in its order, each measured: nothing is left out, missing or failed."""
    content = committed(name)
    assert content["asked"] == "tiny" and content["scale"] == "tiny"
    places = planned_places(name)
    found = [(cell["row"], cell["column"]) for cell in content["cells"]]
    assert places and found[: len(places)] == places
    assert all(column.startswith("dropped: ") for _, column in found[len(places):])
    assert {cell["status"] for cell in content["cells"]} == {"measured"}
    assert all(isinstance(cell["value"], int | float) for cell in content["cells"])


@pytest.mark.parametrize("name", MODULES)
def test_the_other_formats_are_what_the_json_file_gives(name):
    content = committed(name)
    made = {"md": formats.as_markdown(content), "tex": formats.as_latex(content),
            "csv": formats.as_csv(content["cells"])}
    for suffix, text in made.items():
        assert (FOLDER / f"{name}.{suffix}").read_text(encoding="utf-8") == text, suffix


@pytest.mark.parametrize("name", MODULES)
def test_the_papers_values_are_committed_as_it_prints_them(name):
    for cell in committed(name)["cells"]:
        there = cell["paper"] is not None or cell["paper_context"] is not None
        assert not there or "paper_text" in cell, (cell["row"], cell["column"])


def test_the_committed_audit_is_what_the_code_finds():
    made = json.loads(json.dumps(audit.content()))
    assert json.loads((ROOT / "results/audit.json").read_text(encoding="utf-8")) == made
    assert (ROOT / "results/audit.md").read_text(encoding="utf-8") == as_markdown(made)
    text = (ROOT / "results/audit.csv").read_text(encoding="utf-8")
    assert text == as_csv(made["findings"]) and len(list(csv.DictReader(text.splitlines()))) == len(made["findings"])


def drawn_here():
    """The committed drawings by name."""
    return {path.stem: figures.Drawing(path.read_text(encoding="utf-8"), path.with_suffix(".png").read_bytes())
            for path in sorted((FOLDER / "figures").glob("*.svg"))}


def test_the_committed_page_is_what_the_result_files_give():
    """Around the committed drawings: drawing again would take long, and differs from one matplotlib to another."""
    found = read(ROOT / "results", TINY)
    page = (FOLDER / "report.html").read_text(encoding="utf-8")
    assert render(found.contents, TINY, skipped=found.skipped, drawn=drawn_here()) == page
    assert len(_DRAWING.findall(page)) == len(drawn_here()) > 0


def test_the_committed_drawings_are_those_of_the_plots():
    """Each plot that has points is there, none besides, and its words say what is drawn, the scale and the model."""
    contents = read(ROOT / "results", TINY).contents
    plots = [(name, plot) for name, content in contents.items() for plot in content.get("plots") or []]
    names = dict(zip(figures.file_names(plots), plots, strict=True))
    drawn = drawn_here()
    assert set(drawn) == {name for name, (_, plot) in names.items() if figures.has_points(plot)}
    for name, drawing in drawn.items():
        table, plot = names[name]
        words = " ".join(re.sub(r"<[^>]+>", " ", drawing.svg.replace("&apos;", "'").replace("&#x27;", "'")).split())
        assert drawing.png.startswith(b"\x89PNG")
        title = re.sub(r" \(\w+ scale\)$", "", plot["title"])
        for text in (title, "tiny scale", MODELS[contents[table]["model"]].title):
            assert text in words, (name, text)


def test_some_cells_computed_anew_agree(tmp_path):
    """From pretraining to verdicts. Identical on the same processor; elsewhere rounding may move a few answers."""
    done = subprocess.run([sys.executable, "-m", "replication.table5", "--methods", "sft", "--store",
                           str(tmp_path / "store"), "--results", str(tmp_path / "results")],
                          cwd=ROOT, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    now = json.loads((tmp_path / "results/tiny/table5.json").read_text(encoding="utf-8"))
    before = committed("table5")
    same = before["provenance"]["hardware"]["processor"] == hardware()["processor"]
    values = [{(cell["row"], cell["column"]): cell for cell in content["cells"] if cell["row"] in RECOMPUTED}
              for content in (before, now)]
    assert len(values[1]) == 3 * 3 and values[0].keys() == values[1].keys()
    for place, cell in values[1].items():
        other = values[0][place]
        if same:
            assert (cell["value"], cell["correct"], cell["step"]) == (other["value"], other["correct"], other["step"])
        else:
            assert cell["ci95"][0] <= other["ci95"][1] and other["ci95"][0] <= cell["ci95"][1], place
