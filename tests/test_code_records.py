"""Programs in models' texts and samples files: extraction, resumption after a kill, bad inputs, reference solutions."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT

from evaluation.benchmarks import BENCHMARKS
from evaluation.benchmarks.code import load_tasks
from evaluation.commands import grade_samples, regrade, verify
from evaluation.graders.code import CodeGrader, CodeVerdict
from evaluation.graders.code_extraction import extract_program, program_of
from evaluation.graders.records import ProgramGrader, Submission, grade_records, packages_for
from evaluation.graders.references import lacks
from evaluation.isolation import find_isolation, kinds
from evaluation.problem import Problem
from foundation.errors import GoldError, GraderError, InputError, PrerequisiteError


@pytest.fixture(scope="module")
def isolation():
    try:
        return find_isolation()
    except PrerequisiteError as error:
        pytest.skip(str(error))


def row(number, body="    return x + {n}\n"):
    """A row of HumanEval+'s layout: f adds its number."""
    return {"task_id": f"HumanEval/{number}", "prompt": 'def f(x):\n    """Add."""\n', "entry_point": "f",
            "canonical_solution": body.format(n=number), "test": "", "contract": "", "atol": 0,
            "base_input": [[1], [2]], "plus_input": [[10 ** 20]]}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data root that holds HumanEval+ with four tasks of ours, and a lock file that expects nothing."""
    monkeypatch.setitem(BENCHMARKS, "humaneval_plus", replace(BENCHMARKS["humaneval_plus"], expected_count=4))
    (tmp_path / "lock.json").write_text('{"schema": 1, "files": {}, "hub": {}}')
    write_rows(tmp_path, [row(number) for number in range(4)])
    return tmp_path


def write_rows(root, rows):
    path = root / BENCHMARKS["humaneval_plus"].file
    path.parent.mkdir(exist_ok=True)
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(one) + "\n" for one in rows)


def arguments(root, *more):
    return ["--data-root", str(root), "--lock", str(root / "lock.json"), "--benchmark", "humaneval_plus",
            *map(str, more)]


def graded(capsys, root, content, *more):
    path = root / "samples.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else b"".join(json.dumps(r).encode() + b"\n"
                                                                         for r in content))
    code = grade_samples.main(arguments(root, "--samples", path, *more))
    captured = capsys.readouterr()
    return code, [json.loads(line) for line in captured.out.splitlines()], captured.err


# -------------------------------------------------------------------------------------------------------- extraction


@pytest.mark.parametrize(("text", "code", "rule"), [
    ("<think>\nx\n</think>\n<answer>```python\nright\n```</answer>", "right\n", "block"),
    ("<think>\n```python\nno\n```\n</think>\n<answer>\n```\nright\n```\n</answer>\nAlso:\n```python\nno\n```",
     "right\n", "block"),
    ("```python\nno\n```\n<answer>\n```python\nright\n```", "right\n", "block"),
    ("<answer>n = int(input())\nprint(n)</answer>", "n = int(input())\nprint(n)", "answer_tag"),
    ("<answer>the code above</answer>\n```python\nx = 1\n```", "the code above", "answer_tag"),
    ("```python\nright\n```\n<answer>", "right\n", "block"),
    ("<answer>```python\ndef f(): ret", "def f(): ret", "open_block"),
    ("<answer>def f(): ret", "def f(): ret", "whole_text"),
    ("```\n\n```\n```python\nright\n```", "right\n", "block"),
])
def test_the_program_of_an_answer_block_comes_first(text, code, rule):
    found = extract_program(text)
    assert found is not None and (found.code, found.rule) == (code, rule)


def test_forms_of_samples():
    prompt = "import math\n\ndef f(x):\n"
    assert program_of("solution", "x ```python\ny\n```").code == "x ```python\ny\n```"
    assert program_of("completion", "    return x\n", prompt, "f").code == prompt + "    return x\n"
    assert program_of("completion", "print(1)").code == "print(1)"
    assert program_of("text", "I do not know", prompt, "f") is None is program_of("solution", " \n")


# ---------------------------------------------------------------------------------------------------- grade-samples


def test_every_form_of_sample_is_graded(isolation, root, capsys):
    code, lines, said = graded(capsys, root, [
        {"task_id": "HumanEval/0", "solution": "def f(x):\n    return x\n"},
        {"task_id": "HumanEval/1", "completion": "    return x + 1\n"},
        {"id": "humaneval_plus-2", "text": "So:\n```python\ndef f(x): return x + 2\n```"},
        {"id": "humaneval_plus-3", "text": "```python\ndef f(x): return min(x + 3, 99)\n```"}])
    assert code == 0 and [line["outcome"] for line in lines] == ["correct"] * 3 + ["wrong"]
    assert "HE+: accuracy 75.0 %" in said and "HumanEval (the original tests alone): accuracy 100.0 %" in said
    assert '"isolation"' in said and "INCOMPLETE" not in said


def test_bad_samples_are_reported_one_by_one_and_stay_in_the_denominator(isolation, root, capsys):
    content = b"\n".join([
        b'{"task_id": "HumanEval/0", "solution": "def f(x): return x\\u0000"}',
        b'{"task_id": "HumanEval/0", "solution": "def f(x): return \xff"}',
        json.dumps({"task_id": "HumanEval/1", "solution": "#" * (10 << 20) + "\ndef f(x): return x + 1"}).encode(),
        json.dumps({"id": "humaneval_plus-1", "text": "word " * (2 << 20)}).encode(),
        json.dumps({"id": "humaneval_plus-2", "text": "```python\ndef f(x): return x + 2\n", "finish_reason": "length"}
                   ).encode(),
        b'{"task_id": "HumanEval/7", "solution": "x"}',
        b'{"task_id": "HumanEval/1", "solution": null}',
        b'{"task_id": "HumanEval/2", "solution": "def f'])
    code, lines, said = graded(capsys, root, content)
    assert code == 0
    found = {(line["id"], line.get("sample")): line["outcome"] for line in lines}
    assert found == {
        ("humaneval_plus-0", 0): "wrong", ("humaneval_plus-0", 1): "missing", ("humaneval_plus-1", 0): "correct",
        ("humaneval_plus-1", 1): "no_answer", ("humaneval_plus-2", 0): "no_answer",
        ("humaneval_plus-2", 1): "missing", ("humaneval_plus-3", 0): "missing", ("humaneval_plus-3", 1): "missing",
        ("HumanEval/0", None): "unreadable", ("HumanEval/7", None): "unknown_id", ("HumanEval/1", None): "unreadable",
        ("HumanEval/2", None): "unreadable"}
    assert "avg@2 12.5 %" in said and "INCOMPLETE: 4 samples missing" in said and all(line["reason"] for line in lines)


def test_a_second_grading_reads_the_kept_verdicts_and_another_program_is_run(isolation, root, capsys):
    rows = [{"task_id": f"HumanEval/{n}", "solution": f"def f(x): return x + {n}"} for n in range(4)]
    _, first, _ = graded(capsys, root, rows)
    kept = root / "samples.jsonl.verdicts"
    assert len(kept.read_text().splitlines()) == 4
    kept.write_text(kept.read_text() + '["cut')
    rows[3]["solution"] = "def f(x): return x"
    _, second, said = graded(capsys, root, rows)
    assert second[:3] == first[:3] and second[3]["outcome"] == "wrong" and '"verdicts_kept_before": 3' in said
    write_rows(root, [row(number) | {"base_input": [[5]]} for number in range(4)])
    assert '"verdicts_kept_before": 0' in graded(capsys, root, rows)[2], "other tests are other verdicts"


def test_a_grading_killed_in_the_middle_goes_on(isolation, root, tmp_path, capsys):
    """A real process is killed with -9; what it had finished is not run again."""
    ids = range(4)
    slow = "import time\ntime.sleep(0.4)\ndef f(x): return x + {}\n"
    samples = root / "samples.jsonl"
    samples.write_text("".join(json.dumps({"task_id": f"HumanEval/{n}", "solution": slow.format(n) + f"# {k}"}) + "\n"
                               for n in ids for k in range(3)))
    program = ("import sys\nfrom dataclasses import replace\nfrom evaluation.benchmarks import BENCHMARKS as B\n"
               "B['humaneval_plus'] = replace(B['humaneval_plus'], expected_count=4)\n"
               "from evaluation.commands.grade_samples import main\nsys.exit(main(sys.argv[1:]))\n")
    command = [sys.executable, "-c", program, *arguments(root, "--samples", samples, "--workers", 2)]
    kept = root / "samples.jsonl.verdicts"
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          env=os.environ | {"PYTHONPATH": str(ROOT)}) as running:
        deadline = time.monotonic() + 60
        while not (kept.exists() and len(kept.read_text().splitlines()) >= 3) and time.monotonic() < deadline:
            time.sleep(0.02)
        running.send_signal(signal.SIGKILL)
    before = len(kept.read_text().splitlines())
    assert 3 <= before < 12
    assert grade_samples.main(arguments(root, "--samples", samples, "--workers", 2)) == 0
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    assert len(lines) == 12 and all(line["correct"] for line in lines)
    assert f'"verdicts_kept_before": {before}' in captured.err and len(kept.read_text().splitlines()) == 12


def test_without_isolation_programs_are_refused_or_run_loudly(root, capsys, monkeypatch):
    monkeypatch.setattr(kinds, "probe", lambda name: "not installed")
    (root / "samples.jsonl").write_text('{"task_id": "HumanEval/0", "solution": "def f(x): return x"}\n')
    call = arguments(root, "--samples", root / "samples.jsonl")
    for command, given in ((grade_samples, call), (verify, arguments(root))):
        with pytest.raises(PrerequisiteError, match="--unsafe-code-execution"):
            command.main(given)
    assert grade_samples.main([*call, "--unsafe-code-execution"]) == 0
    said = capsys.readouterr().err
    assert "WARNING: generated code runs WITHOUT ISOLATION" in said and '"unsafe": true' in said


# ----------------------------------------------------------------------------------------------------------- records


def test_records_become_verdict_rows(isolation):
    rows = {f"p{n}": row(n) for n in range(3)} | {"broken": row(3) | {"base_input": "no list of inputs"}}
    records = [{"id": "p1", "text": "<answer>```python\ndef f(x): return x + 1\n```</answer>", "finish_reason": "stop"},
               {"id": "p0", "text": "I do not know", "finish_reason": "stop"},
               {"id": "p2", "text": "```python\ndef f(x): return x +", "finish_reason": "length"},
               {"id": "p2", "text": "```python\ndef f(x): return 1 / 0\n```", "finish_reason": "stop"},
               {"id": "broken", "text": "```python\ndef f(x): return x\n```", "finish_reason": "stop"}]
    with CodeGrader(isolation, workers=2) as grader, ProgramGrader(grader) as programs:
        found = list(grade_records("humaneval_plus", rows, records, programs))
        with pytest.raises(GraderError, match="1 of 1 records belong to no task"):
            list(grade_records("humaneval_plus", rows, [records[0] | {"id": "p9"}], programs))
    assert [(line["id"], line["outcome"], line["rule"]) for line in found] == [
        ("p1", "correct", "block"), ("p0", "no_answer", None), ("p2", "no_answer", None), ("p2", "wrong", "block"),
        ("broken", "grader_failure", "block")]
    assert all(set(line) == {"id", "outcome", "extracted", "rule", "reason"} for line in found)
    assert found[3]["reason"].startswith("exception: ZeroDivisionError") and "def f" in found[0]["extracted"]


def test_failures_of_the_grading_are_not_kept(tmp_path):
    class Fails:
        workers = 1
        outcomes = iter(["grader_failure", "not_runnable", "timeout"])

        def verdict_settings(self):
            return {}

        def grade(self, task, code):
            return CodeVerdict(next(self.outcomes), "why", 0.0)

    submission = Submission(style="humaneval_plus", row=row(0), text="pass", form="solution")
    with ProgramGrader(Fails(), tmp_path / "kept") as programs:
        assert [programs.grade(submission).outcome for _ in range(4)] == ["grader_failure", "grader_failure", "wrong",
                                                                          "wrong"]
        assert programs.repeated == 1


def test_two_tasks_of_one_id_have_their_own_references(isolation):
    one, two = row(1), row(2) | {"task_id": "HumanEval/1"}
    with CodeGrader(isolation, workers=1) as grader, ProgramGrader(grader) as programs:
        for task, number in ((one, 1), (two, 2), (one, 1)):
            text = f"def f(x): return x + {number}"
            verdict = programs.grade(Submission(style="humaneval_plus", row=task, text=text, form="solution"))
            assert verdict.outcome == "correct"


def test_packages():
    assert packages_for(["humaneval_plus", "livecodebench"]) == ("numpy",)
    assert packages_for(["humaneval_plus", "bigcodebench"]) == ("*",)


# ------------------------------------------------------------------------------------------------------------ verify


def test_verify_runs_the_references(isolation, root, capsys):
    assert verify.main(arguments(root)) == 0
    assert "4 problems; loaded; all 4 reference solutions run pass" in capsys.readouterr().out
    verify.main(arguments(root, "--limit-references", 2))
    assert "all 2 reference solutions run pass" in capsys.readouterr().out
    assert verify.main(arguments(root, "--limit-references", 0)) == 0


def test_a_reference_that_does_not_pass_is_named_with_its_reason(isolation, root, capsys):
    broken = "    global calls\n    calls = globals().get('calls', 0) + 1\n    raise KeyError(calls)\n"
    write_rows(root, [row(0), row(1, broken), row(2), row(3)])
    with pytest.raises(GoldError, match=r"1 of 4 reference solutions do not pass: HumanEval/1 \(.*KeyError"):
        verify.main(arguments(root))
    assert "  HumanEval/1: grader_failure" in capsys.readouterr().out
    program = "import sys\nfrom evaluation.__main__ import main\nfrom foundation.exits import exit_with_message\n" \
              "sys.argv = ['evaluation', *sys.argv[1:]]\nexit_with_message(main)\n"
    done = subprocess.run([sys.executable, "-c", program, "verify", *arguments(root)], cwd=ROOT, capture_output=True,
                          text=True)  # here the file has 4 tasks where 164 are expected
    assert done.returncode == 2 and "expected 164" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(("outcome", "reason", "expected"), [
    ("not_runnable", "not installed here: pandas, nltk", ["package pandas", "package nltk"]),
    ("wrong", "ModuleNotFoundError: No module named 'openpyxl'", ["package openpyxl"]),
    ("exception", "ModuleNotFoundError: No module named 'a.b' while loading the program", ["package a"]),
    ("wrong", "ImportError: `Import lxml` failed. Use pip", ["package lxml"]),
    ("wrong", "ImportError: Missing optional dependency 'xlrd'. Use pip", ["package xlrd"]),
    ("wrong", 'ImportError: matplotlib is required for plotting when the default backend "matplotlib"',
     ["package matplotlib"]),
    ("wrong", "LookupError: ***** Resource \x1b[93mpunkt_tab\x1b[0m not found. Please use the NLTK Downloader",
     ["nltk data punkt_tab"]),
    ("wrong", "socket.gaierror: [Errno -3] Temporary failure in name resolution", ["the network"]),
    ("wrong", "FileNotFoundError: [Errno 2] No such file or directory: '/bin/sh'", ["shell program sh"]),
    ("wrong", "FileNotFoundError: [Errno 2] No such file or directory: 'tar'", ["shell program tar"]),
    ("wrong", "FileNotFoundError: [Errno 2] No such file or directory: '/tmp/x/data.csv'", []),
    ("wrong", "AssertionError: 1 != 2", []), ("timeout", "no answer in time", []), ("pass", "3 checks", []),
])
def test_what_a_reference_lacks_is_told_from_failing(outcome, reason, expected):
    assert lacks(CodeVerdict(outcome, reason, 0.0)) == expected


def test_tasks_that_lack_a_package_are_not_runnable_and_no_failure(isolation, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(BENCHMARKS, "bigcodebench", replace(BENCHMARKS["bigcodebench"], expected_count=3))
    test = ("import unittest\nclass TestCases(unittest.TestCase):\n    def test_it(self):\n"
            "        self.assertEqual(task_func(1), 2)\n")
    bodies = ["    return x + 1\n", "    import no_such_package\n    return x + 1\n",
              "    __import__('nor_this_one')\n    return x + 1\n"]
    path = tmp_path / BENCHMARKS["bigcodebench"].file
    path.parent.mkdir(parents=True)
    with gzip.open(path, "wt") as file:
        for n, body in enumerate(bodies):
            file.write(json.dumps({
                "task_id": f"BigCodeBench/{n}", "instruct_prompt": "Add 1.", "complete_prompt": "def task_func(x):\n",
                "code_prompt": "def task_func(x):\n", "canonical_solution": body, "test": test,
                "entry_point": "task_func", "libs": "[]"}) + "\n")
    (tmp_path / "lock.json").write_text('{"schema": 1, "files": {}, "hub": {}}')
    call = ["--data-root", str(tmp_path), "--lock", str(tmp_path / "lock.json"), "--benchmark", "BCB"]
    assert verify.main(call) == 0 and "reference solutions not run" in capsys.readouterr().out
    assert verify.main([*call, "--run-bigcodebench"]) == 0
    said = capsys.readouterr().out
    assert "not runnable, package no_such_package: 1 tasks (BigCodeBench/1)" in said
    assert "not runnable, package nor_this_one: 1 tasks (BigCodeBench/2)" in said
    assert "of 3 reference solutions 1 pass, 2 are not runnable here, 0 do not pass" in said


def test_a_sample_of_the_real_references_passes(isolation, data_root, capsys):
    call = ["--data-root", str(data_root), "--benchmark", "HE+", "--benchmark", "MBPP+", "--benchmark", "LCB"]
    assert verify.main([*call, "--limit-references", "3"]) == 0
    said = capsys.readouterr().out
    assert said.count("all 3 reference solutions run pass") == 2 and "400 problems; loaded; it has no reference" in said


def test_real_rows_are_plain_json(data_root):
    for name in ("humaneval_plus", "mbpp_plus", "bigcodebench", "livecodebench"):
        entry = BENCHMARKS[name]
        for task in load_tasks(entry, [Path(data_root) / entry.file])[::40]:
            assert json.loads(json.dumps(task.row, ensure_ascii=False).encode()) == task.row


# ----------------------------------------------------------------------------------------------------------- regrade


@pytest.fixture
def graded_store(tmp_path):
    """A store with one graded run of three programs, whose first verdict is not what the grader says today."""
    programs = ("def f(x):\n    return x + 0\n", "def f(x):\n    return 0\n", "no program at all")
    for folder in ("grade-1", "generate-1", "problems-1"):
        (tmp_path / folder).mkdir()

    def write(name, rows):
        (tmp_path / name).write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")

    write("problems-1/problems.jsonl", [Problem(id=f"p{n}", question="q", gold="", answer_type="code").to_row()
                                        for n in range(3)])
    write("problems-1/tasks.jsonl", [{"id": f"p{n}", "row": row(n)} for n in range(3)])
    write("problems-1/manifest.json", [{"settings": {"benchmark": "humaneval_plus"}}])
    write("generate-1/records.jsonl", [{"id": f"p{n}", "finish_reason": "stop", "text":
                                        f"```python\n{text}```" if "def" in text else text}
                                       for n, text in enumerate(programs)])
    write("grade-1/verdicts.jsonl", [{"id": f"p{n}", "outcome": outcome, "extracted": None, "rule": None,
                                      "reason": "old"} for n, outcome in enumerate(("wrong", "wrong", "no_answer"))])
    write("grade-1/manifest.json", [{"label": "grade SFT: humaneval_plus",
                                     "parents": {"records": "generate-1", "problems": "problems-1"}}])
    return tmp_path


def test_regrade_runs_stored_programs_again_and_shows_what_moved(graded_store, isolation, capsys):
    before = {path: path.read_bytes() for path in graded_store.rglob("*") if path.is_file()}
    assert regrade.main(["--diff", "--store", str(graded_store), "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert "p0: wrong -> correct" in said and "p1:" not in said and "p2:" not in said
    assert "3 answers, 0 -> 1 correct; 1 wrong -> correct" in said and "code grader" in said
    assert before == {path: path.read_bytes() for path in graded_store.rglob("*") if path.is_file()}


def test_regrade_says_what_programs_lack(graded_store):
    files = ["--records", str(graded_store / "generate-1/records.jsonl"),
             "--problems", str(graded_store / "problems-1/problems.jsonl")]
    (graded_store / "problems-1/manifest.json").unlink()
    with pytest.raises(InputError, match="--benchmark: humaneval_plus"):
        regrade.main(files)
    (graded_store / "problems-1/tasks.jsonl").write_text('{"id": "p0", "row": {}}\n', encoding="utf-8")
    with pytest.raises(InputError, match="lacks the tests of 2 problems"):
        regrade.main([*files, "--benchmark", "humaneval_plus"])
