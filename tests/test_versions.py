"""A step's `version` is raised when what it computes changes: a small recorded output per kind fails otherwise.

    python tests/test_versions.py       records the outputs anew, after the version of the changed kind was raised
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rollout_chain import Chain
from safetensors.torch import load_file

from baselines.selection import Selection
from foundation.files import write_jsonl
from replication import steps
from replication.configuration import with_changes
from replication.diagnostic_steps import LogitStatistics, TheoryStatistics
from replication.models import MODELS
from replication.plan import Planner, Request
from replication.provenance import hardware
from replication.sample_steps import GradeSamples, SampleAnswers
from replication.scales import SCALES
from replication.store import Store
from replication.worker import Job, execute

CASES = Path(__file__).parent / "cases" / "recorded_outputs.json"
KINDS = ("pretrain", "pool", "problems", "train", "entropy", "select", "generate", "grade", "subset", "rollouts",
         "rollout-grades", "pairs", "hints", "targets", "train-pairs", "snapshot", "logit-statistics",
         "theory", "samples", "sample-grades")
FLOATS = ("pretrain", "train", "entropy", "train-pairs", "targets", "logit-statistics", "theory")
SAMPLED = ("generate", "rollouts", "samples")


def outputs(folder):
    """Run one small step of each kind in this process; return its version and a summary of what it gave."""
    scale = replace(SCALES["tiny"], pool_size={"math": 64}, benchmark_size=4)
    configuration = with_changes(scale.configuration, ["pretrain.updates=3", "eval.max_new_tokens=8", "dpo.subset=60",
                                                       "ssb.subset=60", "ssb.global_batch=8"])
    plan = Planner(Request(model=MODELS["tiny"], scale=scale, configuration=configuration, data_root=None,
                           limit_train=None, limit_eval=None, seed=0))
    store = Store(folder / "store")
    grade = plan.grade("wmss", "gsm8k")
    for step in steps.closure([grade]):
        execute(step, store, lambda *_, **__: None)
    wmss = plan.final("wmss")
    found = {
        "pretrain": (plan.base(), _losses),
        "pool": (plan.pool(), lambda path: _digest(path / "pool.jsonl")),
        "problems": (grade.problems, lambda path: _digest(path / "problems.jsonl")),
        "train": (wmss, _losses),
        "entropy": (wmss.examples.weak, lambda path: [row["entropy"] for row in _rows(path / "entropy.jsonl")[:4]]),
        "generate": (grade.records, lambda path: [row["text"] for row in _rows(path / "records.jsonl")]),
        "grade": (grade, lambda path: {k: v for k, v in json.loads((path / "counts.json").read_text()).items()
                                       if k != "truncated"}),
    }
    summary = {kind: {"version": step.version, "output": read(store.use(step))} for kind, (step, read) in found.items()}
    summary["select"] = {"version": steps.SelectActive.version, "output": _selected(folder, wmss.examples)}
    return summary | _from_replies(folder, plan, store) | _measured(plan, store) | _sampled(folder, plan, store, grade)


def _sampled(folder, plan, store, grade):
    """Two sampled answers of M0 to each problem, and verdicts on answers written by hand."""
    from replication.actions.samples import grade_samples

    answers = SampleAnswers(checkpoint=plan.base(), problems=grade.problems, prompt=plan.prompt, n=2, temperature=0.7,
                            top_p=0.95, max_new_tokens=6, max_prompt_tokens=96, batch_size=4, compute_dtype="float32",
                            seed=0, backend="hf")
    execute(answers, store, lambda *_, **__: None)
    graded = GradeSamples(records=answers, problems=grade.problems, grader_version=grade.grader_version)
    problems = store.use(grade.problems)
    inputs, output = {"problems": problems, "records": folder / "written"}, folder / "sample-grades"
    inputs["records"].mkdir()
    output.mkdir()
    write_jsonl(inputs["records"] / "records.jsonl", (
        {"id": row["id"], "sample": sample, "text": text, "finish_reason": "stop", "new_tokens": 9, "prompt_tokens": 9}
        for row in _rows(problems / "problems.jsonl")
        for sample, text in enumerate((f"<answer>\\boxed{{{row['gold']}}}</answer>", "<answer>\\boxed{-7}</answer>",
                                       ""))))
    grade_samples(Job(graded, inputs, output, folder, lambda fraction: None))
    return {"samples": {"version": answers.version,
                        "output": [row["text"] for row in _rows(store.use(answers) / "records.jsonl")]},
            "sample-grades": {"version": graded.version,
                              "output": [[row["sample"], row["outcome"]] for row in _rows(output / "verdicts.jsonl")]}}


def _measured(plan, store):
    """The logits of M0 and M1 on four examples; quantities that no rounding can flip."""
    shared = {"pool": plan.pool(), "prompt": plan.prompt, "data": plan.configuration.data, "n_examples": 4, "seed": 0,
              "loss": plan.configuration.loss, "compute_dtype": "float32", "batch_tokens": 512}
    weak, strong = plan.base(), plan.warmup()
    found = (
        (LogitStatistics(checkpoint=strong, **shared),
         ("target_logit", "background_mean", "centered_norm", "highest_logit", "l2_norm", "entropy", "max_prob")),
        (TheoryStatistics(weak=weak, strong=strong, strong_post=weak, mix_weight=0.4, sensitivity_examples=2, **shared),
         ("p_target_mix", "negative_mass_mix@0.1", "residual_norm_mix", "alpha", "alpha_measured", "null_norm")),
    )
    summary = {}
    for step, names in found:
        execute(step, store, lambda *_, **__: None)
        statistics = json.loads((store.use(step) / "statistics.json").read_text(encoding="utf-8"))
        summary[step.kind] = {"version": step.version, "output": [statistics[name]["value"] for name in names]}
    return summary


def _from_replies(folder, plan, store):
    """What SPIN, DPO and SSB make of replies written by hand, and a sampled reply of the base."""
    chain_folder = folder / "chain"
    chain_folder.mkdir()
    chain = Chain(chain_folder, store, plan)
    dpo, ssb = plan.final("dpo"), plan.final("ssb")
    chain.run(dpo)
    sampled = replace(dpo.pairs.replies, checkpoint=plan.base(), n=2, max_new_tokens=6)
    execute(sampled, store, lambda *_, **__: None)
    snapshot = plan.plan("wmss").made["M1/ck-50"]
    execute(snapshot, store, lambda *_, **__: None)
    found = {
        "subset": (dpo.pairs.replies.subset, lambda path: json.loads((path / "active.json").read_text())["ids"][:12]),
        "rollout-grades": (dpo.pairs.grades, lambda path: [v["outcome"] for v in _rows(path / "verdicts.jsonl")[:8]]),
        "pairs": (dpo.pairs, lambda path: [len(row["rejected_ids"]) for row in _rows(path / "pairs.jsonl")[:12]]),
        "train-pairs": (dpo, _losses),
        "hints": (ssb.examples.hints, lambda path: _digest(path / "hints.jsonl")),
        "targets": (ssb.examples, lambda path: load_file(path / "targets.safetensors")["tail_N"][:6].tolist()),
    }
    summary = {kind: {"version": step.version, "output": read(chain.run(step))} for kind, (step, read) in found.items()}
    summary["rollouts"] = {"version": sampled.version,
                           "output": [row["text"] for row in _rows(store.use(sampled) / "replies.jsonl")[:6]]}
    summary["snapshot"] = {"version": snapshot.version,
                           "output": sorted(p.name for p in (store.use(snapshot) / "checkpoint").iterdir())}
    return summary


def _selected(folder, step):
    """Select from entropies written by hand: the draw is exact whatever the machine's rounding."""
    from replication.actions.training import select_active

    inputs = {}
    for role, offset in (("strong", 0), ("weak", 3)):
        inputs[role] = folder / role
        inputs[role].mkdir()
        write_jsonl(inputs[role] / "entropy.jsonl", ({"id": str(i), "entropy": ((i * 7 + offset) % 11) / 4}
                                                     for i in range(40)))
    output = folder / "select"
    output.mkdir()
    select_active(Job(replace(step, selection=Selection()), inputs, output, folder, lambda fraction: None))
    return json.loads((output / "active.json").read_text())["ids"]


def _rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _losses(path):
    return [row["loss"] for row in _rows(path / "losses.jsonl")]


@pytest.fixture(scope="module")
def now(tmp_path_factory):
    return outputs(tmp_path_factory.mktemp("versions"))


@pytest.fixture(scope="module")
def recorded():
    return json.loads(CASES.read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", KINDS)
def test_an_output_changes_only_with_its_version(kind, now, recorded):
    before, after = recorded["kinds"][kind], now[kind]
    if before["version"] != after["version"]:
        pytest.fail(f"version of {kind} is now {after['version']}: record it with python tests/test_versions.py")
    if kind in SAMPLED and recorded["processor"] != hardware()["processor"]:
        pytest.skip("recorded on another processor, whose rounding decides a hardly trained model's greedy text")
    output, expected = after["output"], before["output"]
    same = output == (pytest.approx(expected, rel=2e-3) if kind in FLOATS else expected)
    assert same, f"{kind} computes something else now: raise {kind}'s version in replication/steps.py, then record"


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        content = {"processor": hardware()["processor"], "kinds": outputs(Path(temporary))}
    CASES.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"recorded {len(content['kinds'])} kinds in {CASES.name}")
