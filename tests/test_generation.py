"""The Hugging Face backend: greedy, resumable by whole batches, honest about how an answer ended."""

from __future__ import annotations

import json

import pytest
import torch
import transformers

from evaluation.backends import hf
from evaluation.backends.interface import Request
from evaluation.backends.sequences import PlannedSequence, Slot
from evaluation.problem import Problem
from foundation.errors import InputError
from foundation.prompts import PromptFormat, encode_example, encode_prompt, prompt_text, stop_ids
from replication.data.synthetic import benchmark_problems

PROBLEMS = benchmark_problems("gsm8k", 10, seed=1)


@pytest.fixture
def request_(prompt):
    return Request(prompt=prompt, max_new_tokens=12, max_prompt_tokens=128, batch_size=4, compute_dtype="float32")


def _records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_problem_gets_one_record_with_its_end(tiny_checkpoint, request_, tmp_path):
    hf.generate(tiny_checkpoint, PROBLEMS, request_, tmp_path / "records", key="k")
    header, *records = _records(tmp_path / "records")
    assert header == {"header": "k"} and sorted(r["id"] for r in records) == sorted(p.id for p in PROBLEMS)
    assert all(r["finish_reason"] in ("stop", "length") for r in records)
    assert all(r["new_tokens"] == 12 for r in records if r["finish_reason"] == "length")


def test_greedy_twice_is_the_same_text(tiny_checkpoint, request_, tmp_path):
    for name in ("a", "b"):
        hf.generate(tiny_checkpoint, PROBLEMS, request_, tmp_path / name, key="k")
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text()


@pytest.mark.parametrize("keep", [0, 1, 5, 7])
def test_resuming_repeats_at_most_the_batch_in_flight_and_changes_nothing(tiny_checkpoint, request_, tmp_path, keep,
                                                                          monkeypatch):
    whole = tmp_path / "whole"
    hf.generate(tiny_checkpoint, PROBLEMS, request_, whole, key="k")
    lines = whole.read_text().splitlines(keepends=True)
    cut = tmp_path / "cut"
    cut.write_text("".join(lines[: keep + 1]) + lines[keep + 1][:9] if keep else "".join(lines)[:5])
    answered = []
    original = hf._answer

    def counted(model, tokenizer, batch, *rest):
        answered.append(batch)
        return original(model, tokenizer, batch, *rest)

    monkeypatch.setattr(hf, "_answer", counted)
    hf.generate(tiny_checkpoint, PROBLEMS, request_, cut, key="k")
    batches = -(-len(PROBLEMS) // 4)
    assert len(answered) == batches - keep // 4
    assert _records(cut) == _records(whole)


def test_records_of_another_run_are_refused(tiny_checkpoint, request_, tmp_path):
    (tmp_path / "records").write_text('{"header": "another"}\n')
    with pytest.raises(InputError, match="another run"):
        hf.generate(tiny_checkpoint, PROBLEMS, request_, tmp_path / "records", key="k")


def test_an_overlong_prompt_is_an_error_not_a_cut(tiny_checkpoint, prompt, tmp_path):
    short = Request(prompt=prompt, max_new_tokens=4, max_prompt_tokens=20, batch_size=4, compute_dtype="float32")
    with pytest.raises(InputError, match=r"10 prompts are longer than 20 tokens: gsm8k-0"):
        hf.generate(tiny_checkpoint, PROBLEMS, short, tmp_path / "records", key="k")
    assert not (tmp_path / "records").exists()


def test_the_answer_ends_at_the_terminator(tiny_checkpoint, prompt, request_):
    """A model whose head always prefers the terminator stops at once, with finish reason stop."""
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_checkpoint, local_files_only=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_checkpoint, local_files_only=True)
    stops = stop_ids(tokenizer, prompt)
    model.generate = lambda input_ids, **_: torch.cat(
        [input_ids, torch.tensor([[7, stops[0], 0], [7, 8, 9]], device=input_ids.device)], dim=1)
    batch = [PlannedSequence(slot=Slot(p.id, 0), prompt_ids=encode_prompt(tokenizer, prompt, p.question), limit=3,
                             seed=None) for p in PROBLEMS[:2]]
    rows = hf._answer(model, tokenizer, batch, request_)
    assert [(r["finish_reason"], r["new_tokens"]) for r in rows] == [("stop", 2), ("length", 3)]


def test_batches_follow_from_the_prompts_alone():
    planned = [PlannedSequence(slot=Slot(f"p{i}", 0), prompt_ids=[0] * n, limit=9, seed=None)
               for i, n in enumerate([3, 9, 5, 9, 1])]
    batches = [[s.slot.id for s in batch] for batch in hf.form_batches(planned, 2)]
    assert batches == [["p1", "p3"], ["p2", "p0"], ["p4"]]


# -------------------------------------------------------------------------------------------------------- prompts


def test_training_and_evaluation_see_the_same_prompt(tokenizer, prompt):
    question, completion = "What is 2+3?", "<think>\n2+3=5\n</think>\n<answer>\\boxed{5}</answer>"
    example = encode_example(tokenizer, prompt, question, completion)
    assert example.ids[: example.prompt_length] == encode_prompt(tokenizer, prompt, question)
    assert tokenizer.decode(example.ids[example.prompt_length :]) == completion + "<|im_end|>"


def test_tag_free_style_removes_the_four_tags_only(tokenizer):
    tag_free = PromptFormat(style="tag_free", system=None, terminator="<|im_end|>")
    example = encode_example(tokenizer, tag_free, "Q", "<think>\n2+3=5\n</think>\n<answer>\\boxed{5}</answer>")
    assert tokenizer.decode(example.ids[example.prompt_length :]) == "2+3=5\n\\boxed{5}<|im_end|>"


def test_a_system_prompt_is_rendered_first(tokenizer):
    with_system = PromptFormat(style="tags", system="Answer in tags.", terminator="<|im_end|>")
    assert prompt_text(tokenizer, with_system, "Q").startswith("<|im_start|>system\nAnswer in tags.<|im_end|>")


def test_a_missing_terminator_is_named(tokenizer):
    with pytest.raises(ValueError, match="<end_of_turn>"):
        stop_ids(tokenizer, PromptFormat(style="tags", system=None, terminator="<end_of_turn>"))


def test_problems_survive_their_json_form():
    problem = Problem(id="x", question="Q", gold="B", answer_type="choice", options=("1", "2"))
    assert Problem.from_row(json.loads(json.dumps(problem.to_row()))) == problem
