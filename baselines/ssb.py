"""SSB: semantic soft bootstrapping, a hinted teacher taught to its unhinted self (Mitra, Ulukus 2025; App. E.6).

    L    = 0.5 * L_KD + 0.5 * L_CE
    L_CE = - (1 / N_B) * sum_t log P_theta(r_t | u, r_<t)
    L_KD = T^2 * (1 / N_B) * sum_t KL(q_t || P^(T)_theta,t),     q_t = softmax of the teacher's top-20 logits / T

r is the teacher's reply to the problem shown with one right and one wrong rollout, kept if its answer is right;
the student sees the problem alone. P^(T) is over the full vocabulary (A-45). Only LoRA adapters are trained; the
exported checkpoint has them merged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from baselines.interface import (
    BASE,
    WARMUP,
    Batch,
    Branch,
    Distil,
    Hint,
    Method,
    Phase,
    Sample,
    StoredLogits,
    Subset,
    Train,
    setting,
)
from baselines.settings import Departures, LoRA

if TYPE_CHECKING:
    import torch

# C tokens of a chunk, V vocabulary, K stored logits a token


@dataclass(frozen=True, kw_only=True)
class SSB(Method):
    """Distillation of one's own hinted replies."""

    title = "SSB"
    objective = "0.5 KD (top-20 logits of the hinted teacher, T = 1.5) + 0.5 cross-entropy on its right replies, LoRA"

    rollouts: int = setting(4, place="App. E.6", paper="ssb.num_rollouts")
    rollout_temperature: float = setting(0.8, place="App. E.6", paper="ssb.rollout_temperature")
    rollout_top_k: int = setting(50, place="App. E.6", paper="ssb.rollout_top_k")
    teacher_temperature: float = setting(0.4, place="App. E.6", paper="ssb.teacher_temperature")
    teacher_top_k: int = setting(50, ambiguity="A-50")
    teacher_context: int = setting(16_384, place="App. E.6", paper="ssb.teacher_max_model_len", ambiguity="A-51",
                                   scales_with="length")
    stored_logits: int = setting(20, place="App. E.6", paper="ssb.stored_logits")
    kd_temperature: float = setting(1.5, place="App. E.6", paper="ssb.kd_temperature")
    kd_share: float = setting(0.5, place="App. E.6", paper="ssb.loss_mixture")
    topk_norm: Literal["teacher_renorm", "both_renorm", "tail_bucket"] = setting("teacher_renorm", ambiguity="A-45")
    t2: bool = setting(True, ambiguity="A-46")
    incorrect: Literal["majority_wrong", "first"] = setting("majority_wrong", ambiguity="A-47")
    student_prompt: Literal["chat_template", "concat"] = setting("chat_template", ambiguity="A-48")
    terminator: Literal["append", "none"] = setting("append", ambiguity="A-49")
    lora_rank: int = setting(32, place="App. E.6", paper="ssb.lora_rank")
    lora_alpha: int = setting(32, place="App. E.6", paper="ssb.lora_alpha")
    learning_rate: float = setting(1e-4, place="App. E.6", paper="ssb.learning_rate", scales_with="learning_rate")
    global_batch: int = setting(256, place="App. E.6", paper="ssb.global_batch", scales_with="global_batch")
    subset: int = setting(20_000, place="App. E.6", paper="ssb.math_examples", scales_with="pool")
    init: Literal["base", "sft_epoch1"] = setting("base", place="App. E.6", silent_base="sft_epoch1")
    """The base, for two epochs; or M1 and one, for backbones whose base writes no coherent rollouts."""

    def loss_settings(self) -> dict[str, Any]:
        """The mixture and its temperature."""
        return {"kd_temperature": self.kd_temperature, "kd_share": self.kd_share, "topk_norm": self.topk_norm,
                "t2": self.t2}

    def phases(self) -> Iterator[Phase]:
        """Rollouts, hints, the teacher's replies, their logits, and the student's training."""
        start, epochs = (BASE, 2) if self.init == "base" else (WARMUP, 1)
        yield Subset(size=self.subset)
        yield Sample(of=start, out="rollouts", prompts="subset", n=self.rollouts,
                     temperature=self.rollout_temperature, top_k=self.rollout_top_k)
        yield Hint(rollouts="rollouts", out="hints", incorrect=self.incorrect)
        yield Sample(of=start, out="replies", prompts="hints", n=1, temperature=self.teacher_temperature,
                     top_k=self.teacher_top_k, max_tokens=self.teacher_context)
        yield Distil(of=start, replies="replies", out="targets", top_k=self.stored_logits,
                     temperature=self.kd_temperature, prompt=self.student_prompt, terminator=self.terminator)
        yield Train(strong=start, data="targets", out="M2", epochs=epochs,
                    lora=LoRA(rank=self.lora_rank, alpha=self.lora_alpha),
                    departures=Departures(learning_rate=self.learning_rate, global_batch=self.global_batch))

    def loss(self, batch: Batch, strong: Branch, other: Branch | None = None) -> torch.Tensor:
        """The mixture, summed over tokens; tokens without stored logits have cross-entropy only."""
        from torch.nn.functional import cross_entropy

        from baselines.chunked import chunked_loss

        assert batch.teacher is not None, "SSB trains on stored logits"
        teacher = batch.teacher
        factor = self.kd_temperature**2 if self.t2 else 1.0

        def chunk(logits_CV: torch.Tensor, rows: slice) -> torch.Tensor:
            ce = cross_entropy(logits_CV, batch.labels_N[rows], reduction="sum")
            stored = StoredLogits(*(column[rows] for column in teacher))
            kd_C = distillation(logits_CV, stored, self.kd_temperature, self.topk_norm)
            return (1 - self.kd_share) * ce + self.kd_share * factor * kd_C.sum()

        return chunked_loss(strong, chunk)


def distillation(student_CV: torch.Tensor, teacher: StoredLogits, temperature: float,
                 topk_norm: str = "teacher_renorm") -> torch.Tensor:
    """Return KL(q || P^(T)) of each token, shape (C,), without the factor T^2; 0 where nothing is stored (A-45)."""
    import torch

    teacher_CK = (teacher.logits_NK.to(student_CV.dtype) / temperature).log_softmax(dim=-1)
    softened_CV = (student_CV / temperature).log_softmax(dim=-1)
    student_CK = softened_CV.gather(1, teacher.ids_NK)
    if topk_norm == "both_renorm":
        student_CK = student_CK.log_softmax(dim=-1)
    elif topk_norm == "tail_bucket" and teacher.ids_NK.shape[1] < student_CV.shape[1]:
        tail_C1 = teacher.tail_N.to(student_CV.dtype).unsqueeze(1)
        teacher_CK = torch.cat([teacher_CK + torch.log1p(-tail_C1.exp()), tail_C1], dim=1)
        # from the logits themselves: 1 - (mass of the stored ones) is only rounding where a student is sure
        rest_C1 = softened_CV.scatter(1, teacher.ids_NK, float("-inf")).logsumexp(dim=1, keepdim=True)
        student_CK = torch.cat([student_CK, rest_C1], dim=1)
    kl_C = (teacher_CK.exp() * (teacher_CK - student_CK)).sum(dim=-1)
    return torch.where(teacher.stored_N, kl_C, torch.zeros_like(kl_C))
