"""Every method's training in two processes, under DDP, ZeRO-2 and ZeRO-3, against the same in one process."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import pytest
import torch
from rank_actions import train_all
from test_method_properties import TRAININGS, Runner, data, planner, training_step, weights  # noqa: F401

from foundation.files import read_jsonl
from replication.actions.ranks import together

pytestmark = pytest.mark.distributed
# the library's NEFTune draws its noise per forward pass, from the width of its padding: another cut is other noise
ROWS = [row for row in TRAININGS if row != "neftune-padded"]
STAGES = {"ddp": 0, "zero2": 2, "zero3": 3}


@pytest.fixture(scope="module")
def alone(data, planner, tmp_path_factory):  # noqa: F811
    torch.set_num_threads(1)
    return Runner(data, planner, tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module", params=STAGES)
def shared(request, alone, planner, tmp_path_factory):  # noqa: F811
    """The jobs of all rows, trained by two processes; one launch for all."""
    def job(row):
        step = training_step(planner, row)
        training = replace(step.training, micro_batch=2, zero_stage=STAGES[request.param])
        return alone.job(replace(step, training=training), f"{request.param}-{row}")

    jobs = {row: replace(job(row), on_progress=print, processes=2) for row in ROWS}
    scratch = tmp_path_factory.mktemp(request.param)
    (scratch / "jobs.pickle").write_bytes(pickle.dumps(list(jobs.values())))
    together(replace(jobs["sft"], scratch=scratch, on_progress=lambda fraction: None), train_all)
    return jobs


@pytest.mark.parametrize("row", ROWS)
def test_two_processes_train_what_one_does(alone, shared, row):
    whole, job = alone.whole(row), shared[row]
    assert [line["loss"] for line in read_jsonl(job.output / "losses.jsonl")] == pytest.approx(whole.losses, abs=1e-4)
    expected = weights(whole)
    found = weights(whole._replace(exports={name: job.output / name for name in whole.exports}))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, atol=2e-4), name
    computed = json.loads((job.output / "notes.json").read_text(encoding="utf-8"))["computed"]
    assert (computed["processes"], computed["micro_batch"]) == (2, 2)
    assert computed["zero_stage"] == job.step.training.zero_stage
