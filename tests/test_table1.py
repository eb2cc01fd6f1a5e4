"""Table 1 end to end, shortened: from nothing to result files, resumed, explained, the same whatever the workers."""

from __future__ import annotations

import contextlib
import csv
import json
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT

# a model trained for four updates solves nothing: what needs right rollouts (SSB) is tried in test_rollout_steps.py
SHORT = ["--methods", "sft,wmss", "--limit-train", "64", "--limit-eval", "6", "--benchmarks", "gsm8k,aqua",
         "--set", "pretrain.updates=4", "--set", "eval.max_new_tokens=24"]
CONTRACT = {"row", "column", "group", "value", "unit", "n", "correct", "ci95", "paper", "paper_context", "status",
            "reason", "step"}


def command(folder, *more):
    return [sys.executable, "-m", "replication.table1", "--store", str(folder / "store"), "--results",
            str(folder / "results"), *SHORT, *more]


def run(folder, *more):
    return subprocess.run(command(folder, *more), cwd=ROOT, capture_output=True, text=True, timeout=300)


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300)


def result(folder):
    return json.loads((folder / "results/tiny/table1.json").read_text(encoding="utf-8"))


def cells(folder):
    return result(folder)["cells"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A shortened run that ended well."""
    folder = tmp_path_factory.mktemp("finished")
    done = run(folder, "--jobs", "2")
    assert done.returncode == 0, done.stderr
    return folder, done


def test_the_result_file_keeps_the_contract(finished):
    content = result(finished[0])
    assert {k: content[k] for k in ("schema", "table", "model", "scale")} == {
        "schema": 1, "table": "table1", "model": "tiny", "scale": "tiny"}
    assert all(set(cell) >= CONTRACT for cell in content["cells"])
    rows = {cell["row"] for cell in content["cells"]}
    assert rows == {"Base (M0)", "Warm-up (M1)", "SFT", "WMSS"}
    assert len(content["cells"]) == len(rows) * 13  # seven math columns, four code columns, two averages
    assert content["provenance"]["settings"]["limit_train"] == 64
    assert any("evaluation limited to 6" in note for note in content["notes"])


def test_no_cell_is_left_out_or_filled(finished):
    for cell in cells(finished[0]):
        if cell["column"] in ("GSM8K", "AQuA"):
            assert cell["status"] == "measured" and cell["n"] == 6
            assert cell["ci95"][0] <= cell["value"] <= cell["ci95"][1]
            assert sum(cell["outcomes"][k] for k in ("correct", "wrong", "no_answer", "grader_failure")) == 6
        else:
            assert cell["status"] == "missing" and cell["reason"] and cell["value"] is None


def test_the_papers_values_are_context_only_at_this_scale(finished):
    by_name = {(c["row"], c["column"]): c for c in cells(finished[0])}
    assert by_name["WMSS", "GSM8K"]["paper"] is None and by_name["WMSS", "GSM8K"]["paper_context"] == 88.5
    assert by_name["SFT", "AQuA"]["paper_context"] == 61.8 and by_name["Base (M0)", "AQuA"]["paper_context"] is None


def test_every_file_says_the_scale(finished):
    folder, done = finished
    for suffix in ("md", "tex"):
        assert "tiny scale" in (folder / f"results/tiny/table1.{suffix}").read_text(encoding="utf-8")
    assert "tiny scale" in " ".join(done.stdout.split())
    with (folder / "results/tiny/table1.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(cells(folder))


def test_a_second_run_only_reads_and_loads_no_torch(finished):
    folder, _ = finished
    before = cells(folder)
    program = ("import sys; sys.argv = ['table1', *sys.argv[1:]]\nfrom replication.table1 import TABLE, main\n"
               "try:\n    main(TABLE)\nexcept SystemExit as end:\n"
               "    print('torch' in sys.modules, end.code)\n")
    started = time.monotonic()
    done = python("-c", program, *command(folder)[3:])
    assert time.monotonic() - started < 3
    assert done.stdout.strip().endswith("False 0") and "0 steps run" in done.stdout
    assert cells(folder) == before


def test_another_number_of_workers_gives_identical_cells(finished, tmp_path):
    assert run(tmp_path, "--jobs", "1").returncode == 0
    assert cells(tmp_path) == cells(finished[0])
    assert result(tmp_path)["comparisons"] == result(finished[0])["comparisons"]


def test_explain_walks_back_to_the_base(finished):
    folder, _ = finished
    path = str(folder / "results/tiny/table1.json")
    done = python("-m", "replication.explain", path, "wmss", "gsm8k", "--store", str(folder / "store"))
    assert done.returncode == 0
    for words in ("grade WMSS: gsm8k", "generate WMSS: gsm8k", "train WMSS (M2)", "select (WD-DS)", "entropy of M0",
                  "train warm-up (M1)", "pool synthetic", "pretrain tiny (M0)", '"mix_weight":0.5', "sha256"):
        assert words in done.stdout


def test_status_lists_and_verifies_the_store(finished, tmp_path):
    done = python("-m", "replication.status", "--store", str(finished[0] / "store"), "--verify")
    assert done.returncode == 0 and "train WMSS (M2)" in done.stdout and "contents verified" in done.stdout
    shutil.copytree(finished[0] / "store", tmp_path / "store")
    next((tmp_path / "store").glob("pool-*/pool.jsonl")).write_text("other", encoding="utf-8")
    broken = python("-m", "replication.status", "--store", str(tmp_path / "store"), "--verify")
    assert broken.returncode == 2 and "pool.jsonl" in broken.stderr and "--repair" in broken.stderr
    assert python("-m", "replication.status", "--store", str(tmp_path / "none")).returncode == 2


@pytest.mark.parametrize("arguments", [["WMSS", "GSM9K"], ["WWW", "GSM8K"]])
def test_explain_lists_what_there_is(finished, arguments):
    path = str(finished[0] / "results/tiny/table1.json")
    done = python("-m", "replication.explain", path, *arguments)
    assert done.returncode == 2 and "there are: " in done.stderr


def test_a_damaged_checkpoint_is_named_and_rebuilt_on_request(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    weights = next((tmp_path / "store").glob("train-*/checkpoint/model.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    for path in (tmp_path / "store").glob("generate-*"):
        shutil.rmtree(path)
    for path in (tmp_path / "store").glob("grade-*"):
        shutil.rmtree(path)
    broken = run(tmp_path, "--jobs", "2")
    assert "Traceback" not in broken.stderr
    assert broken.returncode == 2 and weights.parent.parent.name in broken.stderr
    assert list((tmp_path / "store/.damaged").iterdir())
    assert run(tmp_path, "--jobs", "1").returncode == 0
    assert cells(tmp_path) == cells(finished[0])


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_nothing_and_repeat_nothing(finished, tmp_path):
    rng = random.Random(7)
    kills, rounds = 0, 0
    while kills < 10 or rounds == 0:  # a run that got through begins anew in an empty store
        folder = tmp_path / str(rounds)
        kills += _kill_until_finished(folder, rng, at_most=10 - kills)
        rounds += 1
        assert cells(folder) == cells(finished[0])
        assert not list((folder / "store/.building").iterdir())


def _kill_until_finished(folder, rng, at_most):
    """Start and kill until a run gets through; return how often it was killed. No finished step may run again."""
    kills, published = 0, {}
    while True:
        process = subprocess.Popen(command(folder, "--jobs", "2"), cwd=ROOT, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, start_new_session=True)
        if kills < at_most:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(1, 12))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
        code = process.wait(300)
        for manifest in (folder / "store").glob("*/manifest.json"):
            stamp = manifest.stat().st_mtime_ns
            assert published.setdefault(manifest.parent.name, stamp) == stamp, "a finished step ran again"
        if code == 0:
            return kills
        assert code == -signal.SIGKILL
