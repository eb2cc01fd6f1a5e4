"""`python -m evaluation`: every item has its line, whatever is wrong with it; what is refused is refused by name."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from conftest import ROOT
from fake_hub import FakeHub

from evaluation.benchmarks import BENCHMARKS
from evaluation.commands import COMMANDS, fetch, grade_math, regrade, verify
from evaluation.commands import list as listing
from evaluation.graders.cache import VerdictCache
from evaluation.graders.math import GRADER_VERSION, MathGrader
from evaluation.graders.untyped import option_list, untyped_problem
from evaluation.graders.worker import SymbolicResult
from evaluation.problem import Problem
from foundation.errors import GoldError, InputError, PrerequisiteError
from foundation.files import write_jsonl

FIVE = {"id", "outcome", "correct", "reason", "seconds"}


def run(command, capsys, *arguments):
    """Return exit code, JSON lines of stdout, and stderr."""
    code = command.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, [json.loads(line) for line in captured.out.splitlines()], captured.err


def graded(tmp_path, capsys, content):
    path = tmp_path / "items.jsonl"
    lines = content if isinstance(content, bytes) else b"".join(json.dumps(row).encode() + b"\n" for row in content)
    path.write_bytes(lines)
    return run(grade_math, capsys, path)


# ------------------------------------------------------------------------------------------------------- the program


def test_help_names_every_command_and_loads_nothing_heavy():
    program = ("import sys; sys.argv = ['evaluation']; import evaluation.__main__ as m; m.main(); "
               "print([n for n in ('torch', 'sympy', 'numpy', 'huggingface_hub', 'datasets') if n in sys.modules])")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]") and all(f"  {name} " in done.stdout for name in COMMANDS)


def test_an_unknown_command_lists_the_known_ones():
    done = subprocess.run([sys.executable, "-m", "evaluation", "grade"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "'grade' is unknown" in done.stderr and "grade-math" in done.stderr
    assert "Traceback" not in done.stderr


# -------------------------------------------------------------------------------------------------------------- list


def test_list_names_source_count_type_and_budget(capsys):
    assert listing.main(["--defects"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for entry in BENCHMARKS.values():
        (line,) = [line for line in lines if line.startswith(entry.name + " ")]
        for said in (entry.title, entry.answer_type, str(entry.expected_count), str(entry.max_new_tokens), entry.file):
            assert said in line
        assert (entry.hub_repo or "none known") in line
    assert any("10906" in line for line in lines)


TABLE = {"aime2025": (25.6, 23.4, 15.3), "amc23": (22.1, 20.3, 13.3), "humaneval_plus": (10.9, 10.0, 6.6),
         "aqua": (8.8, 8.1, 5.3), "mbpp_plus": (7.2, 6.6, 4.3), "math500": (6.3, 5.7, 3.8), "gsm8k": (3.9, 3.5, 2.3)}


def test_list_as_json_holds_prompts_hashes_and_smallest_differences(capsys):
    listing.main(["--json"])
    described = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(described) == set(BENCHMARKS)
    for name, expected in TABLE.items():
        assert list(described[name]["smallest_detectable_points"].values()) == pytest.approx(expected, abs=0.101)
    assert all(len(row["sha256"]) == 64 and len(row["system_prompt"]) == 2 for row in described.values())
    contest = described["livecodebench"]
    assert contest["max_new_tokens"] == 8192 and "release_v1" in contest["version"]


# ------------------------------------------------------------------------------------------------------------- fetch


@pytest.fixture
def hub(tmp_path, monkeypatch):
    return FakeHub(tmp_path / "cache", monkeypatch)


@pytest.fixture
def lock(tmp_path):
    path = tmp_path / "locks" / "lock.json"
    path.parent.mkdir()
    path.write_text('{"schema": 1, "files": {}, "hub": {}}')
    return path


def test_fetch_without_a_network_is_a_prerequisite(hub, lock, capsys):
    hub.online = False
    before = lock.read_bytes()
    with pytest.raises(PrerequisiteError, match=r"could not be fetched.*cannot fetch .*--data-root"):
        fetch.main(["--lock", str(lock)])
    assert lock.read_bytes() == before
    assert "no known hub copy" in capsys.readouterr().out


def test_fetch_records_checks_and_reads(hub, lock, capsys, monkeypatch):
    monkeypatch.setitem(BENCHMARKS, "math500", replace(BENCHMARKS["math500"], expected_count=2))
    rows = [{"problem": f"p{n}", "answer": str(n), "unique_id": f"u{n}"} for n in range(2)]
    hub.files["test.jsonl"] = "".join(json.dumps(row) + "\n" for row in rows).encode()
    assert fetch.main(["--benchmark", "MATH500", "--lock", str(lock)]) == 0
    assert "2 problems" in capsys.readouterr().out
    recorded = json.loads(lock.read_text())["hub"]["HuggingFaceH4/MATH-500"]
    assert recorded["revision"] == "a" * 40 and len(recorded["files"]["test.jsonl"]) == 64
    hub.online = False
    assert fetch.main(["--benchmark", "math500", "--lock", str(lock)]) == 0
    for path in hub.root.rglob("test.jsonl"):
        path.write_bytes(path.read_bytes().replace(b"p1", b"p9"))
    with pytest.raises(InputError, match="is not the recorded file"):
        fetch.main(["--benchmark", "math500", "--lock", str(lock)])


def test_a_hub_file_with_another_count_is_refused(hub, lock):
    hub.files["test.jsonl"] = b'{"problem": "p", "answer": "1", "unique_id": "u"}\n'
    with pytest.raises(InputError, match="holds 1 problems, expected 500"):
        fetch.main(["--benchmark", "math500", "--lock", str(lock)])


# ------------------------------------------------------------------------------------------------------------ verify


def test_every_real_file_is_accepted(data_root, capsys):
    assert verify.main(["--data-root", str(data_root), "--limit-references", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 13 and not any("FAILED" in line for line in lines)
    assert sum("every gold answer parses and is graded correct" in line for line in lines) == 9


@pytest.mark.parametrize(("rows", "message"), [
    ([{"question": "q", "answer": "1"}] * 29, "holds 29 problems, expected 30"),
    ([{"question": "q", "answer": "many"}] * 30, "'many' is not a number"),
    ([{"question": "q", "answer": "1.5"}] * 30, "is not an integer"),
])
def test_a_file_that_is_not_the_benchmark_is_named(tmp_path, lock, capsys, rows, message):
    path = tmp_path / BENCHMARKS["aime2025"].file
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(rows))
    with pytest.raises(InputError, match=rf"1 of 1 benchmarks.*{message}"):
        verify.main(["--data-root", str(tmp_path), "--lock", str(lock)])
    assert "not there: gsm8k" in capsys.readouterr().out


def test_another_version_is_named_with_both_hashes(tmp_path):
    path = tmp_path / BENCHMARKS["aime2025"].file
    path.parent.mkdir(parents=True)
    path.write_text("[]")
    with pytest.raises(InputError, match=r"sha256 expected de1b2907.*, found 4f53cda1"):
        verify.main(["--data-root", str(tmp_path)])


def test_an_expression_that_does_not_parse_is_a_gold_error(tmp_path, lock, monkeypatch):
    monkeypatch.setitem(BENCHMARKS, "math500", replace(BENCHMARKS["math500"], expected_count=1))
    path = tmp_path / BENCHMARKS["math500"].file
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"problem": "p", "answer": "\\frac{1}{", "unique_id": "u"}))
    with pytest.raises(GoldError, match="math500-0"):
        verify.main(["--data-root", str(tmp_path), "--lock", str(lock)])


@pytest.mark.parametrize("arguments", [["--data-root", "nowhere"], []])
def test_no_folder_is_a_mistake(arguments, monkeypatch):
    monkeypatch.delenv("WMSS_DATA_ROOT", raising=False)
    with pytest.raises(InputError, match="--data-root"):
        verify.main(arguments)


def test_an_empty_folder_and_a_missing_file_asked_for_are_prerequisites(tmp_path):
    with pytest.raises(PrerequisiteError, match="no benchmark file at all"):
        verify.main(["--data-root", str(tmp_path)])
    with pytest.raises(PrerequisiteError, match=r"data file .* is missing"):
        verify.main(["--data-root", str(tmp_path), "--benchmark", "HE+"])


# -------------------------------------------------------------------------------------------------------- grade-math


def test_the_type_follows_from_gold_and_options(tmp_path, capsys):
    items = [
        ("70", "So \\boxed{70}.", None, "correct"), ("70", "\\boxed{7}", None, "wrong"),
        ("32", "\\boxed{2^5}", None, "correct"),
        ("3", "The answer is 3 of 10.", None, "correct"), ("5", "\\boxed{5 apples}", None, "correct"),
        ("14", "\\boxed{14 or 15}", None, "wrong"), ("31", "\\boxed{31_4}", None, "wrong"),
        ("1,234", "\\boxed{1234}", None, "correct"), ("0.5", "\\boxed{\\frac12}", None, "correct"),
        ("0.5", "\\boxed{0.54}", None, "wrong"), ("\\frac{1}{2}", "\\boxed{0.5}", None, "correct"),
        ("1,-2", "\\boxed{-2, 1}", None, "correct"), ("(3,4]", "\\boxed{[3,4]}", None, "wrong"),
        ("x=5", "\\boxed{y=5}", None, "wrong"), ("B", "The answer is (B).", "ABCDE", "correct"),
        ("b", "The answer is B", "A, B, C", "correct"), ("B", "\\boxed{F}", "ABCDE", "wrong"),
        ("B", "A good idea, B.\nThe answer is not B", "ABCD", "no_answer"),
        ("B", "\\boxed{28}", ["27", "28"], "correct"), ("(B)", "\\boxed{28}", ["A) 27", "B) 28"], "correct"),
        ("A", "\\boxed{28}", {"B": "27", "A": "28"}, "correct"), ("C", "The answer is C.", None, "correct"),
        ("70", "no idea", None, "no_answer"),
    ]
    ignored = {"answer_type": "ignored", "finish_reason": "length"}
    rows = [{"id": n, "gold": gold, "pred": pred, "options": options, **ignored}
            for n, (gold, pred, options, _) in enumerate(items)]
    code, lines, said = graded(tmp_path, capsys, rows)
    assert code == 0 and [line["id"] for line in lines] == list(range(len(items)))
    assert [line["outcome"] for line in lines] == [expected for *_, expected in items]
    assert all(set(line) == FIVE and line["correct"] == (line["outcome"] == "correct") for line in lines)
    assert f"{len(items)} items" in said and f"grader {GRADER_VERSION}" in said


def test_every_line_has_a_verdict_whatever_is_wrong_with_it(tmp_path, capsys):
    content = b"\n".join([
        b'{"id": "good", "gold": "7", "pred": "\\boxed{7}"}',
        b'{"id": "cut", "gold": "7", "pred": "\\boxed{7',
        b'{"id": "utf8", "gold": "7", "pred": "\xff"}',
        b"",
        b"[1]",
        b'{"id": "escaped null", "gold": "7", "pred": "\\u0000\\boxed{7}"}',
        b'{"id": "null", "gold": "7", "pred": "\x00\\boxed{7}"}',
        b'{"id": "surrogate\\ud800", "gold": "7", "pred": "\\ud800 \\boxed{7}"}',
        b'{"gold": "7", "pred": "7"}',
        b'{"id": "no pred", "gold": "7"}',
        b'{"id": "list", "gold": "7", "pred": ["7"]}',
        b'{"id": "gold", "gold": "\\frac{1}{", "pred": "7"}',
        b'{"id": "letter", "gold": "F", "pred": "A", "options": "ABC"}',
        b'{"id": "options", "gold": "A", "pred": "A", "options": "ACE"}',
        b'{"id": "gap", "gold": "A", "pred": "A", "options": {"A": "1", "C": "2"}}',
        b'{"id": ' * 30_000,
        b'{"id": "digits", "gold": "7", "pred": ' + b"9" * 5000 + b"}",
        b'{"id": "last", "gold": "7", "pred": "\\boxed{7}"}',
    ]).replace(b"\\boxed", b"\\\\boxed").replace(b"\\frac", b"\\\\frac")
    code, lines, _ = graded(tmp_path, capsys, content)
    outcomes = [(line["id"], line["outcome"]) for line in lines]
    assert code == 0 and len(lines) == 17
    failures = {"cut", "utf8", "no pred", "list", "gold", "letter", "options", "gap", "digits"}
    assert {name for name, outcome in outcomes if outcome == "grader_failure"} - {None} == failures
    right = {name for name, outcome in outcomes if outcome == "correct"} - {None}
    assert right == {"good", "null", "escaped null", "surrogate\ud800", "last"}
    assert all(line["reason"] for line in lines)


def test_a_huge_answer_is_graded_and_a_hostile_one_costs_little(tmp_path, capsys):
    rows = [{"id": "huge", "gold": "7", "pred": "so " * 3_400_000 + "\\boxed{7}"},
            {"id": "tower", "gold": "7", "pred": "\\boxed{9^{9^{9^{9}}}}"},
            {"id": "braces", "gold": "\\sqrt{2}", "pred": "\\boxed{" + "{" * 100_000 + "}" * 100_000 + "}"},
            {"id": "late", "gold": "\\sqrt{2}", "pred": "\\boxed{" + "(" * 60 + "\\sin x" + ")" * 60 + "}"}]
    _, lines, _ = graded(tmp_path, capsys, rows)
    assert [line["outcome"] for line in lines] == ["correct", "wrong", "wrong", "wrong"]


def test_verdicts_go_through_a_pipe_and_failures_leave_the_exit_code_alone(tmp_path):
    done = subprocess.run([sys.executable, "-m", "evaluation", "grade-math", "-"], cwd=ROOT, capture_output=True,
                          input=b'{"id": 1, "gold": "7", "pred": "8"}\nbroken\n')
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 2 and b"2 items" in done.stderr


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_nothing_to_grade_is_a_mistake(tmp_path, capsys, content):
    with pytest.raises(InputError, match="no items"):
        graded(tmp_path, capsys, content)


def test_a_missing_file_is_a_mistake(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        grade_math.main([str(tmp_path / "none.jsonl")])


def test_options_in_every_form():
    assert option_list("ABCDE") == ("A", "B", "C", "D", "E") == option_list("(a) (b) (c) (d) (e)")
    assert option_list(["x", 2]) == ("x", "2") and option_list(None) == () == option_list([])
    assert option_list(["A. x", "C. y"]) == ("A. x", "C. y")  # no labels of a list of two
    assert untyped_problem("1", " (b) ", "ABC").gold == "B"
    for bad in (7, "BCD", {"A": "1", "D": "2"}, [["x"]], list("abcdefghijk")):
        with pytest.raises(ValueError, match="option"):
            option_list(bad)


# ----------------------------------------------------------------------------------------------------------- regrade


@pytest.fixture
def stored(tmp_path):
    """A store of one graded run whose second verdict is not what the grader says today."""
    problems = [Problem(id=f"p{n}", question="q", gold=str(n), answer_type="integer") for n in range(3)]
    texts = ["\\boxed{0}", "\\boxed{1}", "nothing"]
    for folder in ("grade-1", "generate-1", "problems-1"):
        (tmp_path / folder).mkdir()
    write_jsonl(tmp_path / "problems-1/problems.jsonl", (problem.to_row() for problem in problems))
    write_jsonl(tmp_path / "generate-1/records.jsonl",
                [{"id": f"p{n}", "text": text, "finish_reason": "stop"} for n, text in enumerate(texts)])
    write_jsonl(tmp_path / "grade-1/verdicts.jsonl",
                [{"id": f"p{n}", "outcome": outcome, "extracted": None, "rule": None, "reason": "old"}
                 for n, outcome in enumerate(("correct", "wrong", "no_answer"))])
    (tmp_path / "grade-1/manifest.json").write_text(json.dumps(
        {"label": "grade SFT: gsm8k", "parents": {"records": "generate-1", "problems": "problems-1"}}))
    return tmp_path


def pair(store):
    return ["--records", str(store / "generate-1/records.jsonl"),
            "--problems", str(store / "problems-1/problems.jsonl")]


def test_regrade_shows_which_verdicts_moved_and_changes_nothing(stored, capsys):
    before = {path: path.read_bytes() for path in stored.rglob("*") if path.is_file()}
    assert regrade.main(["--diff", "--store", str(stored)]) == 0
    said = capsys.readouterr().out
    assert "p1: wrong -> correct; gold '1'" in said and "p0:" not in said
    assert "3 answers, 1 -> 2 correct; 1 wrong -> correct" in said and "1 verdicts moved in all; grader: grader" in said
    regrade.main([*pair(stored), "--diff", "--verdicts", str(stored / "grade-1/verdicts.jsonl")])
    assert "p1: wrong -> correct" in capsys.readouterr().out
    assert before == {path: path.read_bytes() for path in stored.rglob("*") if path.is_file()}


def test_regrade_writes_verdicts_that_then_do_not_move(stored, capsys):
    files = pair(stored)
    _, rows, _ = run(regrade, capsys, *files)
    assert [row["outcome"] for row in rows] == ["correct", "correct", "no_answer"]
    write_jsonl(stored / "new.jsonl", rows)
    regrade.main([*files, "--diff", "--verdicts", str(stored / "new.jsonl")])
    assert "nothing moved" in capsys.readouterr().out
    cached = [run(regrade, capsys, *files, "--cache", stored / "cache.jsonl")[1] for _ in range(2)]
    assert cached == [rows, rows] and len((stored / "cache.jsonl").read_text().splitlines()) == 3


def test_regrade_refuses_files_that_do_not_belong_together(stored):
    files = pair(stored)
    with pytest.raises(InputError, match="--verdicts"):
        regrade.main([*files, "--diff"])
    with pytest.raises(InputError, match="--store"):
        regrade.main(["--diff"])
    with pytest.raises(InputError, match=r"no grade-\* folders"):
        regrade.main(["--diff", "--store", str(stored / "grade-1")])
    path = stored / "generate-1/records.jsonl"
    path.write_text(path.read_text().replace('"p2"', '"p9"'))
    with pytest.raises(InputError, match="1 records of unknown problems, 1 problems without"):
        regrade.main(files)
    path.write_text(path.read_text().replace('"p9"', '"p1"'))
    with pytest.raises(InputError, match="3 lines with 2 different ids"):
        regrade.main(files)


# ------------------------------------------------------------------------------------------------------------- cache


def test_a_cached_verdict_is_the_grader_s_and_survives_a_cut_off_line(tmp_path):
    path = tmp_path / "cache.jsonl"
    problem = Problem(id="p", question="", gold="7", answer_type="integer")
    with MathGrader() as grader:
        with VerdictCache(path, grader) as cache:
            first = cache.grade(problem, "\\boxed{7}\ud800")
            assert (cache.hits, cache.misses) == (0, 1)
        path.write_text(path.read_text() + '["cut')
        with VerdictCache(path, grader) as cache:
            again = cache.grade(problem, "\\boxed{7}\ud800")
            assert (again.outcome, again.extracted, again.rule, again.reason) == (
                first.outcome, first.extracted, first.rule, first.reason)
            assert cache.hits == 1
            cache.grade(problem, "\\boxed{8}")
            # whatever can move a verdict is part of the key
            for other in (replace(problem, gold="8"), replace(problem, answer_type="expression")):
                cache.grade(other, "\\boxed{7}\ud800")
            cache.grade(problem, "\\boxed{7}\ud800", "length")
            assert (cache.hits, cache.misses) == (1, 4)
        with VerdictCache(path, grader) as cache:
            assert cache.grade(problem, "\\boxed{8}").outcome == "wrong" and cache.hits == 1


def test_a_verdict_that_a_limit_decided_is_not_kept(tmp_path):
    class Late:
        def compare(self, gold, answer):
            return SymbolicResult("timeout", "answer")

        def close(self):
            pass

    problem = Problem(id="p", question="", gold="\\sqrt{2}", answer_type="expression")
    with MathGrader(Late()) as grader, VerdictCache(tmp_path / "c.jsonl", grader) as cache:
        for _ in range(2):
            verdict = cache.grade(problem, "\\boxed{\\sin x}")
            assert verdict.outcome == "wrong" and "timeout" in verdict.reason and not verdict.settled
        assert (cache.hits, cache.misses) == (0, 2)
