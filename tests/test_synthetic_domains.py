"""Generated code and logic problems: right by a second solution, balanced, in formats that the real graders read."""

import re
from collections import Counter
from functools import cache

import pytest

from evaluation.benchmarks.code import CODE_BENCHMARKS, CodeTask
from evaluation.graders.code import CodeGrader
from evaluation.graders.code_extraction import extract_program
from evaluation.graders.code_tasks import code_task
from evaluation.graders.math import MathGrader
from evaluation.isolation import find_isolation
from evaluation.problem import Problem
from foundation.errors import InputError, PrerequisiteError
from foundation.prompts import PromptFormat, completion_text, encode_example
from replication import tiny
from replication.data.pool import Example
from replication.data.synthetic import DRAWERS, benchmark_problems, benchmark_tasks, is_held_out, training_pool
from replication.models import MODELS

CODE, LOGIC = tuple(DRAWERS["code"]), tuple(DRAWERS["logic"])
STYLES = ("tags", "tag_free")
UPWARDS = ("heavi", "larg", "old", "tall")


def shown(example: Example, style: str) -> str:
    """Return the completion as a model of a style is trained to write it."""
    return completion_text(PromptFormat(style=style, system=None, terminator=""), example.completion)


@cache
def pool(domain: str) -> list[Example]:
    return training_pool(domain, 600, seed=1)


@pytest.fixture(scope="module")
def grader():
    try:
        find_isolation()
    except PrerequisiteError as error:
        pytest.skip(f"no isolation works here: {error}")
    with CodeGrader(workers=2) as found:
        yield found


@pytest.mark.parametrize("domain", ["code", "logic"])
def test_the_sides_share_no_question_and_everything_follows_from_the_seed(domain) -> None:
    held_out = [problem.question for name in DRAWERS[domain] for problem in benchmark_problems(name, 200, seed=0)]
    trained = [example.question for example in pool(domain)]
    assert len(set(held_out)) == len(held_out) and all(map(is_held_out, held_out))
    assert len(set(trained)) == len(trained) and not any(map(is_held_out, trained))
    assert training_pool(domain, 100, seed=1) == pool(domain)[:100] != training_pool(domain, 100, seed=2)
    assert {example.source for example in pool(domain)} == {f"synthetic-{name}" for name in DRAWERS[domain]}


@pytest.mark.parametrize("name", LOGIC)
def test_letters_are_balanced_and_passages_are_clusters(name) -> None:
    problems = benchmark_problems(name, 400, seed=2)
    counts = Counter(problem.gold for problem in problems)
    assert set(counts) == set("ABCD") and max(counts.values()) < 140
    assert all(len(set(problem.options)) == 4 and problem.cluster for problem in problems)


def follows(passage: str, question: str) -> str:
    """Answer a logic question from its text: sort by the comparisons, or follow the rules."""
    if comparisons := re.findall(r"Box (\d) is (\w+)er than (\d)\.", passage):
        rank = dict.fromkeys([name for one, _, other in comparisons for name in (one, other)], 0)
        for _ in rank:
            for one, adjective, other in comparisons:
                high, low = (one, other) if adjective in UPWARDS else (other, one)
                rank[high] = max(rank[high], rank[low] + 1)
        asked = re.search(r"(\w+)est\?", question)[1]
        order = sorted(rank, key=rank.__getitem__, reverse=asked in UPWARDS)
        return order["second" in question]
    rules = dict(re.findall(r"Whoever has card (\d) has (\d)\.", passage))
    negative = " can " in question
    thing = re.search(r"has (?:no )?card (\d)\.$", passage)[1]
    step = {after: before for before, after in rules.items()} if negative else rules
    while thing in step:
        thing = step[thing]
    return thing


@pytest.mark.parametrize("name", LOGIC)
def test_logic_golds_are_those_of_a_second_solution(name) -> None:
    for problem in benchmark_problems(name, 200, seed=3):
        passage, question, _ = problem.question.split("\n\n")
        assert problem.options["ABCD".index(problem.gold)] == follows(passage, question), problem.question


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("domain", ["math", "logic"])
def test_the_grader_accepts_every_completion_and_no_other_letter(domain, style) -> None:
    with MathGrader() as judge:
        for example in pool(domain)[:200]:
            problem = Problem(id=example.id, question=example.question, gold=example.gold,
                              answer_type=example.answer_type, options=example.options)
            text = shown(example, style)
            assert judge.grade(problem, text, "stop").correct, text
            if domain == "logic":
                other = "ABCD"[("ABCD".index(example.gold) + 1) % 4]
                text = text.replace(f"The answer is ({example.gold})", f"The answer is ({other})")
                assert not judge.grade(problem, text, "stop").correct


@pytest.mark.parametrize("name", CODE)
def test_rows_are_read_by_the_benchmarks_own_readers(name) -> None:
    for i, task in enumerate(benchmark_tasks(name, 50, seed=0)):
        parsed = CODE_BENCHMARKS[name].parse(task.row)
        assert task.problem.question == parsed.question and task.problem.id == f"{name}-{i}"
        assert task.problem.answer_type == "code" and task.problem.gold
    assert len({code_task(name, task.row).id for task in benchmark_tasks(name, 200, seed=0)}) == 200
    assert [task.problem for task in benchmark_tasks(name, 20, 0)] == benchmark_problems(name, 20, 0)


def test_tasks_exist_for_code_benchmarks_only() -> None:
    with pytest.raises(InputError, match="gsm8k"):
        benchmark_tasks("gsm8k", 10, seed=0)


def programs(style: str, count: int) -> list[tuple[Example, str]]:
    """Return pool examples, each kind among them, with the programs found in their completions."""
    found = [(e, extract_program(shown(e, style), None)) for e in pool("code")[:count]]
    assert {e.style for e, _ in found} == set(CODE)
    assert all(program is not None and program.rule == "block" for _, program in found)
    return [(example, program.code) for example, program in found if program]


def broken(code: str) -> str:
    """Return the program with another operator or constant."""
    swaps = (("+", "-"), ("*", "+"), (">=", ">"), ("<=", "<"), (">", ">="), ("<", "<="), ("==", "!="), ("!=", "=="),
             ("%", "*"), ("-", "+"), ("max", "min"), ("min", "max"))
    return next(code.replace(old, new, 1) for old, new in swaps if old in code)


@pytest.mark.parametrize("style", STYLES)
def test_the_code_grader_accepts_pool_completions_and_rejects_wrong_ones(grader, style) -> None:
    chosen = programs(style, 16)
    tasks = [code_task(example.style, example.row) for example, _ in chosen]
    verdicts = list(grader.grade_all((task, code) for task, (_, code) in zip(tasks, chosen, strict=True)))
    assert [v.outcome for v in verdicts] == ["pass"] * len(chosen), [v.reason for v in verdicts]
    if style == "tags":
        wrong = list(grader.grade_all((task, broken(code)) for task, (_, code) in zip(tasks, chosen, strict=True)))
        # some changes have no effect: x>=99 for x>99 inside max(...) of larger numbers
        assert sum(v.outcome != "pass" for v in wrong) >= 0.8 * len(wrong)


def test_the_code_grader_accepts_the_references(grader) -> None:
    tasks: list[tuple[str, CodeTask]] = [(name, task) for name in CODE for task in benchmark_tasks(name, 3, seed=5)]
    verdicts = list(grader.grade_all((code_task(name, task.row), task.problem.gold) for name, task in tasks))
    assert [v.outcome for v in verdicts] == ["pass"] * len(tasks), [v.reason for v in verdicts]


@pytest.mark.parametrize("model", ["tiny", "tiny-gemma"])
def test_examples_fit_the_limits_of_the_tiny_scale(model, tmp_path) -> None:
    tokenizer = tiny.build_tokenizer(tmp_path, model)
    entry = MODELS[model]
    prompt = PromptFormat(style=entry.style, system=entry.system, terminator=entry.terminator)
    for domain in DRAWERS:
        for example in pool(domain)[:300]:
            encoded = encode_example(tokenizer, prompt, example.question, example.completion)
            assert encoded.prompt_length <= 96 and len(encoded.ids) - encoded.prompt_length <= 80
            text = tokenizer.decode(encoded.ids)
            assert (entry.style == "tags") == ("<think>" in text)
            assert text.endswith(entry.terminator) and text.count(entry.terminator) == 2
