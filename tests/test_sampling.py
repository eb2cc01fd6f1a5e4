"""Sampling with the Hugging Face backend: a sample belongs to its seed, whatever is drawn beside it."""

from __future__ import annotations

import collections
import json
import math

import numpy as np
import pytest
import torch
import transformers

from evaluation.backends import hf
from evaluation.backends.interface import BACKENDS, Prompt, Request, Sampling
from foundation.errors import InputError
from foundation.prompts import encode_prompt
from replication.data.synthetic import benchmark_problems

PROBLEMS = benchmark_problems("gsm8k", 6, seed=1)
PROMPTS = [Prompt(problem.id, problem.question) for problem in PROBLEMS]


@pytest.fixture
def ask(tiny_checkpoint, prompt, tmp_path):
    """Generate with changed settings; return the records by (id, sample)."""
    def ask(sampling, *, prompts=PROMPTS, records=None, **changes):
        settings = {"max_new_tokens": 12, "max_prompt_tokens": 128, "batch_size": 4, "compute_dtype": "float32"}
        request = Request(prompt=prompt, sampling=sampling, **settings | changes)
        path = records or tmp_path / f"records-{len(list(tmp_path.iterdir()))}"
        BACKENDS["hf"](tiny_checkpoint, prompts, request, path, key="k")
        rows = [json.loads(line) for line in path.read_text().split("\n")[1:-1]]
        found = {(row["id"], row["sample"]): row for row in rows}
        assert len(found) == len(rows) == len(prompts) * sampling.n
        return found
    return ask


def _texts(rows):
    return {slot: row["text"] for slot, row in rows.items()}


WARM = Sampling(n=3, temperature=1.0)


def test_same_seed_same_records_another_seed_others(ask):
    first = ask(WARM, seed=1)
    assert first == ask(WARM, seed=1)
    other = ask(WARM, seed=2)
    assert all(first[slot]["text"] != other[slot]["text"] and first[slot]["seed"] != other[slot]["seed"]
               for slot in first)


def test_samples_of_one_prompt_differ_and_so_do_equal_questions(ask):
    texts = _texts(ask(WARM, prompts=[*PROMPTS, Prompt("again", PROMPTS[0].question)]))
    assert len(set(texts.values())) == len(texts)


@pytest.mark.parametrize("sampling", [WARM, Sampling(n=3, temperature=0.8, top_k=50, top_p=0.95)])
def test_a_sample_is_the_same_whatever_is_drawn_beside_it(ask, sampling):
    together = _texts(ask(sampling, batch_size=18))
    assert _texts(ask(sampling, batch_size=5)) == together
    alone = _texts(ask(Sampling(**{**_settings(sampling), "n": 1}), prompts=PROMPTS[2:3]))
    assert alone.items() <= together.items()


@pytest.mark.parametrize("stretch", [1, 5, 1000])
def test_a_sample_is_the_same_whenever_finished_ones_leave_its_batch(ask, monkeypatch, stretch):
    sampling = Sampling(n=6, temperature=3.0)
    longer = {"max_new_tokens": None, "max_total_tokens": 120, "batch_size": 36}
    usual = ask(sampling, **longer)
    assert len({row["new_tokens"] for row in usual.values()}) > 5
    monkeypatch.setattr(hf, "_STRETCH", stretch)
    assert ask(sampling, **longer) == usual


def _settings(sampling):
    return {name: getattr(sampling, name) for name in ("n", "temperature", "top_p", "top_k")}


@pytest.mark.parametrize("sampling", [
    Sampling(temperature=1e-6), Sampling(temperature=1.0, top_k=1), Sampling(temperature=1.0, top_p=1e-6),
    Sampling(temperature=1e-6, top_k=50, top_p=0.9),
], ids=["temperature", "top_k", "top_p", "all"])
def test_limits_of_sampling_equal_greedy_decoding(ask, sampling):
    greedy = ask(Sampling())
    assert _texts(ask(sampling)) == _texts(greedy)
    assert all(row["seed"] is None for row in greedy.values())


def test_token_ids_are_what_the_model_chose_end_included(ask, tokenizer, prompt):
    found = ask(Sampling(n=40, temperature=3.0), prompts=PROMPTS[:2], batch_size=80, max_new_tokens=60,
                keep_token_ids=True)
    reasons = collections.Counter(row["finish_reason"] for row in found.values())
    assert reasons["stop"] > 0 and reasons["length"] > 0
    end = tokenizer.convert_tokens_to_ids(prompt.terminator)
    for row in found.values():
        assert len(row["token_ids"]) == row["new_tokens"]
        stopped = row["finish_reason"] == "stop"
        assert row["token_ids"].count(end) == stopped and (row["token_ids"][-1] == end) == stopped
        assert stopped or row["new_tokens"] == 60
        assert tokenizer.decode(row["token_ids"], skip_special_tokens=True) == row["text"]


def test_without_being_asked_for_token_ids_are_left_out(ask):
    assert all("token_ids" not in row for row in ask(Sampling()).values())


# ------------------------------------------------------------------------------------------------------- the law


def _counts(sampling, logits, draws):
    """Draw many first tokens through the processor, all rows of one batch."""
    processor = hf.Draw(sampling, list(range(draws)))
    chosen = processor(torch.zeros(draws, 1, dtype=torch.long), logits.expand(draws, -1).clone()).argmax(-1)
    return torch.bincount(chosen, minlength=logits.shape[-1]).numpy()


@pytest.mark.parametrize(("sampling", "kept"), [
    (Sampling(temperature=1.0), 6), (Sampling(temperature=0.5), 6), (Sampling(temperature=2.0, top_k=3), 3),
    (Sampling(temperature=1.0, top_p=0.8), 3), (Sampling(temperature=2.0, top_k=4, top_p=0.8), 3),
])
def test_tokens_follow_the_softmax_after_the_filters(sampling, kept):
    logits = torch.tensor([[0.3, 2.0, -1.0, 1.0, 1.5, -0.5]])
    law = np.exp(logits[0].double().numpy() / sampling.temperature)
    order = np.argsort(-law)
    if sampling.top_k:
        law[order[sampling.top_k :]] = 0
    law /= law.sum()
    # The smallest set of likeliest tokens that holds top_p of what is left.
    law[order[np.searchsorted(np.cumsum(law[order]), sampling.top_p) + 1 :]] = 0
    law /= law.sum()
    assert (law > 0).sum() == kept
    draws = 20_000
    counts = _counts(sampling, logits, draws)
    assert counts[law == 0].sum() == 0
    chi_square = ((counts - draws * law)[law > 0] ** 2 / (draws * law[law > 0])).sum()
    degrees = kept - 1
    assert chi_square < degrees + 4 * math.sqrt(2 * degrees)


def test_the_first_token_of_a_model_follows_its_softmax(ask, tiny_checkpoint, tokenizer, prompt):
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_checkpoint, local_files_only=True).eval()
    ids = torch.tensor([encode_prompt(tokenizer, prompt, PROMPTS[0].question)])
    with torch.no_grad():
        logits = model(ids).logits[0, -1].double()
    law = torch.softmax(logits * 4, dim=-1).numpy()
    draws = 3000
    found = ask(Sampling(n=draws, temperature=0.25), prompts=PROMPTS[:1], batch_size=draws, max_new_tokens=1,
                keep_token_ids=True)
    counts = np.bincount([row["token_ids"][0] for row in found.values()], minlength=len(law))
    likely = law * draws >= 5
    observed, expected = np.append(counts[likely], counts[~likely].sum()), np.append(law[likely], law[~likely].sum())
    chi_square = ((observed - draws * expected) ** 2 / (draws * expected)).sum()
    assert likely.sum() >= 10
    assert chi_square < likely.sum() + 4 * math.sqrt(2 * likely.sum())


def test_steps_of_one_sequence_use_fresh_noise_in_one_order(monkeypatch):
    """The noise of a step does not depend on how many steps are drawn at a time."""
    scores = torch.zeros(2, 5)
    whole = hf.Draw(Sampling(temperature=1.0), [1, 2])
    many = [whole(None, scores) for _ in range(6)]
    monkeypatch.setattr(hf, "_NOISE_VALUES", 20)
    few = hf.Draw(Sampling(temperature=1.0), [1, 2])
    assert all(torch.equal(a, few(None, scores)) for a in many)
    assert len({tuple(step[0].tolist()) for step in many}) == 6


# ------------------------------------------------------------------------------------------------- limits and ends


def test_each_sequence_ends_at_its_own_total_length(ask, tokenizer, prompt):
    found = ask(Sampling(), max_new_tokens=None, max_total_tokens=90, batch_size=6, keep_token_ids=True)
    assert len({row["prompt_tokens"] for row in found.values()}) > 1
    for row in found.values():
        assert row["finish_reason"] == "stop" or row["prompt_tokens"] + row["new_tokens"] == 90
    longer = ask(Sampling(), max_new_tokens=None, max_total_tokens=110, batch_size=6)
    assert all(longer[slot]["text"].startswith(row["text"]) for slot, row in found.items())


def test_the_tighter_limit_counts(ask):
    found = ask(Sampling(), max_new_tokens=3, max_total_tokens=90)
    assert {row["new_tokens"] for row in found.values()} <= {1, 2, 3}


def test_a_stop_string_ends_an_answer_and_is_cut_off(ask):
    sampling = Sampling(n=4, temperature=1.0)
    free = ask(sampling, max_new_tokens=30, keep_token_ids=True)
    character = collections.Counter("".join(row["text"] for row in free.values())).most_common(1)[0][0]
    stopped = ask(sampling, max_new_tokens=30, stop=(character, "never said"), keep_token_ids=True)
    assert any(character in row["text"] for row in free.values())
    for slot, row in stopped.items():
        before, found, _ = free[slot]["text"].partition(character)
        assert row["text"] == before
        assert row["finish_reason"] == ("stop" if found else free[slot]["finish_reason"])
        assert row["token_ids"] == free[slot]["token_ids"][: row["new_tokens"]]


def test_special_tokens_are_no_text_to_stop_at(ask):
    sampling, longer = Sampling(n=20, temperature=3.0), {"prompts": PROMPTS[:1], "batch_size": 20, "max_new_tokens": 40}
    assert ask(sampling, **longer, stop=("<|im_start|>", "<|endoftext|>")) == ask(sampling, **longer)


# ------------------------------------------------------------------------------------------------ kills and refusals


@pytest.mark.parametrize("keep", [0, 3, 5, 17])
def test_a_killed_sampling_goes_on_as_if_it_had_not_been_killed(ask, tmp_path, keep):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    ask(WARM, records=whole)
    lines = whole.read_text().split("\n")
    cut.write_text("\n".join(lines[: keep + 1]) + "\n" + lines[keep + 1][:9])
    ask(WARM, records=cut)
    assert cut.read_text() == whole.read_text()


@pytest.mark.parametrize(("changes", "reason"), [
    ({"n": 0}, "at least 1"), ({"n": 2}, "same text"), ({"temperature": -1.0}, "-1.0"),
    ({"temperature": math.nan}, "nan"), ({"temperature": math.inf}, "inf"), ({"temperature": 1e-9}, "1e-06"),
    ({"top_p": 0.0}, "top_p 0.0"), ({"top_p": 1.1}, "top_p 1.1"), ({"top_p": math.nan}, "top_p nan"),
    ({"top_k": -1}, "top_k -1"),
])
def test_impossible_sampling_is_refused(changes, reason):
    with pytest.raises(InputError, match=reason):
        Sampling(**changes)


@pytest.mark.parametrize(("changes", "reason"), [
    ({"max_new_tokens": None}, "needs a limit"), ({"max_new_tokens": 0}, "max_new_tokens 0"),
    ({"max_total_tokens": -5}, "max_total_tokens -5"), ({"batch_size": 0}, "batch_size 0"),
    ({"compute_dtype": "float8"}, "float8"), ({"stop": ("",)}, "empty stop string"),
    ({"max_total_tokens": 30}, r"leave no room for an answer within 30 tokens in total: gsm8k-0"),
    ({"sampling": Sampling(temperature=1.0, top_k=10_000)}, r"top_k 10000 exceeds"),
    ({"prompts": [PROMPTS[0], PROMPTS[0]]}, "2 prompts have only 1 different ids"),
])
def test_impossible_requests_are_refused_before_anything_is_written(ask, tmp_path, changes, reason):
    with pytest.raises(InputError, match=reason):
        ask(**{"sampling": Sampling(), "records": tmp_path / "records"} | changes)
    assert not (tmp_path / "records").exists()
