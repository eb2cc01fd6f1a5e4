"""NEFTune: the oracles of its noise (bounds, moments, lengths), and where the noise enters the model."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from baselines.batches import collate, ordered
from baselines.branches import BranchedModel, hidden_and_head, load_causal_lm
from baselines.interface import Train
from baselines.neftune import NEFTune, embedding_noise
from baselines.settings import TrainingSettings
from baselines.sft import SFT
from baselines.trainer import train

TRAINING = TrainingSettings(learning_rate=1e-3, global_batch=8, micro_batch=8)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def batch(rows):
    return collate([row | {"row": i} for i, row in enumerate(rows[:4])], pad_id=0)


def noise_of(lengths, width, alpha=5.0, padded_to=None, seed=1):
    size = padded_to or max(lengths)
    mask_BS = torch.stack([torch.arange(size) < length for length in lengths]).long()
    return embedding_noise(torch.zeros(len(lengths), size, width), mask_BS, [seed + b for b in range(len(lengths))],
                           alpha)


def model_of(checkpoint, method, **options):
    return BranchedModel(method, load_causal_lm(checkpoint), **options)


# ---------------------------------------------------------------------------------------------------------- noise


def test_bound_spread_and_kurtosis_at_the_papers_size():
    """Oracle 3.1: alpha 5, L 2048, d 2560."""
    noise = noise_of([2048], 2560)
    assert 0.99 * 0.00218366 < noise.abs().max().item() <= 0.00218366 * (1 + 1e-6)  # the oracle's six digits
    assert noise.std().item() == pytest.approx(0.00126074, rel=0.01)
    kurtosis = (noise.double() ** 4).mean() / (noise.double() ** 2).mean() ** 2
    assert kurtosis.item() == pytest.approx(1.8, rel=0.01)  # uniform; a Gaussian has 3
    assert abs(noise.mean().item()) < 1e-5


@pytest.mark.parametrize(("length", "width"), [(7, 640), (300, 64), (2048, 128)])
def test_its_norm_depends_on_neither_length_nor_width(length, width):
    """Oracle 3.2: E ||n||^2 = alpha^2 / 3."""
    squared = [noise_of([length], width, seed=seed).square().sum().item() for seed in range(20)]
    assert math.sqrt(sum(squared) / 20) == pytest.approx(2.8868, rel=0.02)


def test_padding_gets_none_and_leaves_each_examples_bound_alone():
    """Oracle 3.4, per_example."""
    tight, padded = noise_of([40], 32), noise_of([40], 32, padded_to=100)
    assert torch.equal(padded[:, :40], tight) and not padded[:, 40:].any()
    short, long = noise_of([10, 90], 32)
    assert short.abs().max().item() == pytest.approx(5 / math.sqrt(10 * 32), rel=0.02)
    assert long.abs().max().item() == pytest.approx(5 / math.sqrt(90 * 32), rel=0.02)


@pytest.mark.parametrize(("pads", "expected"), [(0, 1.0), (60, math.sqrt(40 / 100))])
def test_the_librarys_hook_divides_by_the_padded_width(tiny_checkpoint, pads, expected):
    """Oracle 3.4, padded: the bound shrinks by sqrt(L / (L + k)), and padding is perturbed too."""
    from transformers.integrations.neftune import neftune_post_forward_hook

    (phase,) = NEFTune(length="padded").phases()
    alpha = phase.trainer["neftune_noise_alpha"]
    embedding = load_causal_lm(tiny_checkpoint).get_input_embeddings()
    plain = embedding(torch.zeros(1, 40 + pads, dtype=torch.long))
    embedding.neftune_noise_alpha = alpha
    embedding.register_forward_hook(neftune_post_forward_hook)
    noise = embedding.train()(torch.zeros(1, 40 + pads, dtype=torch.long)) - plain
    own_bound = 5 / math.sqrt(40 * noise.shape[-1])
    assert noise.abs().max().item() == pytest.approx(expected * own_bound, rel=0.02)
    assert pads == 0 or noise[:, 40:].any()


def test_the_padded_reading_leaves_the_noise_to_the_library(batch, tiny_checkpoint):
    padded = NEFTune(length="padded")
    embeddings = torch.ones(1, 3, 2)
    assert padded.embed(embeddings, torch.ones(1, 3), [1]) is embeddings
    assert [dict(p.trainer) for p in NEFTune().phases()] == [{}]
    assert [dict(p.trainer) for p in padded.phases()] == [{"neftune_noise_alpha": 5.0}]


# ---------------------------------------------------------------------------------------------------------- model


def test_evaluation_is_bit_identical_to_the_plain_model(tiny_checkpoint, batch):
    """Oracle 3.3."""
    noisy, plain = model_of(tiny_checkpoint, NEFTune()).eval(), model_of(tiny_checkpoint, SFT()).eval()
    assert torch.equal(noisy(**batch), plain(**batch))


def test_alpha_zero_is_sft(tiny_checkpoint, batch):
    noisy, plain = model_of(tiny_checkpoint, NEFTune(alpha=0.0)).train(), model_of(tiny_checkpoint, SFT()).train()
    assert torch.equal(noisy(**batch), plain(**batch))


def test_each_visit_has_new_noise_and_the_same_visit_the_same(tiny_checkpoint, batch):
    """Oracle 3.3: row is the position in the training order, so a second epoch is another visit."""
    model = model_of(tiny_checkpoint, NEFTune(), noise_seed=3).train()
    first, again = model(**batch), model(**batch)
    later = model(**batch | {"row": batch["row"] + 64})
    other_seed = model_of(tiny_checkpoint, NEFTune(), noise_seed=4).train()(**batch)
    plain = model_of(tiny_checkpoint, SFT()).train()(**batch)
    assert torch.equal(first, again) and len({x.item() for x in (first, later, other_seed, plain)}) == 4


def test_padding_moves_nothing(tiny_checkpoint, batch):
    longer = {k: torch.nn.functional.pad(v, (0, 9), value={"labels": -100}.get(k, 0)) if v.dim() == 2 else v
              for k, v in batch.items()}
    model = model_of(tiny_checkpoint, NEFTune()).train()
    assert model(**longer).item() == pytest.approx(model(**batch).item(), rel=1e-5)


def test_gradient_reaches_the_embedding_table_unchanged(tiny_checkpoint, rows):
    """X' = X + n has dX'/dX = 1: the table's gradient is the sum of the gradients at X', position by position."""
    from baselines.branches import untie

    strong = load_causal_lm(tiny_checkpoint)
    untie(strong)  # else the head's gradient is in the same tensor
    model = BranchedModel(NEFTune(), strong).train()
    kept = []
    original = type(model.method).embed

    class Spy(NEFTune):
        def embed(self, embeddings_BSD, mask_BS, seeds_B):
            kept.append(original(self, embeddings_BSD, mask_BS, seeds_B))
            kept[0].retain_grad()
            return kept[0]

    model.method = Spy()
    one = collate([rows[0] | {"row": 0}], pad_id=0)
    model(**one).backward()
    table_VD = model.get_input_embeddings().weight.grad
    expected_VD = torch.zeros_like(table_VD).index_add_(0, one["input_ids"][0], kept[0].grad[0])
    assert expected_VD.any() and torch.allclose(table_VD, expected_VD, atol=1e-7)


def test_noise_comes_after_gemmas_scaling_of_embeddings():
    """A-21: the embedding module itself multiplies by sqrt(d); the noise has the bound of the scaled width."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    torch.manual_seed(0)
    gemma = Gemma3ForCausalLM(Gemma3TextConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=64, sliding_window=16, pad_token_id=0))
    ids_BS = torch.arange(1, 21).unsqueeze(0)
    embedded_BSD = gemma.get_input_embeddings()(ids_BS)
    assert torch.allclose(embedded_BSD, 4 * gemma.get_input_embeddings().weight[ids_BS], rtol=1e-4)
    noisy_BSD = NEFTune().embed(embedded_BSD, torch.ones_like(ids_BS), [1])
    assert (noisy_BSD - embedded_BSD).abs().max().item() == pytest.approx(5 / math.sqrt(20 * 16), rel=0.05)
    # and what the branch passes on is not scaled a second time
    plain, given = (hidden_and_head(gemma.eval(), ids_BS, torch.ones_like(ids_BS), e)[0] for e in (None, embedded_BSD))
    assert torch.allclose(plain, given, atol=1e-6)


# --------------------------------------------------------------------------------------------------------- training


@pytest.fixture
def run(rows, tokenizer, tmp_path, tiny_checkpoint):
    def _run(method, training=TRAINING, work="work"):
        model = model_of(tiny_checkpoint, method, noise_seed=7)
        (phase,) = [p for p in method.phases() if isinstance(p, Train)]
        chosen = ordered(rows, training, epochs=1, seed=5, updates=3)
        log = train(model, chosen, tokenizer, training, seed=5, work=tmp_path / work, library_arguments=phase.trainer)
        return log.losses, model

    return _run


def test_gradient_checkpointing_reuses_the_same_noise(run):
    """Oracle 3.5."""
    plain, expected = run(NEFTune(), work="plain")
    checkpointed, model = run(NEFTune(), replace(TRAINING, gradient_checkpointing=True), work="checkpointed")
    assert checkpointed == pytest.approx(plain, rel=1e-6)
    for (name, a), (_, b) in zip(model.named_parameters(), expected.named_parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6), name


@pytest.mark.parametrize("length", ["per_example", "padded"])
def test_training_is_perturbed_reproducible_and_leaves_no_hook_behind(run, batch, length):
    first, model = run(NEFTune(length=length), work="first")
    again, _ = run(NEFTune(length=length), work="again")
    plain, _ = run(SFT(), work="sft")
    assert first == again and first != plain
    model.strong.train()
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
    assert torch.equal(model.strong(**inputs).logits, model.strong(**inputs).logits)
