"""Oracles of SFT (section 2 of the specification) and WMSS (section 8) that need the module, the trainer or a plan."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from baselines.batches import collate, ordered
from baselines.branches import BranchedModel, load_causal_lm
from baselines.interface import Select, Train
from baselines.scoring import example_entropies
from baselines.settings import JointTraining, TrainingSettings
from baselines.sft import SFT
from baselines.trainer import train
from baselines.wmss import WMSS

TRAINING = TrainingSettings(learning_rate=1e-3, global_batch=8, micro_batch=8)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def run(rows, tokenizer, tmp_path):
    """Train a model on 8 batches, or as told; return the log."""

    def _run(model, *, epochs=1, updates=None, training=TRAINING, joint=None, work="work"):
        chosen = ordered(rows, training, epochs=epochs, seed=5, updates=updates)
        return train(model, chosen, tokenizer, training, seed=5, work=tmp_path / work, joint=joint)

    return _run


# ------------------------------------------------------------------------------------------------------------ SFT


class Priced(SFT):
    """A loss that costs 4 at token 7 and nothing elsewhere."""

    def loss(self, batch, strong, other=None):
        return 4.0 * (batch.labels_N == 7).sum() + 0.0 * strong.hidden_ND.sum()


@pytest.mark.parametrize(("reduction", "expected"), [("token_mean", 1.0), ("example_mean", 2.0)])
@pytest.mark.parametrize("together", [True, False])
def test_token_mean_and_example_mean_by_hand(tiny_checkpoint, reduction, expected, together):
    """Oracle 2.2: one token of loss 4, three of loss 0; in one micro-batch or in two."""
    rows = [{"id": "a", "input_ids": [5, 6, 7], "labels": [-100, -100, 7]},
            {"id": "b", "input_ids": [5, 8, 9, 10], "labels": [-100, 8, 9, 10]}]
    model = BranchedModel(Priced(), load_causal_lm(tiny_checkpoint), reduction=reduction)
    items = 4 if reduction == "token_mean" else 2
    pieces = [rows] if together else [rows[:1], rows[1:]]
    assert sum(model(**collate(piece, 0), num_items_in_batch=items).item() for piece in pieces) == pytest.approx(
        expected)


def peaks(rates):
    """Positions where a rate is above both of its neighbours."""
    padded = [-1.0, *rates, -1.0]
    return [i for i, (a, b, c) in enumerate(zip(padded, padded[1:], padded[2:], strict=False)) if a < b > c]


def test_restart_shows_two_ramps_and_single_one(tiny_checkpoint, run):
    """Oracle 2.5, A-03: the second epoch of `restart` has an optimizer and a schedule of its own."""
    restart = BranchedModel(SFT(), load_causal_lm(tiny_checkpoint))
    rates = [run(restart, work=f"epoch-{epoch}").learning_rates for epoch in (1, 2)]
    single = run(BranchedModel(SFT(), load_causal_lm(tiny_checkpoint)), epochs=2, work="single").learning_rates
    assert len(single) == len(rates[0] + rates[1]) == 16
    assert rates[0] == rates[1] and peaks(rates[0] + rates[1]) == [1, 9] and peaks(single) == [2]
    assert rates[1][0] == 0.0 and max(rates[1]) == max(single) == TRAINING.learning_rate
    assert all(a > b for a, b in itertools.pairwise(single[2:]))


# ------------------------------------------------------------------------------------------------- entropy (Eq. 7)


class Switch(nn.Module):
    """Over 4 tokens: uniform where it reads an odd id, certain where it reads an even one."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 4, bias=False)
        nn.init.eye_(self.head.weight)
        self.base_model = self._hidden

    def _hidden(self, input_ids, attention_mask, use_cache):
        certain = 1000.0 * nn.functional.one_hot(torch.zeros_like(input_ids), 4)
        return SimpleNamespace(last_hidden_state=torch.where(input_ids.unsqueeze(-1) % 2 == 0, certain, 0.0))

    def get_output_embeddings(self):
        return self.head


def entropy(prompt, completion, beside=()):
    row = {"id": "a", "input_ids": [*prompt, *completion], "labels": [-100] * len(prompt) + list(completion)}
    return example_entropies(Switch(), [row, *beside], pad_id=0, batch_tokens=1000, compute_dtype="float32")[0]


def test_entropies_by_hand():
    """Oracle 8.1.3: nats a token; the position before a token is the one that predicts it."""
    assert entropy([1], [1, 3, 1]) == pytest.approx(1.386294, abs=1e-6)
    assert entropy([2], [1, 2, 3, 2]) == pytest.approx(0.693147, abs=1e-6)  # read: 2, 1, 2, 3
    assert entropy([2], [2, 2]) == pytest.approx(0.0, abs=1e-6)


def test_repeating_a_completion_lengthening_the_prompt_or_padding_moves_nothing():
    plain = entropy([2], [1, 2, 3, 2])
    assert entropy([2], [1, 2, 3, 2] * 5) == pytest.approx(plain)
    assert entropy([1, 3, 1, 1, 2], [1, 2, 3, 2]) == pytest.approx(plain)
    longer = {"id": "b", "input_ids": [1] * 50, "labels": [-100] * 10 + [1] * 40}
    assert entropy([2], [1, 2, 3, 2], beside=[longer]) == pytest.approx(plain)


# ------------------------------------------------------------------------------------------------- WD-JT, pipeline


@pytest.mark.parametrize(("weak_init", "weak_sides"), [("m_t_minus_1", ["M0", "M1", "M2"]),
                                                       ("cotrained_weak", ["M0", "weak-2", "weak-3"])])
def test_three_iterations_end_in_m4(weak_init, weak_sides):
    """Oracle 8.3.1, A-80; each draws anew from the full pool (A-81, A-82)."""
    method = WMSS(iterations=3, weak_init=weak_init)
    trainings = [phase for phase in method.phases() if isinstance(phase, Train)]
    assert [(t.weak, t.strong, t.out) for t in trainings] == list(
        zip(weak_sides, ["M1", "M2", "M3"], ["M2", "M3", "M4"], strict=True))
    draws = [phase for phase in method.phases() if isinstance(phase, Select)]
    assert method.result() == "M4" and [d.draw for d in draws] == [1, 2, 3]
    assert [t.data for t in trainings] == [d.out for d in draws]


def pair(strong, weak, *, freeze=False):
    joint = JointTraining(freeze_weak=freeze)
    return BranchedModel(WMSS(joint=joint), load_causal_lm(strong), load_causal_lm(weak), freeze_weak=freeze), joint


def test_the_frozen_variant_starts_at_the_same_loss_and_its_optimizer_holds_the_strong_branch_alone(
        tiny_checkpoint, weak_checkpoint, run):
    """Oracle 8.3.3."""
    first_losses = []
    for freeze in (False, True):
        model, joint = pair(tiny_checkpoint, weak_checkpoint, freeze=freeze)
        held, with_state = set(), set()

        def note(optimizer, *_, held=held, with_state=with_state):
            held |= {id(p) for group in optimizer.param_groups for p in group["params"]}
            with_state |= {id(p) for p in optimizer.state}

        hook = register_optimizer_step_post_hook(note)
        first_losses.append(run(model, updates=10, joint=joint, work=f"freeze-{freeze}").losses)
        hook.remove()
        strong, weak = ({id(p) for p in branch.parameters()} for branch in (model.strong, model.weak))
        assert held == with_state == (strong if freeze else strong | weak)
    assert first_losses[0][0] == first_losses[1][0] and first_losses[0][-1] != first_losses[1][-1]


def test_the_export_gives_the_strong_branchs_logits_not_the_mixture(tiny_checkpoint, weak_checkpoint, run, rows,
                                                                    tmp_path):
    """Oracle 8.3.4."""
    model, joint = pair(tiny_checkpoint, weak_checkpoint)
    run(model, updates=3, joint=joint)
    model.strong.save_pretrained(tmp_path / "export")
    ids = torch.tensor([rows[0]["input_ids"]])
    with torch.no_grad():
        exported, strong, weak = (m.eval()(ids).logits for m in (load_causal_lm(tmp_path / "export"), model.strong,
                                                                 model.weak))
    assert torch.equal(exported, strong)
    assert not torch.allclose(exported, 0.5 * strong + 0.5 * weak, atol=1e-2)
