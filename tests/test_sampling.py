"""Sampling: the right distribution, a stream of its own for each sample, limits and refusals."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from evaluation.backends import backend, hf
from evaluation.backends.interface import Prompt, Request, Sampling
from evaluation.backends.sampling import GumbelMax
from foundation.errors import InputError

PROMPTS = [Prompt(f"p{i}", f"What is {i}+{i}?") for i in range(5)]


@pytest.fixture
def request_(prompt):
    return Request(prompt=prompt, max_new_tokens=12, max_prompt_tokens=128, batch_size=8, compute_dtype="float32",
                   sampling=Sampling(n=3, temperature=1.0), keep_token_ids=True)


@pytest.fixture
def answers(tiny_checkpoint, tmp_path):
    def _answers(request, name="records"):
        hf.generate(tiny_checkpoint, PROMPTS, request, tmp_path / name, key="k")
        rows = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()[1:]]
        return {(row["id"], row["sample"]): row for row in rows}

    return _answers


def _texts(rows):
    return {key: row["text"] for key, row in rows.items()}


def test_every_prompt_gets_n_samples_that_differ(request_, answers):
    rows = answers(request_)
    assert set(rows) == {(p.id, s) for p in PROMPTS for s in range(3)}
    assert len({row["seed"] for row in rows.values()}) == len(rows) == len(set(_texts(rows).values()))


def test_a_sample_depends_on_its_seed_not_on_its_batch(request_, answers):
    first = _texts(answers(request_, "a"))
    assert _texts(answers(replace(request_, batch_size=2), "b")) == first
    assert _texts(answers(replace(request_, sampling=Sampling(n=2, temperature=1.0)), "c")).items() <= first.items()
    other = _texts(answers(replace(request_, seed=1), "d"))
    assert all(other[key] != first[key] for key in first)


@pytest.mark.parametrize("sampling", [Sampling(temperature=1.0, top_k=1), Sampling(temperature=1.0, top_p=1e-6),
                                      Sampling(temperature=1e-4)])
def test_the_limits_of_sampling_are_greedy(request_, answers, sampling):
    greedy = _texts(answers(replace(request_, sampling=Sampling()), "greedy"))
    assert _texts(answers(replace(request_, sampling=sampling), "sampled")) == greedy


@pytest.mark.parametrize(("sampling", "kept"), [
    (Sampling(temperature=1.0), [0, 1, 2, 3]), (Sampling(temperature=0.5), [0, 1, 2, 3]),
    (Sampling(temperature=1.0, top_k=2), [0, 1]), (Sampling(temperature=1.0, top_p=0.7), [0, 1]),
    (Sampling(temperature=1.0, top_p=0.5), [0])])
def test_samples_follow_the_softmax_of_what_is_kept(sampling, kept):
    """P = (0.5, 0.3, 0.15, 0.05): 20,000 draws lie within four standard errors of each probability."""
    logits_V = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    n = 20_000
    drawn = GumbelMax(sampling, list(range(n)))(None, logits_V.repeat(n, 1)).argmax(dim=1)
    p = torch.zeros(4)
    p[kept] = (logits_V[kept] / sampling.temperature).softmax(dim=0)
    found = torch.bincount(drawn, minlength=4) / n
    assert ((found - p).abs() <= 4 * (p * (1 - p) / n).sqrt()).all(), (found, p)


def test_token_ids_are_the_reply_with_its_end(request_, answers, tokenizer, tiny_checkpoint):
    rows = answers(replace(request_, sampling=Sampling(n=8, temperature=3.0)))
    ended = [row for row in rows.values() if row["finish_reason"] == "stop"]
    assert ended, "at temperature 3 some replies end by chance"
    assert all(row["token_ids"][-1] in (tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>"))
               and len(row["token_ids"]) == row["new_tokens"] for row in ended)
    cut = [row for row in rows.values() if row["finish_reason"] == "length"]
    assert all(len(row["token_ids"]) == 12 for row in cut)


def test_the_total_length_is_each_prompts_own_limit(request_, answers):
    rows = answers(replace(request_, max_new_tokens=None, max_total_tokens=30))
    assert all(row["prompt_tokens"] + row["new_tokens"] <= 30 for row in rows.values())
    assert any(row["prompt_tokens"] + row["new_tokens"] == 30 for row in rows.values())


@pytest.mark.parametrize("settings", [
    {"n": 0}, {"n": 2}, {"temperature": -1.0}, {"temperature": float("nan")}, {"top_p": 0.0}, {"top_p": 1.5},
    {"top_k": -1}])
def test_samplings_that_cannot_be_meant_are_refused(settings):
    with pytest.raises(InputError, match=next(iter(settings)).replace("temperature", "temperature")):
        Sampling(**settings)


def test_a_top_k_beyond_the_vocabulary_is_refused(request_, answers):
    with pytest.raises(InputError, match="top_k is 100000, the vocabulary has"):
        answers(replace(request_, sampling=Sampling(temperature=1.0, top_k=100_000)))


def test_no_room_for_an_answer_is_an_error(request_, answers):
    with pytest.raises(InputError, match="longer than 4 tokens"):
        answers(replace(request_, max_total_tokens=5))


def test_an_unknown_backend_lists_the_known_ones():
    with pytest.raises(InputError, match="hf"):
        backend("gguf")
