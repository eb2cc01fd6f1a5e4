"""A training that was ended goes on with another number of processes, and ends with the weights of an unbroken one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from rank_actions import train_and_die, train_small
from test_method_properties import Runner, data, planner, training_step, weights  # noqa: F401

from baselines.resuming import (
    Origin,
    last_complete_checkpoint,
    mark_complete,
    read_origin,
    remove_half_written,
    resumption,
)
from baselines.settings import TrainingSettings
from foundation.errors import InputError, TrainingError
from foundation.files import read_jsonl
from replication.actions import training as actions
from replication.actions.fitting import fitted
from replication.actions.ranks import together

STAGES = {"ddp": 0, "zero2": 2, "zero3": 3}


def step_of(planner, stage):  # noqa: F811
    """WD-JT over six updates; groups of weights with settings of their own show whether each gets its own back."""
    step = training_step(planner, "wmss")
    settings = replace(step.training, micro_batch=2, zero_stage=stage, checkpoint_every=2, weight_decay=0.1)
    return replace(step, epochs=2, training=settings, joint=replace(step.joint, weak_learning_rate=3e-4))


@pytest.fixture(scope="module")
def runner(data, planner, tmp_path_factory):  # noqa: F811
    torch.set_num_threads(1)
    return Runner(data, planner, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def unbroken(runner, planner):  # noqa: F811
    return runner(step_of(planner, 0), "unbroken")


@pytest.fixture(scope="module", params=STAGES)
def ended(request, runner, planner):  # noqa: F811
    """A training that two processes began, after its first checkpoint."""
    job = replace(runner.job(step_of(planner, STAGES[request.param]), f"ended-{request.param}"), processes=2)
    with pytest.raises(TrainingError, match="on purpose"):
        together(job, train_and_die)
    last = last_complete_checkpoint(job.scratch / "trainer")
    assert last.name == "checkpoint-2" and read_origin(last) == Origin(processes=2,
                                                                      zero_stage=STAGES[request.param])
    return job


@pytest.mark.distributed
@pytest.mark.parametrize("count", [1, 2, 4])
def test_another_number_of_processes_goes_on(ended, unbroken, runner, count, tmp_path):
    job = replace(ended, processes=count, output=tmp_path / "output", scratch=tmp_path / "scratch")
    job.output.mkdir()
    shutil.copytree(ended.scratch, job.scratch)
    notes = fitted(job, train_small, launch=actions._left_by_zero(job))
    stage = job.step.training.zero_stage
    assert (notes["computed"]["processes"], notes["computed"]["zero_stage"]) == (count, stage)
    assert notes["updates"] == 6
    losses = [line["loss"] for line in read_jsonl(job.output / "losses.jsonl")]
    assert losses == pytest.approx(unbroken.losses, abs=1e-4)
    expected = weights(unbroken)
    found = weights(unbroken._replace(exports={name: job.output / name for name in unbroken.exports}))
    assert expected.keys() == found.keys() and len(expected) > 20
    for name, value in expected.items():
        assert torch.allclose(found[name], value, atol=1e-4), name


# ------------------------------------------------------------------------------- without starting several processes


@pytest.fixture
def checkpoint(tmp_path):
    def _checkpoint(processes, stage, update=4):
        folder = tmp_path / f"checkpoint-{update}"
        folder.mkdir(parents=True)
        mark_complete(folder, Origin(processes=processes, zero_stage=stage))
        return folder

    return _checkpoint


def settings(stage):
    return TrainingSettings(learning_rate=1e-3, global_batch=8, micro_batch=2, zero_stage=stage)


@pytest.mark.parametrize(("before", "now", "recut"), [
    ((2, 0), (4, 0), False), ((8, 0), (1, 0), False), ((2, 3), (2, 3), False), ((2, 3), (4, 3), True),
    ((2, 2), (1, 2), True),
])
def test_only_shares_of_another_number_of_processes_are_cut_anew(checkpoint, tmp_path, monkeypatch, before, now, recut):
    folder = checkpoint(*before)
    monkeypatch.setenv("WORLD_SIZE", str(now[0]))
    found = resumption(tmp_path, settings(now[1]))
    assert (found.checkpoint, found.recut) == (folder, recut)


@pytest.mark.parametrize(("before", "now"), [((2, 3), 0), ((2, 0), 3), ((4, 2), 3)])
def test_another_zero_stage_is_refused_with_the_way_out(checkpoint, tmp_path, monkeypatch, before, now):
    checkpoint(*before)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=rf"written with train.zero_stage={before[1]} by {before[0]} processes.*"
                                         rf"--train-processes {before[0]} --set train.zero_stage={before[1]}, or "
                                         "remove"):
        resumption(tmp_path, settings(now))


def test_what_one_gpu_began_is_offered_to_several_as_copies(checkpoint, tmp_path, monkeypatch):
    checkpoint(1, 0)
    monkeypatch.setenv("WORLD_SIZE", "8")
    with pytest.raises(InputError, match=r"go on with --train-processes 8 --set train\.zero_stage=0 \(copies on 8 .*"
                                         r"or with --train-processes 1 --set train\.zero_stage=0, or remove"):
        resumption(tmp_path, settings(2))


def test_a_checkpoint_that_does_not_say_who_wrote_it_is_read_as_it_is(checkpoint, tmp_path):
    folder = checkpoint(1, 0)
    (folder / "complete").write_text("", encoding="utf-8")
    assert read_origin(folder) is None and resumption(tmp_path, settings(0)).checkpoint == folder


def test_the_newest_whole_checkpoint_counts(checkpoint, tmp_path):
    checkpoint(1, 0, update=9)
    newest = checkpoint(1, 0, update=10)
    (tmp_path / "checkpoint-12").mkdir()  # a kill left it half-written
    assert resumption(tmp_path, settings(0)).checkpoint == newest
    assert (tmp_path / "checkpoint-12").exists(), "ranks ask at the same time, and none of them changes anything"
    remove_half_written(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-9"]
    assert json.loads((newest / "complete").read_text(encoding="utf-8")) == {"processes": 1, "zero_stage": 0}
