"""Two gloo processes under DDP, ZeRO-2 and ZeRO-3 against one process: losses, and the weights of what is exported."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import asdict, fields, replace

import pytest
import torch
import transformers
from accelerate.data_loader import BatchSamplerShard
from conftest import ROOT
from distributed_worker import Case, Job

from baselines import distributed
from baselines.batches import ordered
from baselines.branches import BranchedModel, is_tied, load_causal_lm
from baselines.settings import JointTraining, TrainingSettings
from baselines.trainer import train
from baselines.wmss import WMSS
from foundation.errors import InputError, PrerequisiteError
from replication.configuration import with_changes
from replication.scales import SCALES

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


@pytest.mark.distributed
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


@pytest.mark.distributed
def test_what_zero3_exports_gives_the_logits_of_one_processs_export(alone, together, job, five_updates):
    ids = torch.tensor([five_updates[0]["input_ids"]])
    for case in CASES:
        expected, found = (weights(where, case, "strong")(input_ids=ids).logits for where in (job, together))
        assert torch.allclose(found, expected, atol=1e-4)


# ------------------------------------------------------------------------------- without starting several processes


@pytest.fixture
def of_processes(monkeypatch):
    """Pretend that a launcher started this process as one of several."""
    return lambda count: monkeypatch.setenv("WORLD_SIZE", str(count))


@pytest.mark.parametrize(("count", "micro", "expected"), [(1, 4, 4), (2, 8, 4), (4, 8, 2), (2, 2, 2), (8, 8, 1)])
def test_micro_batches_shrink_until_processes_share_an_update_evenly(of_processes, count, micro, expected):
    of_processes(count)
    training = TrainingSettings(learning_rate=1e-3, global_batch=8, micro_batch=micro)
    assert distributed.micro_batch(training) == expected and 8 % (expected * count) == 0


def test_an_update_that_cannot_be_shared_evenly_is_refused(of_processes):
    of_processes(3)
    with pytest.raises(InputError, match="global_batch is 8, which 3 processes cannot share evenly"):
        distributed.micro_batch(TrainingSettings(learning_rate=1e-3, global_batch=8, micro_batch=2))


@pytest.mark.parametrize("count", [2, 4])
def test_each_update_has_the_same_examples_whatever_the_number_of_processes(count):
    """As accelerate deals out the trainer's sequential batches; so a process gets every count-th micro-batch."""
    micro = 2
    batches = torch.utils.data.BatchSampler(torch.utils.data.SequentialSampler(range(40)), micro, drop_last=False)
    shares = [[i for batch in BatchSamplerShard(batches, count, rank) for i in batch] for rank in range(count)]
    per_update = 8 // count
    for update in range(5):
        found = {i for share in shares for i in share[update * per_update : (update + 1) * per_update]}
        assert found == set(range(update * 8, update * 8 + 8))


def test_zero_needs_a_launcher_and_is_no_part_of_identity():
    training = TrainingSettings(**TRAINING, zero_stage=3)
    assert distributed.zero_stage(training) == 0 and distributed.deepspeed_config(training, clip_norm=1.0) is None
    assert not {f.name: f for f in fields(training)}["zero_stage"].metadata["identity"]
    changed = with_changes(SCALES["tiny"].configuration, ["train.zero_stage=2"])
    assert changed.train.zero_stage == changed.second_epoch.zero_stage == 2
    with pytest.raises(InputError, match="zero_stage is '1'; choose one of: 0, 2, 3"):
        with_changes(SCALES["tiny"].configuration, ["train.zero_stage=1"])


def test_what_zero_cannot_share_out_is_refused(of_processes, monkeypatch, tiny_checkpoint, weak_checkpoint, tmp_path):
    of_processes(2)
    training = TrainingSettings(**TRAINING, zero_stage=2)
    joint = JointTraining(clip="per_branch")
    model = BranchedModel(WMSS(joint=joint), load_causal_lm(tiny_checkpoint), load_causal_lm(weak_checkpoint))
    with pytest.raises(InputError, match="per_branch needs whole gradients"):
        train(model, [], None, training, seed=1, work=tmp_path, joint=joint)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PrerequisiteError, match="zero_stage=2 needs DeepSpeed"):
        distributed.deepspeed_config(training, clip_norm=1.0)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(InputError, match="bf16_pure"):
        distributed.deepspeed_config(replace(training, param_dtype="bf16_pure"), clip_norm=1.0)


def test_zero_sends_gradients_in_fp32_although_it_computes_in_bfloat16(of_processes, monkeypatch):
    of_processes(2)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    training = TrainingSettings(**TRAINING | {"compute_dtype": "bfloat16"}, zero_stage=2)
    autocast = distributed.deepspeed_config(training, clip_norm=1.0)["torch_autocast"]
    assert autocast["enabled"] and autocast["lower_precision_safe_modules"] == []
