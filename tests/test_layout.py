"""How steps come to devices and memory: what is refused before anything runs, and what is said when it goes wrong."""

from __future__ import annotations

import pytest
import torch
from fake_steps import Write

from foundation.errors import PrerequisiteError
from replication.actions import base
from replication.actions.torch_setup import prepare
from replication.source_steps import FetchModel
from replication.worker import Job

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
