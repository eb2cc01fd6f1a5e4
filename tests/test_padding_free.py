"""Micro-batches laid end to end give the losses and gradients of padded ones; what cannot be laid so stays padded."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
import transformers

from baselines.batches import collate, flatten, ordered
from baselines.branches import BranchedModel, attention_kernel, load_causal_lm
from baselines.interface import StoredLogits
from baselines.neftune import NEFTune
from baselines.settings import JointTraining, TrainingSettings
from baselines.sft import SFT
from baselines.trainer import lays_end_to_end, train
from baselines.undial import UNDIAL
from baselines.wmss import WMSS
from foundation.errors import InputError, PrerequisiteError
from replication import tiny
from replication.configuration import with_changes
from replication.scales import SCALES

TRAINING = TrainingSettings(learning_rate=1e-3, global_batch=8, micro_batch=4, padding_free=True)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def gemma_checkpoint(tmp_path_factory):
    """Random weights of the tiny Gemma-3 text architecture: sliding windows shorter than an example."""
    folder = tmp_path_factory.mktemp("gemma")
    tokenizer = tiny.build_tokenizer(folder, "tiny-gemma")
    torch.manual_seed(3)
    config = transformers.Gemma3TextConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, sliding_window=16, pad_token_id=0,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"])
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def gradients(model, batch, **options):
    model.zero_grad()
    loss = model(**batch, **options)
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equal(padded, flat):
    assert flat[0] == pytest.approx(padded[0], abs=1e-5)
    assert padded[1].keys() == flat[1].keys()
    for name, gradient in padded[1].items():
        assert torch.allclose(flat[1][name], gradient, atol=1e-5), name


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("reduction", ["token_mean", "example_mean"])
@pytest.mark.parametrize("method", ["sft", "wdjt"])
def test_losses_and_gradients_are_those_of_padded_batches(tiny_checkpoint, weak_checkpoint, rows, method, reduction,
                                                          checkpointing):
    weak = load_causal_lm(weak_checkpoint) if method == "wdjt" else None
    loss = SFT() if weak is None else WMSS(joint=JointTraining(mix_weight=0.4))
    model = BranchedModel(loss, load_causal_lm(tiny_checkpoint), weak, reduction=reduction).train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    assert len({len(row["input_ids"]) for row in rows[:5]}) > 1, "rows of one length would prove nothing"
    assert_equal(gradients(model, collate(rows[:5], 0), num_items_in_batch=100),
                 gradients(model, flatten(rows[:5]), num_items_in_batch=100))


def test_windows_of_local_layers_end_at_the_example(gemma_checkpoint, rows, tokenizer):
    model = BranchedModel(SFT(), load_causal_lm(gemma_checkpoint)).train()
    limit = model.config.vocab_size
    low = [row | {"input_ids": [i % limit for i in row["input_ids"]],
                  "labels": [i if i < 0 else i % limit for i in row["labels"]]} for row in rows[:4]]
    assert max(len(row["input_ids"]) for row in low) > 16
    assert_equal(gradients(model, collate(low, 0)), gradients(model, flatten(low)))


def test_a_frozen_reference_and_the_noise_of_the_loss_are_the_same(tiny_checkpoint, weak_checkpoint, rows):
    method = UNDIAL()
    model = BranchedModel(method, load_causal_lm(tiny_checkpoint), reference=load_causal_lm(weak_checkpoint),
                          noise_seed=7).train()
    numbered = [row | {"row": 40 + i} for i, row in enumerate(rows[:4])]
    assert_equal(gradients(model, collate(numbered, 0)), gradients(model, flatten(numbered)))


def test_rows_keep_their_stored_logits_and_their_places(rows):
    counts = [sum(label != -100 for label in row["labels"]) for row in rows[:3]]
    total = sum(counts)
    teacher = StoredLogits(torch.arange(total * 2).view(total, 2), torch.rand(total, 2), torch.rand(total),
                           torch.ones(total, dtype=torch.bool))
    numbered = [row | {"row": i, "teacher_start": sum(counts[:i])} for i, row in enumerate(rows[:3])][::-1]
    padded, flat = collate(numbered, 0, teacher), flatten(numbered, teacher)
    for name in (*(f"teacher_{field}" for field in StoredLogits._fields), "row"):
        assert torch.equal(padded[name], flat[name]), name
    assert flat["input_ids"].shape == (1, sum(len(row["input_ids"]) for row in numbered))


def test_no_example_predicts_the_first_token_of_the_next(rows):
    whole = [row | {"labels": list(row["input_ids"])} for row in rows[:3]]  # even where the labels would ask for it
    starts = flatten(whole)["position_ids"].eq(0)
    assert starts.sum() == 3 and flatten(whole)["labels"][starts].eq(-100).all()


def test_a_training_without_padding_is_the_padded_one(tiny_checkpoint, rows, tokenizer, tmp_path):
    logs, widths = [], []
    for flat in (False, True):
        model = BranchedModel(SFT(), load_causal_lm(tiny_checkpoint))
        seen = model.register_forward_pre_hook(
            lambda module, args, kwargs: widths.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True)
        training = replace(TRAINING, padding_free=flat)
        chosen = ordered(rows, training, epochs=1, seed=5, updates=4)
        logs.append(train(model, chosen, tokenizer, training, seed=5, work=tmp_path / str(flat)).losses)
        seen.remove()
    assert logs[1] == pytest.approx(logs[0], abs=1e-5)
    padded, laid = widths[:8], widths[8:]
    assert all(batch == 4 for batch, _ in padded) and all(batch == 1 for batch, _ in laid)
    assert sum(width for _, width in laid) < sum(batch * width for batch, width in padded)


def test_what_perturbs_embeddings_is_padded_all_the_same(tiny_checkpoint, rows, tokenizer, tmp_path):
    model = BranchedModel(NEFTune(), load_causal_lm(tiny_checkpoint))
    assert not lays_end_to_end(model, TRAINING, None)
    chosen = ordered(rows, TRAINING, epochs=1, seed=5, updates=1)
    found = train(model, chosen, tokenizer, TRAINING, seed=5, work=tmp_path / "asked").losses
    again = BranchedModel(NEFTune(), load_causal_lm(tiny_checkpoint))
    assert found == train(again, chosen, tokenizer, replace(TRAINING, padding_free=False), seed=5,
                          work=tmp_path / "padded").losses
    plain = BranchedModel(SFT(), load_causal_lm(tiny_checkpoint))
    assert lays_end_to_end(plain, TRAINING, None) and not lays_end_to_end(plain, TRAINING, {"neftune_noise_alpha": 5})


def test_neither_padding_nor_the_attention_kernel_is_part_of_identity():
    metadata = {f.name: f.metadata for f in fields(TrainingSettings)}
    assert not metadata["padding_free"]["identity"] and not metadata["attention"]["identity"]
    changed = with_changes(SCALES["tiny"].configuration, ["train.padding_free=true", "train.attention=eager"])
    assert changed.train.padding_free and changed.second_epoch.attention == "eager"


def test_flash_attention_is_chosen_where_it_can_be_had(monkeypatch, tiny_checkpoint):
    bfloat16 = replace(TRAINING, compute_dtype="bfloat16")
    assert attention_kernel(bfloat16) is None, "no GPU here"
    assert load_causal_lm(tiny_checkpoint, attention=None).config._attn_implementation == "sdpa"
    assert load_causal_lm(tiny_checkpoint, attention="eager").config._attn_implementation == "eager"
    with pytest.raises(PrerequisiteError, match=r"needs a CUDA GPU and the package flash-attn; pip install"):
        attention_kernel(replace(bfloat16, attention="flash_attention_2"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("baselines.branches.is_flash_attn_2_available", lambda: True)
    assert attention_kernel(bfloat16) == "flash_attention_2" and attention_kernel(TRAINING) is None
    assert attention_kernel(replace(bfloat16, attention="sdpa")) == "sdpa"
    with pytest.raises(InputError, match=r"train\.compute_dtype is float32"):
        attention_kernel(replace(TRAINING, attention="flash_attention_2"))
