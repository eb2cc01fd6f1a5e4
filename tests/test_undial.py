"""UNDIAL's three readings against hand-worked values (A-25 to A-29)."""

from __future__ import annotations

import math

import pytest
import torch

from baselines.batches import collate, ordered
from baselines.branches import BranchedModel, load_causal_lm
from baselines.interface import Batch, Branch
from baselines.settings import TrainingSettings
from baselines.sft import SFT
from baselines.trainer import train
from baselines.undial import UNDIAL, lowered_teacher

FULL, TARGET, ORIGINAL = (UNDIAL(variant=v) for v in ("logit_noise_full", "logit_noise_target", "original"))


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def batch(rows):
    return collate([row | {"row": i} for i, row in enumerate(rows[:4])], pad_id=0)


def branch(logits_NV):
    """A branch with exactly these logits: the head is the identity."""
    hidden_ND = torch.tensor(logits_NV, dtype=torch.float64, requires_grad=True)
    return Branch(hidden_ND, torch.eye(hidden_ND.shape[1], dtype=torch.float64))


def tokens(labels, length, seeds=(1,), counts=None):
    example_N = torch.repeat_interleave(torch.arange(len(seeds)), torch.tensor(counts or [len(labels)]))
    return Batch(torch.tensor(labels), example_N, torch.tensor([length] * len(seeds)), list(seeds))


def loss_and_gradient(method, strong, batch, reference=None):
    loss = method.loss(batch, strong, reference)
    (gradient_ND,) = torch.autograd.grad(loss, strong.hidden_ND)
    return loss.item(), gradient_ND


# --------------------------------------------------------------------------------------------------- noise on logits


@pytest.mark.parametrize("variant", ["logit_noise_full", "logit_noise_target"])
@pytest.mark.parametrize("how", ["sigma is 0", "evaluation"])
def test_without_noise_it_is_sft_exactly(variant, how):
    """Oracle 4.1."""
    logits = torch.randn(9, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    given = tokens([0, 1, 2, 3, 4, 3, 2, 1, 0], length=20)
    method = UNDIAL(variant=variant, sigma=0.0 if how == "sigma is 0" else 1.0)
    if how == "evaluation":
        given = given._replace(seeds_B=None)
    loss, gradient = loss_and_gradient(method, branch(logits), given)
    expected, expected_gradient = loss_and_gradient(SFT(), branch(logits), given)
    assert loss == pytest.approx(expected, rel=1e-12)
    assert torch.allclose(gradient, expected_gradient, rtol=1e-10, atol=1e-12)


def test_target_noise_by_hand(monkeypatch):
    """Oracle 4.2: eps = +1, L = 4, sigma = 1, z = (2, 0, -1), y = 0 gives z' = (1.5, 0, -1)."""
    monkeypatch.setattr("baselines.noise.token_normals",
                        lambda batch, rows, width, like: torch.ones(rows.stop - rows.start, width, dtype=like.dtype))
    loss, gradient = loss_and_gradient(TARGET, branch([[2.0, 0.0, -1.0]]), tokens([0], length=4))
    p = torch.tensor([1.5, 0.0, -1.0], dtype=torch.float64).softmax(-1)
    assert loss == pytest.approx(0.266368, abs=1e-6)
    assert torch.allclose(gradient[0], p - torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64), atol=1e-12)
    assert loss_and_gradient(SFT(), branch([[2.0, 0.0, -1.0]]), tokens([0], length=4))[0] == pytest.approx(
        0.169846, abs=1e-6)


@pytest.mark.parametrize("sign", ["signed", "abs"])
def test_target_noise_moves_the_target_alone_and_abs_only_lowers_it(sign):
    method = UNDIAL(variant="logit_noise_target", sign=sign)
    labels = [t % 7 for t in range(500)]
    given = tokens(labels, length=100)
    moved = method._perturbed(torch.zeros(500, 7), slice(0, 500), given)
    target = moved.gather(1, given.labels_N.unsqueeze(1))
    assert torch.count_nonzero(moved) == torch.count_nonzero(target) == 500
    assert (target < 0).all() if sign == "abs" else 200 < (target < 0).sum() < 300
    assert target.square().mean().sqrt().item() == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize(("sigma", "length"), [(1.0, 50), (1.0, 100), (0.5, 100)])
def test_full_noise_has_spread_sigma_over_root_length(sigma, length):
    """Oracle 4.3: over 10^5 entries, within 1 %; doubling L divides it by sqrt 2."""
    noise = UNDIAL(sigma=sigma)._perturbed(torch.zeros(1, 100_000), slice(0, 1), tokens([0], length=length))
    assert noise.std().item() == pytest.approx(sigma / math.sqrt(length), rel=0.01)
    assert abs(noise.mean().item()) < 3 * sigma / math.sqrt(length * 100_000)


def test_each_example_has_its_own_length_and_completion_counts_supervised_tokens():
    """A-26."""
    given = Batch(torch.zeros(40, dtype=torch.long), torch.tensor([0] * 10 + [1] * 30), torch.tensor([25, 400]), [1, 2])
    for how, lengths in (("sequence", (25, 400)), ("completion", (10, 30))):
        noise = UNDIAL(length=how)._perturbed(torch.zeros(40, 5_000), slice(0, 40), given)
        found = noise[:10].std().item(), noise[10:].std().item()
        assert found == pytest.approx([1 / math.sqrt(n) for n in lengths], rel=0.02)


def test_noise_enters_the_gradient_as_p_of_the_perturbed_logits():
    given = tokens([2, 0], length=1)
    strong = branch([[0.3, -1.0, 0.5], [2.0, 0.0, 1.0]])
    perturbed = FULL._perturbed(strong.hidden_ND.detach(), slice(0, 2), given)
    loss, gradient = loss_and_gradient(FULL, strong, given)
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(perturbed, given.labels_N, reduction="sum").item())
    expected = perturbed.softmax(-1) - torch.nn.functional.one_hot(given.labels_N, 3)
    assert (perturbed - strong.hidden_ND.detach()).abs().max() > 0.1 and torch.allclose(gradient, expected, atol=1e-6)


# --------------------------------------------------------------------------------------------------------- original


def test_lowered_teacher_by_hand():
    """Oracle 4.4: z = z_ref = (2, 1, 0), y = 0, beta = 1."""
    q = lowered_teacher(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0]), beta=1.0)[0]
    assert q.tolist() == pytest.approx([0.422319, 0.422319, 0.155362], abs=1e-6)
    same = branch([[2.0, 1.0, 0.0]])
    loss, gradient = loss_and_gradient(ORIGINAL, same, tokens([0], length=4), same)
    assert loss == pytest.approx(1.140650, abs=1e-6)
    p = torch.tensor([2.0, 1.0, 0.0]).softmax(-1)
    assert gradient[0].tolist() == pytest.approx((p - q).tolist(), abs=1e-6)


def test_the_minimum_over_students_is_the_teachers_entropy():
    reference = branch([[2.0, 1.0, 0.0]])
    q = lowered_teacher(reference.hidden_ND.detach(), torch.tensor([0]), beta=1.0)
    best, gradient = loss_and_gradient(ORIGINAL, branch(q.log().tolist()), tokens([0], length=4), reference)
    assert best == pytest.approx(1.017357, abs=1e-6) and gradient.abs().max() < 1e-6


def test_without_lowering_the_reference_is_its_own_minimum():
    same = branch([[2.0, 1.0, 0.0], [0.0, 3.0, -1.0]])
    loss, gradient = loss_and_gradient(UNDIAL(variant="original", beta=0.0), same, tokens([0, 1], length=4), same)
    p = same.hidden_ND.detach().softmax(-1)
    assert loss == pytest.approx(-(p * p.log()).sum().item(), rel=1e-6) and gradient.abs().max() < 1e-6


def test_the_penalty_falls_on_the_target_of_each_token():
    """A-28: never on token V - 100, and on no other token's row."""
    reference = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([5, 0, 0, 3])
    difference = lowered_teacher(reference, labels, 3.0).log() - reference.log_softmax(-1)
    relative = difference - difference.max(dim=1, keepdim=True).values
    assert torch.allclose(relative, -3.0 * torch.nn.functional.one_hot(labels, 6), atol=1e-5)


def test_the_reference_is_the_start_of_the_phase_or_the_base():
    def references(**options):
        return [(p.strong, p.reference, p.epochs) for p in UNDIAL(**options).phases()]

    assert references() == [("M1", None, 1)]
    assert references(variant="original") == [("M1", "M1", 1)]
    assert references(variant="original", teacher="base") == [("M1", "M0", 1)]
    assert references(variant="original", init="base") == [("M0", "M0", 2)]


# ---------------------------------------------------------------------------------------------------------- model


def test_no_gradient_reaches_the_reference_and_training_leaves_it_bit_identical(tiny_checkpoint, weak_checkpoint, rows,
                                                                             batch, tokenizer, tmp_path):
    """Oracle 4.5."""
    model = BranchedModel(ORIGINAL, load_causal_lm(tiny_checkpoint), reference=load_causal_lm(weak_checkpoint)).train()
    assert not model.reference.training
    model(**batch).backward()
    assert all(p.grad is None and not p.requires_grad for p in model.reference.parameters())
    training = TrainingSettings(learning_rate=1e-3, global_batch=8, weight_decay=0.1, micro_batch=8)
    train(model, ordered(rows, training, epochs=1, seed=1, updates=2), tokenizer, training, seed=1, work=tmp_path)
    before = dict(load_causal_lm(weak_checkpoint).named_parameters())
    assert all(torch.equal(p, before[name]) for name, p in model.reference.named_parameters())
    start = dict(load_causal_lm(tiny_checkpoint).named_parameters())
    assert any(not torch.equal(p, start[name]) for name, p in model.strong.named_parameters())


@pytest.mark.parametrize("method", [FULL, TARGET], ids=["full", "target"])
def test_on_a_model_evaluation_is_noise_free_and_each_visit_has_new_noise(method, tiny_checkpoint, batch):
    strong = load_causal_lm(tiny_checkpoint)
    model, plain = BranchedModel(method, strong), BranchedModel(SFT(), strong)
    assert model.eval()(**batch).item() == pytest.approx(plain.eval()(**batch).item(), rel=1e-6)
    model.train()
    visits = [model(**batch | {"row": batch["row"] + 64 * epoch}).item() for epoch in range(3)]
    assert len(set(visits)) == 3 and model(**batch).item() == visits[0]
    assert visits == pytest.approx([plain(**batch).item()] * 3, rel=0.05)  # noise of 1 / sqrt(L) is small


@pytest.mark.parametrize("method", [FULL, TARGET, ORIGINAL], ids=["full", "target", "original"])
def test_gradients_do_not_depend_on_the_micro_batch(method, tiny_checkpoint, weak_checkpoint, rows):
    """In the gradient, since AdamW hides a wrong scale."""
    reference = load_causal_lm(weak_checkpoint) if method is ORIGINAL else None
    model = BranchedModel(method, load_causal_lm(tiny_checkpoint), reference=reference).train()
    numbered = [row | {"row": i} for i, row in enumerate(rows[:4])]
    items = sum(label != -100 for row in numbered for label in row["labels"])
    model(**collate(numbered, 0), num_items_in_batch=items).backward()
    whole = {name: p.grad.clone() for name, p in model.strong.named_parameters()}
    model.zero_grad()
    for row in numbered:
        model(**collate([row], 0), num_items_in_batch=items).backward()
    assert all(torch.allclose(p.grad, whole[name], atol=1e-6) for name, p in model.strong.named_parameters())
