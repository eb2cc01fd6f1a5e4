"""The fast paths of math grading change how long a verdict takes, never the verdict."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from evaluation.graders.extraction import extract
from evaluation.graders.fast import plain_integer
from evaluation.graders.latex import normalise
from evaluation.graders.math import MathGrader
from evaluation.graders.quick import _names, _value, surely_different, surely_parses
from evaluation.problem import Problem

CASES = Path(__file__).parent / "cases"

PIECES = ["5", "-5", "05", "12", "1,000", "\\boxed{5}", "\\boxed{-12}", "\\boxed{ 5 }", "\\boxed{5.0}", "\\boxed{", "}",
          "{", "\\fbox{4}", "\\boxed 5", "<think>", "</think>", "<THINK>", "</Think>", "<thought>", "</reasoning>",
          "<answer>", "</answer>", "<Answer>", "</ANSWER>", "####", "#### 5", "#### -12", "\n", "\n\n", " ", "\t",
          " or ", ", ", "The answer is ", "not ", "$", "**", "apples", "<<2+3=5>>", "a < b", "##### 5", "\u00a0",
          " " * 70, "anſwer is 7"]


@pytest.mark.parametrize("seed", range(4))
def test_plain_endings_are_found_as_the_general_rules_find_them(seed):
    generator = random.Random(seed)
    found = 0
    for _ in range(20_000):
        text = "".join(generator.choices(PIECES, k=generator.randint(1, 8)))
        for truncated in (False, True):
            plain = plain_integer(text, truncated=truncated)
            if plain is not None:
                found += 1
                assert plain == extract(text, truncated=truncated, numeric=True), (text, truncated)
    assert found > 500  # the fast path is met


@pytest.fixture(scope="module")
def graders():
    with MathGrader() as fast, MathGrader(fast_paths=False) as slow:
        yield fast, slow


@pytest.mark.parametrize("name", ["math_answer.jsonl", "choice_answer.jsonl"])
def test_every_case_has_one_verdict_with_and_without_fast_paths(graders, name):
    for line in (CASES / name).read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        problem = Problem(id=case["id"], question="", gold=case["gold"], answer_type=case["answer_type"],
                          options=tuple(case.get("options", ())))
        fast = graders[0].grade(problem, case["pred"], case.get("finish_reason", "stop"))
        if not fast.settled:  # two time-outs: nothing fast about it
            continue
        slow = graders[1].grade(problem, case["pred"], case.get("finish_reason", "stop"))
        assert (fast.outcome, fast.extracted, fast.rule, fast.reason) == (
            slow.outcome, slow.extracted, slow.rule, slow.reason), case["id"]


def test_golds_of_other_cases_have_one_verdict_with_and_without_fast_paths(graders):
    golds = sorted({json.loads(line)["gold"] for line in (CASES / "math_answer.jsonl").read_text().splitlines()})
    generator = random.Random(7)
    for _ in range(150):
        gold, other = generator.sample(golds, 2)
        problem = Problem(id="p", question="", gold=gold, answer_type="expression")
        fast, slow = (one.grade(problem, f"\\boxed{{{other}}}") for one in graders)
        assert (fast.outcome, fast.reason) == (slow.outcome, slow.reason), (gold, other)


def expression(generator, depth):
    def part():
        return expression(generator, depth - 1)

    if depth == 0 or generator.random() < 0.25:
        return generator.choice(["2", "3", "10", "0.5", "1.25", "x", "y", "a", "\\pi", "n", "25", "N", "S", "C", "i"])
    kinds = [lambda: part() + generator.choice("+-") + part(), lambda: f"\\frac{{{part()}}}{{{part()}}}",
             lambda: f"\\sqrt{{{part()}}}", lambda: f"({part()})", lambda: part() + part(),
             lambda: f"{part()}/{part()}", lambda: f"{part()}^{generator.choice('234')}",
             lambda: f"{part()}^{{{generator.choice(['10', '-1', '-3'])}}}", lambda: f"-{part()}",
             lambda: part() + generator.choice(["\\cdot ", "\\times ", "*"]) + part(),
             lambda: generator.choice("2345") + part(), lambda: f"({part()})({part()})"]
    return generator.choice(kinds)()


def test_the_first_look_reads_what_the_parser_reads():
    import sympy

    from evaluation.graders import symbolic

    generator = random.Random(11)
    read = 0
    while read < 150:
        text = normalise(expression(generator, 3))
        names = tuple(sorted(set(_names(text))))
        value = _value(text, names)
        if value is None or len(text) > 60 or text.lstrip("-(").rstrip(")").replace(".", "").isdigit():
            continue
        read += 1
        parsed = symbolic.parse(text)
        points = {symbol: symbolic._point(names.index(symbol.name), 0) for symbol in parsed.free_symbols}
        exact = complex(sympy.N(parsed.subs(points), 30))
        assert abs(exact - value[0]) <= 64 * value[1] + 1e-12 * abs(value[0]), (text, exact, value)


@pytest.mark.parametrize(("gold", "answer"), [
    (r"\sqrt{3+2\sqrt{2}}", r"1+\sqrt{2}"), (r"\sqrt{452}", r"2\sqrt{113}"), ("(x-1)(x+1)", "x^2-1"),
    (r"\frac{x^2-1}{x-1}", "x+1"), ("0.5", r"\frac{1}{2}"), (r"\frac{35}{-9}", r"-\frac{35}{9}"),
    (r"\sqrt{2}", r"\sqrt{2}+10^{-60}"), (r"10^{-15}+1", "1"), ("x^2+2x+1", "(x+1)^{2}"),
])
def test_it_never_calls_equal_or_nearly_equal_values_different(gold, answer):
    assert not surely_different(normalise(gold), normalise(answer))


@pytest.mark.parametrize("text", ["2(3)", r"2\frac{1}{2}", "1/2x", "1/2/3", "e^x", "f(x)", "x^{y}", "2^{3^{2}}",
                                  "31_4", "5!", "|x|", r"\sin x", "x_1", "1,2", "20%", "--3", "dx", "ab", "x'", "1 2",
                                  r"\sqrt[3]{2}", r"\frac{1}{0}", r"\sqrt{-1}", "", "(" * 30 + "1" + ")" * 30])
def test_it_declines_what_could_be_read_in_two_ways(text):
    assert not surely_parses(text)
    assert not surely_different(text, "77") and not surely_different("77", text)


def test_it_tells_plain_values_apart():
    for gold, answer in ((r"6\sqrt{2}", ".35625"), ("x+1", "x+2"), ("331", "x^8+x"), ("4", "1-12i"),
                         ("10^{-8}", "10^{-9}")):
        assert surely_different(gold, answer)
