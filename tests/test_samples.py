"""Completions from elsewhere: every expected sample is accounted for, whatever the file holds."""

from __future__ import annotations

import json

import pytest

from evaluation.benchmarks import BENCHMARKS, load_benchmark
from evaluation.benchmarks.loading import load_rows
from evaluation.commands import grade_samples
from evaluation.lines import Line, read_lines
from evaluation.problem import Problem
from evaluation.samples import match_samples
from foundation.errors import InputError
from foundation.files import write_jsonl


def problems(*source_ids, name="humaneval_plus"):
    kind = BENCHMARKS[name].answer_type
    return [Problem(id=f"{name}-{n}", question=f"q{n}", gold="1", answer_type=kind, source_id=source_id)
            for n, source_id in enumerate(source_ids)]


def match(name, listed, rows, samples=None):
    return match_samples(BENCHMARKS[name], listed, [Line(n, row) for n, row in enumerate(rows, start=1)], samples)


def test_evalplus_layout_is_mapped_by_task_id():
    matched = match("humaneval_plus", problems("HumanEval/0", "HumanEval/1"), [
        {"task_id": "HumanEval/1", "solution": "def f(): ..."}, {"task_id": "HumanEval/0", "completion": " return 1"},
        {"task_id": "HumanEval/0", "completion": " return 2"}, {"task_id": "HumanEval/7", "solution": ""},
        {"task_id": "HumanEval/0"}, {"task_id": "HumanEval/0", "solution": None}])
    found = {name: [(s.text, s.form) for s in listed] for name, listed in matched.samples.items()}
    assert found == {"humaneval_plus-0": [(" return 1", "completion"), (" return 2", "completion")],
                     "humaneval_plus-1": [("def f(): ...", "solution")]}
    assert [(f.identity, f.outcome) for f in matched.faults] == [
        ("HumanEval/7", "unknown_id"), ("HumanEval/0", "unreadable"), ("HumanEval/0", "unreadable")]
    assert all(f"line {n}" in fault.reason for n, fault in zip((4, 5, 6), matched.faults, strict=True))


def test_surplus_samples_are_reported_and_the_first_ones_kept():
    rows = [{"id": "gsm8k-0", "text": str(n)} for n in range(4)]
    matched = match("gsm8k", problems(None, name="gsm8k"), rows, samples=3)
    assert [s.text for s in matched.samples["gsm8k-0"]] == ["0", "1", "2"]
    assert [(f.identity, f.outcome) for f in matched.faults] == [("gsm8k-0", "surplus")]


def test_an_id_of_two_problems_is_no_problem_s_id():
    listed = problems("10906", "7", "10906", name="logiqa2")
    rows = [{"id": identity, "text": "A"} for identity in (10906, 7, "logiqa2-2")]
    matched = match("logiqa2", listed, rows)
    assert [len(matched.samples[p.id]) for p in listed] == [0, 1, 1]
    assert "two problems with the id '10906'" in matched.faults[0].reason


@pytest.mark.parametrize("name", ["gsm8k", "math500", "aqua", "mawps", "svamp", "aime2025", "logiqa2", "reclor"])
def test_lm_eval_documents_are_mapped_by_their_question_in_any_order(data_root, name):
    pairs = load_rows(BENCHMARKS[name], [data_root / BENCHMARKS[name].file])
    lines = [{"doc_id": 9000 + n, "doc": row, "resps": [[f"text of {problem.id}"]], "filter": chosen}
             for n, (problem, row) in enumerate(pairs) for chosen in ("strict", "flexible")]
    matched = match(name, [problem for problem, _ in pairs], lines[::-1])
    assert matched.faults == [] and {len(listed) for listed in matched.samples.values()} == {1}
    differing = [name for name, (sample,) in matched.samples.items() if sample.text != f"text of {name}"]
    assert len(differing) <= 28  # the questions that stand twice, with one answer each


def test_lm_eval_repeats_are_samples_and_log_likelihoods_are_refused():
    listed = [Problem(id="gsm8k-0", question="What is 1+1?", gold="2", answer_type="integer")]
    document = {"question": "What is  1+1? ", "answer": "x"}
    matched = match("gsm8k", listed, [
        {"doc_id": 3, "doc": document, "resps": [["a", "b"]], "filter": "none"},
        {"doc_id": 4, "doc": document | {"question": "Another?"}, "resps": [["a"]], "filter": "none"},
        {"doc_id": 5, "doc": document, "resps": [[["-1.5", "False"]]], "filter": "none"}])
    assert [s.text for s in matched.samples["gsm8k-0"]] == ["a", "b"]
    assert [f.outcome for f in matched.faults] == ["unknown_id", "unreadable"]


def run(capsys, *arguments):
    code = grade_samples.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, [json.loads(line) for line in captured.out.splitlines()], captured.err


def test_missing_samples_stay_in_the_denominator(tmp_path, data_root, capsys):
    golds = [problem.gold for problem in load_benchmark(BENCHMARKS["aime2025"], data_root)]
    rows = [{"id": f"aime2025-{n}", "text": f"\\boxed{{{golds[n]}}}"} for n in range(20) for _ in range(2)]
    rows += [{"id": "aime2025-20", "text": "\\boxed{1000}"}, {"id": "nobody", "text": "x"}]
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"id": "aime2025-3", "te')
    code, lines, said = run(capsys, "--benchmark", "AIME2025", "--samples", path, "--data-root", data_root)
    assert code == 0 and len(lines) == 62
    assert [line["outcome"] for line in lines].count("correct") == 40
    assert [line["outcome"] for line in lines].count("missing") == 19
    assert [(line["id"], line["outcome"]) for line in lines[60:]] == [("nobody", "unknown_id"),
                                                                      ("aime2025-3", "unreadable")]
    assert "avg@2 66.7 %" in said and "over 30 problems x 2" in said and "INCOMPLETE: 19 samples missing" in said


def test_logic_intervals_are_clustered_by_passage(tmp_path, data_root, capsys):
    listed = load_benchmark(BENCHMARKS["reclor"], data_root)
    path = tmp_path / "samples.jsonl"
    write_jsonl(path, ({"id": p.source_id, "text": f"The answer is ({p.gold})."} for p in listed))
    _, lines, said = run(capsys, "--benchmark", "reclor", "--samples", path, "--data-root", data_root, "--n", 1)
    assert all(line["correct"] for line in lines)
    assert "accuracy 100.0 %" in said and "500 clusters" in said and "INCOMPLETE" not in said


def test_what_cannot_be_graded_is_refused(tmp_path, data_root):
    path = tmp_path / "samples.jsonl"
    base = ["--samples", str(path), "--data-root", str(data_root), "--benchmark"]
    path.write_text('{"task_id": "HumanEval/0", "solution": "x"}\n')
    with pytest.raises(InputError, match="no sample of GSM8K"):
        grade_samples.main([*base, "gsm8k"])
    with pytest.raises(InputError, match="--n is 0"):
        grade_samples.main([*base, "gsm8k", "--n", "0"])
    with pytest.raises(InputError, match="cannot read"):
        grade_samples.main(["--samples", "nowhere", "--data-root", str(data_root), "--benchmark", "gsm8k"])


def test_lines_survive_a_byte_order_mark_and_know_their_numbers(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"id": 1}\r\n\r\n7\n{"task_id": "T/1", "x": ')
    found = list(read_lines(str(path)))
    assert [(line.number, line.row, line.identity) for line in found] == [(1, {"id": 1}, None), (3, None, None),
                                                                          (4, None, "T/1")]
