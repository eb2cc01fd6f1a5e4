"""The mixed-logit loss, the plain loss, the entropy: oracles of the specification (2, 8), and plain expressions.

With an identity matrix as head, hidden states are logits: that is how hand-worked logits enter here.
"""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from baselines.mixed_cross_entropy import cross_entropy, mixed_cross_entropy, token_entropy
from foundation.errors import InputError

LAMBDAS = (0.0, 0.2, 0.5, 0.8, 1.0)


def logit_loss(strong_TV, weak_TV, labels_T, mix_weight):
    """Return the mixed loss as a function of logits."""
    head = torch.eye(strong_TV.shape[1], dtype=strong_TV.dtype)
    return mixed_cross_entropy(strong_TV, weak_TV, head, head, labels_T, mix_weight)


def logit_gradients(strong_TV, weak_TV, labels_T, mix_weight):
    strong_TV, weak_TV = strong_TV.clone().requires_grad_(), weak_TV.clone().requires_grad_()
    return torch.autograd.grad(logit_loss(strong_TV, weak_TV, labels_T, mix_weight), (strong_TV, weak_TV))


def problem(tokens=33, vocabulary=41, sizes=(7, 5), dtype=torch.float32, seed=0, requires_grad=True, scale=1.0):
    """Return (strong hidden, weak hidden, strong head, weak head) and labels with every third position masked."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        drawn = torch.randn(*shape, generator=generator, dtype=torch.float64) * scale
        return drawn.to(dtype).requires_grad_(requires_grad)

    tensors = [normal(tokens, sizes[0]), normal(tokens, sizes[1]),
               normal(vocabulary, sizes[0]), normal(vocabulary, sizes[1])]
    labels_T = torch.randint(vocabulary, (tokens,), generator=generator)
    labels_T[1::3] = -100
    return tensors, labels_T


def plain(tensors, labels_T, mix_weight, reduction="sum"):
    strong_hidden, weak_hidden, strong_head, weak_head = tensors
    mixed = mix_weight * strong_hidden @ strong_head.T + (1 - mix_weight) * weak_hidden @ weak_head.T
    return F.cross_entropy(mixed, labels_T, reduction=reduction, ignore_index=-100)


def relative_error(measured, expected):
    return float((measured - expected).norm() / expected.norm())


# --- oracles of the specification, 8.2: WD-JT


@pytest.mark.parametrize(("mix_weight", "expected"), [(0.5, 0.604131), (1.0, 0.169846), (0.0, 1.551445)])
def test_loss_by_hand(mix_weight, expected):
    strong, weak = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    assert float(logit_loss(strong, weak, torch.tensor([0]), mix_weight)) == pytest.approx(expected, abs=1e-6)


def test_residual_by_hand():
    strong, weak = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    for gradient in logit_gradients(strong, weak, torch.tensor([0]), 0.5):
        assert (2 * gradient[0]).tolist() == pytest.approx([-0.453451, 0.331499, 0.121952], abs=1e-6)


@pytest.mark.parametrize("weak_is_active", [False, True])
def test_lambda_one_and_zero_are_plain_cross_entropy_of_one_side(weak_is_active):
    tensors, labels_T = problem()
    loss = mixed_cross_entropy(*tensors, labels_T, 0.0 if weak_is_active else 1.0)
    gradients = torch.autograd.grad(loss, tensors)
    active, silent = ((1, 3), (0, 2)) if weak_is_active else ((0, 2), (1, 3))
    alone = cross_entropy(tensors[active[0]], tensors[active[1]], labels_T)
    expected = torch.autograd.grad(alone, [tensors[index] for index in active])
    assert torch.equal(loss, alone)
    for index, gradient in zip(active, expected, strict=True):
        assert torch.equal(gradients[index], gradient)
    for index in silent:
        assert torch.count_nonzero(gradients[index]) == 0
        assert gradients[index].shape == tensors[index].shape


def test_silent_side_is_not_even_read():
    tensors, labels_T = problem()
    broken = [tensors[0], torch.full_like(tensors[1], math.nan), tensors[2], tensors[3]]
    assert torch.equal(mixed_cross_entropy(*broken, labels_T, 1.0), mixed_cross_entropy(*tensors, labels_T, 1.0))


def test_lambda_one_leaves_the_weak_side_bit_identical_after_adamw():
    tensors, labels_T = problem()
    before = [tensor.detach().clone() for tensor in tensors]
    optimizer = torch.optim.AdamW(tensors, lr=0.1, weight_decay=0.0)
    mixed_cross_entropy(*tensors, labels_T, 1.0).backward()
    optimizer.step()
    assert torch.equal(tensors[1], before[1])
    assert torch.equal(tensors[3], before[3])
    assert not torch.equal(tensors[2], before[2])


@pytest.mark.parametrize("mix_weight", [0.2, 0.5, 0.8])
def test_logit_gradients_have_the_ratio_of_the_weights_and_sum_to_zero(mix_weight):
    strong, weak = torch.randn(2, 6, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    strong_gradient, weak_gradient = logit_gradients(strong, weak, torch.arange(6), mix_weight)
    ratio = (1 - mix_weight) / mix_weight
    assert torch.allclose(weak_gradient, ratio * strong_gradient, rtol=1e-12)
    assert torch.allclose(strong_gradient.sum(1), torch.zeros(6, dtype=torch.float64), atol=1e-14)


@pytest.mark.parametrize("mix_weight", LAMBDAS)
def test_identical_sides_give_the_plain_loss_and_shares_of_its_gradient(mix_weight):
    (hidden, _, head, _), labels_T = problem(dtype=torch.float64)
    sides = [tensor.detach().clone().requires_grad_() for tensor in (hidden, hidden, head, head)]
    loss = mixed_cross_entropy(*sides, labels_T, mix_weight)
    alone = cross_entropy(hidden, head, labels_T)
    expected = torch.autograd.grad(alone, (hidden, head))
    assert loss.item() == pytest.approx(alone.item(), rel=1e-12)
    gradients = torch.autograd.grad(loss, sides)
    for index, gradient in enumerate(gradients):
        share = (mix_weight, 1 - mix_weight)[index % 2]
        assert torch.allclose(gradient, share * expected[index // 2], rtol=1e-10, atol=1e-12)


def test_margins_mix_and_smaller_weak_margins_lower_the_target_probability():
    """Theorem 1, on its example and on random logits made to satisfy its condition."""
    example = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[1.0, 0.5, -0.5]])
    generator = torch.Generator().manual_seed(2)
    strong = torch.randn(200, 9, generator=generator)
    weak = strong + torch.rand(200, 9, generator=generator) * 3
    weak[:, 0] = strong[:, 0]  # margins m_k = z_0 - z_k of the weak side are then smaller for every k
    for strong_TV, weak_TV in (example, (strong, weak)):
        for mix_weight in (0.2, 0.5, 0.8):
            for strong_V, weak_V in zip(strong_TV[:, None], weak_TV[:, None], strict=True):
                label = torch.tensor([0])
                mixed = mix_weight * strong_V + (1 - mix_weight) * weak_V
                margins = [logits[0, 0] - logits[0, 1:] for logits in (strong_V, weak_V, mixed)]
                assert torch.allclose(margins[2], mix_weight * margins[0] + (1 - mix_weight) * margins[1], atol=1e-5)
                # -log P_mix(y) >= -log P_strong(y)
                assert logit_loss(strong_V, weak_V, label, mix_weight) >= logit_loss(strong_V, weak_V, label, 1.0)


@pytest.mark.parametrize("mix_weight", [0.3, 0.5])
def test_cross_hessian_of_the_two_sides(mix_weight):
    """d2L/dz_s dz_w = lambda (1 - lambda) (diag P - P P^T), by central differences of the strong gradient."""
    strong, weak = torch.randn(2, 1, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    probabilities = torch.softmax(mix_weight * strong + (1 - mix_weight) * weak, dim=1)[0]
    expected = mix_weight * (1 - mix_weight) * (probabilities.diag() - probabilities.outer(probabilities))
    columns = []
    for step in 1e-5 * torch.eye(5, dtype=torch.float64):
        up, down = (logit_gradients(strong, weak + sign * step, torch.tensor([2]), mix_weight)[0][0]
                    for sign in (1, -1))
        columns.append((up - down) / 2e-5)
    assert torch.allclose(torch.stack(columns, dim=1), expected, atol=1e-9)


def test_adding_a_constant_to_one_sides_logits_changes_nothing():
    strong, weak = torch.randn(2, 6, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    labels_T = torch.arange(6)
    shifted = weak + torch.arange(6)[:, None] * 7.5
    assert float(logit_loss(strong, shifted, labels_T, 0.4)) == pytest.approx(
        float(logit_loss(strong, weak, labels_T, 0.4)), rel=1e-12)
    for moved, kept in zip(logit_gradients(strong, shifted, labels_T, 0.4),
                           logit_gradients(strong, weak, labels_T, 0.4), strict=True):
        assert torch.allclose(moved, kept, atol=1e-13)


def test_frozen_weak_side_has_the_same_loss_and_strong_gradient_and_gets_none():
    tensors, labels_T = problem()
    expected = torch.autograd.grad(mixed_cross_entropy(*tensors, labels_T, 0.5), (tensors[0], tensors[2]))
    frozen = [tensors[0], tensors[1].detach(), tensors[2], tensors[3].detach()]
    loss = mixed_cross_entropy(*frozen, labels_T, 0.5)
    assert torch.equal(loss, mixed_cross_entropy(*tensors, labels_T, 0.5))
    for gradient, wanted in zip(torch.autograd.grad(loss, (tensors[0], tensors[2])), expected, strict=True):
        assert torch.equal(gradient, wanted)
    assert frozen[1].grad is None and frozen[3].grad is None


# --- oracles of the specification, 2: SFT, at the level of the loss


@pytest.mark.parametrize("tokens", [1, 3, 17])
def test_zero_logits_over_four_tokens_cost_log_four(tokens):
    loss = cross_entropy(torch.zeros(tokens, 4), torch.eye(4), torch.arange(tokens) % 4, reduction="mean")
    assert loss.item() == pytest.approx(1.386294, abs=1e-6)


def test_token_mean_weighs_tokens_not_examples():
    """Per-token losses 4 in one example and 0, 0, 0 in the other: token mean 1.0, example mean 2.0."""
    hard = [0.0, math.log(math.exp(4.0) - 1.0)]  # -log softmax at 0 is 4
    logits_TV = torch.tensor([hard, [50.0, 0.0], [50.0, 0.0], [50.0, 0.0]])
    labels_T = torch.zeros(4, dtype=torch.long)
    head = torch.eye(2)
    assert float(cross_entropy(logits_TV, head, labels_T, reduction="mean")) == pytest.approx(1.0, abs=1e-6)
    examples = [cross_entropy(logits_TV[:1], head, labels_T[:1], reduction="mean"),
                cross_entropy(logits_TV[1:], head, labels_T[1:], reduction="mean")]
    assert float(sum(examples) / 2) == pytest.approx(2.0, abs=1e-6)


def test_padding_changes_neither_loss_nor_gradient():
    (hidden, _, head, _), labels_T = problem(dtype=torch.float64)
    padded_hidden = torch.cat([hidden.detach(), torch.randn(9, 7, dtype=torch.float64)]).requires_grad_()
    padded_labels = torch.cat([labels_T, torch.full((9,), -100)])
    loss = cross_entropy(hidden, head, labels_T)
    padded = cross_entropy(padded_hidden, head, padded_labels)
    assert torch.equal(loss, padded)
    expected = torch.autograd.grad(loss, (hidden, head))
    gradients = torch.autograd.grad(padded, (padded_hidden, head))
    assert torch.equal(gradients[0][:33], expected[0])
    assert torch.count_nonzero(gradients[0][33:]) == 0
    assert torch.equal(gradients[1], expected[1])


@pytest.mark.parametrize("pieces", [1, 2, 4, 8])
def test_accumulation_over_micro_batches_equals_the_whole_batch(pieces):
    tensors, labels_T = problem(tokens=40)
    supervised = int((labels_T != -100).sum())
    expected = torch.autograd.grad(mixed_cross_entropy(*tensors, labels_T, 0.5, reduction="mean"), tensors)
    bounds = [0, *sorted({3 + 5 * piece for piece in range(pieces - 1)}), 40]  # unequal numbers of tokens
    for start, stop in pairwise(bounds):
        part = slice(start, stop)
        loss = mixed_cross_entropy(tensors[0][part], tensors[1][part], *tensors[2:], labels_T[part], 0.5)
        (loss / supervised).backward()
    for tensor, gradient in zip(tensors, expected, strict=True):
        assert relative_error(tensor.grad, gradient) < 1e-5


def test_gradient_is_the_residual_over_the_token_count_and_zero_elsewhere():
    logits_TV = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).requires_grad_()
    labels_T = torch.tensor([-100, 2, -100, 0, 5])
    loss = cross_entropy(logits_TV, torch.eye(6, dtype=torch.float64), labels_T, reduction="mean")
    (gradient,) = torch.autograd.grad(loss, logits_TV)
    supervised = labels_T != -100
    residual = (torch.softmax(logits_TV.detach(), 1) - F.one_hot(labels_T.clamp(min=0), 6))[supervised]
    assert torch.allclose(gradient[supervised], residual / 3, atol=1e-15)
    assert torch.allclose(gradient.sum(1), torch.zeros(5, dtype=torch.float64), atol=1e-15)
    assert torch.count_nonzero(gradient[~supervised]) == 0


# --- against the plain expression


@pytest.mark.parametrize("mix_weight", LAMBDAS)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_gradcheck_in_float64(mix_weight, reduction):
    tensors, labels_T = problem(tokens=5, vocabulary=6, sizes=(3, 2), dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda *inputs: mixed_cross_entropy(*inputs, labels_T, mix_weight, reduction=reduction, chunk_tokens=2),
        tensors)
    assert torch.autograd.gradcheck(
        lambda hidden, head: cross_entropy(hidden, head, labels_T, reduction=reduction), (tensors[0], tensors[2]))


@pytest.mark.parametrize("mix_weight", LAMBDAS)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_float32_equals_the_plain_expression(mix_weight, reduction):
    tensors, labels_T = problem(tokens=300, vocabulary=1009, sizes=(32, 24), scale=0.7)
    loss = mixed_cross_entropy(*tensors, labels_T, mix_weight, reduction=reduction, chunk_tokens=64)
    expected = plain(tensors, labels_T, mix_weight, reduction)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    gradients = torch.autograd.grad(loss, tensors)
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected, tensors), strict=True):
        assert gradient.dtype == torch.float32
        if torch.count_nonzero(wanted):
            assert relative_error(gradient, wanted) < 1e-5
        else:
            assert torch.count_nonzero(gradient) == 0


def test_extreme_logits_stay_finite():
    logits_TV = torch.tensor([[3e4, 0.0, -3e4], [-3e4, 0.0, 3e4]]).requires_grad_()
    loss = logit_loss(logits_TV, logits_TV.detach(), torch.tensor([0, 0]), 0.5)
    assert loss.item() == pytest.approx(6e4)
    (gradient,) = torch.autograd.grad(loss, logits_TV)
    assert gradient.tolist() == [[0.0, 0.0, 0.0], [-0.5, 0.0, 0.5]]


@pytest.mark.parametrize("chunk_tokens", [1, 2, 7, 22, 23, 10_000])
def test_chunk_size_does_not_matter(chunk_tokens):
    tensors, labels_T = problem()
    reference = mixed_cross_entropy(*tensors, labels_T, 0.3)
    loss = mixed_cross_entropy(*tensors, labels_T, 0.3, chunk_tokens=chunk_tokens)
    assert loss.item() == pytest.approx(reference.item(), rel=1e-6)
    expected = torch.autograd.grad(reference, tensors)
    for gradient, wanted in zip(torch.autograd.grad(loss, tensors), expected, strict=True):
        assert relative_error(gradient, wanted) < 1e-5


@pytest.mark.parametrize("cast_bytes", [32 * 2**20, 4 * 7 * 10])
def test_bfloat16_inputs_keep_float32_arithmetic(monkeypatch, cast_bytes):
    """The error is that of rounding the results, also when the head is converted in slices."""
    monkeypatch.setattr("baselines.mixed_cross_entropy._CAST_BYTES", cast_bytes)
    tensors, labels_T = problem(dtype=torch.bfloat16)
    exact = [tensor.detach().float().requires_grad_() for tensor in tensors]
    loss = mixed_cross_entropy(*tensors, labels_T, 0.5, chunk_tokens=6)
    expected = mixed_cross_entropy(*exact, labels_T, 0.5)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    gradients = torch.autograd.grad(loss, tensors)
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected, exact), strict=True):
        assert gradient.dtype == torch.bfloat16
        assert torch.allclose(gradient.float(), wanted, rtol=2**-8, atol=1e-6)


def test_sides_may_differ_in_dtype():
    tensors, labels_T = problem()
    mixed = [tensors[0].detach().bfloat16().requires_grad_(), tensors[1], tensors[2], tensors[3]]
    loss = mixed_cross_entropy(*mixed, labels_T, 0.5)
    gradients = torch.autograd.grad(loss, mixed)
    assert [gradient.dtype for gradient in gradients] == [tensor.dtype for tensor in mixed]


def test_autocast_changes_nothing():
    tensors, labels_T = problem()
    expected = mixed_cross_entropy(*tensors, labels_T, 0.5)
    expected_gradients = torch.autograd.grad(expected, tensors)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = mixed_cross_entropy(*tensors, labels_T, 0.5)
        gradients = torch.autograd.grad(loss, tensors)
        entropy = token_entropy(tensors[0], tensors[2])
    assert torch.equal(loss, expected)
    assert all(torch.equal(left, right) for left, right in zip(gradients, expected_gradients, strict=True))
    assert torch.equal(entropy, token_entropy(tensors[0], tensors[2]))


def test_no_grad_computes_the_loss_alone(monkeypatch):
    tensors, labels_T = problem()
    expected = mixed_cross_entropy(*tensors, labels_T, 0.5).detach()
    monkeypatch.setattr("baselines.mixed_cross_entropy._Side.add_gradients", None)  # must not be called
    with torch.no_grad():
        loss = mixed_cross_entropy(*tensors, labels_T, 0.5)
    assert not loss.requires_grad
    assert torch.equal(loss, expected)
    detached = [tensor.detach() for tensor in tensors]
    assert torch.equal(mixed_cross_entropy(*detached, labels_T, 0.5), expected)


@pytest.mark.parametrize("mix_weight", [0.5, 1.0])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("tokens", [0, 4])
def test_without_supervised_tokens_the_zero_still_touches_the_inputs(mix_weight, reduction, tokens):
    tensors, _ = problem(tokens=tokens)
    loss = mixed_cross_entropy(*tensors, torch.full((tokens,), -100), mix_weight, reduction=reduction)
    assert loss.item() == 0.0
    loss.backward()
    for tensor in tensors:
        assert tensor.grad.shape == tensor.shape
        assert torch.count_nonzero(tensor.grad) == 0


def test_backward_twice_gives_the_same_gradients_and_does_not_disturb_the_first():
    tensors, labels_T = problem()
    loss = mixed_cross_entropy(*tensors, labels_T, 0.5)
    first = torch.autograd.grad(loss, tensors, retain_graph=True)
    kept = [gradient.clone() for gradient in first]
    second = torch.autograd.grad(3 * loss, tensors)
    for before, gradient, again in zip(kept, first, second, strict=True):
        assert torch.equal(before, gradient)
        assert torch.allclose(again, 3 * before)


def test_tied_head_and_non_contiguous_inputs():
    generator = torch.Generator().manual_seed(6)
    hidden = torch.randn(7, 33, generator=generator).T.requires_grad_()
    head = torch.randn(7, 41, generator=generator).T.requires_grad_()
    labels_T = torch.randint(41, (33,), generator=generator)
    loss = mixed_cross_entropy(hidden, hidden, head, head, labels_T, 0.3)
    expected = F.cross_entropy(hidden @ head.T, labels_T, reduction="sum")
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    gradients = torch.autograd.grad(loss, (hidden, head))
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected, (hidden, head)), strict=True):
        assert relative_error(gradient, wanted) < 1e-5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cuda_equals_the_plain_expression(dtype):
    tensors, labels_T = problem(tokens=300, vocabulary=1009, sizes=(64, 48), dtype=dtype, scale=0.5)
    device = [tensor.detach().cuda().requires_grad_() for tensor in tensors]
    exact = [tensor.detach().float().requires_grad_() for tensor in tensors]
    loss = mixed_cross_entropy(*device, labels_T.cuda(), 0.5, chunk_tokens=64)
    expected = plain(exact, labels_T, 0.5)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    tolerance = 1e-5 if dtype == torch.float32 else 2**-7
    for gradient, wanted in zip(torch.autograd.grad(loss, device), torch.autograd.grad(expected, exact), strict=True):
        assert relative_error(gradient.cpu().float(), wanted) < tolerance
    entropy = token_entropy(device[0], device[2])
    assert torch.allclose(entropy.cpu(), token_entropy(exact[0], exact[2]), rtol=1e-4, atol=1e-5)


# --- entropy (specification 8.1)


def test_entropy_of_uniform_and_one_hot_tokens():
    assert token_entropy(torch.zeros(3, 4), torch.eye(4)).tolist() == pytest.approx([1.386294] * 3, abs=1e-6)
    half = torch.tensor([[0.0] * 4, [200.0, 0.0, 0.0, 0.0]] * 2)
    assert float(token_entropy(half, torch.eye(4)).mean()) == pytest.approx(0.693147, abs=1e-6)
    assert float(token_entropy(torch.cat([half, half]), torch.eye(4)).mean()) == pytest.approx(0.693147, abs=1e-6)


@pytest.mark.parametrize("chunk_tokens", [None, 1, 10])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_entropy_equals_the_plain_expression(chunk_tokens, dtype):
    tensors, _ = problem(tokens=37, vocabulary=501, dtype=dtype)
    entropy_T = token_entropy(tensors[0], tensors[2], chunk_tokens=chunk_tokens)
    logits = tensors[0].detach().double() @ tensors[2].detach().double().T
    expected = torch.distributions.Categorical(logits=logits).entropy()
    assert entropy_T.dtype == torch.float32 and not entropy_T.requires_grad and entropy_T.shape == (37,)
    assert torch.allclose(entropy_T.double(), expected, rtol=1e-5, atol=1e-6)
    assert token_entropy(tensors[0][:0], tensors[2]).shape == (0,)


# --- bad input


@pytest.mark.parametrize("mix_weight", [-0.1, 1.0001, math.nan, math.inf])
def test_mix_weight_outside_the_unit_interval(mix_weight):
    tensors, labels_T = problem()
    with pytest.raises(InputError, match="lambda"):
        mixed_cross_entropy(*tensors, labels_T, mix_weight)


@pytest.mark.parametrize("mix_weight", [0.5, 1.0])
def test_different_vocabularies_are_named(mix_weight):
    tensors, labels_T = problem()
    with pytest.raises(InputError, match=r"41.*40"):
        mixed_cross_entropy(*tensors[:3], tensors[3][:40], labels_T, mix_weight)


@pytest.mark.parametrize("label", [41, -1, -99, 10**6])
def test_label_out_of_range(label):
    tensors, labels_T = problem()
    labels_T[0] = label
    with pytest.raises(InputError, match=f"label {label} .*41"):
        mixed_cross_entropy(*tensors, labels_T, 0.5)


def test_shapes_and_settings_that_do_not_fit():
    tensors, labels_T = problem()
    strong_hidden, weak_hidden, strong_head, weak_head = tensors
    with pytest.raises(InputError, match="strong hidden"):
        mixed_cross_entropy(weak_hidden, weak_hidden, strong_head, weak_head, labels_T, 0.5)
    with pytest.raises(InputError, match="weak hidden"):
        mixed_cross_entropy(strong_hidden, strong_hidden, strong_head, weak_head, labels_T, 0.5)
    with pytest.raises(InputError, match="labels"):
        mixed_cross_entropy(*tensors, labels_T[:-1], 0.5)
    with pytest.raises(InputError, match="weak"):
        mixed_cross_entropy(strong_hidden, weak_hidden[:-1], strong_head, weak_head, labels_T, 0.5)
    with pytest.raises(InputError, match="hidden states"):
        cross_entropy(strong_hidden[None], strong_head, labels_T)
    with pytest.raises(InputError, match="integers"):
        cross_entropy(strong_hidden, strong_head, labels_T.float())
    with pytest.raises(InputError, match="reduction"):
        cross_entropy(strong_hidden, strong_head, labels_T, reduction="none")
    with pytest.raises(InputError, match="chunk_tokens"):
        cross_entropy(strong_hidden, strong_head, labels_T, chunk_tokens=0)
    with pytest.raises(InputError, match="do not fit"):
        token_entropy(strong_hidden, weak_head)
