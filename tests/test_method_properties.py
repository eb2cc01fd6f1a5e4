"""What must hold for every method and variant, through the real actions and trainers on a small random model.

No gradient at masked tokens; accumulation 1 x 8 equals 8 x 1; frozen models stay bit-identical; a training that was
killed and resumed equals the uninterrupted one; the export is a plain model with the trained logits.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import transformers
from safetensors.torch import load_file

from baselines import METHODS
from baselines.batches import collate, encode_pool
from baselines.branches import BranchedModel, is_tied, load_causal_lm
from baselines.interface import Pair, Train
from baselines.lora import attach
from baselines.replies import VerifiedReply, encode_gold_pairs
from baselines.settings import DataSettings, LossSettings
from baselines.teacher import distillation_rows, load_targets, save_targets, teacher_columns
from foundation.files import read_jsonl, write_jsonl
from foundation.prompts import tokenizer_hash
from replication.actions import training as actions
from replication.models import MODELS
from replication.plan import Planner, Request
from replication.rollout_steps import TrainPairs
from replication.rows import known_rows
from replication.scales import SCALES
from replication.worker import Job

ROWS = known_rows(METHODS)
# equal to a row before them once batches are 8: only the batch, or only the exported branch, differs
SAME_TRAINING = ("spin-64", "wmss-weak-branch")
TRAININGS = [row for row in ROWS if row not in SAME_TRAINING]
EXAMPLES = 24  # three updates an epoch
PROBE = torch.tensor([[1, 40, 50, 60, 70, 80, 7, 9]])


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def _restore_global_state():
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def planner():
    scale = SCALES["tiny"]
    return Planner(Request(model=MODELS["tiny"], scale=scale, configuration=scale.configuration, data_root=None,
                           limit_train=None, limit_eval=None, seed=0, plan_only=True))


class Data(NamedTuple):
    """Folders as the steps before a training would leave them."""

    base: Path
    warmup: Path
    pool: Path
    active: Path
    pairs: Path
    targets: Path


@pytest.fixture(scope="module")
def data(tmp_path_factory, tiny_checkpoint, weak_checkpoint, examples, tokenizer, planner):
    root, prompt, settings = tmp_path_factory.mktemp("data"), planner.prompt, DataSettings(max_length=256)
    folders = Data(weak_checkpoint.parent, tiny_checkpoint.parent, *(root / name for name in Data._fields[2:]))
    for folder in folders[2:]:
        folder.mkdir()
    chosen = examples[:EXAMPLES]
    write_jsonl(folders.pool / "pool.jsonl", chosen)
    (folders.active / "active.json").write_text(f'{{"ids": {list(range(EXAMPLES))}}}')
    replies = {e["id"]: [VerifiedReply("", [4 + i % 5, 30, 31, 32 + i], True, "correct", "1")]
               for i, e in enumerate(chosen)}
    pairs, skipped = encode_gold_pairs(chosen, replies, tokenizer, prompt, settings, drop_correct=False)
    assert len(pairs) == EXAMPLES and not skipped
    write_jsonl(folders.pairs / "pairs.jsonl", pairs)
    (folders.pairs / "tokenizer.sha256").write_text(tokenizer_hash(tokenizer))
    rows = distillation_rows(chosen, {i: r[0] for i, r in replies.items()}, {e["id"]: "hint" for e in chosen},
                             tokenizer, prompt, settings, student_prompt="chat_template", terminator="append")
    columns = teacher_columns(load_causal_lm(weak_checkpoint), rows, top_k=5, temperature=1.5, pad_id=0,
                              batch_tokens=2000, compute_dtype="float32")
    save_targets(folders.targets, rows, columns, tokenizer)
    return folders


def training_step(planner, row):
    """The row's last training, shrunk to batches of 8; a visible Adam epsilon shows a wrong scale of gradients."""
    step = planner.plan(row).trainings[-1]
    return replace(step, training=replace(step.training, global_batch=8, micro_batch=8, adam_epsilon=1e-4,
                                          learning_rate=1e-3, warmup_ratio=0.0))


class Killed(Exception):
    pass


class Result(NamedTuple):
    """What a training left behind."""

    losses: list[float]
    exports: dict[str, Path]
    """Folder name -> exported checkpoint: the strong branch, and a trained weak one."""
    logits: dict[str, torch.Tensor]
    """The same, of the model in memory just before the export (before the merge, for LoRA)."""
    loaded: list[tuple[Path, torch.nn.Module]]
    """Each model that was loaded, after the training, and from where."""


class Runner:
    """Runs the action of a training step and watches the models on their way in and out."""

    def __init__(self, data, planner, root):
        self.data, self.planner, self.root, self.cache = data, planner, root, {}

    def job(self, step, name, on_progress=lambda fraction: None):
        base, data = self.planner.base().key, self.data
        inputs = {}
        for role, parent in step.parents.items():
            if role in ("strong", "weak", "reference"):
                inputs[role] = data.base if parent.key == base or role == "weak" else data.warmup
            else:
                kind = "pool" if role == "pool" else {"pairs": "pairs", "targets": "targets"}.get(parent.kind, "active")
                inputs[role] = getattr(data, kind)
        output, scratch = self.root / name / "output", self.root / name / "scratch"
        for folder in (output, scratch):
            folder.mkdir(parents=True, exist_ok=True)
        return Job(step, inputs, output, scratch, on_progress)

    def __call__(self, step, name, on_progress=lambda fraction: None):
        logits, loaded = {}, []
        load, save, merge = actions.load_causal_lm, actions.save_checkpoint, actions.merge
        job = self.job(step, name, on_progress)

        def watched_load(folder, *rest):
            loaded.append((folder, load(folder, *rest)))
            return loaded[-1][1]

        def watched_save(model, tokenizer, folder, stops):
            if not folder.name.startswith("half-"):  # a checkpoint inside the epoch is no export
                logits.setdefault(folder.name, logits_of(model))
            save(model, tokenizer, folder, stops)

        def watched_merge(model):
            logits["checkpoint"] = logits_of(model)
            return merge(model)

        with pytest.MonkeyPatch.context() as patch:
            for name_, watched in (("load_causal_lm", watched_load), ("save_checkpoint", watched_save),
                                   ("merge", watched_merge)):
                patch.setattr(actions, name_, watched)
            (actions.train_on_pairs if isinstance(step, TrainPairs) else actions.train_phase)(job)
        losses = [line["loss"] for line in read_jsonl(job.output / "losses.jsonl")]
        return Result(losses, {folder: job.output / folder for folder in logits}, logits, loaded)

    def whole(self, row):
        """The uninterrupted training of a row, once."""
        if row not in self.cache:
            self.cache[row] = self(training_step(self.planner, row), f"{row}-whole")
        return self.cache[row]


@torch.no_grad()
def logits_of(model):
    return model.eval()(PROBE).logits.clone()


@pytest.fixture(scope="module")
def run(data, planner, tmp_path_factory):
    return Runner(data, planner, tmp_path_factory.mktemp("runs"))


def weights(result):
    return {f"{folder}/{name}": value for folder, path in result.exports.items()
            for name, value in load_file(path / "model.safetensors").items()}


# ----------------------------------------------------------------------------------------------------- properties


@pytest.mark.parametrize("row", TRAININGS)
def test_the_export_is_a_plain_model_with_the_trained_logits(run, row, tiny_checkpoint):
    result, base = run.whole(row), load_causal_lm(tiny_checkpoint)
    for name, folder in result.exports.items():
        plain = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
        assert type(plain) is type(base) and plain.num_parameters() == base.num_parameters() and is_tied(plain)
        # merging rounds the sum of a weight and its adapter
        assert torch.allclose(logits_of(plain), result.logits[name], rtol=0, atol=1e-5 if row == "ssb" else 0)
        assert not torch.allclose(logits_of(plain), logits_of(base), atol=1e-3), "nothing was trained"


@pytest.mark.parametrize("row", [row for row in TRAININGS if row != "neftune-padded"])
def test_accumulation_of_eight_ones_equals_one_eight(run, planner, row):
    """Not the library's NEFTune: its noise depends on the padded width and is drawn per forward pass (A-20)."""
    whole, step = run.whole(row), training_step(planner, row)
    ones = run(replace(step, training=replace(step.training, micro_batch=1)), f"{row}-ones")
    assert ones.losses == pytest.approx(whole.losses, rel=2e-5)
    found = weights(ones)
    assert all(torch.allclose(value, found[name], atol=2e-5) for name, value in weights(whole).items())


@pytest.mark.parametrize("row", TRAININGS)
def test_a_killed_training_resumes_to_the_same_weights(run, planner, row):
    step = training_step(planner, row)
    step = replace(step, training=replace(step.training, checkpoint_every=2))
    updates = []

    def die(fraction):
        updates.append(fraction)
        if len(updates) == 3:
            raise Killed

    with pytest.raises(Killed):
        run(step, f"{row}-killed", die)
    assert len(list((run.root / f"{row}-killed/scratch/trainer").glob("checkpoint-2/complete"))) == 1
    resumed_updates = []
    resumed = run(step, f"{row}-killed", resumed_updates.append)
    whole = run.whole(row)
    assert len(resumed_updates) == len(whole.losses) - 2, "it started again instead of going on"
    assert resumed.losses == whole.losses
    found = weights(resumed)
    assert all(torch.equal(value, found[name]) for name, value in weights(whole).items())


@pytest.mark.parametrize("row", ["undial-original", "wmss-frozen", "spin", "dpo"])
def test_frozen_models_are_bit_identical_after_training(run, planner, row):
    step = training_step(planner, row)
    if isinstance(step, TrainPairs):
        step = replace(step, reference=planner.base())  # else the reference is the policy before its first update
    result = run(step, f"{row}-frozen")
    (_, trained), (folder, frozen) = result.loaded
    before = load_causal_lm(folder).state_dict()
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())
    assert all(p.grad is None for p in frozen.parameters())
    start = load_causal_lm(result.loaded[0][0]).state_dict()
    assert any(not torch.equal(value, start[name]) for name, value in trained.state_dict().items())


def test_what_is_frozen_is_named_by_the_phases(planner):
    """The list above is complete: these rows, and no others, hold a model that is not trained."""
    def frozen(phase):
        return phase.reference is not None or (phase.joint is not None and phase.joint.freeze_weak)

    found = {row for row in ROWS for phase in planner.row(row).method.phases() if isinstance(phase, Train)
             and frozen(phase)}
    assert found == {"undial-original", "wmss-frozen", "spin", "spin-64", "dpo"}


@pytest.mark.parametrize("row", SAME_TRAINING)
def test_rows_left_out_above_are_trainings_that_are_there(planner, row):
    same = {"spin-64": "spin", "wmss-weak-branch": "wmss"}[row]
    assert training_step(planner, row).key == training_step(planner, same).key


# --------------------------------------------------------------------------------------------- gradient and mask


def watch_hidden(model, found):
    """Note the last hidden states of a model, with their gradients."""
    def note(module, inputs, output):
        if output.requires_grad:
            output.retain_grad()
            found.append(output)

    model.base_model.norm.register_forward_hook(note)


def assert_only_where(gradient_BSD, predicts_BS):
    touched_BS = gradient_BSD.abs().sum(-1) > 0
    assert not touched_BS[~predicts_BS].any(), "a masked position has a gradient"
    assert touched_BS[predicts_BS].all(), "a supervised position has none"


@pytest.mark.parametrize("row", ROWS)
def test_no_gradient_at_masked_tokens(row, planner, data, examples, tokenizer, tiny_checkpoint, weak_checkpoint,
                                      tmp_path):
    method = planner.row(row).method
    phases = list(method.phases())
    phase = [p for p in phases if isinstance(p, Train)][-1]
    hidden = []
    strong = load_causal_lm(tiny_checkpoint)
    watch_hidden(strong, hidden)
    if phase.data in {p.out for p in phases if isinstance(p, Pair)}:
        check_pairs(method, strong, data, tokenizer, weak_checkpoint, tmp_path, hidden)
        return
    weak = None if phase.weak is None else load_causal_lm(weak_checkpoint)
    if weak is not None:
        watch_hidden(weak, hidden)
    reference = None if phase.reference is None else load_causal_lm(weak_checkpoint)
    freeze = phase.joint is not None and phase.joint.freeze_weak
    model = BranchedModel(method, strong, weak, reference=reference, freeze_weak=freeze).train()
    if phase.lora is None:
        own, teacher = encode_pool(examples[:3], tokenizer, planner.prompt, DataSettings(max_length=256),
                                   LossSettings()).rows, None
    else:
        model.strong = attach(strong, phase.lora)
        torch.nn.init.normal_(model.strong.base_model.model.model.layers[0].self_attn.q_proj.lora_B.default.weight)
        own, teacher = list(read_jsonl(data.targets / "targets.jsonl"))[:3], load_targets(data.targets, tokenizer)
    batch = collate(own, 0, teacher)
    model(**batch).backward()
    predicts_BS = torch.nn.functional.pad(batch["labels"][:, 1:].ne(-100), (0, 1))
    assert len(hidden) == 1 + (weak is not None and not freeze)
    for states_BSD in hidden:
        assert_only_where(states_BSD.grad, predicts_BS)


def check_pairs(method, strong, data, tokenizer, weak_checkpoint, tmp_path, hidden):
    from datasets import Dataset
    from trl import DPOConfig

    from baselines.pair_trainer import PairTrainer

    rows = list(read_jsonl(data.pairs / "pairs.jsonl"))[:3]
    trainer = PairTrainer(
        method=method, model=strong, ref_model=load_causal_lm(weak_checkpoint), processing_class=tokenizer,
        args=DPOConfig(output_dir=str(tmp_path), per_device_train_batch_size=3, max_length=None, use_cpu=True,
                       bf16=False, gradient_checkpointing=False, precompute_ref_log_probs=True, report_to=[]),
        train_dataset=Dataset.from_list([{k: v for k, v in row.items() if k != "id"} for row in rows]))
    batch = next(iter(trainer.get_train_dataloader()))
    hidden.clear()
    trainer.compute_loss(strong.train(), batch).backward()
    (states_BSD,) = hidden
    assert_only_where(states_BSD.grad, torch.nn.functional.pad(batch["completion_mask"][:, 1:].bool(), (0, 1)))
