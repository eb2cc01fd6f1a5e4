"""Log-probabilities of tokens in chunks: against plain PyTorch, whatever the chunks, and inside a model's forward."""

from __future__ import annotations

import pytest
import torch

from baselines.batches import IGNORED
from baselines.branches import load_causal_lm
from baselines.log_probs import add_log_prob_head, token_log_probs


def tensors(tokens=23, width=6, vocabulary=17, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, width, generator=generator, dtype=dtype, requires_grad=True)
    head = torch.randn(vocabulary, width, generator=generator, dtype=dtype, requires_grad=True)
    return hidden, head, torch.randint(vocabulary, (tokens,), generator=generator), torch.randn(
        tokens, generator=generator, dtype=dtype)


@pytest.mark.parametrize("chunk_tokens", [None, 1, 5, 22, 23, 100])
def test_values_and_gradients_are_those_of_a_log_softmax(chunk_tokens):
    hidden, head, labels, weight = tensors()
    plain = (hidden @ head.T).log_softmax(dim=1).gather(1, labels.unsqueeze(1)).squeeze(1)
    expected = torch.autograd.grad((plain * weight).sum(), (hidden, head))
    ours = token_log_probs(hidden, head, labels, chunk_tokens=chunk_tokens)
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    for got, wanted in zip(torch.autograd.grad((ours * weight).sum(), (hidden, head)), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("chunk_tokens", [5, None])
def test_a_second_backward_gives_the_same(chunk_tokens):
    hidden, head, labels, _ = tensors()
    total = token_log_probs(hidden, head, labels, chunk_tokens=chunk_tokens).sum()
    first = torch.autograd.grad(total, hidden, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(total, hidden)[0])


def test_only_what_requires_a_gradient_gets_one_and_no_tokens_give_zeros():
    hidden, head, labels, _ = tensors()
    token_log_probs(hidden.detach(), head, labels).sum().backward()
    assert hidden.grad is None and head.grad.any()
    head.grad = None
    token_log_probs(hidden[:0], head, labels[:0]).sum().backward()
    assert not hidden.grad.any() and not head.grad.any()
    with torch.no_grad():
        assert not token_log_probs(hidden, head, labels).requires_grad


def test_a_model_with_the_head_scores_labelled_tokens_and_nothing_else(tiny_checkpoint):
    torch.set_num_threads(1)
    plain, model = (load_causal_lm(tiny_checkpoint).eval() for _ in range(2))
    add_log_prob_head(model)
    ids = torch.randint(5, 60, (3, 12), generator=torch.Generator().manual_seed(0))
    mask, labels = torch.ones_like(ids), ids.clone()
    labels[:, :4], labels[1, 9:], mask[1, 9:] = IGNORED, IGNORED, 0
    logits = plain(input_ids=ids, attention_mask=mask).logits[:, :-1].log_softmax(-1)
    scored = labels[:, 1:].ne(IGNORED)
    expected = logits.gather(2, labels[:, 1:].clamp(min=0).unsqueeze(2)).squeeze(2) * scored
    found = model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True).log_probs
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    expected.sum().backward()
    found.sum().backward()
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5, msg=name)
    usual = model(input_ids=ids, attention_mask=mask)
    assert torch.equal(usual.logits, plain(input_ids=ids, attention_mask=mask).logits)
