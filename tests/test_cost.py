"""The estimate at paper scale: shapes, the fitted constant and what it predicts, memory, the plan, the simulation."""

from __future__ import annotations

import importlib
import math
import os
import subprocess
import sys
from dataclasses import dataclass, fields

import pytest
from conftest import ROOT

from baselines.settings import TrainingSettings
from foundation.errors import InputError
from replication.cost import compute, counts, decoding, schedule, table11
from replication.cost.estimate import estimate
from replication.cost.figures import FIGURES, Figure, value
from replication.cost.memory import smallest_stage, state_bytes, training_memory
from replication.cost.shapes import SHAPES
from replication.cost.step_costs import CostModel, StepCost
from replication.paper import integer
from replication.scales import BACKBONE_TRAINING, SCALES, configuration_of
from replication.simulate import lines, tables, targets_of
from replication.steps import Step, closure

GB = 1e9


# ----------------------------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize("model", SHAPES)
def test_parameters_are_those_of_the_library_built_from_the_same_shape(model):
    import torch
    import transformers

    shape = SHAPES[model]
    shared = {"vocab_size": shape.vocabulary, "hidden_size": shape.hidden, "intermediate_size": shape.intermediate,
              "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads, "head_dim": shape.head_dim,
              "num_key_value_heads": shape.kv_heads, "tie_word_embeddings": shape.tied}
    kind = {"qwen3-4b": "Qwen3", "qwen3-8b": "Qwen3", "qwen2.5-3b": "Qwen2", "gemma-3-4b": "Gemma3Text"}[model]
    with torch.device("meta"):
        built = transformers.AutoModelForCausalLM.from_config(getattr(transformers, f"{kind}Config")(**shared))
    assert shape.parameters == sum(p.numel() for p in built.parameters())


def test_local_layers_look_back_no_further_than_their_window():
    assert compute.mean_context(1000, None) == compute.mean_context(1000, 1024) == 500
    exact = sum(min(i, 1024) for i in range(4096)) / 4096
    assert compute.mean_context(4096, 1024) == pytest.approx(exact, rel=1e-3)
    gemma = SHAPES["gemma-3-4b"]
    assert sum(count for count, _ in gemma.layers_by_window()) == gemma.layers
    assert decoding.cache_bytes(gemma, 4096) < 4096 * 34 * 2 * 4 * 256 * 2


# ------------------------------------------------------------------------------------- the constant and its predictions


def test_a_token_costs_6n_without_and_8n_with_recomputation():
    shape = SHAPES["qwen3-4b"]
    plain = compute.training_passes(checkpointing=False) * compute.forward_flops(shape, 0)
    assert plain == 6 * shape.parameters
    assert compute.training_passes() * compute.forward_flops(shape, 0) == 8 * shape.parameters
    assert compute.training_passes(trained=2) == 2 * compute.training_passes()
    assert compute.training_passes(trained=1, frozen=1) == compute.training_passes() + 1
    assert compute.training_passes(lora=True) < compute.training_passes()


def test_the_constant_meets_the_row_it_is_fitted_on_and_predicts_wmss():
    found = {p.row: p for p in table11.predictions()}
    assert found["SFT"].training == found["SFT"].whole == pytest.approx(4.5)
    assert found["UNDIAL"].whole == pytest.approx(found["UNDIAL"].paper, rel=0.01)
    wmss = found["WMSS"]
    assert wmss.training == pytest.approx(4.5 * 2 * 123 / 218)
    assert abs(wmss.training / wmss.paper - 1) < 0.25
    assert wmss.training < wmss.whole and abs(wmss.whole / wmss.paper - 1) < 0.25
    assert 0.01 < compute.model_flops_utilisation() < 0.6


def test_rows_with_rollouts_show_what_the_papers_times_imply():
    found = {p.row: p for p in table11.predictions()}
    assert found["SPIN"].generated_tokens == pytest.approx(20_000 * 2300)
    for row in ("SPIN", "SSB"):
        assert found[row].training < found[row].whole < found[row].paper
        implied = found[row].implied_tokens_per_second
        assert 8 * 3600 * (found[row].paper - found[row].training) * implied == pytest.approx(
            found[row].generated_tokens)
    assert found["SFT"].implied_tokens_per_second is None


def test_hours_on_the_math_pool_do_not_depend_on_the_assumed_length(monkeypatch):
    before = {p.row: p.training for p in table11.predictions()}
    monkeypatch.setitem(FIGURES, "tokens.math", Figure(1250, "", ""))
    compute.training_flops_per_second.cache_clear()
    try:
        after = {p.row: p.training for p in table11.predictions()}
    finally:
        compute.training_flops_per_second.cache_clear()
    for row in ("SFT", "NEFTune", "UNDIAL", "SPIN", "WMSS"):
        assert after[row] == pytest.approx(before[row], rel=1e-6)


# ---------------------------------------------------------------------------------------------------------- memory


def test_states_are_the_sums_done_by_hand():
    n = 4e9
    assert state_bytes(n, gpus=8, stage=0) == (8 * GB, 56 * GB)
    assert state_bytes(n, gpus=8, stage=2) == (8 * GB, 7 * GB)
    assert state_bytes(n, gpus=8, stage=3) == (1 * GB, 7 * GB)
    assert state_bytes(n, gpus=8, stage=0, weights="fp32") == (16 * GB, 48 * GB)
    assert state_bytes(n, gpus=8, stage=2, weights="fp32") == (16 * GB, 8 * GB)
    assert state_bytes(n, gpus=16, stage=3, weights="fp32") == (1 * GB, 4 * GB)


def test_the_pair_of_4b_under_zero_2_is_the_sum_done_by_hand():
    shape, n = SHAPES["qwen3-4b"], 4_022_468_096
    found = training_memory(shape, branches=2, gpus=8, stage=2)
    assert found.weights == 2 * n * 2
    assert found.optimizer == 2 * n * 14 / 8
    inputs = 36 * 2560 * 2
    layer = 2 * (6 * 2560 + 3 * 4096 + 4 * 1024 + 4 * 9728)
    assert found.activations == 2 * 4096 * (inputs + layer)
    assert found.logits == 2 * 4 * 151_936 * 2560 + 4 * 64 * 2**20
    assert found.total == found.weights + found.optimizer + found.activations + found.logits


def test_more_gpus_or_a_higher_stage_never_need_more_and_lora_needs_least():
    for shape in SHAPES.values():
        for weights in ("bf16", "fp32"):
            at = {(g, s): training_memory(shape, gpus=g, stage=s, weights=weights).total
                  for g in (4, 8, 64) for s in (0, 2, 3)}
            assert all(at[8, s] <= at[4, s] and at[64, s] <= at[8, s] for s in (0, 2, 3))
            assert at[8, 3] < at[8, 2] < at[8, 0]
        lora = training_memory(shape, lora_rank=32, gpus=8, stage=0, weights="fp32").total
        assert lora < training_memory(shape, gpus=8, stage=0, weights="fp32").total


def test_a_stage_is_chosen_that_fits_or_none():
    shape = SHAPES["qwen3-8b"]
    assert smallest_stage(shape, budget=72 * GB, branches=2, gpus=8, weights="fp32") == 3
    assert smallest_stage(shape, budget=72 * GB, branches=2, gpus=1, weights="fp32") is None
    assert smallest_stage(SHAPES["qwen2.5-3b"], budget=72 * GB, gpus=8) == 0


# -------------------------------------------------------------------------------------------------------- generation


def test_generation_is_slower_for_larger_models_longer_contexts_and_the_reference_backend():
    small, large = SHAPES["qwen3-4b"], SHAPES["qwen3-8b"]

    def speed(shape, mean=2000, backend="vllm"):
        return decoding.tokens_per_second(shape, mean, backend=backend, batch=64)

    assert speed(large) < speed(small) and speed(small, mean=8000) < speed(small)
    assert speed(small, backend="hf") < speed(small)
    room = decoding.running_sequences(small, 30_000) * decoding.cache_bytes(small, 30_000)
    assert room + 2 * small.parameters <= 0.9 * 80 * GB


# ------------------------------------------------------------------------------------------------------------ the plan


def table1(*arguments, tmp_path):
    """Run the command with the network refused; return it and its CPU seconds: others may be using the machine."""
    program = ("import socket, sys\n"
               "def refuse(*a, **k): raise RuntimeError('the network was asked')\n"
               "socket.socket.connect = socket.socket.connect_ex = socket.create_connection = refuse\n"
               "socket.getaddrinfo = refuse\n"
               "from replication.table1 import TABLE\nfrom replication.cli import main\nmain(TABLE)\n")
    command = [sys.executable, "-c", program, "--store", str(tmp_path / "store"), "--results",
               str(tmp_path / "results"), *arguments]
    before = os.times()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    after = os.times()
    return done, sum(after[2:4]) - sum(before[2:4])


@pytest.mark.parametrize("model", SHAPES)
def test_the_plan_answers_at_once_and_without_the_network(model, tmp_path):
    done, seconds = table1("--model", model, "--plan", tmp_path=tmp_path)
    assert seconds < 3
    assert done.returncode == 0, done.stderr
    for word in ("trainings   16", "GPU-hours", "wall clock", "memory", "disk", "downloads", "218 updates x 512"):
        assert word in done.stdout, word
    assert not (tmp_path / "results").exists()


def test_without_gpus_the_command_says_what_is_missing_and_shows_the_plan(tmp_path):
    from replication.provenance import gpu_names

    if gpu_names():
        pytest.skip("this machine has GPUs")
    done, seconds = table1("--model", "gemma-3-4b", tmp_path=tmp_path)
    assert seconds < 3
    assert done.returncode == 2 and "needs CUDA GPUs" in done.stderr and "Traceback" not in done.stderr
    assert "benchmark data: MAWPS has no data" in done.stdout  # its only publisher is the paper's code repository
    lacking = done.stdout.partition("This machine lacks\n")[2]
    assert "GPUs: none" in lacking and "training data" not in lacking  # the corpus comes from the hub


@pytest.mark.parametrize(("table", "said"), [("table1", []), ("table5", ["training data: the logic pool is missing"])])
def test_a_pool_that_needs_a_teacher_must_be_there(table, said, tmp_path):
    from replication.cli import Options
    from replication.cost.machine import lacks
    from replication.running import prepare

    declared = importlib.import_module(f"replication.{table}").TABLE
    options = Options(model=("qwen3-4b",), data_root=None, plan=True)
    run = prepare((declared,), options, "qwen3-4b")[0].run
    found = estimate(run.targets, closure(run.targets), SHAPES["qwen3-4b"], gpus=8)
    lines = [line.partition(" (")[0] for line in lacks(found, run.planners.request, tmp_path)]
    assert [line for line in lines if line.startswith("training data")] == said


@pytest.mark.parametrize("table", ["table1", "table11"])
def test_a_benchmark_that_nobody_has_is_a_missing_column_and_the_rest_is_planned(table):
    from replication.cli import Options
    from replication.running import prepare

    declared = importlib.import_module(f"replication.{table}").TABLE
    run = prepare((declared,), Options(model=("qwen3-4b",), data_root=None, plan=True), "qwen3-4b")[0].run
    assert list(run.absent) == ["mawps"]
    missing = {cell.column: cell.reason for cell in run.cells if cell.measure is None}
    assert set(missing) == ({"MAWPS", "Math Avg."} if table == "table1" else {"Math-Avg change"})
    assert all("MAWPS has no data" in reason and "--data-root" in reason for reason in missing.values())
    assert {step.benchmark for step in closure(run.targets) if step.kind == "problems"} >= (
        {"gsm8k", "svamp"} if table == "table1" else set())


def test_a_smaller_plan_costs_less_and_other_gpus_change_the_wall_clock(tmp_path):
    targets = targets_of("table1", "qwen3-4b")
    steps = closure(targets)
    eight, many, few = (estimate(targets, steps, SHAPES["qwen3-4b"], gpus=g) for g in (8, 64, 2))
    assert many.schedule.makespan < eight.schedule.makespan < few.schedule.makespan
    assert eight.unshared_hours > eight.shared_hours == pytest.approx(sum(c.gpu_hours for _, c in eight.steps))
    assert few.shared_hours == pytest.approx(eight.shared_hours)  # the same work, spread otherwise
    without = [step for step in steps if step.kind not in ("fetch", "pool", "problems") and step.kind != "train"]
    rest = estimate(targets, without, SHAPES["qwen3-4b"], gpus=8)
    assert rest.download_bytes == 0 and not rest.pool_domains and rest.disk_bytes < eight.disk_bytes
    with pytest.raises(InputError, match="GPUs"):
        estimate(targets, steps, SHAPES["qwen3-4b"], gpus=0)


def test_the_active_set_is_the_papers_123_updates():
    (train,) = [s for s in closure(targets_of("table1", "qwen3-4b")) if s.kind == "train" and s.weak is not None
                and s.pool.domain == "math"]
    assert counts.training_data(train)[2] == 123
    assert CostModel(shape=SHAPES["qwen3-4b"]).cost(train).gpus == 8


def test_a_kind_of_step_without_a_model_is_said_so():
    step = Fake(name="x", hint_seconds=7.0)
    cost = CostModel(shape=SHAPES["qwen3-4b"]).cost(step)
    assert not cost.modelled and cost.seconds == 7.0 and "'fake'" in cost.text


# ---------------------------------------------------------------------------------------------------------- simulation


@dataclass(frozen=True, kw_only=True)
class Fake(Step):
    kind = "fake"
    action = "nowhere:nothing"
    name: str
    gpus: int = 1
    after: tuple[Step, ...] = ()


def fake_cost(step):
    return StepCost(group="fake", gpus=step.gpus, seconds=step.hint_seconds)


@pytest.fixture
def graph():
    """A diamond of trainings with generations behind, some work for the CPU, and one long chain."""
    root = Fake(name="root", gpus=8, hint_seconds=100)
    arms = [Fake(name=f"arm{i}", gpus=8, hint_seconds=50 + 10 * i, after=(root,)) for i in range(5)]
    leaves = [Fake(name=f"leaf{i}{j}", gpus=1, hint_seconds=20 + j, after=(arm,)) for i, arm in enumerate(arms)
              for j in range(7)]
    return [*leaves, Fake(name="join", gpus=0, hint_seconds=5, after=(leaves[0], leaves[-1]))]


@pytest.mark.parametrize("gpus", [8, 12, 16, 64, 512])
@pytest.mark.parametrize("spread", [0.0, 0.4])
def test_a_schedule_keeps_its_bounds(graph, gpus, spread):
    found = schedule.simulate(graph, gpus, fake_cost, spread=spread, seed=3)
    assert found.makespan >= found.critical_path - 1e-9
    assert found.makespan >= found.busy / gpus - 1e-9
    assert 0 < found.utilisation <= 1
    assert len(found.starts) == len(closure(graph))


@pytest.mark.parametrize("gpus", [8, 20, 64])
def test_no_step_starts_before_its_parents_end_and_no_gpu_is_used_twice(graph, gpus):
    found = schedule.simulate(graph, gpus, fake_cost)
    steps = {step.key: step for step in closure(graph)}
    for key, start in found.starts.items():
        for parent in steps[key].parents.values():
            assert start >= found.starts[parent.key] + parent.hint_seconds - 1e-9
    for moment in found.starts.values():
        running = [steps[k] for k, s in found.starts.items() if s <= moment < s + steps[k].hint_seconds]
        assert sum(step.gpus for step in running) <= gpus


def test_durations_are_the_seeds_and_without_spread_the_models(graph):
    def makespan(seed, spread=0.3):
        return schedule.simulate(graph, 16, fake_cost, spread=spread, seed=seed).makespan

    assert makespan(1) == makespan(1) != makespan(2)
    assert makespan(1, 0.0) == makespan(2, 0.0)


def test_what_is_done_takes_no_time_and_shared_work_is_counted_once(graph):
    cost = schedule.simulate(graph, 8, fake_cost)
    root = next(step for step in closure(graph) if step.name == "root")
    rest = schedule.simulate(graph, 8, fake_cost, done=lambda step: step.key == root.key)
    assert rest.makespan == cost.makespan - 100 and rest.busy == cost.busy - 800
    targets = targets_of("table1", "qwen2.5-3b")
    model = CostModel(shape=SHAPES["qwen2.5-3b"])
    assert schedule.gpu_hours(targets, model.cost) < schedule.gpu_hours(targets, model.cost, shared=False)
    assert len(schedule.by_checkpoint(targets)) == 17  # M0; M1 and seven methods for math, and for code


@pytest.mark.parametrize(("gpus", "spread", "match"), [(0, 0.1, "at least 1"), (8, -1.0, "spread"), (4, 0.1, "needs 8"),
                                                      (8, math.nan, "spread")])
def test_what_cannot_be_simulated_is_refused(graph, gpus, spread, match):
    with pytest.raises(InputError, match=match):
        schedule.simulate(graph, gpus, fake_cost, spread=spread)


def test_the_simulation_shows_each_model_and_all_together():
    assert "table1" in tables()
    targets = {name: targets_of("table1", name) for name in ("qwen3-4b", "gemma-3-4b")}
    said = lines(targets, [4, 64], spread=0.1, runs=2, seed=0)
    assert said == lines(targets, [4, 64], spread=0.1, runs=2, seed=0)
    assert sum(line.startswith("all ") for line in said) == 3  # at 4 and 64 GPUs, and of what is shared


@pytest.mark.parametrize("arguments", [("--gpus", "8,x"), ("--gpus", "0"), ("--models", "tiny"), ("--tables", "table0"),
                                       ("--runs", "0")])
def test_mistakes_on_the_command_line_are_named(arguments):
    done = subprocess.run([sys.executable, "-m", "replication.simulate", *arguments], cwd=ROOT, capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr


@pytest.mark.parametrize("model", BACKBONE_TRAINING)
def test_a_backbones_layout_is_the_lowest_stage_and_the_largest_micro_batch_that_fit(model):
    """WD-JT's two branches, fp32 weights, examples of the full length, on the paper's eight GPUs."""
    budget, gpus, length = value("gpu.usable") * value("gpu.memory"), integer("train.num_gpus"), 4096
    layout, shape = BACKBONE_TRAINING[model], SHAPES[model]

    def fits(stage, micro):
        need = training_memory(shape, branches=2, gpus=gpus, stage=stage, weights="fp32", tokens=micro * length)
        return need.total <= budget

    stage, micro = layout["zero_stage"], layout["micro_batch"]
    assert fits(stage, micro) and not fits(stage, 2 * micro)
    assert smallest_stage(shape, budget=budget, branches=2, gpus=gpus, weights="fp32", tokens=length) == stage
    training = configuration_of(model, SCALES["paper"]).second_epoch
    assert (training.zero_stage, training.micro_batch, training.gradient_checkpointing) == (stage, micro, True)
    assert training.global_batch == 512 and (512 // gpus) % micro == 0
    identity = {f.name: f.metadata.get("identity", True) for f in fields(TrainingSettings)}
    assert not any(identity[name] for name in layout), "a layout is no part of what is computed"


def test_every_kind_of_step_of_every_table_has_a_cost():
    from replication.catalogue import tables as declared
    from replication.cli import Options
    from replication.running import prepare

    options = Options(model=("qwen3-4b",), data_root=None, plan=True)
    shared, model, kinds = [], CostModel(shape=SHAPES["qwen3-4b"]), {}
    for table in declared():
        shared += prepare((table,), options, "qwen3-4b", shared)
        kinds |= {step.kind: step for step in closure(shared[-1].run.targets)}
    assert {"samples", "sample-grades", "logit-statistics", "theory", "pool"} <= set(kinds)
    assert not [kind for kind, step in kinds.items() if not model.cost(step).modelled]
    samples = model.cost(kinds["samples"])
    assert samples.gpus == 1 and samples.generated_tokens >= 64 * 30 * 1000 and samples.seconds > 600
    assert model.cost(kinds["theory"]).seconds > model.cost(kinds["logit-statistics"]).seconds > 1
    assert model.cost(kinds["sample-grades"]).seconds > 30 and model.cost(kinds["pool"]).seconds > 600


def test_resumable_checkpoints_are_counted_with_all_they_hold():
    """Three at once: weights, the optimizer's copy and moments; ZeRO-2 writes the weights twice."""
    targets = targets_of("table1", "qwen3-4b")
    found, shape = estimate(targets, closure(targets), SHAPES["qwen3-4b"], gpus=8), SHAPES["qwen3-4b"]
    assert found.zero_stage == 2 and found.transient_bytes == pytest.approx(3 * 20 * 2 * shape.parameters)


def test_the_exports_of_gemma_are_counted():
    targets = targets_of("table1", "gemma-3-4b")
    answers = [step for step in closure(targets) if step.kind == "generate"]
    found, shape = estimate(targets, answers, SHAPES["gemma-3-4b"], gpus=8), SHAPES["gemma-3-4b"]
    assert found.transient_bytes == 8 * 4 * shape.parameters
    qwen = [step for step in closure(targets_of("table1", "qwen3-4b")) if step.kind == "generate"]
    assert estimate(qwen, qwen, SHAPES["qwen3-4b"], gpus=8).transient_bytes == 0
