"""SPIN: self-play, the dataset's reply against the model's own (Chen et al. 2024; paper App. E.6).

    margin = (log p_theta(y|x) - log p_ref(y|x)) - (log p_theta(y'|x) - log p_ref(y'|x))
    L      = - (1 / |B|) * sum over pairs of  log sigmoid(beta * margin)

y is the dataset's reply, y' one reply sampled from the opponent p_ref, which is the model at the start of the
iteration (M1). Log-probabilities are sums over the completion and its end token. Trained by the library's DPO trainer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from baselines.interface import Method, Pair, Pairs, Phase, Sample, Subset, Train, Variant, setting
from baselines.phases import POOL, checkpoint_name
from baselines.settings import Departures

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class SPIN(Method):
    """The pool's reply is preferred to the model's own."""

    title = "SPIN"
    objective = "-log sigmoid(beta * margin) of the dataset's reply over a reply sampled from M1"
    variants: ClassVar = {"64": Variant("SPIN (batch 64)", {"spin.global_batch": "64"})}

    beta: float = setting(0.1, place="App. E.6", paper="spin.beta")
    learning_rate: float = setting(5e-7, place="App. E.6", paper="spin.learning_rate", scales_with="learning_rate")
    clip_norm: float = setting(0.5, place="App. E.6", paper="spin.max_grad_norm")
    warmup_ratio: float = setting(0.1, place="App. E.6", paper="spin.warmup_fraction")
    temperature: float = setting(1.0, place="App. E.6", paper="spin.temperature")
    global_batch: int = setting(512, place="App. E.5", paper="train.global_batch", ambiguity="A-31", options=("64",),
                                scales_with="global_batch")
    optim: Literal["adamw", "rmsprop"] = setting("adamw", ambiguity="A-30")
    subset: int | None = setting(20_000, place="App. E.2", paper="data.rollout_subset", ambiguity="A-14",
                                   options=("none",), scales_with="pool")
    max_new_tokens: int | None = setting(None, ambiguity="A-32", options=("256",))
    filter: Literal["none", "drop_correct"] = setting("none", ambiguity="A-33")
    overlength: Literal["truncate_right", "drop"] = setting("truncate_right", ambiguity="A-35")
    top_p: float = setting(1.0, ambiguity="A-36")
    top_k: int = setting(0, ambiguity="A-36")
    iterations: int = setting(1, place="App. E.6", paper="spin.epochs")

    def loss_settings(self) -> dict[str, Any]:
        """Only beta: how the pairs were made is not the loss's business."""
        return {"beta": self.beta}

    def phases(self) -> Iterator[Phase]:
        """Sample one reply a prompt from the opponent, pair, train; each iteration resets the opponent."""
        prompts = POOL
        if self.subset is not None:
            yield Subset(size=self.subset)
            prompts = "subset"
        for t in range(1, self.iterations + 1):
            opponent = checkpoint_name(t)
            yield Sample(of=opponent, out=f"replies-{t}", prompts=prompts, n=1, temperature=self.temperature,
                         top_k=self.top_k, top_p=self.top_p, max_new_tokens=self.max_new_tokens)
            yield Pair(rollouts=f"replies-{t}", out=f"pairs-{t}", rule="gold_first",
                       drop_correct=self.filter == "drop_correct", overlength=self.overlength)
            yield Train(strong=opponent, reference=opponent, data=f"pairs-{t}", out=checkpoint_name(t + 1),
                        departures=Departures(learning_rate=self.learning_rate, global_batch=self.global_batch,
                                              clip_norm=self.clip_norm, warmup_ratio=self.warmup_ratio,
                                              optimizer=self.optim))

    def pair_loss(self, pairs: Pairs) -> torch.Tensor:
        """The objective, one value a pair."""
        from torch.nn.functional import logsigmoid

        margin_B = ((pairs.policy_chosen_B - pairs.reference_chosen_B)
                    - (pairs.policy_rejected_B - pairs.reference_rejected_B))
        return -logsigmoid(self.beta * margin_B)
