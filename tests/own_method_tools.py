"""What the tests of one's own methods share: the head of a method's file, and the road a table takes to it."""

from __future__ import annotations

import os
import subprocess
import sys

from conftest import ROOT

from baselines import METHODS
from baselines.method_registry import methods_at_hand
from replication.configuration import with_changes
from replication.models import MODELS
from replication.plan import Planner, Request
from replication.scales import SCALES

EXAMPLE = ROOT / "examples/label_smoothing.py"
HEAD = """from dataclasses import dataclass, field
import torch
from torch.nn.functional import cross_entropy
from baselines.interface import *
from baselines.sft import SFT
from baselines.wmss import WMSS
"""
PLAIN = "cross_entropy(strong.logits_NV(), batch.labels_N, reduction='sum')"

ACCEPTED = {
    "only a loss": f"""
class Mine(Method):
    title = "Mine"
    def loss(self, batch, strong, other):
        return {PLAIN}
""",
    "only phases": """
class Mine(SFT):
    title = "Mine"
    def phases(self):
        yield Train(strong=BASE, out="M2", epochs=2)
""",
    "only data": """
@dataclass(frozen=True, kw_only=True)
class Mine(SFT):
    title = "Mine"
    size: int = setting(20_000, scales_with="pool")
    def phases(self):
        yield Subset(size=self.size)
        yield Train(strong=WARMUP, data="subset", out="M2")
""",
    "a preference": """
class Mine(Method):
    title = "Mine"
    def phases(self):
        yield Sample(of=WARMUP, out="replies", n=1, temperature=1.0)
        yield Pair(rollouts="replies", out="pairs", rule="gold_first")
        yield Train(strong=WARMUP, reference=WARMUP, data="pairs", out="M2")
    def pair_loss(self, pairs):
        return torch.relu(10 - pairs.policy_chosen_B + pairs.policy_rejected_B)
""",
    "a reference": """
class Mine(Method):
    title = "Mine"
    def phases(self):
        yield Train(strong=WARMUP, reference=BASE, out="M2")
    def loss(self, batch, strong, other):
        return cross_entropy(strong.logits_NV(), other.logits_NV().softmax(dim=-1), reduction="sum")
""",
    "noise": """
class Mine(SFT):
    title = "Mine"
    def embed(self, embeddings_BSD, mask_BS, seeds_B):
        from baselines.neftune import embedding_noise
        return embeddings_BSD + embedding_noise(embeddings_BSD, mask_BS, seeds_B, 5.0)
""",
    "a subclass of WMSS": """
class Mine(WMSS):
    title = "Mine"
    sections = {"mine-joint": ("joint",)}
""",
}


def planner(registry, *changes):
    configuration = with_changes(SCALES["tiny"].configuration, list(changes), registry)
    return Planner(Request(model=MODELS["tiny"], scale=SCALES["tiny"], configuration=configuration, data_root=None,
                           limit_train=None, limit_eval=None, seed=0, registry=registry))


def whole(spec, *changes, row=None):
    """Load, register, plan and try out a method, as a table does; return its row's plan."""
    from baselines.trial import try_out

    registry, own = methods_at_hand(METHODS, [spec], [], ["train", "Base (M0)"])
    plan = planner(registry, *changes).plan(row or own[0])
    plan.result()
    try_out(plan.method)
    return plan


def python(*arguments, cwd=ROOT, **environment):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WMSS_")}
    path = os.pathsep.join([str(ROOT), *filter(None, [environment.pop("PYTHONPATH", "")])])
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=300,
                          env=clean | {"PYTHONPATH": path} | environment)
