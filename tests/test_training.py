"""SFT and WD-JT through the real trainer on a small real model: the oracles of both methods (Eq. 1, 5, 6)."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from torch.optim.optimizer import register_optimizer_step_pre_hook

from baselines.batches import collate, encode_pool, ordered
from baselines.branches import BranchedModel, hidden_and_head, is_tied, load_causal_lm, untie
from baselines.selection import Selection, select
from baselines.settings import DataSettings, JointTraining, LossSettings, TrainingSettings
from baselines.sft import SFT
from baselines.trainer import last_complete_checkpoint, train
from baselines.wmss import WMSS
from foundation.errors import InputError, TrainingError
from foundation.seeds import stream
from replication.actions.training import check_same_tokenizer

TRAINING = TrainingSettings(learning_rate=1e-3, global_batch=8, micro_batch=8)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def run(rows, tokenizer, tmp_path):
    """Train a model on the rows; return the log."""

    def _run(model, training=TRAINING, *, updates=None, joint=None, data=rows, work="work"):
        chosen = ordered(data, training, epochs=1, seed=5, updates=updates)
        return train(model, chosen, tokenizer, training, seed=5, work=tmp_path / work, joint=joint)

    return _run


def sft(checkpoint, **options):
    return BranchedModel(SFT(), load_causal_lm(checkpoint), **options)


def pair(strong, weak, mix_weight, **options):
    joint = JointTraining(mix_weight=mix_weight)
    return BranchedModel(WMSS(joint=joint), load_causal_lm(strong), load_causal_lm(weak), **options)


def weights(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def gradients(model, batch, **options):
    model.zero_grad()
    loss = model(**batch, **options)
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture(scope="module")
def batch(rows):
    return collate(rows[:6], pad_id=0)


# ------------------------------------------------------------------------------------------------------------ SFT


def test_loss_is_the_token_mean_that_transformers_computes(tiny_checkpoint, batch):
    ours = sft(tiny_checkpoint)(**batch).item()
    theirs = load_causal_lm(tiny_checkpoint)(**batch).loss.item()
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_token_mean_and_example_mean_differ_as_defined(tiny_checkpoint, rows):
    one, other = rows[0], rows[1] | {"labels": [-100] * (len(rows[1]["labels"]) - 1) + rows[1]["labels"][-1:]}
    model = sft(tiny_checkpoint)
    separate = [model(**collate([row], 0)).item() for row in (one, other)]
    counts = [sum(label != -100 for label in row["labels"]) for row in (one, other)]
    both = collate([one, other], 0)
    token_mean = sum(c * loss for c, loss in zip(counts, separate, strict=True)) / sum(counts)
    assert model(**both).item() == pytest.approx(token_mean, rel=1e-5)
    example_mean = sft(tiny_checkpoint, reduction="example_mean")(**both).item()
    assert example_mean == pytest.approx(sum(separate) / 2, rel=1e-5)


def test_padding_and_prompt_labels_move_nothing(tiny_checkpoint, rows):
    model = sft(tiny_checkpoint)
    plain = gradients(model, collate(rows[:2], 0))
    longer = {k: torch.nn.functional.pad(v, (0, 7), value={"labels": -100}.get(k, 0))
              for k, v in collate(rows[:2], 0).items()}
    padded = gradients(model, longer)
    assert padded[0] == pytest.approx(plain[0], rel=1e-6)
    for name, gradient in plain[1].items():
        assert torch.allclose(gradient, padded[1][name], atol=1e-6)


def test_a_batch_without_supervised_tokens_is_a_zero_that_touches_the_parameters(tiny_checkpoint, batch):
    empty = batch | {"labels": torch.full_like(batch["labels"], -100)}
    loss, found = gradients(sft(tiny_checkpoint), empty, num_items_in_batch=5)
    assert loss == 0.0 and found and all(not gradient.any() for gradient in found.values())


@pytest.mark.parametrize("reduction", ["token_mean", "example_mean"])
def test_accumulation_changes_neither_losses_nor_weights(tiny_checkpoint, run, reduction):
    logs, final = [], []
    for micro in (8, 4, 1):
        model = sft(tiny_checkpoint, reduction=reduction)
        logs.append(run(model, replace(TRAINING, micro_batch=micro), updates=3, work=f"micro{micro}").losses)
        final.append(weights(model))
    for other_log, other in zip(logs[1:], final[1:], strict=True):
        assert other_log == pytest.approx(logs[0], rel=1e-5)
        assert all(torch.allclose(other[name], value, atol=2e-5) for name, value in final[0].items())


def test_accumulated_gradients_equal_one_batch(tiny_checkpoint, rows):
    """Adam hides a wrong scale, so gradients are compared, not only losses."""
    model, whole = sft(tiny_checkpoint), collate(rows[:4], 0)
    items = whole["labels"][:, 1:].ne(-100).sum()
    _, expected = gradients(model, whole, num_items_in_batch=items)
    model.zero_grad()
    for row in rows[:4]:
        model(**collate([row], 0), num_items_in_batch=items).backward()
    assert all(torch.allclose(p.grad, expected[name], atol=1e-6) for name, p in model.named_parameters())


@pytest.mark.parametrize(("schedule", "last_is_zero"), [("linear", True), ("cosine", True), ("constant", False)])
def test_the_schedule_warms_up_peaks_and_ends(tiny_checkpoint, run, schedule, last_is_zero):
    rates = run(sft(tiny_checkpoint), replace(TRAINING, lr_schedule=schedule, warmup_ratio=0.2), updates=20,
                work=schedule).learning_rates
    warmup = math.ceil(0.2 * 20)
    assert rates[0] == 0.0 and rates[warmup] == pytest.approx(TRAINING.learning_rate)
    assert all(a < b for a, b in itertools.pairwise(rates[: warmup + 1]))
    assert (rates[-1] < 0.1 * TRAINING.learning_rate) == last_is_zero


def test_updates_are_the_whole_batches_of_the_pool(tiny_checkpoint, run, rows):
    assert run(sft(tiny_checkpoint), data=rows[:23]).updates == 2  # floor(23 / 8): the partial batch is dropped


def test_two_epochs_restart_or_share_one_schedule():
    restart, single = SFT(), SFT(two_epoch="single")
    assert [(p.strong, p.epochs) for p in restart.phases()] == [("M1", 1)]
    assert [(p.strong, p.epochs) for p in single.phases()] == [("M0", 2)]


def test_a_loss_that_is_not_finite_names_update_and_examples(tiny_checkpoint, run, rows):
    model = sft(tiny_checkpoint)
    with torch.no_grad():
        model.strong.get_input_embeddings().weight[rows[0]["input_ids"][0]] = float("nan")
    with pytest.raises(TrainingError, match=r"loss became nan at update 1 of 3, in the batch of examples synthetic-"):
        run(model, updates=3)


def test_the_last_good_checkpoint_survives_a_divergence(tiny_checkpoint, run, tmp_path):
    model = sft(tiny_checkpoint)
    original, calls = model.method.loss, []

    def explode(labels_T, strong, weak):
        calls.append(1)
        return original(labels_T, strong, weak) * (float("inf") if len(calls) > 3 else 1.0)

    object.__setattr__(model.method, "loss", explode)
    with pytest.raises(TrainingError, match=r"loss became inf at update 4.*last good checkpoint is .*checkpoint-2"):
        run(model, replace(TRAINING, checkpoint_every=2), updates=6)
    assert list((tmp_path / "work").glob("checkpoint-2/*.safetensors"))


@pytest.mark.parametrize("updates", [4, 5])
def test_a_gradient_that_is_not_finite_stops_before_it_reaches_weights_or_checkpoints(tiny_checkpoint, run, tmp_path,
                                                                                     updates):
    model = sft(tiny_checkpoint)
    calls = []

    def poison(gradient):
        calls.append(1)
        return gradient * float("nan") if len(calls) > 3 else gradient

    model.strong.get_input_embeddings().weight.register_hook(poison)
    with pytest.raises(TrainingError, match=r"gradient became nan at update 4.*checkpoint-2"):
        run(model, replace(TRAINING, checkpoint_every=2), updates=updates)
    assert all(value.isfinite().all() for value in weights(model).values())
    assert not (tmp_path / "work/checkpoint-4").exists()


def test_a_half_written_checkpoint_is_not_resumed_from(tiny_checkpoint, run, tmp_path):
    training = replace(TRAINING, checkpoint_every=2)
    whole, resumed = sft(tiny_checkpoint), sft(tiny_checkpoint)
    expected = run(whole, training, updates=6, work="whole").losses
    run(sft(tiny_checkpoint), training, updates=6, work="killed")
    last = last_complete_checkpoint(tmp_path / "killed")
    assert last.name == "checkpoint-6"
    (last / "complete").unlink()
    (last / "model.safetensors").write_bytes(b"half")
    assert run(resumed, training, updates=6, work="killed").losses == pytest.approx(expected, rel=1e-6)
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())


@pytest.mark.parametrize("with_weak", [False, True])
def test_a_resumed_training_equals_the_uninterrupted_one(tiny_checkpoint, weak_checkpoint, run, with_weak):
    def fresh():
        return pair(tiny_checkpoint, weak_checkpoint, 0.5) if with_weak else sft(tiny_checkpoint)

    class Killed(Exception):
        pass

    training = replace(TRAINING, checkpoint_every=2)
    whole = fresh()
    uninterrupted = run(whole, training, updates=6, work="whole")
    stopped = fresh()
    original, calls = stopped.method.loss, []

    def die(labels_T, strong, weak):
        calls.append(1)
        if len(calls) > 5:
            raise Killed
        return original(labels_T, strong, weak)

    object.__setattr__(stopped.method, "loss", die)
    with pytest.raises(Killed):
        run(stopped, training, updates=6, work="killed")
    resumed = fresh()
    log = run(resumed, training, updates=6, work="killed")
    assert log.losses == pytest.approx(uninterrupted.losses, rel=1e-6)
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())


def test_an_exported_checkpoint_is_a_plain_model_with_the_trained_logits(tiny_checkpoint, weak_checkpoint, run, batch,
                                                                         tmp_path):
    model = pair(tiny_checkpoint, weak_checkpoint, 0.5)
    run(model, updates=2)
    model.strong.save_pretrained(tmp_path / "export")
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "export", local_files_only=True)
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
    assert torch.equal(plain(**inputs).logits, model.strong(**inputs).logits)
    assert plain.num_parameters() == load_causal_lm(tiny_checkpoint).num_parameters()
    assert is_tied(plain) and is_tied(model.strong) and is_tied(model.weak)


def test_untied_branches_export_their_own_head(tiny_checkpoint, run, batch, tmp_path):
    strong = load_causal_lm(tiny_checkpoint)
    untie(strong)
    run(BranchedModel(SFT(), strong), updates=2)
    strong.save_pretrained(tmp_path / "export")
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "export", local_files_only=True)
    assert not is_tied(plain)
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
    assert torch.equal(plain(**inputs).logits, strong(**inputs).logits)


def test_what_a_process_trained_before_leaks_into_nothing(tiny_checkpoint, run):
    """A worker runs many steps; accelerate keeps state of its own between them."""
    bf16 = replace(TRAINING, compute_dtype="bfloat16")
    losses = [run(sft(tiny_checkpoint), training, updates=2, work=f"run{i}").losses
              for i, training in enumerate((TRAINING, bf16, TRAINING, bf16))]
    assert losses[0] == losses[2] and losses[1] == losses[3] and losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)


# ---------------------------------------------------------------------------------------------------------- WD-JT


def test_lambda_one_without_selection_gives_sfts_losses_over_20_steps(tiny_checkpoint, weak_checkpoint, run):
    plain, mixed = sft(tiny_checkpoint), pair(tiny_checkpoint, weak_checkpoint, 1.0)
    expected, found = run(plain, updates=20, work="sft"), run(mixed, updates=20, work="wdjt")
    assert len(found.losses) == 20
    assert found.losses == pytest.approx(expected.losses, abs=1e-5)
    assert all(torch.allclose(value, dict(mixed.strong.named_parameters())[name.removeprefix("strong.")], atol=1e-6)
               for name, value in weights(plain).items())


@pytest.mark.parametrize(("mix_weight", "idle"), [(1.0, "weak"), (0.0, "strong")])
def test_the_idle_branch_is_bit_identical_after_adamw(tiny_checkpoint, weak_checkpoint, run, mix_weight, idle):
    model = pair(tiny_checkpoint, weak_checkpoint, mix_weight)
    before = weights(model)
    run(model, updates=3)
    moved = {name.split(".")[0] for name, value in weights(model).items() if not torch.equal(value, before[name])}
    assert moved == {"weak", "strong"} - {idle}


def test_lambda_one_gives_sfts_gradient_and_none_to_the_weak_branch(tiny_checkpoint, weak_checkpoint, batch):
    loss, expected = gradients(sft(tiny_checkpoint), batch)
    mixed_loss, found = gradients(pair(tiny_checkpoint, weak_checkpoint, 1.0), batch)
    assert mixed_loss == pytest.approx(loss, rel=1e-6)
    for name, gradient in found.items():
        if name.startswith("weak."):
            assert not gradient.any()
        else:
            assert torch.allclose(gradient, expected[name], atol=1e-6)


@pytest.mark.parametrize("mix_weight", [0.2, 0.5, 0.8])
def test_equal_branches_share_sfts_gradient_by_lambda(tiny_checkpoint, batch, mix_weight):
    loss, expected = gradients(sft(tiny_checkpoint), batch)
    mixed_loss, found = gradients(pair(tiny_checkpoint, tiny_checkpoint, mix_weight), batch)
    assert mixed_loss == pytest.approx(loss, rel=1e-5)
    for name, gradient in found.items():
        branch, _, parameter = name.partition(".")
        share = mix_weight if branch == "strong" else 1 - mix_weight
        assert torch.allclose(gradient, share * expected[f"strong.{parameter}"], atol=2e-6)


def test_both_branches_are_updated(tiny_checkpoint, weak_checkpoint, run):
    model = pair(tiny_checkpoint, weak_checkpoint, 0.5)
    before = weights(model)
    run(model, updates=3)
    assert all(not torch.equal(value, before[name]) for name, value in weights(model).items() if value.dim() > 1)


def test_a_frozen_weak_branch_stays_and_has_no_optimizer_state(tiny_checkpoint, weak_checkpoint, run, batch):
    frozen = pair(tiny_checkpoint, weak_checkpoint, 0.5, freeze_weak=True)
    assert frozen(**batch).item() == pair(tiny_checkpoint, weak_checkpoint, 0.5)(**batch).item()
    before = weights(frozen)
    run(frozen, updates=10, joint=JointTraining(freeze_weak=True))
    after = weights(frozen)
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("weak."))
    assert any(not torch.equal(after[name], before[name]) for name in before if name.startswith("strong."))
    assert {name.split(".")[0] for name, p in frozen.named_parameters() if p.requires_grad} == {"strong"}


def test_joint_clipping_takes_one_norm_and_per_branch_two(tiny_checkpoint, weak_checkpoint, run, rows):
    norms = {}
    for clip in ("joint", "per_branch"):
        model = pair(tiny_checkpoint, weak_checkpoint, 0.9)
        stepped = record_norms(model, norms.setdefault(clip, []))
        run(model, replace(TRAINING, clip_norm=1e-2), updates=1, work=clip, joint=JointTraining(clip=clip))
        stepped.remove()
    (strong, weak), = norms["per_branch"]
    assert strong == pytest.approx(1e-2, rel=1e-3) and weak == pytest.approx(1e-2, rel=1e-3)
    (strong, weak), = norms["joint"]
    assert math.hypot(strong, weak) == pytest.approx(1e-2, rel=1e-3) and weak < strong


def record_norms(model, found):
    """Note the gradient norms of both branches when the optimizer steps."""
    def note(optimizer, *_):
        found.append([torch.nn.utils.get_total_norm([p.grad for p in branch.parameters()]).item()
                      for branch in (model.strong, model.weak)])

    return register_optimizer_step_pre_hook(note)


@pytest.mark.parametrize("options", [{"param_dtype": "bf16_pure"}, {"compute_dtype": "bfloat16"}])
def test_other_precisions_train(tiny_checkpoint, run, options):
    training = replace(TRAINING, **options)
    model = BranchedModel(SFT(), load_causal_lm(tiny_checkpoint, training.param_dtype))
    losses = run(model, training, updates=6).losses
    assert losses[-1] < losses[0]
    dtypes = {p.dtype for p in model.parameters()}
    assert dtypes == {torch.bfloat16 if "param_dtype" in options else torch.float32}


@pytest.mark.parametrize("with_weak", [False, True])
def test_gradient_checkpointing_changes_nothing(tiny_checkpoint, weak_checkpoint, run, with_weak):
    logs = []
    for checkpointing in (False, True):
        model = pair(tiny_checkpoint, weak_checkpoint, 0.5) if with_weak else sft(tiny_checkpoint)
        training = replace(TRAINING, gradient_checkpointing=checkpointing)
        logs.append(run(model, training, updates=3, work=f"gc{checkpointing}").losses)
        assert model.strong.is_gradient_checkpointing == checkpointing
    assert logs[1] == pytest.approx(logs[0], rel=1e-5)


def test_the_weak_branch_can_have_its_own_rate(tiny_checkpoint, weak_checkpoint, run):
    model = pair(tiny_checkpoint, weak_checkpoint, 0.5)
    before = weights(model)
    run(model, replace(TRAINING, warmup_ratio=0.0), updates=1, joint=JointTraining(weak_learning_rate=1e-6))
    moved = {branch: max((value - before[name]).abs().max().item() for name, value in weights(model).items()
                         if name.startswith(branch)) for branch in ("strong", "weak")}
    assert moved["weak"] < 1e-5 < moved["strong"]


def test_different_vocabularies_are_refused(tiny_checkpoint, tokenizer):
    strong, weak = load_causal_lm(tiny_checkpoint), load_causal_lm(tiny_checkpoint)
    weak.resize_token_embeddings(len(tokenizer) + 8)
    with pytest.raises(InputError, match=rf"{len(tokenizer) + 8} tokens.*{len(tokenizer)}"):
        BranchedModel(WMSS(), strong, weak)


def test_tokenizers_that_name_ids_differently_are_refused(tokenizer, tmp_path):
    other = transformers.AutoTokenizer.from_pretrained(tokenizer.name_or_path, local_files_only=True)
    other.add_tokens(["brand-new"])
    with pytest.raises(InputError, match="different vocabularies"):
        check_same_tokenizer(tokenizer, other)
    check_same_tokenizer(tokenizer, tokenizer)


def test_lambda_one_on_a_uniform_draw_is_sft_on_a_bootstrap_sample(tiny_checkpoint, weak_checkpoint, run, rows):
    """Oracle 8.3.2: without dedup and with equal weights, WMSS at lambda = 1 is SFT on what was drawn."""
    flat = [1.0] * len(rows)
    drawn = select(flat, flat, Selection(dedup=False), stream("test", 1))
    assert len(drawn.ids) == len(rows) > len(set(drawn.ids.tolist()))
    sample = [rows[i] for i in drawn.ids]
    expected = run(sft(tiny_checkpoint), data=sample, work="sft").losses
    assert run(pair(tiny_checkpoint, weak_checkpoint, 1.0), data=sample, work="wmss").losses == pytest.approx(
        expected, abs=1e-5)


# ------------------------------------------------------------------------------------------------- data and batches


@pytest.mark.parametrize(("examples_", "updates"), [(62_976, 123), (111_657, 218)])
def test_the_papers_update_counts_follow_from_its_batch(examples_, updates):
    """Oracle 8.3.5, and Fig. 4's 218."""
    fake = [{"id": str(i), "input_ids": [0]} for i in range(examples_)]
    training = TrainingSettings(learning_rate=1e-5, global_batch=512, micro_batch=1)
    assert len(ordered(fake, training, epochs=1, seed=0)) == updates * 512


def test_order_is_a_permutation_fixed_by_the_seed(rows):
    first, again = (ordered(rows, TRAINING, epochs=2, seed=1) for _ in range(2))
    other = ordered(rows, TRAINING, epochs=2, seed=2)
    assert [r["id"] for r in first] == [r["id"] for r in again] != [r["id"] for r in other]
    assert sorted(r["id"] for r in first[:64]) == sorted(r["id"] for r in rows)
    assert first[:64] != first[64:]


def test_micro_batches_of_an_update_hold_similar_lengths(rows):
    lengths = [len(r["input_ids"]) for r in ordered(rows, TRAINING, epochs=1, seed=1)]
    assert all(lengths[i : i + 8] == sorted(lengths[i : i + 8], reverse=True) for i in range(0, len(lengths), 8))


def test_step_matching_repeats_the_active_set(rows):
    assert len(ordered(rows[:20], TRAINING, epochs=1, seed=1, updates=8)) == 64


def test_too_few_examples_for_one_update_are_refused(rows):
    with pytest.raises(TrainingError, match="only 5 examples for a global batch of 8"):
        ordered(rows[:5], TRAINING, epochs=1, seed=1)


def test_only_the_completion_and_its_terminator_are_supervised(examples, tokenizer, prompt):
    (row,) = encode_pool(examples[:1], tokenizer, prompt, DataSettings(max_length=256), LossSettings()).rows
    kept = [label for label in row["labels"] if label != -100]
    assert tokenizer.decode(kept) == examples[0]["completion"] + "<|im_end|>"
    assert tokenizer.decode(row["input_ids"]).endswith(examples[0]["completion"] + "<|im_end|>")


def test_full_sequence_supervises_the_prompt_too(examples, tokenizer, prompt):
    loss = LossSettings(mask="full_sequence")
    (row,) = encode_pool(examples[:1], tokenizer, prompt, DataSettings(max_length=256), loss).rows
    assert row["labels"] == [-100, *row["input_ids"][1:]]


def test_overlong_examples_are_cut_on_the_right_or_dropped(examples, tokenizer, prompt):
    longest = max(len(row["input_ids"]) for row in
                  encode_pool(examples, tokenizer, prompt, DataSettings(max_length=256), LossSettings()).rows)
    cut = encode_pool(examples, tokenizer, prompt, DataSettings(max_length=longest - 1), LossSettings())
    assert cut.truncated >= 1 and max(len(row["input_ids"]) for row in cut.rows) == longest - 1
    dropped = encode_pool(examples, tokenizer, prompt,
                          DataSettings(max_length=longest - 1, overlength="drop"), LossSettings())
    assert dropped.dropped == cut.truncated and len(dropped.rows) == len(examples) - dropped.dropped


def test_a_prompt_that_fills_the_limit_is_refused(examples, tokenizer, prompt):
    with pytest.raises(InputError, match=r"example synthetic-math-0: its prompt has \d+ tokens, the limit is 10"):
        encode_pool(examples[:1], tokenizer, prompt, DataSettings(max_length=10), LossSettings())


def test_joint_and_separate_tokenisation_agree_here(examples, tokenizer, prompt):
    both = [encode_pool(examples, tokenizer, replace(prompt, tokenise=how), DataSettings(max_length=256),
                        LossSettings()).rows for how in ("separate", "joint")]
    assert both[0] == both[1]


def test_hidden_states_times_head_are_the_models_logits(tiny_checkpoint, batch):
    model = load_causal_lm(tiny_checkpoint)
    hidden_BSD, head_VD = hidden_and_head(model, batch["input_ids"], batch["attention_mask"])
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert torch.allclose(hidden_BSD @ head_VD.T, logits, atol=1e-5)


def test_nothing_is_left_in_the_working_folder_without_checkpoints(tiny_checkpoint, run, tmp_path):
    run(sft(tiny_checkpoint), updates=2)
    assert not list(Path(tmp_path / "work").glob("checkpoint-*"))
