"""A step's action in several processes: what comes back, what ends them, whose error is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from conftest import ROOT
from fake_steps import Write
from rank_actions import fail, greet, train_hungry
from test_method_properties import Runner, data, planner, training_step  # noqa: F401

from baselines import distributed
from baselines.method_registry import load
from baselines.settings import TrainingSettings
from baselines.user_methods import Handle
from foundation.errors import InputError, PrerequisiteError, ProcessError, StorageError, TrainingError
from foundation.files import read_jsonl
from replication.actions import fitting, training
from replication.actions.fitting import fitted
from replication.actions.ranks import MemoryShort, together
from replication.cost.shapes import SHAPES, shape_of_config
from replication.layout import check_trainings
from replication.worker import Job, RankError


@pytest.fixture
def job(tmp_path):
    def _job(text="", processes=2, on_progress=lambda fraction: None):
        for name in ("output", "scratch"):
            (tmp_path / name).mkdir(exist_ok=True)
        return Job(Write(text=text), {}, tmp_path / "output", tmp_path / "scratch", on_progress, processes)

    return _job


def test_the_main_ranks_notes_come_back_and_progress_on_the_way(job):
    told = []
    notes = together(job(on_progress=told.append), greet)
    assert (notes["rank"], notes["count"]) == ("0", 2)
    assert sorted(p.name for p in job().scratch.glob("rank-*")) == ["rank-0", "rank-1"]
    assert told == sorted(told) and 0 < told[-1] <= 1


def test_one_process_runs_where_it_is(job, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert together(job(processes=1), greet)["count"] == 1
    assert not (job().scratch / "ranks").exists()


@pytest.mark.parametrize(("how", "kind", "words"), [
    ("user", TrainingError, "^the loss became nan at update 3$"),
    pytest.param("disk", StorageError, "no space left", marks=pytest.mark.distributed),
    pytest.param("memory", MemoryShort, "can't allocate memory", marks=pytest.mark.distributed),
    pytest.param("defect", RankError, r"KeyError: 'a defect of ours' \(in process 2 of 2\)",
                 marks=pytest.mark.distributed),
    pytest.param("killed", ProcessError, r"process 2 of 2 of write was killed \(out of memory\?\)",
                 marks=pytest.mark.distributed),
])
def test_the_error_of_a_rank_is_raised_and_the_others_end(job, how, kind, words):
    began = time.monotonic()
    with pytest.raises(kind, match=words) as caught:
        together(job(how), fail)
    assert time.monotonic() - began < 60, "the rank that waits was waited for"
    if how == "defect":
        assert "rank_actions.py" in caught.value.trace


def test_ranks_die_with_their_worker(job, tmp_path):
    waiting = job()
    program = ("import sys; from pathlib import Path; from fake_steps import Write; "
               "from rank_actions import wait_for_ever; from replication.actions.ranks import together; "
               "from replication.worker import Job; root = Path(sys.argv[1]); "
               "together(Job(Write(text=''), {}, root / 'output', root / 'scratch', lambda f: None, 2), wait_for_ever)")
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    worker = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], env=os.environ | {"PYTHONPATH": path})
    pids = [waiting.scratch / f"pid-{rank}" for rank in (0, 1)]
    _until(lambda: all(path.is_file() and path.read_text() for path in pids))
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    _until(lambda: not any(_runs(int(path.read_text())) for path in pids))


def _until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def _runs(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_fewer_gpus_than_processes_are_refused(job, monkeypatch):
    monkeypatch.setattr("replication.actions.ranks.gpu_names", lambda: ("H100",) * 4)
    with pytest.raises(PrerequisiteError, match=r"2 processes need a GPU each, this step was given 1 \(3\)"):
        together(replace(job(), gpus=("3",)), greet)


@pytest.mark.distributed
def test_a_step_sees_the_gpus_it_was_given(job, monkeypatch):
    monkeypatch.setattr("replication.actions.ranks.gpu_names", lambda: ("H100",) * 8)
    assert together(replace(job(), gpus=("4", "6")), greet)["gpus"] == "4,6"


# ----------------------------------------------------------------------------------------------- refused beforehand


def test_trainings_that_processes_cannot_share_are_refused_before_anything_runs(planner, monkeypatch):  # noqa: F811
    step = planner.warmup()
    check_trainings([step], lambda step: 2)
    with pytest.raises(InputError, match=r"--train-processes 3, train warm-up \(M1\): train.global_batch is 32, which "
                                         "3 processes cannot share evenly"):
        check_trainings([step], lambda step: 3)
    monkeypatch.setattr(distributed.importlib.util, "find_spec", lambda name: None)
    zero = replace(step, training=replace(step.training, zero_stage=3))
    with pytest.raises(PrerequisiteError, match="zero_stage=3 needs DeepSpeed"):
        check_trainings([zero], lambda step: 2)
    check_trainings([zero], lambda step: 1)  # one process has nothing to share out


def test_the_librarys_noise_is_refused_in_several_processes(planner, job):  # noqa: F811
    (step,) = (one for one in planner.plan("neftune-padded").trainings if one.library_arguments)
    check_trainings([step], lambda step: 1)
    with pytest.raises(InputError, match=r"depends on how an update is cut into processes, here 2; .*`neftune`"):
        check_trainings([step], lambda step: 2)
    with pytest.raises(InputError, match="here 2"):
        training.train_phase(replace(job(processes=2), step=step))
    check_trainings(planner.plan("neftune").trainings, lambda step: 2)


@pytest.mark.parametrize(("micro", "count", "smaller"), [(8, 1, 4), (8, 2, 4), (2, 2, 1), (1, 1, None), (16, 8, 1)])
def test_a_smaller_micro_batch_still_shares_out_an_update_evenly(micro, count, smaller):
    settings = TrainingSettings(learning_rate=1e-3, global_batch=16, micro_batch=micro)
    assert distributed.smaller_micro_batch(settings, count) == smaller
    six = TrainingSettings(learning_rate=1e-3, global_batch=18, micro_batch=18)
    assert distributed.smaller_micro_batch(six, 1) == 9


# -------------------------------------------------------------------------------------------- memory that runs out


@pytest.fixture(scope="module")
def runner(data, planner, tmp_path_factory):  # noqa: F811
    torch.set_num_threads(1)
    return Runner(data, planner, tmp_path_factory.mktemp("runs"))


@pytest.fixture
def greedy(monkeypatch):
    """Have a forward pass over more examples than `limit` ask the allocator for more than there is."""
    def _greedy(limit, after=0):
        calls = []
        original = training.BranchedModel.forward

        def forward(self, input_ids, *args, **kwargs):
            calls.append(len(input_ids))
            if len(input_ids) > limit and len(calls) > after:
                torch.empty(2**60)
            return original(self, input_ids, *args, **kwargs)

        monkeypatch.setattr(training.BranchedModel, "forward", forward)
        return calls

    return _greedy


def losses(one):
    return [line["loss"] for line in read_jsonl(one.output / "losses.jsonl")]


def test_the_micro_batch_is_halved_until_it_fits_and_remembered(runner, planner, greedy, tmp_path):  # noqa: F811
    whole, step = runner.whole("wmss"), training_step(planner, "wmss")
    calls = greedy(2)
    first = replace(runner.job(step, "short"), remembered=tmp_path)
    notes = training.train_phase(first)
    assert notes["computed"]["micro_batch"] == 2 and calls[:3] == [8, 4, 2]
    assert losses(first) == pytest.approx(whole.losses, rel=2e-5)
    (kept,) = tmp_path.glob("micro-batch-*.json")
    assert json.loads(kept.read_text(encoding="utf-8"))["micro_batch"] == 2
    calls.clear()
    training.train_phase(replace(runner.job(step, "next"), remembered=tmp_path))
    assert set(calls) == {2}, "the next training of the kind began anew"
    calls.clear()
    other = training_step(planner, "sft")  # one branch: a kind of its own
    training.train_phase(replace(runner.job(other, "other"), remembered=tmp_path))
    assert calls[0] == 8
    kept.write_text("half a fi", encoding="utf-8")  # it only saves time
    assert training.train_phase(replace(runner.job(step, "torn"), remembered=tmp_path))["computed"]["micro_batch"] == 2


def test_memory_that_runs_out_late_goes_on_from_the_last_checkpoint(runner, planner, greedy):  # noqa: F811
    step = training_step(planner, "sft")
    step = replace(step, training=replace(step.training, checkpoint_every=1))
    calls = greedy(4, after=2)  # the third update, of one pass each, does not fit
    one = runner.job(step, "late")
    training.train_phase(one)
    assert calls == [8, 8, 8, 4, 4], "updates before the checkpoint were made again"
    assert losses(one) == pytest.approx(runner.whole("sft").losses, rel=2e-5)


@pytest.mark.distributed
@pytest.mark.parametrize("stage", [0, 3])
def test_memory_that_runs_out_in_one_rank_lowers_the_micro_batch_of_all(runner, planner, tmp_path, stage):  # noqa: F811
    step = training_step(planner, "wmss")
    step = replace(step, training=replace(step.training, micro_batch=4, zero_stage=stage))
    one = replace(runner.job(step, f"hungry-{stage}"), processes=2, remembered=tmp_path)
    notes = fitted(one, train_hungry)
    assert notes["computed"]["micro_batch"] == 1 and notes["computed"]["zero_stage"] == stage
    assert losses(one) == pytest.approx(runner.whole("wmss").losses, abs=1e-4)
    for rank in (0, 1):
        sizes = [int(size) for size in (one.scratch / f"sizes-{rank}").read_text(encoding="utf-8").split()]
        assert sizes[0] == 4 and 2 in sizes  # the other rank may have begun another pass before it was ended
        assert sizes[-12:] == [1] * 12 and sizes.count(1) == 12, "three updates of eight, four of each to a rank"
    assert len(list(tmp_path.glob("micro-batch-*.json"))) == 1


@pytest.mark.distributed
def test_a_users_method_that_fails_in_a_rank_is_told_with_its_line(runner, planner, write):  # noqa: F811
    spec, place = write("""
class Mine(SFT):
    title = "Mine"
    def loss(self, batch, strong, other=None):
        return strong.missing  # HERE
""")
    step = replace(training_step(planner, "sft"), loss_of=Handle(load(spec)()))
    with pytest.raises(InputError, match=rf"{place}: Mine: AttributeError: .*missing"):
        training.train_phase(replace(runner.job(step, "faulty"), processes=2))


@pytest.mark.distributed
def test_entropies_scored_by_two_processes_are_those_of_one(runner, planner):  # noqa: F811
    score = planner.plan("wmss").trainings[-1].examples.strong
    inputs = {"checkpoint": runner.data.base, "pool": runner.data.pool}
    found = []
    for processes in (1, 2):
        output, scratch = runner.root / f"entropy-{processes}", runner.root / f"entropy-scratch-{processes}"
        output.mkdir()
        scratch.mkdir()
        step = replace(score, batch_tokens=300)  # several batches for each
        notes = training.score_entropy(Job(step, inputs, output, scratch, lambda fraction: None, processes))
        found.append(((output / "entropy.jsonl").read_text(encoding="utf-8"), notes))
    assert found[0] == found[1] and found[0][1]["examples"] == 24


def test_what_does_not_fit_at_all_says_how_much_is_needed_and_what_helps(runner, planner, greedy):  # noqa: F811
    greedy(0)
    one = runner.job(training_step(planner, "wmss"), "nothing")
    with pytest.raises(PrerequisiteError, match=r"memory ran out at a micro-batch of 1 on 1 x .*can't allocate memory.*"
                       r"about \S+ GB on each.*train\.gradient_checkpointing=true; or \d+ GPUs: --train-processes \d+ "
                       r"--set train\.zero_stage=3 \(\S+ GB\)"):
        training.train_phase(one)


def test_the_advice_for_several_processes_names_the_stage(runner, planner, monkeypatch):  # noqa: F811
    step = training_step(planner, "wmss")
    step = replace(step, training=replace(step.training, gradient_checkpointing=True, micro_batch=1))
    monkeypatch.setattr(fitting, "together", short_of_memory)
    with pytest.raises(PrerequisiteError, match=r"on 2 x .* GB \(CUDA out of memory.*By the cost.*each of them\. "
                                                r"What helps: --set train\.zero_stage=3 \(\S+ GB\); or \d+ GPUs"):
        fitted(replace(runner.job(step, "advice"), processes=2), training.train_here)


def short_of_memory(*_, **__):
    raise MemoryShort("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_a_librarys_noise_keeps_its_micro_batch(runner, planner, monkeypatch):  # noqa: F811
    monkeypatch.setattr(fitting, "together", short_of_memory)
    one = runner.job(training_step(planner, "neftune-padded"), "padded")
    with pytest.raises(PrerequisiteError, match=r"not lowered by itself; set --set train\.micro_batch=4"):
        fitted(one, training.train_here)


def test_other_errors_are_not_taken_for_a_lack_of_memory(runner, planner, monkeypatch):  # noqa: F811
    def broken(*_, **__):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(fitting, "together", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        fitted(runner.job(training_step(planner, "sft"), "broken"), training.train_here)


@pytest.mark.parametrize(("name", "config"), [
    ("qwen3-4b", {"model_type": "qwen3", "num_hidden_layers": 36, "hidden_size": 2560, "intermediate_size": 9728,
                  "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936,
                  "tie_word_embeddings": True}),
    ("qwen2.5-3b", {"model_type": "qwen2", "num_hidden_layers": 36, "hidden_size": 2048, "intermediate_size": 11_008,
                    "num_attention_heads": 16, "num_key_value_heads": 2, "vocab_size": 151_936,
                    "tie_word_embeddings": True}),
    ("gemma-3-4b", {"model_type": "gemma3", "text_config": {
        "model_type": "gemma3_text", "num_hidden_layers": 34, "hidden_size": 2560, "intermediate_size": 10_240,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262_208}}),
])
def test_a_checkpoints_own_config_gives_the_shape_of_the_cost_model(name, config):
    assert shape_of_config(config).parameters == SHAPES[name].parameters
