"""WMSS as declared: its phases (Algorithm 1), its entropies (Eq. 7), and how the plan turns them into shared steps."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from baselines import METHODS
from baselines.batches import encode_pool
from baselines.branches import load_causal_lm
from baselines.interface import Score, Select, Train
from baselines.scoring import example_entropies, length_batches, official_entropies, official_rows
from baselines.selection import Selection, weights
from baselines.settings import DataSettings, JointTraining, LossSettings
from baselines.wmss import WMSS
from foundation.errors import InputError
from replication.configuration import with_changes
from replication.models import MODELS
from replication.plan import Planner, Request
from replication.scales import SCALES
from replication.steps import closure


def planner(*changes, model="tiny", **options):
    scale = SCALES[MODELS[model].scale]
    configuration = with_changes(scale.configuration, list(changes))
    defaults = {"data_root": None, "limit_train": None, "limit_eval": None, "seed": 0, "plan_only": True}
    return Planner(Request(model=MODELS[model], scale=scale, configuration=configuration, **(defaults | options)))


# --------------------------------------------------------------------------------------------------------- phases


def test_k_iterations_pair_each_checkpoint_with_the_one_before():
    """Oracle 8.3.1: (M0, M1), (M1, M2), (M2, M3), and the result is M4."""
    trainings = [phase for phase in WMSS(iterations=3).phases() if isinstance(phase, Train)]
    assert [(t.weak, t.strong, t.out) for t in trainings] == [("M0", "M1", "M2"), ("M1", "M2", "M3"),
                                                              ("M2", "M3", "M4")]


def test_each_iteration_scores_both_sides_and_draws_anew_from_the_full_pool():
    phases = list(WMSS(iterations=2).phases())
    assert [p.of for p in phases if isinstance(p, Score)] == ["M0", "M1", "M1", "M2"]
    assert [(p.weak, p.strong, p.draw) for p in phases if isinstance(p, Select)] == [("M0", "M1", 1), ("M1", "M2", 2)]


def test_without_selection_the_pair_sees_the_whole_pool():
    (only,) = WMSS(modules="wd_jt").phases()
    assert only.data == "pool"


def test_equal_entropies_of_the_two_sides_share_their_step():
    kinds = [step.kind for step in closure([planner("wmss.iterations=2").final("wmss")])]
    assert kinds.count("entropy") == 3 and kinds.count("select") == 2 and kinds.count("train") == 3


@pytest.mark.parametrize("iterations", [0, -1])
def test_k_below_one_is_refused(iterations):
    with pytest.raises(InputError, match="at least 1"):
        WMSS(iterations=iterations)


def test_the_registry_is_a_plain_dict_of_methods_with_titles():
    assert list(METHODS) == ["sft", "undial", "neftune", "spin", "ssb", "dpo", "wmss"]
    assert [m.title for m in METHODS.values()] == ["SFT", "UNDIAL", "NEFTune", "SPIN", "SSB", "DPO", "WMSS"]


# ----------------------------------------------------------------------------------------------------------- plan


def test_what_methods_share_is_one_step():
    plan = planner()
    sft, wmss = (plan.final(name) for name in ("sft", "wmss"))
    shared = {step.key for step in closure([sft])} & {step.key for step in closure([wmss])}
    assert {plan.base().key, plan.pool().key, plan.warmup().key} <= shared


def test_a_sweep_of_lambda_shares_everything_but_the_training():
    first, second = (closure([planner(f"wdjt.mix_weight={value}").final("wmss")]) for value in (0.4, 0.6))
    assert [a.key == b.key for a, b in zip(first, second, strict=True)] == [True] * (len(first) - 1) + [False]


def test_the_warm_up_does_not_depend_on_wmss_settings():
    changed = planner("wdjt.freeze_weak=true", "wdds.alpha=0.3", "wmss.iterations=2")
    assert changed.warmup().key == planner().warmup().key


def test_single_schedule_sft_starts_from_the_base():
    step = planner("sft.two_epoch=single").final("sft")
    assert step.strong.kind == "pretrain" and step.epochs == 2


def test_a_weak_side_that_is_the_strong_one_is_warned_of():
    from replication.actions.training import _warnings

    same = planner().final("wmss-wd-jt[wmss.weak_checkpoint=218]")
    assert same.weak.key == same.strong.key and "discrepancy is zero" in _warnings(same, padding_free=False)[0]
    assert _warnings(planner().final("wmss"), padding_free=False) == []


def test_a_weak_side_inside_the_epoch_is_a_snapshot_of_the_warm_up():
    step = planner().final("wmss-wd-jt[wmss.weak_checkpoint=50]")
    assert (step.weak.kind, step.weak.which, step.weak.of.key) == ("snapshot", "ck-50", planner().warmup().key)
    with pytest.raises(InputError, match="50, 100, 150, 200, 218"):
        planner().final("wmss[wmss.weak_checkpoint=51]")


def test_a_variant_keeps_what_makes_it_whatever_the_run_sets():
    assert planner("wdjt.freeze_weak=false").row("wmss-frozen").method.joint.freeze_weak
    assert planner("wdjt.mix_weight=0.3").row("wmss-frozen").method.joint.mix_weight == 0.3


def test_settings_that_train_no_weak_branch_cannot_keep_one():
    for changes in (("wdjt.export=weak", "wdjt.freeze_weak=true"), ("wdjt.export=weak", "wmss.modules=wd_ds"),
                    ("wmss.iterations=2", "wmss.weak_init=cotrained_weak", "wdjt.freeze_weak=true")):
        with pytest.raises(InputError, match="weak"):
            planner().row(f"wmss[{';'.join(changes)}]")


def test_a_row_that_the_run_changes_is_no_longer_the_papers():
    assert not planner().row("wmss").changed and not planner().row("undial-original").changed
    assert planner("wdjt.mix_weight=0.1").row("wmss").changed
    assert not planner("wdjt.mix_weight=0.1").row("sft").changed


@pytest.mark.parametrize("change", ["spin.subset=-5", "spin.top_p=3", "spin.top_k=-1", "ssb.kd_temperature=0",
                                    "ssb.kd_share=3", "ssb.stored_logits=0", "ssb.teacher_context=0",
                                    "undial.sigma=-1", "neftune.alpha=-5", "spin.beta=0", "dpo.beta=-1"])
def test_settings_of_methods_that_cannot_work_are_refused_before_anything_runs(change):
    with pytest.raises(InputError):
        planner(change).final(change.partition(".")[0])


def test_the_exception_for_silent_bases_is_named_only_where_it_holds():
    assert planner().row("ssb").adapted == ("init = sft_epoch1",)
    assert planner("ssb.init=base").row("ssb").adapted == ()
    qwen = planner(model="qwen3-4b").row("ssb")
    assert (qwen.adapted, qwen.method.init) == ((), "base")


def test_backends_and_padded_noise_are_part_of_what_is_computed():
    assert planner("rollouts.backend=vllm").final("spin").key != planner().final("spin").key
    padded = [planner(f"train.micro_batch={n}").final("neftune-padded").key for n in (8, 16)]
    plain = [planner(f"train.micro_batch={n}").final("neftune").key for n in (8, 16)]
    assert padded[0] != padded[1] and plain[0] == plain[1]


def test_the_weak_branch_is_evaluated_from_the_same_training():
    weak, strong = (planner().final(row) for row in ("wmss-weak-branch", "wmss"))
    assert (weak.kind, weak.which, weak.of.key) == ("snapshot", "weak", strong.key)


@pytest.mark.parametrize(("row", "words"), [
    ("wmsss", "choose from: sft"), ("wmss-odd", "choose from"), ("wmss[wdjt.mix_weight]", "is no setting"),
    ("wmss[spin.beta=1]", "sections are: wmss, wdjt, wdds"), ("wmss[wdjt.odd=1]", "wdjt has: mix_weight"),
    ("wmss[wdjt.mix_weight=2]", r"in \[0, 1\]"), ("wmss[wdjt.mix_weight=0.5", "not closed")])
def test_rows_that_do_not_exist_say_what_does(row, words):
    with pytest.raises(InputError, match=words):
        planner().row(row)


def test_micro_batches_and_threads_are_no_part_of_a_result():
    assert planner("train.micro_batch=8").final("wmss").key == planner().final("wmss").key


def test_a_single_schedule_changes_sft_alone():
    plain, single = planner(), planner("sft.two_epoch=single")
    assert plain.final("sft").key != single.final("sft").key
    assert (plain.final("wmss").key, plain.warmup().key) == (single.final("wmss").key, single.warmup().key)


@pytest.mark.parametrize("change", [
    "train.adam_beta1=nan", "train.weight_decay=inf", "eval.batch_size=0", "eval.max_new_tokens=-3",
    "pretrain.updates=0",
    "train.checkpoint_every=0", "wdds.alpha=-1", "train.learning_rate=nan", "data.max_length=3", "train.micro_batch=7"])
def test_values_that_cannot_work_are_refused_before_anything_runs(change):
    with pytest.raises(InputError, match=change.partition("=")[0].rpartition(".")[2]):
        planner(change)


def test_published_values_are_compared_with_the_papers_own_data_only():
    assert planner(model="qwen3-4b").comparable_with_the_paper
    assert not planner(model="qwen3-4b", limit_eval=10).comparable_with_the_paper
    assert not planner().comparable_with_the_paper


def test_the_tiny_title_tells_the_real_size(tokenizer):
    import transformers

    from replication import tiny

    model = transformers.AutoModelForCausalLM.from_config(tiny.build_config(len(tokenizer)))
    assert f"{model.num_parameters() / 1e6:.1f}M" in MODELS["tiny"].title
    assert f"{model.num_parameters() / 1e6:.1f}M" in SCALES["tiny"].note


def test_gemmas_template_puts_the_system_message_into_the_first_user_turn(tokenizer):
    import copy

    gemma = copy.deepcopy(tokenizer)
    gemma.chat_template = MODELS["gemma-3-4b"].chat_template
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]
    text = gemma.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text.endswith("<start_of_turn>user\nS\n\nQ<end_of_turn>\n<start_of_turn>model\n")
    messages.append({"role": "assistant", "content": "A"})
    assert gemma.apply_chat_template(messages, tokenize=False).endswith("<start_of_turn>model\nA<end_of_turn>\n")


def test_the_official_switches_reach_the_steps():
    wmss = planner("wdjt.format=official_stage3").final("wmss")
    assert wmss.loss.mask == "full_sequence" and planner().final("wmss").loss.mask == "completion"
    official = planner("prompt.system=official", model="qwen3-4b")
    assert official.prompt.system and official.plan("wmss")._weak_driven_prompt().system is None


@pytest.mark.parametrize("model", [name for name, m in MODELS.items() if m.scale == "paper"])
def test_paper_models_plan_with_the_papers_values(model):
    step = planner(model=model).final("wmss")
    assert (step.training.learning_rate, step.training.global_batch, step.training.clip_norm) == (1e-5, 512, 1.0)
    assert (step.joint.mix_weight, step.data.max_length, step.training.warmup_ratio) == (0.5, 4096, 0.1)
    assert step.strong.pool.sources == ("am",) and step.strong.strong.source.startswith("hub:")


def test_a_row_carries_the_settings():
    method = planner("wdjt.mix_weight=0.42", "wdds.dedup=false").row("wmss").method
    assert method.joint == JointTraining(mix_weight=0.42) and method.selection == dataclasses.replace(
        Selection(), dedup=False)


# ------------------------------------------------------------------------------------------------------- entropies


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    torch.set_num_threads(1)
    return load_causal_lm(tiny_checkpoint)


def entropies(model, rows, batch_tokens=2000):
    return example_entropies(model, rows, pad_id=0, batch_tokens=batch_tokens, compute_dtype="float32")


def test_entropy_is_the_mean_over_completion_tokens(model, rows):
    (row,) = rows[:1]
    with torch.no_grad():
        logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1]
    log_p = logits.log_softmax(-1)
    per_token = -(log_p.exp() * log_p).sum(-1)[torch.tensor(row["labels"][1:]) != -100]
    assert entropies(model, [row])[0] == pytest.approx(per_token.mean().item(), rel=1e-5)


def test_neither_batching_nor_padding_moves_an_entropy(model, rows):
    alone = [entropies(model, [row])[0] for row in rows[:12]]
    assert entropies(model, rows[:12]) == pytest.approx(alone, rel=1e-4)
    assert entropies(model, rows[:12], batch_tokens=1) == pytest.approx(alone, rel=1e-6)


def test_an_untrained_uniform_head_has_entropy_log_v(model, rows):
    import copy

    uniform = copy.deepcopy(model)
    with torch.no_grad():
        uniform.get_output_embeddings().weight.zero_()
    assert entropies(uniform, rows[:2]) == pytest.approx([math.log(uniform.config.vocab_size)] * 2, rel=1e-6)


def test_rows_come_back_in_pool_order(model, rows):
    assert entropies(model, rows[:9][::-1]) == pytest.approx(entropies(model, rows[:9])[::-1], rel=1e-4)


def test_length_batches_hold_every_index_once_within_the_budget():
    lengths = [5, 50, 7, 30, 30, 2]
    groups = length_batches(lengths, 60)
    assert sorted(i for group in groups for i in group) == list(range(6))
    assert all(len(group) * max(lengths[i] for i in group) <= 60 or len(group) == 1 for group in groups)


def test_the_official_pass_counts_the_assistant_header_and_is_not_shifted(model, examples, tokenizer, prompt):
    ours = encode_pool(examples[:3], tokenizer, prompt, DataSettings(max_length=256), LossSettings()).rows
    official = official_rows(examples[:3], tokenizer, prompt)
    extra = [sum(x != -100 for x in o["labels"]) - sum(x != -100 for x in r["labels"])
             for o, r in zip(official, ours, strict=True)]
    assert all(more > 0 for more in extra)
    row = official[0]
    with torch.no_grad():
        p = model(torch.tensor([row["input_ids"]])).logits[0].softmax(-1)
    unshifted = -(p * (p + 1e-12).log()).sum(-1)[torch.tensor(row["labels"]) != -100].mean().item()
    assert official_entropies(model, official)[0] == pytest.approx(unshifted, rel=1e-4)


def test_equal_models_have_no_discrepancy(model, rows):
    h = entropies(model, rows[:8])
    assert weights(h, h, Selection()) == pytest.approx([0.8 * value for value in h])
