"""The diagnostic steps on two small real models, and the cells and plots made of what they measure."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass

import pytest
import torch

from baselines.batches import IGNORED, collate
from baselines.branches import hidden_and_head, load_causal_lm
from baselines.settings import DataSettings, LossSettings
from evaluation.theory import COUNTS
from foundation.errors import InputError
from foundation.files import write_jsonl
from replication import diagnostics
from replication.actions.diagnostics import logit_statistics, theory_statistics, token_sensitivity
from replication.diagnostic_steps import LogitStatistics, TheoryStatistics
from replication.paper import published
from replication.steps import Step
from replication.worker import Job

QWEN = "Qwen3-4B-Base"


@dataclass(frozen=True, kw_only=True)
class Given(Step):
    kind = "given"
    action = "none:none"
    name: str


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_checkpoint, weak_checkpoint, examples):
    """Parents as the store would give them: two checkpoints and a pool of a dozen examples."""
    pool = tmp_path_factory.mktemp("pool")
    write_jsonl(pool / "pool.jsonl", examples[:12])
    return {"strong": tiny_checkpoint.parent, "weak": weak_checkpoint.parent, "pool": pool}


@pytest.fixture(scope="module")
def run(tmp_path_factory, folders, prompt):
    """Run one step's action; return its folder and what it reported."""

    def _run(kind, roles, **changes):
        shared = {"pool": Given(name="pool"), "prompt": prompt, "data": DataSettings(max_length=256), "seed": 0,
                  "loss": LossSettings(), "n_examples": 8, "compute_dtype": "float32", "batch_tokens": 512}
        step = kind(**{role: Given(name=name) for role, name in roles.items()}, **(shared | changes))
        output = tmp_path_factory.mktemp("output")
        inputs = {role: folders[parent.name] for role, parent in step.parents.items()}
        done = []
        action = logit_statistics if kind is LogitStatistics else theory_statistics
        notes = action(Job(step, inputs, output, output, done.append))
        assert done == sorted(done) and done[-1] == 1
        return output, notes

    return _run


@pytest.fixture(scope="module")
def measured(run):
    return {name: diagnostics.measurement(run(LogitStatistics, {"checkpoint": name})[0], f"logit-statistics-{name}")
            for name in ("weak", "strong")}


@pytest.fixture(scope="module")
def pair(run):
    output, _ = run(TheoryStatistics, {"weak": "weak", "strong": "strong", "strong_post": "weak"}, mix_weight=0.4,
                    sensitivity_examples=3)
    return diagnostics.measurement(output, "theory-1")


# ------------------------------------------------------------------------------------------------------ the steps


def test_statistics_equal_those_of_the_models_own_logits(measured, tiny_checkpoint, rows):
    """One padded batch at a time or one example alone: the same tokens, the same logits."""
    model = load_causal_lm(tiny_checkpoint).eval()
    by_id = {row["id"]: row for row in rows}
    for found in measured["strong"]["examples"]:
        row = by_id[found["id"]]
        labels = torch.tensor(row["labels"][1:])
        with torch.no_grad():
            logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1][labels != IGNORED].double()
        target = logits.gather(1, labels[labels != IGNORED, None]).squeeze(1)
        assert found["tokens"] == len(target)
        assert found["target_logit"] == pytest.approx(target.mean().item(), abs=1e-5)
        assert found["std"] == pytest.approx(logits.std(dim=1, correction=0).mean().item(), rel=1e-4)
        assert found["highest_logit"] == pytest.approx(logits.max().item(), rel=1e-4)


def test_all_checkpoints_are_measured_on_the_same_tokens_of_the_pool(measured, pair):
    samples = {tuple((row["id"], row["tokens"]) for row in found["examples"])
               for found in (*measured.values(), pair)}
    assert len(samples) == 1 and len(samples.pop()) == 8


def test_another_seed_draws_another_sample_and_a_small_pool_is_taken_whole(run, measured):
    ids = [row["id"] for row in measured["strong"]["examples"]]
    output, _ = run(LogitStatistics, {"checkpoint": "strong"}, seed=1)
    assert [json.loads(line)["id"] for line in (output / "examples.jsonl").read_text().splitlines()] != ids
    assert run(LogitStatistics, {"checkpoint": "strong"}, n_examples=200)[1]["examples"] == 12


def test_how_examples_are_batched_changes_nothing(run, measured):
    found = diagnostics.measurement(run(LogitStatistics, {"checkpoint": "strong"}, batch_tokens=1)[0], "x")
    for name, entry in measured["strong"]["statistics"].items():
        assert found["statistics"][name]["value"] == pytest.approx(entry["value"], rel=1e-4, abs=1e-5)


def test_the_pair_agrees_with_the_single_statistics_and_breaks_no_theorem(pair, measured):
    found = pair["statistics"]
    for role in ("weak", "strong"):
        assert found[f"centered_norm_{role}"]["value"] == pytest.approx(
            measured[role]["statistics"]["centered_norm"]["value"], rel=1e-4)
    assert [found[name]["value"] for name in COUNTS] == [0] * len(COUNTS)
    assert found["condition"]["value"] <= found["mass_grows"]["value"] <= found["weak_less_confident"]["value"]
    shift = measured["weak"]["statistics"]["mean"]["value"] - measured["strong"]["statistics"]["mean"]["value"]
    assert found["mean_shift"]["value"] == pytest.approx(shift, rel=1e-3, abs=1e-6)
    assert found["alpha_measured"]["n_tokens"] == 3


def test_without_a_trained_strong_model_there_is_no_drift(run):
    output, _ = run(TheoryStatistics, {"weak": "weak", "strong": "strong"}, mix_weight=1.0, sensitivity_examples=2)
    found = json.loads((output / "statistics.json").read_text())
    assert "mean_shift" not in found and "alpha_measured" not in found and found["mass_grows"]["value"] == 0


def test_sensitivities_are_the_quadratic_forms_of_the_jacobians(tiny_checkpoint, weak_checkpoint, rows):
    """g^T K g by the Jacobian's vector product with a fixed g, for each branch alone (Eq. 47, 59)."""
    strong, weak = load_causal_lm(tiny_checkpoint).eval(), load_causal_lm(weak_checkpoint).eval()
    ids = rows[0]["input_ids"][:20]
    found = token_sensitivity(weak, strong, ids, 0.3, "float32")
    models = {"strong": strong, "weak": weak}
    logits = {name: model(torch.tensor([ids[:-1]])).logits[0, -1] for name, model in models.items()}
    g = torch.softmax(0.3 * logits["strong"] + 0.7 * logits["weak"], dim=0).detach()
    g[ids[-1]] -= 1
    for name, model in models.items():
        gradients = torch.autograd.grad((g * logits[name]).sum(), list(model.parameters()))
        assert found[name] == pytest.approx(sum(float(x.square().sum()) for x in gradients), rel=1e-3)


def test_the_first_order_loss_decrease_is_the_sum_of_both_branches(tiny_checkpoint, weak_checkpoint, rows):
    """Eq. 58: a small step in both branches lowers the mixed loss by eta * (E_weak + E_strong)."""
    models = [load_causal_lm(path).eval() for path in (tiny_checkpoint, weak_checkpoint)]
    ids, mix, eta = rows[1]["input_ids"][:16], 0.3, 1e-4
    found = token_sensitivity(models[1], models[0], ids, mix, "float32")

    def loss():
        batch = collate([{"id": "x", "input_ids": ids[:-1], "labels": ids[:-1]}], pad_id=0)
        sides = [hidden_and_head(model, batch["input_ids"], batch["attention_mask"]) for model in models]
        z = [hidden[0, -1].double() @ head.double().T for hidden, head in sides]
        return torch.nn.functional.cross_entropy(mix * z[0] + (1 - mix) * z[1], torch.tensor(ids[-1]))

    before = loss()
    parameters = [p for model in models for p in model.parameters()]
    for p, gradient in zip(parameters, torch.autograd.grad(before, parameters), strict=True):
        p.data -= eta * gradient
    expected = eta * (mix**2 * found["strong"] + (1 - mix) ** 2 * found["weak"])
    assert before.item() - loss().item() == pytest.approx(expected, rel=0.05)


def test_an_empty_pool_is_refused(run, folders, tmp_path):
    (tmp_path / "pool.jsonl").write_text("")
    kept, folders["pool"] = folders["pool"], tmp_path
    try:
        with pytest.raises(InputError, match="holds no example"):
            run(LogitStatistics, {"checkpoint": "strong"})
    finally:
        folders["pool"] = kept


# ------------------------------------------------------------------------------------------------------ the cells


def test_table6_has_the_papers_rows_and_columns(measured):
    cells = diagnostics.table6_cells(measured["weak"], measured["strong"], context=QWEN)
    assert {(c["row"], c["column"]) for c in cells} == {
        (row, column) for row in diagnostics.TABLE6_ROWS for column in ("SFT", "WMSS", "change %")}
    assert all(c["paper_context"] == published("table6", QWEN, c["row"], c["column"]) is not None for c in cells)
    assert all(c["paper"] is None and c["status"] == "measured" and c["ci95"] is not None for c in cells)
    at = {(c["row"], c["column"]): c["value"] for c in cells}
    for row in diagnostics.TABLE6_ROWS:
        assert at[row, "change %"] == pytest.approx(100 * (at[row, "WMSS"] / at[row, "SFT"] - 1))


def test_table7_has_the_papers_rows_and_the_change_of_the_strong_branch(measured):
    cells = diagnostics.table7_cells(measured["weak"], measured["strong"], measured["weak"], context=QWEN,
                                     comparable=True)
    at = {(c["row"], c["column"]): c for c in cells}
    assert at["Max logit", "Delta %"]["paper"] == 24.1 and at["Max logit", "Strong Pre"]["ci95"] is None
    assert at["Max logit, mean over tokens", "Weak init"]["paper"] is None
    for row in diagnostics.TABLE7_ROWS:
        values = [at[row, column]["value"] for column in ("Weak init", "Strong Pre", "Strong Post", "Delta")]
        assert values[0] == values[2] and values[3] == pytest.approx(values[2] - values[1], abs=1e-9)
    assert at["Entropy", "Delta"]["unit"] == "nats" and at["Entropy", "Delta %"]["unit"] == "%"


def test_a_measurement_that_failed_is_shown_as_such_in_every_cell_it_feeds(measured):
    failed = {"status": "failed", "reason": "out of memory"}
    cells = diagnostics.table6_cells(measured["weak"], failed, context=QWEN)
    states = {c["column"]: (c["status"], c["value"] is None, c["reason"]) for c in cells}
    assert states == {"SFT": ("measured", False, None), "WMSS": ("failed", True, "out of memory"),
                      "change %": ("failed", True, "out of memory")}


def test_the_theory_table_has_every_row_for_every_pair(pair):
    missing = {"status": "missing", "reason": "not asked for"}
    cells = diagnostics.theory_cells({"M0 + M1": pair, "M1 + M2": missing})
    assert len(cells) == 2 * len({c["row"] for c in cells}) and len({(c["group"], c["row"]) for c in cells}) > 30
    at = {(c["row"], c["column"]): c for c in cells}
    assert at["condition holds", "M0 + M1"]["value"] == 100 * pair["statistics"]["condition"]["value"]
    assert at["lambda_cross (Eq. 17)", "M0 + M1"]["paper_context"] == 0.49
    assert at["condition holds", "M1 + M2"]["status"] == "missing"
    assert at["lambda_cross (Eq. 17)", "M1 + M2"]["paper_context"] is None  # B.8's norms are of M0 and M1
    json.dumps(cells, allow_nan=False)


def test_a_share_that_has_no_tokens_says_so(pair):
    entry = {"value": None, "ci95": None, "n_tokens": 5, "n_examples": 2}
    bare = {**pair, "statistics": {**pair["statistics"], "grows_where_condition_holds": entry}}
    (found,) = [c for c in diagnostics.theory_cells({"p": bare}) if c["row"] == "grows, where the condition holds"]
    assert (found["value"], found["status"], found["reason"]) == (None, "missing", "no such token")


def test_the_plots_run_over_the_grid_between_their_bounds(pair):
    growth, gradient = diagnostics.theory_plots({"M0 + M1": pair}, "tiny")
    assert growth["id"] == "theory-negative-mass" and gradient["series"][0]["kind"] == "measured"
    assert all(plot["title"].endswith(" (tiny scale)") for plot in (growth, gradient))
    measured, upper, lower = growth["series"]
    assert [point["x"] for point in measured["points"]] == [x / 10 for x in range(10)]
    for found, above, below in zip(measured["points"], upper["points"], lower["points"], strict=True):
        assert below["y"] <= found["y"] <= above["y"] and 0 <= found["low"] <= found["y"] <= found["high"] <= 100
    assert all(math.isclose(point["y"], upper["points"][0]["y"]) for point in upper["points"])
    json.dumps([growth, gradient], allow_nan=False)


def test_the_notes_count_violations(pair):
    notes = diagnostics.theory_notes({"M0 + M1": pair})
    assert any("violated on 0 of them" in note for note in notes)
    assert any("Corollary 2's condition holds exactly where its conclusion does" in note for note in notes)


def test_a_condition_that_is_its_conclusion_has_one_row(pair):
    """Corollary 2 and Eq. 32: the two shares differ by rounding at most, so that one of them says all."""
    both = [pair["statistics"][name]["value"] for name in ("corollary_condition_share", "hard_pairs_amplified")]
    assert both[0] == pytest.approx(both[1], abs=1e-6)
    rows = [c["row"] for c in diagnostics.theory_cells({"M0 + M1": pair})]
    assert [row for row in rows if "condition" in row and "Corollary 2" in row] == [
        "their probability grows (Corollary 2's condition)"]


def test_what_a_step_is_called_is_no_part_of_its_identity(prompt):
    made = [LogitStatistics(checkpoint=Given(name="a"), pool=Given(name="p"), prompt=prompt, loss=LossSettings(),
                            data=DataSettings(max_length=256), seed=0, compute_dtype="float32", batch_tokens=64, of=of)
            for of in ("SFT", "WMSS")]
    assert made[0].key == made[1].key and asdict(made[0])["n_examples"] == 200
