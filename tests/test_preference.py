"""SPIN and DPO: the loss by hand, the same through TRL's trainer, and how pairs are made from replies."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from trl import DPOConfig, DPOTrainer

from baselines.batches import ordered
from baselines.branches import load_causal_lm
from baselines.dpo import DPO
from baselines.interface import Pairs
from baselines.pair_trainer import PairTrainer, train_pairs
from baselines.replies import (
    VerifiedReply,
    encode_gold_pairs,
    encode_verified_pairs,
    first_pair,
    verified_replies,
)
from baselines.settings import DataSettings, TrainingSettings
from baselines.spin import SPIN
from baselines.trainer import shared_arguments
from foundation.prompts import encode_example, encode_prompt, terminator_id

METHODS = [SPIN(), DPO()]
TRAINING = TrainingSettings(learning_rate=1e-3, global_batch=4, micro_batch=4)
BOTH = pytest.mark.parametrize("method", METHODS, ids=["spin", "dpo"])


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


# ------------------------------------------------------------------------------------------------- the pure loss


def pairs(policy_chosen, policy_rejected, reference_chosen, reference_rejected):
    columns = [torch.tensor([x], dtype=torch.float64) for x in
               (policy_chosen, policy_rejected, reference_chosen, reference_rejected)]
    for column in columns[:2]:
        column.requires_grad_()
    return Pairs(*columns)


def loss_and_gradients(method, given):
    loss = method.pair_loss(given)
    gradients = torch.autograd.grad(loss.sum(), (given.policy_chosen_B, given.policy_rejected_B))
    return loss.item(), [g.item() for g in gradients]


@BOTH
@pytest.mark.parametrize(("chosen", "rejected"), [(-10.0, -20.0), (-500.0, -3.0)])
def test_policy_equal_to_reference_gives_log_two(method, chosen, rejected):
    """Oracle 5.1: gradients -beta/2 and +beta/2."""
    loss, gradients = loss_and_gradients(method, pairs(chosen, rejected, chosen, rejected))
    assert loss == pytest.approx(0.693147, abs=1e-6) and gradients == pytest.approx([-0.05, 0.05], abs=1e-9)


@BOTH
def test_loss_and_gradients_by_hand(method):
    """Oracle 5.2: margin 4."""
    loss, gradients = loss_and_gradients(method, pairs(-10.0, -20.0, -12.0, -18.0))
    assert loss == pytest.approx(0.513015, abs=1e-6)
    assert gradients == pytest.approx([-0.0401312, 0.0401312], abs=1e-7)


@BOTH
def test_swapping_the_replies_negates_the_margin(method):
    """Oracle 5.3: L(m) - L(-m) = -beta m."""
    forward = method.pair_loss(pairs(-10.0, -20.0, -12.0, -18.0)).item()
    backward = method.pair_loss(pairs(-20.0, -10.0, -18.0, -12.0)).item()
    assert forward - backward == pytest.approx(-method.beta * 4.0)


@BOTH
def test_equal_replies_give_log_two_and_gradients_that_cancel(method):
    loss, gradients = loss_and_gradients(method, pairs(-7.0, -7.0, -9.0, -9.0))
    assert loss == pytest.approx(math.log(2)) and sum(gradients) == pytest.approx(0.0, abs=1e-15)


@BOTH
def test_a_shift_of_both_references_changes_nothing_and_pairs_are_apart(method):
    """Oracle 5.4."""
    plain = method.pair_loss(pairs(-10.0, -20.0, -12.0, -18.0)).item()
    assert method.pair_loss(pairs(-10.0, -20.0, -112.0, -118.0)).item() == pytest.approx(plain)
    both = Pairs(*(torch.cat(columns) for columns in zip(pairs(-10.0, -20.0, -12.0, -18.0),
                                                         pairs(-1.0, -2.0, -1.0, -2.0), strict=True)))
    assert method.pair_loss(both).tolist() == pytest.approx([plain, math.log(2)])


@BOTH
def test_extreme_margins_stay_finite(method):
    for margin in (1e5, -1e5):
        loss, gradients = loss_and_gradients(method, pairs(margin, 0.0, 0.0, 0.0))
        assert math.isfinite(loss) and all(map(math.isfinite, gradients))


# ------------------------------------------------------------------------------------------- through TRL's trainer


@pytest.fixture(scope="module")
def pair_rows(rows):
    """Prompts with two different completions each, of different lengths."""
    found = []
    for row, other in itertools.pairwise(rows):
        start = sum(label == -100 for label in row["labels"])
        begin = sum(label == -100 for label in other["labels"])
        found.append({"id": row["id"], "prompt_ids": row["input_ids"][:start], "chosen_ids": row["input_ids"][start:],
                      "rejected_ids": other["input_ids"][begin:-3]})
    return found


@torch.no_grad()
def log_probability(model, prompt_ids, reply_ids):
    """The sum over the reply's tokens, the slow way."""
    logits_SV = model(torch.tensor([[*prompt_ids, *reply_ids]])).logits[0].double().log_softmax(-1)
    return sum(logits_SV[len(prompt_ids) - 1 + t, token].item() for t, token in enumerate(reply_ids))


class TokenIds(DPOTrainer):
    """TRL's trainer and loss on pairs that are token ids already."""

    def _prepare_dataset(self, dataset, *_):
        return dataset


@pytest.fixture
def make(tokenizer, tmp_path):
    """A PairTrainer whose reference log-probabilities are computed."""

    def _make(method, policy, reference, data, **options):
        from datasets import Dataset

        arguments = shared_arguments(TRAINING, updates=1, seed=1, work=tmp_path) | options
        return PairTrainer(method=method, model=policy, ref_model=reference, processing_class=tokenizer,
                           args=DPOConfig(**arguments, max_length=None, precompute_ref_log_probs=True,
                                          disable_dropout=True),
                           train_dataset=Dataset.from_list([{k: v for k, v in row.items() if k != "id"}
                                                            for row in data]))

    return _make


@BOTH
def test_the_trainers_loss_is_the_formula_on_separately_summed_log_probabilities(method, make, tiny_checkpoint,
                                                                                 weak_checkpoint, pair_rows):
    policy, reference = load_causal_lm(tiny_checkpoint), load_causal_lm(weak_checkpoint)
    expected = []
    for row in pair_rows[:4]:
        sums = [log_probability(model, row["prompt_ids"], row[side]) for model in (policy, reference)
                for side in ("chosen_ids", "rejected_ids")]
        margin = (sums[0] - sums[2]) - (sums[1] - sums[3])
        expected.append(math.log1p(math.exp(-0.1 * margin)))
    trainer = make(method, policy, reference, pair_rows[:4])
    batch = next(iter(trainer.get_train_dataloader()))
    assert trainer.compute_loss(policy, batch).item() == pytest.approx(sum(expected) / 4, rel=1e-5)


def test_stored_reference_log_probabilities_are_the_recomputed_ones(make, tiny_checkpoint, weak_checkpoint, pair_rows):
    """Oracle 5.5; prompt tokens and padding are in none of them (5.4)."""
    trainer = make(SPIN(), load_causal_lm(tiny_checkpoint), load_causal_lm(weak_checkpoint), pair_rows[:6])
    fresh = load_causal_lm(weak_checkpoint)
    for stored, row in zip(trainer.train_dataset, pair_rows[:6], strict=True):
        for side in ("chosen", "rejected"):
            assert stored[f"ref_{side}_logps"] == pytest.approx(
                log_probability(fresh, row["prompt_ids"], row[f"{side}_ids"]), rel=1e-5)


def test_without_a_reference_the_policy_at_the_start_is_it(make, tiny_checkpoint, pair_rows):
    policy = load_causal_lm(tiny_checkpoint)
    trainer = make(DPO(), policy, None, pair_rows[:4])
    loss = trainer.compute_loss(policy, next(iter(trainer.get_train_dataloader())))
    assert loss.item() == pytest.approx(math.log(2), rel=1e-5)
    loss.backward()  # the gradient is not zero: the margin's slope is -beta/2
    assert any(p.grad is not None and p.grad.any() for p in policy.parameters())


def test_equal_replies_give_no_parameter_gradient(make, tiny_checkpoint, weak_checkpoint, pair_rows):
    policy = load_causal_lm(tiny_checkpoint)
    data = [row | {"rejected_ids": row["chosen_ids"]} for row in pair_rows[:4]]
    trainer = make(SPIN(), policy, load_causal_lm(weak_checkpoint), data)
    loss = trainer.compute_loss(policy, next(iter(trainer.get_train_dataloader())))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2), rel=1e-6)
    assert all(p.grad.abs().max() < 1e-6 for p in policy.parameters() if p.grad is not None)


@BOTH
@pytest.mark.parametrize("accumulation", [1, 4])
def test_training_equals_trls_own_sigmoid_loss(method, accumulation, tokenizer, tiny_checkpoint, weak_checkpoint,
                                               pair_rows, tmp_path):
    from datasets import Dataset

    training = TrainingSettings(learning_rate=1e-3, global_batch=4, micro_batch=4 // accumulation)
    ours, theirs = (load_causal_lm(tiny_checkpoint) for _ in range(2))
    data = ordered(pair_rows, training, epochs=1, seed=2)[:12]
    log = train_pairs(method, ours, load_causal_lm(weak_checkpoint), data, tokenizer, training, seed=3,
                      work=tmp_path / "ours")
    library = TokenIds(
        model=theirs, ref_model=load_causal_lm(weak_checkpoint), processing_class=tokenizer,
        args=DPOConfig(**shared_arguments(training, updates=3, seed=3, work=tmp_path / "theirs"), max_length=None,
                       beta=0.1, loss_type=["sigmoid"], precompute_ref_log_probs=False, disable_dropout=True),
        train_dataset=Dataset.from_list([{k: v for k, v in row.items() if k != "id"} for row in data]))
    library.train()
    expected = [entry["loss"] for entry in library.state.log_history if "loss" in entry]
    assert len(log.losses) == 3 and log.losses == pytest.approx(expected, rel=1e-4)
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-5), name


def test_no_end_token_is_appended_to_any_reply(make, tiny_checkpoint, weak_checkpoint, tokenizer, pair_rows):
    """A reply that was cut off ends where it was cut (A-32); TRL's own preparation would append its end token."""
    trainer = make(SPIN(), load_causal_lm(tiny_checkpoint), load_causal_lm(weak_checkpoint), pair_rows[:4])
    batch = next(iter(trainer.get_train_dataloader()))
    for i, row in enumerate([*pair_rows[:4], *pair_rows[:4]]):
        reply = row["chosen_ids" if i < 4 else "rejected_ids"]
        assert batch["input_ids"][i][batch["attention_mask"][i].bool()].tolist() == row["prompt_ids"] + reply
        assert batch["input_ids"][i][batch["completion_mask"][i].bool()].tolist() == reply


# --------------------------------------------------------------------------------------------------- pairing rules


def reply(outcome, finished=True, token_ids=(5, 6), answer=None):
    return VerifiedReply("text", list(token_ids), finished, outcome, answer)


def labelled(pattern):
    """T right, F wrong, t and f the same but cut off at the length limit, - without an answer."""
    outcomes = {"T": "correct", "F": "wrong", "-": "no_answer"}
    return [reply(outcomes[c.upper()], finished=not c.islower(), token_ids=[5, i + 1]) for i, c in enumerate(pattern)]


@pytest.mark.parametrize(("pattern", "rule", "expected"), [
    ("FTTF", "finished_and_false", (1, 0)),  # oracle 6.2
    ("TTTT", "finished_and_false", "without an incorrect rollout"),
    ("FFFF", "finished_and_false", "without a correct rollout"),
    ("TTFF", "finished_and_false", (0, 2)),
    ("tfTF", "finished_and_false", (2, 3)),  # cut-off replies are neither right nor wrong
    ("Tfff", "finished_and_false", "without an incorrect rollout"),
    ("tttF", "finished_and_false", "without a correct rollout"),
    ("fTFF", "any_false", (1, 0)),
    ("-TFF", "any_false", (1, 0)),
])
def test_the_first_right_and_the_first_wrong_reply_make_a_pair(pattern, rule, expected):
    assert first_pair(labelled(pattern), rule) == expected


def encode(kind, examples, replies, tokenizer, prompt, data=None, **options):
    data = data or DataSettings(max_length=256)
    if kind == "verified":
        return encode_verified_pairs(examples, replies, tokenizer, prompt, data, "finished_and_false")
    return encode_gold_pairs(examples, replies, tokenizer, prompt, data,
                             drop_correct=options.get("drop_correct", False))


def test_pairs_and_skips_add_up_to_the_prompts(examples, tokenizer, prompt):
    """Oracle 6.4, and the pairs carry the replies' own ids."""
    patterns = ["FTTF", "TTTT", "FFFF", "tf--", "TF--", "FFFT"]
    replies = {e["id"]: labelled(p) for e, p in zip(examples, patterns, strict=False)}
    made, skipped = encode("verified", examples[:6], replies, tokenizer, prompt)
    assert len(made) + sum(skipped.values()) == 6
    assert skipped == {"without an incorrect rollout": 1, "without a correct rollout": 2}
    assert [row["id"] for row in made] == [examples[i]["id"] for i in (0, 4, 5)]
    assert [(row["chosen_ids"], row["rejected_ids"]) for row in made] == [([5, 2], [5, 1]), ([5, 1], [5, 2]),
                                                                          ([5, 4], [5, 1])]
    assert made[0]["prompt_ids"] == encode_prompt(tokenizer, prompt, examples[0]["question"])
    assert encode("verified", examples[:6], replies, tokenizer, prompt) == (made, skipped)  # oracle 6.3
    shuffled = {i: r[::-1] for i, r in replies.items()}
    assert encode("verified", examples[:6], shuffled, tokenizer, prompt)[0] != made


def test_spins_pair_is_the_pools_completion_and_the_sampled_reply(examples, tokenizer, prompt):
    example = examples[0]
    gold = encode_example(tokenizer, prompt, example["question"], example["completion"])
    (made,), skipped = encode("gold", [example], {example["id"]: [reply(None)]}, tokenizer, prompt)
    assert made["prompt_ids"] + made["chosen_ids"] == gold.ids and len(made["prompt_ids"]) == gold.prompt_length
    assert made["chosen_ids"][-1] == terminator_id(tokenizer, prompt) and made["rejected_ids"] == [5, 6]
    assert not skipped


def test_copies_of_the_gold_reply_are_skipped_and_counted(examples, tokenizer, prompt):
    """A-33; and right replies stay as rejected unless told otherwise."""
    encoded = [encode_example(tokenizer, prompt, e["question"], e["completion"]) for e in examples[:3]]
    replies = {examples[0]["id"]: [reply("correct", token_ids=encoded[0].ids[encoded[0].prompt_length :])],
               examples[1]["id"]: [reply("correct")], examples[2]["id"]: [reply("wrong")]}
    made, skipped = encode("gold", examples[:3], replies, tokenizer, prompt)
    assert len(made) == 2 and skipped == {"whose two replies are the same": 1}
    made, skipped = encode("gold", examples[:3], replies, tokenizer, prompt, drop_correct=True)
    assert len(made) == 1 and skipped["whose reply is right"] == 2


def test_overlong_pairs_are_cut_on_the_right_or_dropped(examples, tokenizer, prompt):
    """A-35: both sides alike; the prompt stays whole."""
    example = examples[0]
    start = len(encode_prompt(tokenizer, prompt, example["question"]))
    replies = {example["id"]: [reply(None, finished=False, token_ids=[7] * 50)]}
    cut, _ = encode("gold", [example], replies, tokenizer, prompt, DataSettings(max_length=start + 4))
    assert (len(cut[0]["prompt_ids"]), len(cut[0]["chosen_ids"]), cut[0]["rejected_ids"]) == (start, 4, [7] * 4)
    dropped = DataSettings(max_length=start + 4, overlength="drop")
    assert encode("gold", [example], replies, tokenizer, prompt, dropped) == ([], {"longer than the limit": 1})
    assert encode("gold", [example], replies, tokenizer, prompt, DataSettings(max_length=start)) == (
        [], {"whose prompt fills the length limit": 1})


def test_replies_and_verdicts_are_joined_in_sampling_order():
    rows = [{"id": i, "sample": s, "text": f"{i}{s}", "token_ids": [s], "finish_reason": reason}
            for i, s, reason in (("a", 0, "stop"), ("a", 1, "length"), ("b", 0, "stop"))]
    verdicts = [{"id": r["id"], "sample": r["sample"], "outcome": o, "extracted": None}
                for r, o in zip(rows, ("correct", "wrong", "wrong"), strict=True)]
    joined = verified_replies(rows, verdicts)
    assert [(r.text, r.finished, r.outcome) for r in joined["a"]] == [("a0", True, "correct"), ("a1", False, "wrong")]
    assert verified_replies(rows, None)["b"][0].outcome is None
    with pytest.raises(AssertionError, match="orders differ"):
        verified_replies(rows, verdicts[::-1])
