"""DPO on verified rollouts (Rafailov et al. 2023; paper App. B.9).

    margin = (log p_theta(y+|x) - log p_ref(y+|x)) - (log p_theta(y-|x) - log p_ref(y-|x))
    L      = - (1 / |B|) * sum over pairs of  log sigmoid(beta * margin)

y+ is the first verified correct and y- the first verified incorrect of four rollouts of M1 at T = 0.8; prompts without
both are skipped and counted. p_ref is M1. Trained by the library's DPO trainer. What B.9 leaves open (beta, rate,
clip, warm-up, batch) is taken from SPIN's section, the paper's only tuned preference setting (A-40).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from baselines.interface import WARMUP, Method, Pair, Pairs, Phase, Sample, Subset, Train, setting
from baselines.phases import POOL
from baselines.settings import Departures

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class DPO(Method):
    """A right rollout is preferred to a wrong one."""

    title = "DPO"
    objective = "-log sigmoid(beta * margin) of a verified correct over a verified incorrect rollout of M1"

    rollouts: int = setting(4, place="App. B.9", paper="dpo.num_rollouts")
    temperature: float = setting(0.8, place="App. B.9", paper="dpo.temperature")
    beta: float = setting(0.1, ambiguity="A-40")
    learning_rate: float = setting(5e-7, ambiguity="A-40", options=("1e-6",), scales_with="learning_rate")
    clip_norm: float = setting(0.5, ambiguity="A-40", options=("1.0",))
    warmup_ratio: float = setting(0.1, ambiguity="A-40")
    subset: int | None = setting(20_000, ambiguity="A-41", options=("none",), scales_with="pool")
    top_p: float = setting(1.0, ambiguity="A-42")
    incorrect: Literal["finished_and_false", "any_false"] = setting("finished_and_false", ambiguity="A-43")

    def loss_settings(self) -> dict[str, Any]:
        """Only beta: how the pairs were made is not the loss's business."""
        return {"beta": self.beta}

    def phases(self) -> Iterator[Phase]:
        """Sample, pair, one epoch over the pairs."""
        prompts = POOL
        if self.subset is not None:
            yield Subset(size=self.subset)
            prompts = "subset"
        yield Sample(of=WARMUP, out="rollouts", prompts=prompts, n=self.rollouts, temperature=self.temperature,
                     top_p=self.top_p)
        yield Pair(rollouts="rollouts", out="pairs", rule="verified", incorrect=self.incorrect)
        yield Train(strong=WARMUP, reference=WARMUP, data="pairs", out="M2",
                    departures=Departures(learning_rate=self.learning_rate, clip_norm=self.clip_norm,
                                          warmup_ratio=self.warmup_ratio))

    def pair_loss(self, pairs: Pairs) -> torch.Tensor:
        """The objective, one value a pair."""
        from torch.nn.functional import logsigmoid

        margin_B = ((pairs.policy_chosen_B - pairs.reference_chosen_B)
                    - (pairs.policy_rejected_B - pairs.reference_rejected_B))
        return -logsigmoid(self.beta * margin_B)
