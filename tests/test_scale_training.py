"""The tiny Table 1 with trainings in two ZeRO-3 processes, against the run in one: same cells, same loss curves."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

from foundation.files import read_jsonl

pytestmark = [pytest.mark.scale, pytest.mark.distributed]
# enough of it that the answers are not all wrong: a cell of zeros would prove nothing
ASKED = ["--methods", "sft,wmss", "--benchmarks", "svamp,mawps,aqua", "--limit-train", "960", "--limit-eval", "40",
         "--set", "pretrain.updates=300", "--set", "eval.max_new_tokens=96"]
SHARED = ("pretrain-", "pool-", "problems-")


def run(folder, *more):
    command = [sys.executable, "-m", "replication.table1", "--store", str(folder / "store"), "--results",
               str(folder / "results"), *ASKED, *more]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-4000:]


def cells(folder):
    content = json.loads((folder / "results/tiny/table1.json").read_text(encoding="utf-8"))
    return {(cell["row"], cell["column"]): (cell["status"], cell["correct"], cell["n"], cell["step"])
            for cell in content["cells"] if cell["status"] == "measured" and cell["n"]}


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    run(folder, "--jobs", "2")
    return folder


@pytest.fixture(scope="module")
def shared_out(local, tmp_path_factory):
    """The same table from the same base and data, each training in two processes."""
    folder = tmp_path_factory.mktemp("shared-out")
    for done in (local / "store").iterdir():
        if done.name.startswith(SHARED):
            shutil.copytree(done, folder / "store" / done.name)
    run(folder, "--jobs", "1", "--train-processes", "2", "--set", "train.zero_stage=3")
    return folder


def test_the_loss_curves_are_those_of_one_process(local, shared_out):
    compared = 0
    for folder in (local / "store").glob("train-*"):
        expected, found = (list(read_jsonl(root / folder.name / "losses.jsonl")) for root in
                           (local / "store", shared_out / "store"))
        assert [line["learning_rate"] for line in found] == [line["learning_rate"] for line in expected]
        assert [line["loss"] for line in found] == pytest.approx([line["loss"] for line in expected], abs=1e-4)
        manifest = json.loads((shared_out / "store" / folder.name / "manifest.json").read_text(encoding="utf-8"))
        assert manifest["notes"]["computed"]["processes"] == 2 and manifest["notes"]["computed"]["zero_stage"] == 3
        compared += len(found)
    assert compared >= 60, "three trainings of some updates each"


def test_the_cells_are_those_of_one_process(local, shared_out):
    """Rounding may flip a greedy choice between two nearly equal tokens; at this size it flips none."""
    expected, found = cells(local), cells(shared_out)
    assert found == expected
    assert any(0 < correct < n for _, correct, n, _ in expected.values()), "no cell could have differed"
