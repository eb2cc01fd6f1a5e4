"""chunked_loss is autograd on the full logits: same value, same gradients, whatever the chunk."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy, smooth_l1_loss

from baselines.chunked import chunked_loss
from baselines.interface import Branch

N, D, V = 23, 6, 11


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def tensors(dtype=torch.float64, tokens=N, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden_ND = torch.randn(tokens, D, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    head_VD = torch.randn(V, D, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    return hidden_ND, head_VD, torch.randint(V, (tokens,), generator=generator)


LOSSES = {
    "cross-entropy": lambda logits, labels: cross_entropy(logits, labels, reduction="sum"),
    "tempered": lambda logits, labels: cross_entropy(logits / 1.5, labels, reduction="sum", label_smoothing=0.1),
    "squared entropy": lambda logits, labels: ((logits.softmax(-1) * logits.log_softmax(-1)).sum(-1) ** 2).sum(),
    "logits alone": lambda logits, labels: smooth_l1_loss(logits, torch.ones_like(logits), reduction="sum"),
}


@pytest.mark.parametrize("chunk_tokens", [1, 2, 7, N, 100, None])
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradients_are_autograds_on_full_logits(name, chunk_tokens):
    hidden_ND, head_VD, labels_N = tensors()
    found = 0.25 * chunked_loss(Branch(hidden_ND, head_VD), lambda z_CV, rows: LOSSES[name](z_CV, labels_N[rows]),
                                chunk_tokens=chunk_tokens)
    found_gradients = torch.autograd.grad(found, (hidden_ND, head_VD))
    expected = 0.25 * LOSSES[name](hidden_ND @ head_VD.T, labels_N)
    assert found.dtype == torch.float64 and found.item() == pytest.approx(expected.item(), rel=1e-12)
    for a, b in zip(found_gradients, torch.autograd.grad(expected, (hidden_ND, head_VD)), strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12)


def test_gradcheck():
    hidden_ND, head_VD, labels_N = tensors(tokens=5)
    assert torch.autograd.gradcheck(
        lambda h, w: chunked_loss(Branch(h, w), lambda z, rows: LOSSES["cross-entropy"](z, labels_N[rows]),
                                  chunk_tokens=2), (hidden_ND, head_VD))


def test_chunks_come_once_and_in_order():
    hidden_ND, head_VD, _ = tensors()
    seen = []
    chunked_loss(Branch(hidden_ND, head_VD), lambda z_CV, rows: (seen.append((rows, tuple(z_CV.shape))), z_CV.sum())[1],
                 chunk_tokens=10)
    assert seen == [(slice(0, 10), (10, V)), (slice(10, 20), (10, V)), (slice(20, N), (3, V))]


def test_without_tokens_the_zero_still_touches_both_tensors():
    hidden_ND, head_VD, _ = tensors(tokens=0)
    loss = chunked_loss(Branch(hidden_ND, head_VD), lambda z_CV, rows: z_CV.sum())
    loss.backward()
    assert loss.item() == 0.0 and hidden_ND.grad.shape == (0, D) and not head_VD.grad.any()


@pytest.mark.parametrize("frozen", ["hidden", "head"])
def test_only_what_requires_a_gradient_gets_one(frozen):
    hidden_ND, head_VD, labels_N = tensors()
    (hidden_ND if frozen == "hidden" else head_VD).requires_grad_(False)
    chunked_loss(Branch(hidden_ND, head_VD), lambda z, rows: LOSSES["cross-entropy"](z, labels_N[rows])).backward()
    assert (hidden_ND.grad is None, head_VD.grad is None) == (frozen == "hidden", frozen == "head")


def test_under_no_grad_there_is_the_value_alone():
    hidden_ND, head_VD, labels_N = tensors()
    expected = LOSSES["cross-entropy"](hidden_ND @ head_VD.T, labels_N).item()
    with torch.no_grad():
        loss = chunked_loss(Branch(hidden_ND, head_VD), lambda z, rows: LOSSES["cross-entropy"](z, labels_N[rows]))
    assert not loss.requires_grad and loss.item() == pytest.approx(expected)


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_hidden_states_give_a_float32_loss_and_gradients_in_their_own_dtypes(autocast):
    """The head stays fp32, as master weights do under autocast."""
    hidden_ND, head_VD, labels_N = tensors(torch.float32)
    low_ND = hidden_ND.detach().to(torch.bfloat16).requires_grad_()
    dtypes = []

    def chunk(z_CV, rows):
        dtypes.append(z_CV.dtype)
        return LOSSES["cross-entropy"](z_CV, labels_N[rows])

    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = chunked_loss(Branch(low_ND, head_VD), chunk, chunk_tokens=4)
    loss.backward()
    expected = LOSSES["cross-entropy"](hidden_ND @ head_VD.T, labels_N)
    plain = torch.autograd.grad(expected, (hidden_ND, head_VD))
    assert set(dtypes) == {torch.float32} and loss.dtype == torch.float32
    assert (low_ND.grad.dtype, head_VD.grad.dtype) == (torch.bfloat16, torch.float32)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-2)
    assert torch.allclose(low_ND.grad.float(), plain[0], atol=0.03)
    assert torch.allclose(head_VD.grad, plain[1], atol=0.1)


def test_a_tied_head_adds_its_two_gradients():
    table_VD = tensors()[1]
    labels_N = torch.tensor([1, 4, 4])
    loss = chunked_loss(Branch(table_VD[labels_N] * 2, table_VD),
                        lambda z, rows: LOSSES["cross-entropy"](z, labels_N[rows]), chunk_tokens=2)
    (found,) = torch.autograd.grad(loss, table_VD)
    (expected,) = torch.autograd.grad(LOSSES["cross-entropy"](table_VD[labels_N] * 2 @ table_VD.T, labels_N), table_VD)
    assert torch.allclose(found, expected, rtol=1e-10)
