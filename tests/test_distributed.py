"""Two gloo processes under DDP, ZeRO-2 and ZeRO-3 against one process: losses, weights, exports (design.md, traps)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch
import transformers
from conftest import ROOT
from distributed_worker import Case, Job

from baselines import distributed
from baselines.batches import ordered
from baselines.branches import is_tied
from baselines.settings import TrainingSettings
from foundation.errors import InputError, PrerequisiteError

# A large epsilon makes AdamW's step nearly proportional to the gradient: a wrong scale then shows in the weights.
TRAINING = {"learning_rate": 1e-2, "global_batch": 8, "micro_batch": 2, "warmup_ratio": 0.0, "adam_epsilon": 1e-2}
CASES = [
    Case(name="sft", training=TRAINING | {"clip_norm": 0.5, "adam_epsilon": 1e-8, "learning_rate": 1e-3}),
    Case(name="wdjt", training=TRAINING | {"clip_norm": 1e3}, joint={"mix_weight": 0.4}),
]
MORE = [
    Case(name="checkpointing", training=TRAINING | {"gradient_checkpointing": True}, joint={}),
    Case(name="frozen", training=TRAINING, joint={"freeze_weak": True}, partitioned=False),
    Case(name="two-rates", training=TRAINING | {"clip_norm": 1e3}, joint={"weak_learning_rate": 1e-3}),
    Case(name="example-mean", training=TRAINING, reduction="example_mean"),
    Case(name="untied", training=TRAINING, joint={}, untied=True),
    Case(name="resumed", training=TRAINING | {"checkpoint_every": 2}, stop_after=3),
    Case(name="bfloat16", training=TRAINING | {"compute_dtype": "bfloat16"}, joint={}),
]
pytestmark = [pytest.mark.distributed]


@pytest.fixture(scope="module")
def five_updates(rows):
    """Rows of five updates; in the second one, everything that the second process gets is without a target."""
    chosen = ordered(rows, TrainingSettings(**TRAINING), epochs=1, seed=5, updates=5)
    empty = [8 + i for i in (2, 3, 6, 7)]
    return [row | {"labels": [-100] * len(row["labels"])} if i in empty else row for i, row in enumerate(chosen)]


@pytest.fixture(scope="module")
def job(tiny_checkpoint, weak_checkpoint, five_updates, tmp_path_factory):
    return Job(strong=str(tiny_checkpoint), weak=str(weak_checkpoint), rows=five_updates,
               output=str(tmp_path_factory.mktemp("one")))


@pytest.fixture(scope="module")
def alone(job):
    """The losses of one process, and where its checkpoints lie."""
    return {case.name: job.run(replace(case, stop_after=None)) for case in CASES + MORE}


@pytest.fixture(scope="module", params=[0, 2, 3], ids=["ddp", "zero2", "zero3"])
def together(request, job, tmp_path_factory):
    """The same by two processes; one launch for all cases, as a process trains one step after another."""
    output = tmp_path_factory.mktemp(f"zero{request.param}")
    cases = [asdict(case) | {"training": case.training | {"zero_stage": request.param}} for case in CASES + MORE]
    path = output / "job.json"
    path.write_text(json.dumps(asdict(job) | {"output": str(output), "cases": cases}), encoding="utf-8")
    launch(path)
    return replace(job, output=str(output))


def launch(path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
               str(ROOT / "tests" / "distributed_worker.py"), str(path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-6000:]


def weights(job, case, branch):
    folder = f"{job.output}/{case.name}/{branch}"
    return transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)


def losses(job, case):
    with open(f"{job.output}/{case.name}/losses.json", encoding="utf-8") as file:
        return json.load(file)


@pytest.mark.parametrize("case", CASES + MORE, ids=lambda case: case.name)
def test_two_processes_compute_what_one_does(alone, together, job, case):
    tolerance = 2e-2 if case.name == "bfloat16" else 1e-4
    assert len(alone[case.name]) == 5
    assert losses(together, case) == pytest.approx(alone[case.name], abs=tolerance)
    for branch in ("strong", "weak") if case.joint is not None else ("strong",):
        expected, found = weights(job, case, branch), weights(together, case, branch)
        assert is_tied(found) == is_tied(expected) != case.untied
        for name, value in expected.named_parameters():
            assert torch.allclose(found.get_parameter(name), value, atol=tolerance), name
