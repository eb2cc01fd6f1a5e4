"""Which backend generates: chosen by scale or by flag, part of what is computed, asked for before anything runs."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import vllm_interface

from evaluation.backends.interface import Engine
from evaluation.problem import Problem
from foundation.errors import InputError, PrerequisiteError
from foundation.files import read_jsonl, write_jsonl
from replication import backends, steps
from replication.actions.evaluation import generate
from replication.catalogue import tables
from replication.cli import Options
from replication.configuration import with_changes
from replication.running import prepare
from replication.scales import SCALES
from replication.worker import Job

ROOT = Path(__file__).parents[1]
GENERATING = {"generate", "samples", "rollouts"}
without_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vllm is installed here")


def generating(model, **options):
    """Return the steps that generate something for Tables 1 and 10."""
    chosen = [table for table in tables() if table.name in ("table1", "table10")]
    runs = [one.run for one in prepare(chosen, Options(model=(model,), plan=True, data_root=None, **options), model)]
    found = [step for step in steps.closure([step for run in runs for step in run.targets]) if step.kind in GENERATING]
    assert {step.kind for step in found} == GENERATING
    return found


@pytest.mark.parametrize(("model", "options", "expected"), [
    ("qwen3-4b", {}, {"vllm"}),
    ("qwen3-4b", {"backend": "hf"}, {"hf"}),
    ("tiny", {}, {"hf"}),
    ("tiny", {"backend": "vllm"}, {"vllm"}),
    ("qwen3-4b", {"backend": "hf", "set": ("eval.backend=vllm", "rollouts.backend=vllm")}, {"vllm"}),
])
def test_auto_is_vllm_at_paper_scale_alone_and_a_flag_or_setting_decides(model, options, expected):
    assert {step.backend for step in generating(model, **options)} == expected


def test_the_backend_is_part_of_the_identity_and_the_old_ones_identity_is_what_it_was():
    step = next(step for step in generating("tiny") if step.kind == "generate")
    assert "backend" not in step.settings and set(step.identity["libraries"]) == {"torch", "transformers"}
    other = replace(step, backend="vllm")
    assert other.settings["backend"] == "vllm" and other.key != step.key
    assert set(other.identity["libraries"]) == {"torch", "transformers", "vllm"}


@pytest.mark.parametrize("kind", sorted(GENERATING))
def test_how_an_engine_uses_its_gpus_is_no_part_of_it(kind):
    step = next(step for step in generating("qwen3-4b", set=("engine.gpus_per_engine=2",)) if step.kind == kind)
    assert step.engine == Engine(gpus_per_engine=2)
    assert replace(step, engine=Engine(gpu_memory_utilization=0.5)).key == step.key


@pytest.mark.parametrize(("change", "says"), [
    ("engine.gpus_per_engine=0", "must be at least 1"), ("engine.gpu_memory_utilization=0", r"must lie in \(0, 1\]"),
    ("engine.gpu_memory_utilization=1.5", r"must lie in \(0, 1\]"), ("eval.backend=tgi", "choose one of: hf, vllm")])
def test_impossible_engines_are_refused(change, says):
    with pytest.raises(InputError, match=says):
        with_changes(SCALES["paper"].configuration, [change])


def table1(tmp_path, *arguments):
    command = [sys.executable, "-m", "replication.table1", "--store", str(tmp_path / "store"), "--results",
               str(tmp_path / "results"), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


@without_vllm
def test_vllm_that_is_not_installed_ends_the_command_before_anything_runs(tmp_path):
    done = table1(tmp_path, "--model", "tiny", "--backend", "vllm", "--methods", "sft", "--benchmarks", "gsm8k")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "vllm is not installed" in done.stderr
    assert "pip install vllm" in done.stderr and "--backend hf" in done.stderr
    assert not list((tmp_path / "store").rglob("manifest.json")) and not (tmp_path / "results").exists()


@without_vllm
def test_the_plan_names_vllm_among_what_is_missing_unless_hf_is_chosen(tmp_path):
    wanted = table1(tmp_path, "--model", "qwen3-4b", "--plan")
    assert "vllm: not installed; python -m pip install vllm, or pass --backend hf" in wanted.stdout
    assert "(vllm, one GPU)" in wanted.stdout and "(hf, one GPU)" not in wanted.stdout
    without = table1(tmp_path, "--model", "qwen3-4b", "--plan", "--backend", "hf")
    assert without.returncode == wanted.returncode == 0
    assert "vllm: not installed" not in without.stdout and "(hf, one GPU)" in without.stdout


def test_an_unknown_backend_is_refused(tmp_path):
    done = table1(tmp_path, "--backend", "tgi")
    assert done.returncode == 2 and "auto" in done.stderr and "Traceback" not in done.stderr


def test_vllm_without_a_gpu_is_refused_before_anything_runs(monkeypatch):
    waiting = generating("qwen3-4b")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(backends, "gpu_names", lambda: ())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(PrerequisiteError, match=rf"{len(waiting)} steps generate .*no CUDA GPU.*--backend hf"):
        backends.require_backends(waiting)
    monkeypatch.setattr(backends, "gpu_names", lambda: ("H100",))
    backends.require_backends(waiting)
    backends.require_backends([])


def test_a_generate_step_writes_greedy_records_in_order_with_either_backend(tmp_path, monkeypatch, tiny_checkpoint):
    (tmp_path / "site").mkdir()
    shutil.copy(Path(__file__).with_name("vllm_stand_in.py"), tmp_path / "site" / "vllm.py")
    monkeypatch.setenv("STAND_IN_RECORD", str(vllm_interface.RECORD))
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    problems = [Problem(id=f"p{i}", question=f"What is {i} + 1?", gold=str(i + 1), answer_type="number")
                for i in range(3)]
    (tmp_path / "problems").mkdir()
    write_jsonl(tmp_path / "problems" / "problems.jsonl", [problem.to_row() for problem in problems])
    step = replace(next(step for step in generating("tiny") if step.kind == "generate"), max_new_tokens=4)
    for backend in ("hf", "vllm"):
        output, scratch = tmp_path / backend, tmp_path / f"{backend}-scratch"
        output.mkdir()
        scratch.mkdir()
        notes = generate(Job(replace(step, backend=backend), {"checkpoint": tiny_checkpoint.parent,
                                                              "problems": tmp_path / "problems"},
                             output, scratch, lambda fraction: None))
        rows = list(read_jsonl(output / "records.jsonl"))
        assert [row["id"] for row in rows] == ["p0", "p1", "p2"] and notes["problems"] == 3
        assert all(set(row) == {"id", "text", "finish_reason", "new_tokens", "prompt_tokens"} for row in rows)
    assert json.loads(rows[0]["text"])["params"]["temperature"] == 0
