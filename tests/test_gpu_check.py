"""The GPU check, as far as it can be tested without one: parts, budgets, verdicts, files, what it needs to import."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from bench.gpu import __main__ as command_line
from bench.gpu import device, judge, parts, report, runner
from bench.gpu.context import Context
from bench.gpu.timing import Stopwatch, spread
from foundation.errors import InputError

ABSENT = ("trl", "datasets", "math_verify", "vllm", "deepspeed", "ray", "tyro", "rich", "jinja2", "matplotlib",
          "pandas", "zstandard", "peft", "gguf", "hypothesis", "triton")
BLOCKER = f"""
import importlib.machinery, sys
absent = {ABSENT!r}
class Without(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in absent else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = Without
"""


def run(*arguments, path=(), **more):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT)))}
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True,
                          check=False, **more)


@pytest.fixture
def without_packages(tmp_path):
    """A folder that, on PYTHONPATH, makes the packages outside of the check's core look as if not installed."""
    folder = tmp_path / "blocker"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(BLOCKER)
    return folder


# --- what it needs


def test_the_core_imports_only_torch_transformers_and_what_these_need(without_packages):
    losses = ("mixed_cross_entropy", "half_precision", "chunked", "branches", "scoring", "batches", "wmss", "sft",
              "interface", "noise", "settings")
    modules = [f"baselines.{name}" for name in losses]
    modules += [f"bench.gpu.{path.stem}" for path in (ROOT / "bench" / "gpu").glob("*.py") if path.stem != "__init__"]
    program = (f"import importlib, importlib.util\nfor name in {modules!r}: importlib.import_module(name)\n"
               f"print([name for name in {ABSENT!r} if importlib.util.find_spec(name)])")
    done = run("-c", program, path=(without_packages,))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_it_runs_without_those_packages_and_says_what_is_skipped(without_packages, tmp_path):
    out = tmp_path / "out"
    done = run("-m", "bench.gpu", "--device", "cpu", "--small", "--only", "loss-time,loss-numerics,steps-0.6b,table1",
               "--out", str(out), path=(without_packages,))
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.json")
    found = json.loads(path.read_text())
    assert path.name == "no-gpu-cpu-run.partial.json"
    assert found["partial"].startswith("only loss-time") and not found["is_gpu_result"] and found["device"] == "cpu"
    assert {name: part["status"] for name, part in found["parts"].items()} == {
        "loss-time": "measured", "loss-numerics": "measured", "steps-0.6b": "measured", "table1": "skipped"}
    assert "trl, datasets, peft" in found["parts"]["table1"]["reason"]
    assert {row["verdict"] for row in found["targets"]} == {"not judged", "not measured"}
    assert "Triton is not installed" in found["parts"]["loss-time"]["result"]["no_triton"]
    cases = found["parts"]["steps-0.6b"]["result"]["cases"]
    assert all(cases[f"{case}, default"]["seconds"]["n"] == 1 for case in ("sft", "wdjt", "wdjt-frozen", "entropy"))
    errors = found["parts"]["loss-numerics"]["result"]["numerics"]["errors"]
    assert all(error < 0.01 for values in errors.values() for error in values.values())
    page = path.with_suffix(".md").read_text()
    assert "Not a GPU result" in page and "Partial" in page and "| tiny Table 1, end to end | skipped: not" in page
    assert done.stdout.count(": begins, at most") == 4


@pytest.mark.slow
def test_the_whole_check_runs_on_a_cpu_in_its_small_form(tmp_path):
    began = time.monotonic()
    done = run("-m", "bench.gpu", "--device", "cpu", "--small", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "no-gpu-cpu-run.json").read_text())
    assert found["partial"] is None and list(found["parts"]) == list(parts.PARTS)
    assert {part["status"] for part in found["parts"].values()} <= {"measured", "skipped"}
    assert time.monotonic() - began < 120


def test_a_machine_without_a_gpu_is_told_what_is_needed(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = run("-m", "bench.gpu", "--out", str(tmp_path))
    assert done.returncode == 2 and "needs a CUDA GPU" in done.stderr and "--device cpu --small" in done.stderr
    assert "Traceback" not in done.stderr and not list(tmp_path.iterdir())


def test_without_torch_it_names_the_python(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BLOCKER.replace("'trl'", "'torch'"))
    done = run("-m", "bench.gpu", path=(tmp_path,))
    assert done.returncode == 2 and "has no torch" in done.stderr and "PYTHON=" in done.stderr


@pytest.mark.parametrize(("arguments", "said"), [
    (("--device", "cpu"), "needs --small"), (("--device", "cpu", "--small", "--only", "loss"), "names no part: loss"),
    (("--device", "cpu", "--small", "--only", ","), "it is empty"),
    (("--device", "cpu", "--small", "--out", "results/gpu"), "another folder"),
    (("--small", "--out", "results/gpu/mine"), "another folder")])
def test_what_cannot_be_asked_for_is_refused(arguments, said):
    done = run("-m", "bench.gpu", *arguments)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


# --- budgets


def test_all_shares_together_stay_under_eight_minutes():
    total = sum(part.seconds + parts.GRACE_SECONDS for part in parts.PARTS.values()) + parts.OVERHEAD_SECONDS
    assert total <= parts.LIMIT_SECONDS == 8 * 60


def fake(tmp_path, program, *, seconds=20.0):
    """Run a part whose process is `program`; FILE is where its results go."""
    (tmp_path / "fake.py").write_text(
        "import json, pathlib, sys, time, subprocess, os\nFILE = pathlib.Path(sys.argv[1])\n"
        "def put(**value): FILE.write_text(json.dumps(value))\n" + program)
    return runner.run_part("loss-time", device="cpu", small=True, folder=tmp_path, seconds=seconds,
                           command=lambda name, out, seconds: [sys.executable, str(tmp_path / "fake.py"), str(out)])


def test_a_part_that_takes_too_long_is_ended_with_all_it_started_and_keeps_what_it_measured(tmp_path, capfd):
    began = time.monotonic()
    record = fake(tmp_path, "child = subprocess.Popen(['sleep', '60'])\nput(first=1, child=child.pid)\n"
                            "time.sleep(60)\n", seconds=1.5)
    assert time.monotonic() - began < 1.5 + parts.GRACE_SECONDS + 2
    assert record["status"] == "cut" and record["result"]["first"] == 1 and "its time was over" in record["reason"]
    assert not _runs(record["result"]["child"])
    said = capfd.readouterr().out
    assert "begins, at most 2 s" in said and "CUT after" in said


def test_a_part_that_ignores_the_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "GRACE_SECONDS", 0.3)
    record = fake(tmp_path, "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nput(first=1)\n"
                            "time.sleep(60)\n", seconds=1.0)
    assert record["status"] == "cut" and record["seconds"] < 5


@pytest.mark.parametrize(("program", "status", "reason"), [
    ("put(complete=True, x=1)", "measured", None),
    ("put(complete=True, cut=['a', 'b'])", "cut", "no time for: a; b"),
    ("put(skipped='not installed: trl')", "skipped", "not installed: trl"),
    ("put(failed='ValueError: no'); sys.exit(1)", "failed", "ValueError: no"),
    ("put(first=1); os.abort()", "failed", "exit code -6"),
    ("sys.exit(3)", "failed", "exit code 3")])
def test_how_a_part_ended_is_recorded(tmp_path, program, status, reason):
    record = fake(tmp_path, program)
    assert record["status"] == status
    assert (record["reason"] is None) == (reason is None) and (reason or "") in (record["reason"] or "")


def test_a_part_that_raises_leaves_its_reason_and_what_it_measured(tmp_path, monkeypatch, capsys):
    def broken(context):
        context.put("first", 1)
        raise RuntimeError("CUDA error: an illegal memory access")

    monkeypatch.setitem(parts.PARTS, "tests", parts.Part(title="x", seconds=1, run=broken))
    out = tmp_path / "part.json"
    assert parts.run_here("tests", device="cpu", small=False, out=out, seconds=5) == 1
    found = runner.judged(1, runner.read(out))
    assert found["status"] == "failed" and "illegal memory access" in found["reason"]
    assert found["result"] == {"first": 1}
    assert "Traceback" in capsys.readouterr().out


def clock(*times):
    remaining = list(times)
    return lambda: remaining.pop(0) if len(remaining) > 1 else remaining[0]


def test_what_has_no_room_is_cut_and_said(tmp_path, capsys):
    context = Context(device="cpu", small=True, out=tmp_path / "x.json", seconds=10, now=clock(0, 5, 8))
    assert context.room_for("early", 4) and not context.room_for("late", 4)
    assert json.loads(context.out.read_text()) == {"cut": ["late"]} and "cut: late" in capsys.readouterr().out


def test_repetitions_stop_at_the_share_of_the_time(tmp_path):
    context = Context(device="cpu", small=False, out=tmp_path / "x.json", seconds=1.0)
    found = Stopwatch("cpu").measure(context, "nap", lambda: time.sleep(0.05), repeats=1000, share=0.4)
    assert found is not None and 1 <= found["n"] < 20 and found["min"] <= found["median"] <= found["max"]
    assert context.remaining() > 0.4 and context.result["cut"] == [f"nap: {found['n']} of 1000 repetitions"]
    late = Context(device="cpu", small=False, out=tmp_path / "y.json", seconds=0.01)
    assert Stopwatch("cpu").measure(late, "nap", lambda: time.sleep(0.05)) is None


def test_ctrl_c_leaves_a_partial_file_and_no_process(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.gpu", "--device", "cpu", "--small", "--out", str(tmp_path)], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    while "products:" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130 and "Traceback" not in said
    found = json.loads((tmp_path / "no-gpu-cpu-run.partial.json").read_text())
    assert found["partial"] == "interrupted in the part loss-time" and list(found["parts"]) == ["loss-time"]
    assert found["parts"]["loss-time"]["status"] == "cut"
    assert "shape" in found["parts"]["loss-time"]["result"]
    assert not (tmp_path / "no-gpu-cpu-run.json").exists()


def _runs(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


# --- verdicts and the page


def measured(time_ratio=1.2, beyond=4, error=0.002):
    def paths(value):
        return dict.fromkeys(("default", "half-triton"), value)

    def part(result, status="measured"):
        return {"title": "t", "status": status, "reason": None, "seconds": 1.0, "share_seconds": 9.0,
                "result": result | {"clocks": {"clocks.sm": "1980 MHz"}}}

    row = spread([0.1, 0.2]) | {"times_products": time_ratio}
    gradients = dict.fromkeys(("strong hidden", "weak hidden", "strong head", "weak head"), error)
    names = {"loss": error / 100} | gradients
    return {
        "loss-time": part({"shape": {"vocabulary": 10, "hidden": 2, "tokens": 3, "dtype": "bfloat16"},
                           "products": {"6": spread([0.1]) | {"tflops_per_second": 600.0}, "4": None},
                           "paths": {"mixed": {"default": row | {"median": 0.3}, "half-triton": row}}}),
        "loss-memory": part({"memory": {"beyond_bytes": paths(beyond), "full_bytes": 100, "full_how": "measured",
                                        "two_fp32_logit_tensors_bytes": 50}}),
        "loss-numerics": part({"numerics": {"shape": {"tokens": 3, "chunk": 2},
                                            "errors": paths(names) | {"full logits": dict.fromkeys(names, 0.002)}}}),
    }


def verdicts(found, **more):
    return {row["target"]: row["verdict"] for row in judge.judge(found, small=False, **more)
            if "default" in row["target"] and "mixed loss" in row["target"]}


def test_targets_are_met_missed_or_not_measured():
    assert set(verdicts(measured()).values()) == {"met"}
    assert set(verdicts(measured(time_ratio=1.31, beyond=6, error=0.02)).values()) == {"missed"}
    assert set(verdicts(measured(error=float("nan"))).values()) == {"met", "missed"}
    assert set(verdicts({}).values()) == {"not measured"}
    failed = {"loss-time": {"status": "failed", "reason": "out of memory", "result": {}}}
    rows = {row["target"]: row for row in judge.judge(failed, small=False)}
    assert rows["mixed loss, default path: time over that of its six matrix products"]["reason"] == "out of memory"
    assert {row["verdict"] for row in judge.judge(measured(), small=True)} == {"not judged", "not measured"}


def test_the_advice_wants_speed_and_numbers_within_the_limits():
    def said(found):
        return judge.advice(judge.judge(found, small=False), found)

    good, wrong, slow = measured(), measured(error=0.1), measured()
    slow["loss-time"]["result"]["paths"]["mixed"]["half-triton"]["median"] = 0.3
    assert "2.00 times as fast" in said(good) and "PATH = HalfPath" in said(good)
    assert "leave mixed_cross_entropy.PATH" in said(wrong) and "not faster" in said(slow)
    assert said({}) is None


@pytest.mark.parametrize("left_out", [(), ("loss-time",), ("loss-memory", "loss-numerics")])
def test_the_page_shows_what_there_is_and_a_wrong_number_does_not_cost_the_file(tmp_path, left_out):
    found = {name: part for name, part in measured(error=float("nan")).items() if name not in left_out}
    whole = {"machine": {"name": "NVIDIA H100 80GB HBM3", "packages": {"torch": "2.11"}, "dirty": False, "commit": "c",
                         "python": "3.12", "driver": "580", "cuda": "13.0"},
             "is_gpu_result": True, "partial": None, "parts": found, "targets": judge.judge(found, small=False),
             "advice": None, "started": "now", "seconds": 400.0}
    path = command_line._write(whole, tmp_path)
    assert path.name == "nvidia-h100-80gb-hbm3.json"
    page = (tmp_path / "nvidia-h100-80gb-hbm3.md").read_text()
    assert page == report.markdown(whole) and "not measured" in page and "1980 MHz" in page and "driver 580" in page
    assert ("600.0 TFLOP/s" in page) == ("loss-time" not in left_out)
    assert json.loads(path.read_text())["parts"].keys() == found.keys()


def test_triton_that_does_not_work_costs_only_its_own_paths(tmp_path, monkeypatch):
    """As where there is no C compiler: a broken module stands in for it."""
    import importlib.util

    from bench.gpu import loss

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "baselines.triton_softmax", None)
    context = Context(device="cpu", small=True, out=tmp_path / "x.json", seconds=9)
    assert list(loss.usable_paths(context)) == ["default", "half"] == list(loss.usable_paths(context))
    assert "Triton fails here" in json.loads(context.out.read_text())["no_triton"]


# --- the machine


@pytest.mark.parametrize(("name", "expected"), [("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3"),
                                                ("A/../../B", "a-b"), ("...", "unknown-gpu")])
def test_a_device_becomes_a_file_name(name, expected):
    assert device.slug(name) == expected


def test_the_peak_of_the_data_sheet_is_that_of_the_variant():
    assert device.peak_flops("NVIDIA H100 PCIe") == 756e12 != device.peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert device.peak_flops("Some other card") is None


def test_nvidia_smi_is_asked_of_the_visible_gpu_and_may_not_know_a_field(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\ncase "$*" in *unknown*) echo error >&2; exit 6;; esac\n'
                       'case "$*" in *"-i 3"*) ;; *) exit 9;; esac\n'
                       'case "$*" in *clocks.sm,power*) echo "1980 MHz, 650.1 W";; *) echo "1980 MHz";; esac\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    assert device.smi(("clocks.sm", "power.draw")) == {"clocks.sm": "1980 MHz", "power.draw": "650.1 W"}
    assert device.smi(("clocks.sm", "unknown")) == {"clocks.sm": "1980 MHz", "unknown": None}
    program.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert device.smi() == {}


# --- what is timed


@pytest.mark.parametrize("model", ["qwen3-0.6b", "qwen3-1.7b"])
def test_the_shapes_are_those_of_the_models(model):
    import torch
    import transformers

    from bench.gpu.steps import SHAPES

    shape = SHAPES[model]
    config = transformers.Qwen3Config(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim, tie_word_embeddings=True)
    with torch.device("meta"):
        built = transformers.AutoModelForCausalLM.from_config(config)
    assert shape.parameters == sum(p.numel() for p in built.parameters())


def test_updates_train_what_they_should_and_checkpoint(tmp_path):
    from bench.gpu.steps import Bench

    bench = Bench(Context(device="cpu", small=True, out=tmp_path / "x.json", seconds=60), "small")
    before = {}
    for case, strong_moves, weak_moves in (("wdjt", True, True), ("wdjt-frozen", True, False), ("sft", True, False),
                                           ("entropy", False, False)):
        bench._prepare(case)
        before = {side: model.get_output_embeddings().weight.detach().clone() for side, model in bench.sides.items()}
        bench.action(case, "default")()
        moved = {side: not bool((model.get_output_embeddings().weight == before[side]).all())
                 for side, model in bench.sides.items()}
        assert moved == {"strong": strong_moves, "weak": weak_moves}, case
    assert bench.sides["strong"].model.gradient_checkpointing and bench.sides["weak"].model.gradient_checkpointing
    assert [bench.model_flops(case) / bench.model_flops("sft") for case in ("wdjt", "wdjt-frozen", "entropy")] == [
        2, pytest.approx(4 / 3), pytest.approx(1 / 3)]
    assert bench.work.attended == sum(bench.lengths) <= bench.work.padded


def test_of_the_cut_down_table_only_what_was_asked_for_must_be_there():
    from bench.gpu.suite import scores

    def cell(column, status, value):
        return {"row": "SFT", "column": column, "status": status, "value": value}

    cells = [cell("GSM8K", "measured", 2.0), cell("SVAMP", "failed", None), cell("Math Avg.", "missing", None)]
    assert scores(cells) == {"SFT, GSM8K": 2.0, "SFT, SVAMP": None}


def test_out_names_of_gpu_results_need_a_gpu():
    options = command_line._options(["--out", "results/gpu/x"])
    assert command_line._folder(options) == Path("results/gpu/x")
    with pytest.raises(InputError, match="where GPU results lie"):
        command_line._folder(command_line._options(["--small", "--out", str(ROOT / "results" / "gpu")]))
