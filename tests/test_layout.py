"""How steps come to devices and memory: what is refused before anything runs, and what is said when it goes wrong."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import types
from dataclasses import replace

import pytest
import torch
from fake_steps import Write

from baselines import distributed
from foundation.errors import InputError, PrerequisiteError
from replication import provenance
from replication.actions import base
from replication.actions.torch_setup import prepare
from replication.cost.estimate import estimate
from replication.cost.machine import lacks
from replication.cost.report import lines
from replication.cost.shapes import SHAPES
from replication.executors.identity import code_identity
from replication.expected import with_expected_seconds
from replication.layout import check_memory, check_trainings, gpus_of_training, processes_here, uses_deepspeed
from replication.models import MODELS, require_hardware
from replication.needs import Needs
from replication.run import _chain_seconds
from replication.simulate import targets_of
from replication.source_steps import FetchModel
from replication.steps import closure
from replication.worker import Job, users_error

GB = 1e9

# ------------------------------------------------------------------------------------------------------------ devices


@pytest.fixture
def job(tmp_path):
    def _job(step, **given):
        return Job(step, {}, tmp_path, tmp_path, lambda fraction: None, **given)

    return _job


def test_a_model_is_fetched_without_a_gpu(job, monkeypatch):
    """Fetching computes nothing: it is a light step, and light steps see no GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(base, "from_hub", lambda model, *_, **__: {"fetched": model.name})
    step = FetchModel(model="qwen3-4b", source="hub:Qwen/Qwen3-4B-Base", revision="c" * 40)
    assert base.fetch_model(job(step)) == {"fetched": "qwen3-4b"}


def test_given_gpus_that_torch_does_not_find_are_refused(job, monkeypatch):
    from replication.actions.evaluation import generate

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PrerequisiteError, match=r"given GPUs 3, 4, torch \S+ finds none; install a CUDA"):
        generate(job(Write(text="a"), gpus=("3", "4")))
    assert prepare(1).type == "cpu"


# ------------------------------------------------------------------------------------------- processes and their stage


@pytest.fixture(scope="module")
def table1():
    """The steps of a table at paper scale, by model."""
    found = {}
    return lambda model: found.setdefault(model, closure(targets_of("table1", model)))


def trainings(steps, **layout):
    return [replace(step, training=replace(step.training, **layout)) for step in steps if step.kind == "train"]


def test_a_training_gets_what_was_asked_for_but_never_more_than_there_is(table1):
    (one, *_) = trainings(table1("qwen3-4b"))
    for asked, gpus, expected in ((None, 8, 8), (None, 16, 8), (6, 4, 4), (2, 4, 2), (None, 0, 1)):
        assert gpus_of_training(asked, gpus) == expected == processes_here(asked, [str(i) for i in range(gpus)])(one)


def test_a_batch_that_does_not_split_is_refused_by_what_runs_not_by_what_was_asked(table1, monkeypatch):
    monkeypatch.setattr(distributed.importlib.util, "find_spec", lambda name: object())
    steps = trainings(table1("qwen3-4b"))
    six = tuple("012345")
    with pytest.raises(InputError, match=r"--train-processes 6, .*which 6 processes cannot share evenly"):
        check_trainings(steps, processes_here(None, six))
    check_trainings(steps, processes_here(6, six[:4]))  # four there are, and four run


def test_nodes_are_asked_for_deepspeed_where_zero_shares_something_out(table1):
    from replication.executors.ray_cluster import modules_of

    steps = trainings(table1("qwen3-4b"))
    assert uses_deepspeed(steps, lambda step: 8) and not uses_deepspeed(steps, lambda step: 1)
    assert not uses_deepspeed(trainings(steps, zero_stage=0), lambda step: 8)
    assert modules_of(table1("qwen3-4b"), lambda step: 8) == ["vllm", "deepspeed"]
    assert modules_of(steps, lambda step: 1) == []


def test_a_cluster_refuses_trainings_before_its_nodes_are_looked_at(table1, monkeypatch, tmp_path):
    """Six GPUs on its largest node: an update of 512 does not split."""
    from replication.executors import ray_cluster
    from replication.placement import Node
    from replication.store import Store

    closed = []
    monkeypatch.setattr(ray_cluster, "connect", lambda *_: None)
    monkeypatch.setattr(ray_cluster, "alive_nodes", lambda: {"a": Node(name="a", gpus=tuple("012345"))})
    monkeypatch.setattr(ray_cluster, "look_at", lambda *_: pytest.fail("nodes were asked"))
    monkeypatch.setattr(ray_cluster.RayExecutor, "close", lambda self: closed.append(self))
    with pytest.raises(InputError, match="6 processes cannot share evenly"):
        ray_cluster.RayExecutor(Store(tmp_path), table1("qwen3-4b"), "auto")
    assert closed


def test_a_worker_of_rays_that_computed_on_gpus_is_told_to_end_where_ray_listens(monkeypatch):
    """`max_calls` counts in `ray.remote` alone, and Ray's own rule for GPUs does not see those given in options."""
    from replication.executors.ray_cluster import remote_step

    told = []
    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(remote=lambda **given: told.append(given) or str))
    for gpus in (8, 1, 0):
        remote_step(Needs(gpus=gpus))
    assert told == [{"max_retries": 0, "max_calls": calls} for calls in (1, 1, 0)]


def test_deepspeed_and_flash_attention_are_among_what_must_be_equal_on_all_nodes():
    assert {"deepspeed", "flash-attn"} <= set(provenance.PACKAGES)
    assert ("deepspeed" in code_identity()) == (importlib.util.find_spec("deepspeed") is not None)


# ------------------------------------------------------------------------------------------------------------- memory


def test_trainings_that_cannot_fit_are_refused_with_what_helps(table1):
    steps = table1("qwen3-4b")
    with pytest.raises(PrerequisiteError, match=r"on one GPU needs about 1\d\d GB on each by the cost.*; 80 GB are"
                                                r" there\. What helps: 4 GPUs: --train-processes 4 --set train\.zero"):
        check_memory(steps, lambda step: 1, [80 * GB])
    with pytest.raises(PrerequisiteError, match=r"8 GPUs with train\.zero_stage=2 needs about .*; 24 GB are there\. "
                                                r"What helps: --set train\.zero_stage=3 \("):
        check_memory(steps, lambda step: 8, [80 * GB, 24 * GB])
    check_memory(steps, lambda step: 8, [80 * GB] * 8)
    check_memory(steps, lambda step: 1, [])  # not known, not refused
    check_memory(trainings(table1("qwen3-4b"), zero_stage=3, micro_batch=64), lambda step: 8, [40 * GB] * 8)


@pytest.mark.parametrize(("visible", "expected"), [(None, (80, 24)), ("1", (24,)), ("GPU-bb", (24,)), ("", ())])
def test_the_memory_is_that_of_the_devices_this_process_may_use(visible, expected, monkeypatch):
    said = "0, GPU-aa11, 81920\n1, GPU-bb22, 24576\n"
    monkeypatch.setattr(provenance, "gpu_names", lambda: ("A", "B"))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, said, ""))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    provenance._reported_memory.cache_clear()
    try:
        assert tuple(size / 2**30 for size in provenance.gpu_memory()) == expected
    finally:
        provenance._reported_memory.cache_clear()


def test_memory_that_runs_out_outside_of_trainings_is_told_without_a_traceback(table1, tmp_path):
    entropy = next(step for step in table1("qwen3-4b") if step.kind == "entropy")
    generate = replace(next(step for step in table1("qwen3-4b") if step.kind == "generate"), backend="hf")
    for step, error in ((entropy, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")),
                        (generate, RuntimeError("DefaultCPUAllocator: can't allocate memory"))):
        told = users_error(step, error, tmp_path)
        assert isinstance(told, PrerequisiteError) and told.exit_code == 2
        assert step.label in str(told) and "memory ran out" in str(told) and "nvidia-smi" in str(told)
    assert "--set eval.batch_size=8" in str(told)
    defect = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    assert users_error(entropy, defect, tmp_path) is defect


# ----------------------------------------------------------------------------------------------------------- the plan


def plan(steps, model="qwen3-4b", **given):
    return estimate(steps, steps, SHAPES[model], **given)


def test_the_plan_is_laid_out_as_the_run_would_be(table1):
    steps = table1("qwen2.5-3b")
    alone, two = plan(steps, "qwen2.5-3b", gpus=1), plan(steps, "qwen2.5-3b", gpus=8, train_processes=2)
    assert alone.gpus_per_training == 1 and alone.zero_stage == 0 and not alone.needs_deepspeed
    held = {entry.fp32.weights + entry.fp32.optimizer for entry in alone.memory if entry.models == 1}  # SFT, LoRA
    assert max(held) == 16 * SHAPES["qwen2.5-3b"].parameters
    assert two.gpus_per_training == 2 and two.needs_deepspeed
    assert {cost.gpus for _, cost in two.trainings} == {2}


def test_gpus_that_cannot_share_an_update_are_remarked_on(table1):
    said = "\n".join(lines(plan(table1("qwen3-4b"), gpus=6), SHAPES["qwen3-4b"], []))
    assert "6 GPUs cannot share an update of 512 examples evenly" in said and "--train-processes 4" in said
    assert "remark" not in "\n".join(lines(plan(table1("qwen3-4b"), gpus=8), SHAPES["qwen3-4b"], []))


def test_what_lacks_goes_by_the_devices_that_may_be_used_and_their_memory(table1, monkeypatch, tmp_path):
    from replication.cost import machine

    class Request:
        data_root = None

    monkeypatch.setattr(machine, "_data", lambda *_: None)
    monkeypatch.setattr(machine, "_token", lambda *_: None)
    monkeypatch.setattr(machine, "gpu_devices", lambda: ("2", "3"))
    monkeypatch.setattr(machine, "gpu_memory", lambda: (24 * GB, 24 * GB))
    said = lacks(plan(table1("qwen3-4b"), gpus=8), Request, tmp_path)
    assert said[0].startswith("GPUs: 2, this plan is for 8") and "24 GB each, " in said[1] and "GB needed" in said[1]


def test_gpus_that_are_hidden_are_none_for_the_run_as_well(monkeypatch):
    monkeypatch.setattr(provenance, "gpu_names", lambda: ("H100",))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    require_hardware(MODELS["qwen3-4b"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(PrerequisiteError, match="CUDA_VISIBLE_DEVICES hides them"):
        require_hardware(MODELS["qwen3-4b"])
    require_hardware(MODELS["tiny"])


# ------------------------------------------------------------------------------------------------------------ urgency


def test_at_paper_scale_the_longest_chain_is_the_longest_in_time(table1):
    steps = table1("qwen3-4b")
    hinted = with_expected_seconds(steps)
    assert [step.key for step in hinted] == [step.key for step in steps]
    seconds = _chain_seconds(hinted)
    long = next(step for step in hinted if step.kind == "train")
    grade = next(step for step in hinted if step.kind == "grade")
    assert long.hint_seconds > 3600 > grade.hint_seconds > 0 and seconds[long.key] > 3600
    few = {step.key: step for step in with_expected_seconds(steps, 2)}
    assert few[long.key].hint_seconds == pytest.approx(4 * long.hint_seconds)


def test_hints_that_a_scale_names_stay():
    steps = [Write(text="a", hint_seconds=3.0), Write(text="b")]
    assert with_expected_seconds(steps) == steps
