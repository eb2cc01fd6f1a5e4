"""From rollouts to pairs, hints, stored logits and trained models: the steps of SPIN, DPO and SSB."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import transformers
from rollout_chain import Chain

from foundation.errors import InputError
from foundation.files import read_jsonl
from replication.actions.rollouts import check_tokenizer
from replication.configuration import with_changes
from replication.models import MODELS
from replication.plan import Planner, Request
from replication.scales import SCALES
from replication.steps import closure
from replication.store import Store

N = 64


@pytest.fixture(scope="module")
def plan():
    torch.set_num_threads(1)
    scale = replace(SCALES["tiny"], pool_size={"math": N}, benchmark_size=4)
    configuration = with_changes(scale.configuration, [
        "pretrain.updates=3", "spin.subset=none", "dpo.subset=none", "ssb.subset=64", "train.micro_batch=4",
        "train.global_batch=16", "ssb.global_batch=8", "spin.global_batch=16"])
    return Planner(Request(model=MODELS["tiny"], scale=scale, configuration=configuration, data_root=None,
                           limit_train=None, limit_eval=None, seed=0))


@pytest.fixture(scope="module")
def chain(plan, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chain")
    return Chain(folder, Store(folder / "store"), plan)


def step_of(plan, row, kind, **settings):
    (found,) = [s for s in closure([plan.final(row)]) if s.kind == kind
                and all(getattr(s, k) == v for k, v in settings.items())]
    return found


def rows_of(path):
    return list(read_jsonl(path))


def test_verdicts_follow_the_replies(chain, plan):
    verdicts = rows_of(chain.run(step_of(plan, "dpo", "rollout-grades")) / "verdicts.jsonl")
    assert [v["outcome"] for v in verdicts[4:8]] == ["wrong", "correct", "wrong", "no_answer"]
    assert len(verdicts) == 4 * N


def test_dpo_pairs_are_the_first_right_and_the_first_wrong_reply(chain, plan, tokenizer):
    folder = chain.run(step_of(plan, "dpo", "pairs"))
    pairs = rows_of(folder / "pairs.jsonl")
    assert len(pairs) == N - len(range(0, N, 5))
    pool = {row["id"]: row for row in rows_of(chain.run(plan.pool()) / "pool.jsonl")}
    for pair in pairs:
        completion = pool[pair["id"]]["completion"]
        assert tokenizer.decode(pair["chosen_ids"]) == completion + "<|im_end|>"
        assert "123456" in tokenizer.decode(pair["rejected_ids"])


def test_spin_pairs_prefer_the_pools_reply_and_skip_copies(chain, plan):
    pairs = rows_of(chain.run(step_of(plan, "spin", "pairs")) / "pairs.jsonl")
    assert len(pairs) == N and all(pair["chosen_ids"] != pair["rejected_ids"] for pair in pairs)


def test_hints_show_one_right_and_one_wrong_reply(chain, plan):
    folder = chain.run(step_of(plan, "ssb", "hints"))
    hints = rows_of(folder / "hints.jsonl")
    assert len(hints) == N - len(range(0, N, 5))
    assert all(hint["right"] == 1 and hint["wrong"] in (0, 2) for hint in hints)
    assert all("A correct solution:" in hint["question"] and "An incorrect solution:" in hint["question"]
               for hint in hints)


def test_the_teachers_wrong_replies_are_dropped_and_every_supervised_token_has_a_column(chain, plan):
    folder = chain.run(step_of(plan, "ssb", "targets"))
    rows = rows_of(folder / "targets.jsonl")
    hints = len(rows_of(chain.made[step_of(plan, "ssb", "hints").key] / "hints.jsonl"))
    assert len(rows) == hints - len(range(0, hints, 7))
    supervised = sum(label != -100 for row in rows for label in row["labels"])
    from safetensors.torch import load_file
    columns = load_file(folder / "targets.safetensors")
    assert columns["ids_NK"].shape == (supervised, 20) and columns["logits_NK"].dtype == torch.float16
    assert int((~columns["stored_N"]).sum()) == len(rows)  # the end tokens


@pytest.mark.parametrize("row", ["spin", "dpo", "ssb"])
def test_each_method_trains_from_its_replies_to_a_plain_checkpoint(chain, plan, row):
    folder = chain.run(plan.final(row))
    losses = [entry["loss"] for entry in rows_of(folder / "losses.jsonl")]
    assert losses and all(torch.isfinite(torch.tensor(losses)))
    if row != "ssb":
        assert losses[0] == pytest.approx(0.693147, abs=1e-4)  # policy = reference
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "checkpoint", local_files_only=True)
    base = transformers.AutoModelForCausalLM.from_pretrained(chain.run(plan.base()) / "checkpoint",
                                                             local_files_only=True)
    assert model.num_parameters() == base.num_parameters()
    assert not any("lora" in name for name, _ in model.named_parameters())


def test_methods_of_one_size_share_their_subset_and_equal_rollouts(plan):
    scale = SCALES["tiny"]
    fresh = Planner(replace(plan.request, scale=scale, configuration=scale.configuration))
    subsets = {row: step_of(fresh, row, "subset").key for row in ("spin", "dpo", "ssb", "spin-64")}
    assert len(set(subsets.values())) == 1
    assert step_of(fresh, "spin", "rollouts").key == step_of(fresh, "spin-64", "rollouts").key
    assert step_of(fresh, "spin", "subset").size == round(20_000 * 3_840 / 111_657)


def test_no_pair_at_all_says_how_many_were_right_and_what_to_change(chain, plan):
    pairs = step_of(plan, "dpo", "pairs")
    grades = chain.run(step_of(plan, "dpo", "rollout-grades"))
    content = (grades / "verdicts.jsonl").read_text()
    (grades / "verdicts.jsonl").write_text(content.replace('"correct"', '"wrong"'))
    chain.made.pop(pairs.key, None)
    try:
        with pytest.raises(InputError, match=r"none of the 64 prompts gave a pair .* 0 of 256 rollouts were correct.*"
                                             "raise the number of rollouts"):
            Chain.run(_Again(chain), pairs)
    finally:
        (grades / "verdicts.jsonl").write_text(content)


class _Again(Chain):
    """The same chain writing to another folder."""

    def __init__(self, chain):
        self.folder, self.store, self.plan, self.made = chain.folder / "again", chain.store, chain.plan, chain.made
        self.folder.mkdir(exist_ok=True)


def test_another_tokenizer_is_refused(chain, plan, tmp_path, tokenizer):
    (tmp_path / "tokenizer.sha256").write_text("0" * 64)
    with pytest.raises(InputError, match="come from another tokenizer"):
        check_tokenizer(tmp_path, tokenizer, "rollouts")


def test_a_dropped_example_does_not_shift_the_active_set(tmp_path, tokenizer, prompt):
    """With data.overlength=drop the entropy pass keeps fewer examples than the pool has (A-11)."""
    from types import SimpleNamespace

    from baselines.selection import Selection
    from baselines.settings import DataSettings, LossSettings
    from foundation.files import write_jsonl
    from replication.actions.training import _encode, select_active

    long = {"id": "long", "question": "What is 1+1?", "completion": "1+1=2 " * 40}
    pool = [long, *({"id": f"e{i}", "question": f"What is {i}+1?", "completion": "2"} for i in range(5))]
    kept = [{"id": row["id"], "entropy": 1.0} for row in pool[1:]]
    folders = {name: tmp_path / name for name in ("pool", "strong", "weak", "out")}
    for name, folder in folders.items():
        folder.mkdir()
        if name != "out":
            rows = ("pool.jsonl", pool) if name == "pool" else ("entropy.jsonl", kept)
            write_jsonl(folder / rows[0], rows[1])
    job = SimpleNamespace(step=SimpleNamespace(selection=Selection(), seed=0, draw=1), inputs=folders,
                          output=folders["out"])
    select_active(job)
    step = SimpleNamespace(prompt=prompt, data=DataSettings(max_length=64, overlength="drop"), loss=LossSettings())
    encoded, _ = _encode(SimpleNamespace(step=step, inputs={"pool": folders["pool"], "examples": folders["out"]}),
                         tokenizer)
    drawn = json.loads((folders["out"] / "active.json").read_text())["ids"]
    assert [row["id"] for row in encoded.rows] == [f"e{i}" for i in drawn]


def test_snapshots_and_the_weak_branch_are_checkpoints_of_their_own(chain, plan):
    warmup = chain.run(plan.warmup())
    assert {path.name for path in warmup.glob("ck-*")} == {"ck-50", "ck-100", "ck-150", "ck-200"}
    step = plan.plan("wmss-wd-jt[wmss.weak_checkpoint=50]").made["M1/ck-50"]
    folder = chain.run(step)
    assert transformers.AutoModelForCausalLM.from_pretrained(folder / "checkpoint", local_files_only=True)
    assert json.loads((folder / "checkpoint/config.json").read_text())["model_type"] == "qwen3"
