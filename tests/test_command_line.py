"""The command line as a user meets it: mistakes end with exit code 2, one clear message and nothing half-written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import pytest
from conftest import ROOT


@pytest.fixture
def table1(tmp_path):
    """Run `python -m replication.table1` with a store and results of its own."""

    def _run(*arguments, **environment):
        command = [sys.executable, "-m", "replication.table1", "--store", str(tmp_path / "store"),
                   "--results", str(tmp_path / "results"), *arguments]
        clean = {k: v for k, v in os.environ.items() if not k.startswith("WMSS_")}
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=clean | environment, timeout=120)

    return _run


def refused(done, *words):
    """Check a refusal: exit code 2, every word in the message, no traceback."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    missing = [word for word in words if word not in done.stderr]
    assert not missing, f"{missing} not in {done.stderr}"


@pytest.mark.parametrize(("arguments", "words"), [
    (["--model", "qwen4"], ["'qwen4' is unknown",
                            "tiny, tiny-gemma, smollm2-135m, qwen3-4b, qwen3-8b, qwen2.5-3b, gemma-3-4b"]),
    (["--methods", "sft,wmms"], ["'wmms' is unknown", "sft, sft-single", "wmss-official"]),
    (["--benchmarks", "gsm9k"], ["'gsm9k' is unknown", "gsm8k", "svamp"]),
    (["--methods", ","], ["--methods names none"]),
    (["--set", "wdjt.mix_weight=1.5"], ["lambda", "1.5", "[0, 1]"]),
    (["--set", "wdjt.mix_weight=-0.1"], ["lambda", "-0.1", "[0, 1]"]),
    (["--set", "wdjt.mix_weight=nan"], ["wdjt.mix_weight", "nan", "a finite number"]),
    (["--set", "wdjt.mix_wait=0.5"], ["no such setting", "mix_weight"]),
    (["--set", "wdjt"], ["section.field=value"]),
    (["--set", "train.global_batch=many"], ["'many'", "expected int"]),
    (["--set", "train.lr_schedule=step"], ["linear, cosine, constant"]),
    (["--limit-eval", "0"], ["--limit-eval is 0"]),
    (["--jobs", "0"], ["--jobs is 0"]),
    (["--model", "smollm2-135m"], ["--data-root DIR"]),
    (["--model", "smollm2-135m", "--data-root", "/nowhere/at/all"], ["/nowhere/at/all", "not a folder"]),
])
def test_a_wrong_word_is_refused_with_the_right_ones(table1, tmp_path, arguments, words):
    refused(table1(*arguments), *words)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("model", ["qwen3-4b", "qwen3-8b", "qwen2.5-3b", "gemma-3-4b"])
def test_a_model_that_needs_gpus_says_so_at_once(table1, model):
    from replication.provenance import gpu_names

    if gpu_names():
        pytest.skip("this machine has GPUs")
    seconds = []
    for _ in range(2):
        started = time.monotonic()
        done = table1("--model", model)
        seconds.append(time.monotonic() - started)
        refused(done, "needs CUDA GPUs", "--plan")
    assert min(seconds) < 3


def test_the_plan_runs_nothing_and_marks_what_is_shared(table1, tmp_path):
    done = table1("--plan", "--methods", "wmss", "--benchmarks", "gsm8k")
    assert done.returncode == 0
    lines = [line for line in done.stdout.splitlines() if line.startswith("  to run")]
    assert sum("train warm-up (M1)" in line for line in lines) == 1
    assert next(line for line in lines if "pool" in line).endswith("feeds 4 steps")
    assert [p.name for p in (tmp_path / "store").iterdir() if not p.name.startswith(".")] == []


def test_help_is_fast():
    def seconds():
        started = time.monotonic()
        command = [sys.executable, "-m", "replication.table1", "--help"]
        subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
        return time.monotonic() - started

    assert min(seconds() for _ in range(3)) < 1.0  # the first may read from a cold disk


@pytest.mark.parametrize(("module", "refused"), [
    ("table1", set()), ("compare", set()), ("all_tables", {"--methods", "--benchmarks"}),
    ("table6", {"--methods", "--method", "--benchmarks"}), ("theory", {"--methods", "--method", "--benchmarks"}),
    ("clean", None),
])
def test_help_says_each_thing_once_and_only_what_is_understood(module, refused):
    done = subprocess.run([sys.executable, "-m", f"replication.{module}", "--help"], cwd=ROOT, capture_output=True,
                          text=True, check=True, env=os.environ | {"COLUMNS": "200"})
    text = " ".join(done.stdout.replace("\u2502", " ").split())
    assert "(repeatable) (repeatable)" not in text and "default: None" not in text and done.stderr == ""
    assert [part for part in text.split(" --") if part.count("(default:") + part.count("(repeatable)") > 1] == []
    if refused is not None:
        known = {"--methods", "--method", "--benchmarks"}
        assert {word for word in text.split() if word in known} == known - refused


@pytest.mark.parametrize(("module", "arguments", "words"), [
    ("table6", ["--methods", "sft"], "no rows to choose"), ("table6", ["--benchmarks", "gsm8k"], "no column"),
    ("all_tables", ["--benchmarks", "gsm8k"], "run that table"),
])
def test_what_help_leaves_out_is_refused_with_words(module, arguments, words, tmp_path):
    refused(subprocess.run([sys.executable, "-m", f"replication.{module}", "--store", str(tmp_path), *arguments],
                           cwd=ROOT, capture_output=True, text=True), words)


def test_environment_variables_name_store_and_data(table1, data_root):
    done = table1("--model", "smollm2-135m", "--plan", WMSS_DATA_ROOT=str(data_root))
    assert done.returncode == 0 and "SFT: gsm8k" in done.stdout


# ------------------------------------------------------------------------------------------------ real data files


@pytest.fixture
def copied_root(data_root, tmp_path):
    """A data root of our own to damage."""
    root = tmp_path / "data"
    for name in ("gsm8k/upstream/train.jsonl", "gsm8k/upstream/test.jsonl", "mawps/wmss/trainset.json",
                 "mawps/wmss/test.json"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data_root / name, root / name)
    return root


def _small(table1, root, *more):
    return table1("--model", "smollm2-135m", "--data-root", str(root), "--benchmarks", "gsm8k", *more)


def test_a_missing_file_is_named_with_its_sha256_and_how_to_get_it(table1, copied_root):
    (copied_root / "gsm8k/upstream/train.jsonl").unlink()
    refused(_small(table1, copied_root), "gsm8k/upstream/train.jsonl", "17f347dc51477c50", "--data-root")


def test_a_truncated_file_is_named_with_both_hashes(table1, copied_root):
    path = copied_root / "gsm8k/upstream/test.jsonl"
    path.write_bytes(path.read_bytes()[:-1000])
    refused(_small(table1, copied_root), "gsm8k/upstream/test.jsonl", "3730d312f6e34405")


def test_too_little_data_for_one_update_is_said_before_hours_of_work(table1, copied_root):
    done = _small(table1, copied_root, "--limit-train", "7", "--limit-eval", "2")
    refused(done, "7 examples", "global batch of 16")
