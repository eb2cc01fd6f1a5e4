import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evaluation.graders.extraction import extract, last_box, visible
from evaluation.graders.math import MathGrader, grader_versions
from evaluation.graders.numbers import matches_gold, number_in
from evaluation.problem import Problem
from foundation.errors import GoldError, GraderError

ROOT = Path(__file__).parents[1]
CASES = ROOT / "tests" / "cases"
DATASETS = Path(os.environ.get("WMSS_SHARED", ROOT.parent / "shared")) / "datasets"


@pytest.fixture(scope="module")
def grader():
    with MathGrader() as one:
        yield one


def read_cases(name):
    return [json.loads(line) for line in (CASES / name).read_text(encoding="utf-8").splitlines()]


def problem_of(case):
    return Problem(id=case["id"], question="", gold=case["gold"], answer_type=case["answer_type"],
                   options=tuple(case.get("options", ())))


def outcome(grader, case):
    return grader.grade(problem_of(case), case["pred"], case.get("finish_reason", "stop")).outcome


@pytest.mark.parametrize(("name", "least"), [("math_answer.jsonl", 440), ("choice_answer.jsonl", 110)])
def test_case_file(grader, name, least):
    cases = read_cases(name)
    assert len(cases) >= least and 3 * sum(case["trap"] for case in cases) >= len(cases)
    assert len({case["id"] for case in cases}) == len(cases)
    found = {case["id"]: outcome(grader, case) for case in cases}
    wrong = [f"{case['id']}: {found[case['id']]}, not {case['expected']} (gold {case['gold']!r}, {case['why']})"
             for case in cases if found[case["id"]] != case["expected"]]
    assert not wrong, "\n".join(wrong)


def test_order_does_not_matter(grader):
    cases = read_cases("math_answer.jsonl")[::7] + read_cases("choice_answer.jsonl")[::5]
    random.Random(1).shuffle(cases)
    with MathGrader() as fresh:
        assert all(outcome(fresh, case) == case["expected"] for case in cases)
    assert [outcome(grader, case) for case in cases] == [case["expected"] for case in cases]


def benchmark(name):
    if name == "gsm8k":
        lines = (DATASETS / "gsm8k/upstream/test.jsonl").read_text(encoding="utf-8").splitlines()
        return [("integer", json.loads(line)["answer"].split("####")[1].strip(), ()) for line in lines]
    if name == "math500":
        lines = (DATASETS / "math500/test.jsonl").read_text(encoding="utf-8").splitlines()
        return [("expression", json.loads(line)["answer"], ()) for line in lines]
    rows = json.loads((DATASETS / name / "wmss/test.json").read_text(encoding="utf-8"))
    if name == "aqua":
        options = [re.split(r"\s*\([A-E]\) ", row["instruction"].split("Answer Choices:")[1])[1:] for row in rows]
        return [("choice", row["answer"], tuple(map(str.strip, texts)))
                for row, texts in zip(rows, options, strict=True)]
    return [("number" if name == "mawps" else "integer", str(row["answer"]), ()) for row in rows]


@pytest.mark.parametrize(("name", "count"), [("aime2025", 30), ("amc23", 40), ("aqua", 254), ("gsm8k", 1319),
                                             ("mawps", 238), ("svamp", 1000), ("math500", 500)])
def test_every_gold_answer_equals_itself(grader, name, count):
    if not DATASETS.is_dir():
        pytest.skip("needs the benchmark files: set WMSS_SHARED to the folder that holds datasets/")
    rows = benchmark(name)
    assert len(rows) == count
    for number, (kind, gold, options) in enumerate(rows):
        problem = Problem(id=f"{name}-{number}", question="", gold=gold, answer_type=kind, options=options)
        grader.check_gold(problem)
        assert grader.grade(problem, f"So the answer is $\\boxed{{{gold}}}$.").correct, gold
        if options and len(options) == 5:
            value = options["ABCDE".index(gold)]
            assert grader.grade(problem, f"So it is $\\boxed{{{value}}}$.").correct, (gold, options)


def test_golds_of_other_problems_are_rejected(grader):
    if not DATASETS.is_dir():
        pytest.skip("needs the benchmark files: set WMSS_SHARED to the folder that holds datasets/")
    golds = [gold for _, gold, _ in benchmark("math500")]
    for gold, other in zip(golds, golds[37:], strict=False):
        one, two = number_in(gold), number_in(other)
        if gold == other or {gold, other} == {"1,-2", "-2,1"} or (one and two and one.value == two.value):
            continue
        verdict = grader.grade(Problem(id="x", question="", gold=gold, answer_type="expression"), f"\\boxed{{{other}}}")
        assert verdict.outcome == "wrong", (gold, other)


@pytest.mark.parametrize(("kind", "gold", "options"), [
    ("integer", "", ()), ("integer", "5.5", ()), ("integer", "14 or 15", ()), ("number", "x", ()),
    ("choice", "F", ("1", "2")),
    ("choice", "AB", ()), ("choice", "", ()), ("expression", "", ()), ("expression", r"\frac{1}{", ()),
    ("expression", "9^{9^{9}}", ()), ("expression", "1" * 5000, ()),
])
def test_a_gold_that_does_not_parse_is_refused(grader, kind, gold, options):
    problem = Problem(id="p-17", question="", gold=gold, answer_type=kind, options=options)
    with pytest.raises(GoldError, match="p-17") as raised:
        grader.check_gold(problem)
    assert repr(gold)[:50] in str(raised.value)


def test_programs_are_another_grader_s(grader):
    problem = Problem(id="p", question="", gold="def f(): return 1", answer_type="code")
    grader.check_gold(problem)
    with pytest.raises(GraderError, match="program"):
        grader.grade(problem, "```python\n```")


def test_a_bad_gold_is_never_scored(grader):
    with pytest.raises(GoldError):
        grader.grade(Problem(id="p", question="", gold="many", answer_type="integer"), "\\boxed{5}")


def test_the_fast_path_gives_what_the_rules_give(grader):
    texts = ["\\boxed{5}", "x \\boxed{-5} y", "\\boxed{05}", "\\boxed{5} \\boxed{5}", "\\fbox{4} \\boxed{5}",
             "<think>\\boxed{4}</think>\\boxed{5}", "\\boxed{5}</think>", "<answer>4</answer>\\boxed{5}",
             "\\boxed{\\boxed{5}}", "\\boxed{5", "a } \\boxed{5}",
             "{ \\boxed{5}", "\\boxed{ 5 }", "<think>\\boxed{5}", "\\boxed{5} <ANSWER>4"]
    for text in texts:
        for reason in ("stop", "length"):
            fast = grader.grade(Problem(id="p", question="", gold="5", answer_type="integer"), text, reason)
            slow = grader.grade(Problem(id="p", question="", gold="5", answer_type="number"), text, reason)
            assert (fast.outcome, fast.extracted, fast.rule) == (slow.outcome, slow.extracted, slow.rule), text


HOSTILE_TEXTS = ["{" * 300_000, "\\boxed{" * 50_000, "}" * 300_000, "<think>" * 50_000, "</think>" * 40_000,
                 "$$" * 150_000, "answer is " * 30_000, "answer to " + " " * 300_000, "9" * 300_000, "1," * 150_000,
                 "#### " * 60_000, "\\[" * 150_000, "\\boxed{" + "{" * 2000 + "5" + "}" * 2000 + "}",
                 "\\boxed{" + "(" * 2000 + "5" + ")" * 2000 + "}",
                 "so" + " " * 300_000 + "x", "answer is (" + "a" * 300_000, "\\boxed{5} " * 30_000, "(A) " * 75_000,
                 "\\boxed{" + "1!" * 2000 + "}", "\\boxed{" + "\\frac{1}{" * 400 + "2" + "}" * 400 + "}"]


@pytest.mark.parametrize("kind", ["integer", "expression", "choice"])
def test_a_hostile_text_costs_little(grader, kind):
    gold, options = ("A", ("7", "8")) if kind == "choice" else ("7", ())
    problem = Problem(id="p", question="", gold=gold, answer_type=kind, options=options)
    for text in HOSTILE_TEXTS:
        started = time.process_time()
        verdict = grader.grade(problem, text)
        assert not verdict.correct, text[:40]
        assert time.process_time() - started < 1.0, text[:40]


def test_hostile_answers_do_not_stop_the_grader(grader):
    problem = Problem(id="p", question="", gold=r"\sqrt{2}", answer_type="expression")
    for answer in ("9^{9^{9^9}}", "(10000!)!", "1" * 3000, "(" * 60 + "x" + ")" * 60, "\\binom{10^{9}}{10^{8}}"):
        assert grader.grade(problem, f"\\boxed{{{answer}}}").outcome == "wrong", answer
    assert grader.grade(problem, r"\boxed{\frac{2}{\sqrt{2}}}").correct


def test_a_failing_grader_is_not_a_wrong_answer():
    class Late:
        def compare(self, gold, answer):
            from evaluation.graders.worker import SymbolicResult
            return SymbolicResult("timeout", answer)

        def close(self):
            pass

    problem = Problem(id="p", question="", gold="x", answer_type="expression")
    with MathGrader(Late()) as one:
        assert one.grade(problem, r"\boxed{compare}").outcome == "wrong"  # words: no symbolic comparison
        assert one.grade(problem, r"\boxed{y+1}").outcome == "wrong"  # settled before the worker is asked
        late = one.grade(problem, r"\boxed{\sin y}")
    assert late.outcome == "grader_failure" and "timeout" in late.reason


def test_truncation_is_named(grader):
    problem = Problem(id="p", question="", gold="5", answer_type="integer")
    verdict = grader.grade(problem, "so the answer is 5", "length")
    assert verdict.outcome == "no_answer" and "truncated" in verdict.reason and verdict.extracted is None


@pytest.mark.parametrize(("text", "rule"), [
    (r"\boxed{5}", "box"), ("<answer>5</answer>", "answer_tag"), (r"<answer>\boxed{5}</answer>", "answer_tag+box"),
    ("#### 5", "hashes"), ("The answer is 5.", "phrase"), (r"\[x=5\]", "display"), ("5 apples", "number"),
])
def test_the_rule_that_fired_is_recorded(text, rule):
    assert extract(text).rule == rule


def test_extraction_pieces():
    assert visible("a<think>b</think>c").text == "ac"
    assert visible("b</think>c").text == "c"
    assert visible("a<think>b").unclosed
    assert last_box(r"\boxed{\frac{1}{2}}") == r"\frac{1}{2}"
    assert last_box(r"\boxed{\{1,2\}}") == r"\{1,2\}"
    assert last_box(r"\boxed{1} and \boxed{2}") == "1, 2"
    assert last_box(r"\boxed{1} but then \boxed{2}") == "2"
    assert last_box("none") is None


def test_numbers_are_exact():
    assert number_in(r"6.72 \times 10^{-5}").value * 10**7 == 672
    assert number_in("14 or 15") is None and number_in("5x") is None
    assert matches_gold("576.0", number_in("576").value)
    assert not matches_gold("576", number_in("576.0000001").value)


def test_importing_is_fast_and_light():
    program = ("import sys; import evaluation.graders.math, evaluation.statistics; "
               "print([m for m in ('sympy', 'math_verify', 'latex2sympy2_extended', 'numpy') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_versions():
    assert set(grader_versions()) == {"grader", "math-verify", "sympy", "latex2sympy2_extended"}
