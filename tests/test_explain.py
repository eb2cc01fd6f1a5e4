"""Every cell of every committed result file can be explained, whatever its unit."""

from __future__ import annotations

import json

import pytest
from conftest import ROOT

from foundation.errors import ArtifactError
from replication.explain import explain, find_cell, summary

FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("results/*/*.json"))


@pytest.mark.parametrize("name", FILES)
def test_every_committed_cell_has_a_summary(name):
    cells = json.loads((ROOT / name).read_text(encoding="utf-8"))["cells"]
    assert cells
    for cell in cells:
        said = summary(cell)
        if cell["status"] != "measured":
            assert said == f"{cell['status']}: {cell['reason']}"
            continue
        assert f"{cell['value']:,.{cell.get('digits', 1)}f}" in said
        assert said.count(cell["unit"] or " ") >= (1 if cell["unit"] else 0)
        assert ("correct" in said) == (cell["correct"] is not None) and ("[" in said) == bool(cell["ci95"])


@pytest.mark.parametrize(("cell", "said"), [
    ({"value": 61.25, "unit": "%", "digits": 1, "n": 80, "correct": 49, "ci95": [50.3, 71.2]},
     "49 of 80 correct, 61.2 % [50.3, 71.2]"),
    ({"value": 61.25, "unit": "%", "n": 80, "correct": 49, "ci95": None}, "49 of 80 correct, 61.2 %"),
    ({"value": 1234.5, "unit": "s", "digits": 0, "n": None, "correct": None, "ci95": None}, "1,234 s"),
    ({"value": -0.125, "unit": "nats", "digits": 3, "n": 9, "correct": None, "ci95": [-0.5, 0.25]},
     "-0.125 nats [-0.500, 0.250]"),
    ({"value": 7, "unit": "", "digits": 0, "n": None, "correct": None, "ci95": None}, "7"),
])
def test_a_summary_has_what_the_cell_has(cell, said):
    assert summary({"status": "measured", "reason": None} | cell) == said


@pytest.mark.parametrize("name", ["table11", "table12", "figure5", "theory", "table1"])
def test_a_number_is_told_before_its_missing_store_is(name, tmp_path, capsys):
    path = ROOT / f"results/tiny/{name}.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    cell = next(cell for cell in content["cells"] if cell["step"] and cell["status"] == "measured")
    assert find_cell(content, cell["row"].upper(), cell["column"].lower()) == cell
    with pytest.raises(ArtifactError, match=f"step {cell['step']} is not in the store"):
        explain(path, cell["row"], cell["column"], tmp_path)
    assert summary(cell) in capsys.readouterr().out
