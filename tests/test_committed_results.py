"""The committed tiny results are what the code gives: some cells are computed anew, from nothing, by a command."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from conftest import ROOT

from replication.catalogue import MODULES
from replication.provenance import hardware

FOLDER = ROOT / "results/tiny"
RECOMPUTED = ("Base (M0)", "Warm-up (M1)", "SFT")


def committed(name):
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", MODULES)
def test_every_table_and_figure_is_committed_whole(name):
    content = committed(name)
    assert content["asked"] == "tiny" and content["scale"] == "tiny"
    assert [cell for cell in content["cells"] if cell["status"] == "failed"] == []


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
