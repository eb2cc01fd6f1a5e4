"""The generated problems: right, disjoint, reproducible, in the format, and read back whole by the tiny tokenizer."""

import re
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from itertools import pairwise

import pytest

from evaluation.problem import Problem
from foundation.errors import InputError
from replication import tiny
from replication.data import synthetic
from replication.data.synthetic import benchmark_problems, is_held_out, pretraining_texts, training_pool
from replication.data.synthetic_problems import KINDS

NAMES = ("aime2025", "math500", "amc23", "aqua", "gsm8k", "mawps", "svamp")
FORMAT = re.compile(r"<think>\n(?P<chain>.+)\n</think>\n<answer>\\boxed\{(?P<answer>.+)\}</answer>", re.DOTALL)
CHECKED = 200


def fraction(top: int, bottom: int) -> str:
    value = Fraction(top, bottom)
    return str(value) if value.denominator == 1 else rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def linear(slope: int, constant: int) -> str:
    return f"{slope}x{constant:+d}" if constant else f"{slope}x"


def sequence(start: int, factor: int, shift: int, position: int) -> int:
    for _ in range(position - 1):
        start = start * factor + shift
    return start


# A second solution of every form: the question (# a number, * any words) and its answer from the numbers in it.
SOLUTIONS: dict[str, list[tuple[str, Callable[..., int | str]]]] = {
    "mawps": [
        ("* has # * and buys # more. *", lambda a, b: a + b),
        ("* has # * and * has # *. * together?", lambda a, b: a + b),
        ("* has # * and gives # to *. *", lambda a, b: a - b),
        ("* has # * and * has # *. How many more * have?", lambda a, b: a - b),
        ("There are # * with # * each. *", lambda a, b: a * b),
        ("* buys # * of # * each. *", lambda a, b: a * b),
        ("* shares # * equally among # friends. *", lambda a, b: a // b),
        ("* puts # * equally in # *. *", lambda a, b: a // b),
    ],
    "svamp": [
        ("* has # * and # *. * buys # more *", lambda a, d, b: a + b),
        ("* has # * and # *. * has # *. * together?", lambda d, a, b: a + b),
        ("* has # * and # *. * gives # * to *", lambda a, d, b: a - b),
        ("* has # * and # *. * has # *. How many more * have?", lambda d, a, b: a - b),
        ("There are # * with # * each and # *. *", lambda a, b, d: a * b),
        ("* has # * and buys # * of # * each. *", lambda d, a, b: a * b),
        ("* has # * and shares # * equally among # friends. *", lambda d, a, b: a // b),
        ("* puts # * equally in # * and keeps # *. *", lambda a, b, d: a // b),
    ],
    "gsm8k": [
        ("* has # * with # * each and finds # more. *", lambda a, b, c: a * b + c),
        ("* has # * with # * each and gives # * to *. *", lambda a, b, c: a * b - c),
        ("* has # *. * has # more * than *. * together?", lambda a, b: 2 * a + b),
        ("* has # *. * has # times as many. * together?", lambda a, b: a + a * b),
        ("* has # *, buys # more and then gives # to *. *", lambda a, b, c: a + b - c),
        ("* has # * and buys # more. * shares them equally among # friends. *", lambda a, b, c: (a + b) // c),
    ],
    "aqua": [
        ("A shop sells * for # dollars each. * of # * discount of # dollars?", lambda a, b, c: a * b - c),
        ("A train runs # miles and then # miles, in # hours *", lambda a, b, c: (a + b) // c),
        ("A worker makes # * in each hour and sells # of them. * after # hours?", lambda a, b, c: a * c - b),
        ("The sum of two numbers is # and one of them is #. What is # times *", lambda a, b, c: (a - b) * c),
    ],
    "amc23": [
        ("If #x+#=#, what *", lambda a, b, c: Fraction(c - b, a)),
        ("If #(x-#)=#, what *", lambda a, b, c: Fraction(c, a) + b),
        ("If x+y=# and x-y=#, what *", lambda a, b: Fraction(a + b, 2)),
        ("If f(x)=#x+#, what is the value of f(#)?", lambda a, b, c: a * c + b),
        ("If f(x)=x^2+#, what is the value of f(#)?", lambda a, b: a + b * b),
        ("An arithmetic sequence starts at # with common difference #. What is term #?",
         lambda a, b, c: a + (c - 1) * b),
    ],
    "math500": [
        (r"Compute \frac{#}{#}+\frac{#}{#}.", lambda a, b, c, d: fraction(a * d + b * c, b * d)),
        (r"Compute \frac{#}{#} times \frac{#}{#}.", lambda a, b, c, d: fraction(a * c, b * d)),
        (r"Write \frac{#}{#} in lowest terms.", fraction),
        ("Expand #(#x+#).", lambda k, a, b: linear(k * a, k * b)),
        ("Simplify #x+#+#x-#.", lambda a, b, c, d: linear(a + c, b - d)),
        ("Expand (x+#)(x+#).", lambda a, b: f"x^2+{linear(a + b, a * b)}"),
        ("What is the derivative of #x^2+#x?", lambda a, b: linear(2 * a, b)),
    ],
    "aime2025": [
        ("Find the remainder when #*#+# is divided by #.", lambda a, b, c, d: (a * b + c) % d),
        ("A sequence starts at #. Each next term is # times the last term plus #. What is term #?", sequence),
        ("If x+y=# and x-y=#, find the remainder when xy is divided by #.", lambda a, b, d: (a * a - b * b) // 4 % d),
        ("* has # * with # * each and # * with # * each. * among # friends. *",
         lambda a, b, c, d, e: (a * b + c * d) // e),
    ],
}


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    escaped = re.escape(pattern).replace(r"\#", r"(\d+)")
    return re.compile(re.sub(r"\\\*(?!\()", r"[A-Za-z ?.]*?", escaped) if "#*#" not in pattern else escaped)


def solve(name: str, question: str) -> str:
    """Answer a question by its one matching second solution."""
    answers = [
        str(solution(*map(int, match.groups())))
        for pattern, solution in SOLUTIONS[name]
        if (match := compiled(pattern).fullmatch(question))
    ]
    assert len(answers) == 1, (question, answers)
    return answers[0]


def plain(question: str, reply: str) -> str:
    return f"user\n{question}\nassistant\n{reply}"


@cache
def problems(name: str) -> list[Problem]:
    return benchmark_problems(name, CHECKED, seed=1)


@cache
def pool() -> list[synthetic.Example]:
    return training_pool("math", 2000, seed=1)


def value(expression: str) -> Fraction:
    """Evaluate integers joined by + - * / without Python's own parser."""
    total = Fraction(0)
    for sign, term in re.findall(r"([+-]?)([^+-]+)", expression):
        product = Fraction(1)
        for operator, factor in re.findall(r"([*/]?)(\d+)", term):
            product = product / int(factor) if operator == "/" else product * int(factor)
        total += -product if sign == "-" else product
    return total


@pytest.mark.parametrize("name", NAMES)
def test_gold_answers_are_those_of_a_second_solution(name: str) -> None:
    for problem in problems(name):
        question, _, choices = problem.question.partition(" Answer Choices: ")
        answer = solve(name, question)
        if problem.answer_type == "choice":
            letters = dict(re.findall(r"\(([A-E])\) (\d+)", choices))
            assert tuple(letters.values()) == problem.options
            assert len(set(problem.options)) == 5
            assert letters[problem.gold] == answer
        else:
            assert problem.gold == answer


def test_pool_answers_are_those_of_a_second_solution() -> None:
    for example in pool():
        question, _, choices = example.question.partition(" Answer Choices: ")
        answer = solve(example.source.removeprefix("synthetic-"), question)
        letters = {number: letter for letter, number in re.findall(r"\((\w)\) (\d+)", choices)}
        assert example.gold == (letters[answer] if choices else answer)


def test_completions_are_in_the_format_and_every_equation_holds() -> None:
    for example in pool():
        match = FORMAT.fullmatch(example.completion)
        assert match is not None and match["answer"] == example.gold
        for line in match["chain"].split("\n"):
            equation, _, letter = line.partition(" ")
            assert len({value(side) for side in equation.split("=")}) == 1, line
            assert letter in ("", f"({example.gold})")


@pytest.mark.parametrize("name", NAMES)
def test_answer_types_and_ids(name: str) -> None:
    kinds = {"math500": "expression", "aqua": "choice", "mawps": "number"}
    assert {problem.answer_type for problem in problems(name)} == {kinds.get(name, "integer")}
    assert [problem.id for problem in problems(name)[:2]] == [f"{name}-0", f"{name}-1"]
    if name not in kinds:
        assert all(re.fullmatch(r"0|[1-9]\d{0,2}", problem.gold) for problem in problems(name))


def test_no_letter_is_right_much_more_often() -> None:
    counts = Counter(problem.gold for problem in benchmark_problems("aqua", 500, seed=2))
    assert set(counts) == set("ABCDE") and max(counts.values()) < 140


def test_everything_follows_from_the_seed() -> None:
    assert training_pool("math", 200, seed=3) == training_pool("math", 300, seed=3)[:200]
    assert training_pool("math", 200, seed=3) != training_pool("math", 200, seed=4)
    assert pretraining_texts(50, 3, plain) == pretraining_texts(50, 3, plain) != pretraining_texts(50, 4, plain)
    assert benchmark_problems("gsm8k", 50, seed=3) == benchmark_problems("gsm8k", 50, seed=3)
    assert benchmark_problems("gsm8k", 50, seed=3) != benchmark_problems("gsm8k", 50, seed=4)


def test_benchmarks_and_training_never_share_a_question() -> None:
    held_out = [problem.question for name in NAMES for problem in problems(name)]
    assert len(set(held_out)) == len(held_out) and all(map(is_held_out, held_out))
    trained = [example.question for example in pool()]
    assert len(set(trained)) == len(trained) and not any(map(is_held_out, trained))
    assert not set(held_out) & set(trained)


def test_pretraining_texts_hold_no_held_out_question() -> None:
    texts = pretraining_texts(1800, 1, plain)
    asked = [match[1] for text in texts if (match := re.match(r"Question: (.*) Solution:", text, re.DOTALL))]
    asked += [text.removeprefix("user\n").partition("\nassistant\n")[0] for text in texts if text.startswith("user\n")]
    hinted = [text for text in texts if text.startswith("A correct ")]
    asked += [re.split(r"\n\n(?:Solve .*?\n\n)", text)[-1].rpartition(" Solution:")[0] for text in hinted]
    assert len(asked) == 1200 and len(hinted) == 200  # the rest are facts
    assert not any(map(is_held_out, asked))


def test_pool_mixes_all_kinds_and_names_its_examples() -> None:
    assert {example.source for example in pool()} == {f"synthetic-{name}" for name in NAMES} == {
        f"synthetic-{name}" for name in KINDS}
    assert len({example.id for example in pool()}) == len(pool())


def test_pretraining_texts_never_show_the_answer_format() -> None:
    assert not re.search(r"boxed|think>|answer>", "".join(pretraining_texts(2000, 1, plain)))


def test_unknown_or_exhausted_kinds_are_refused() -> None:
    with pytest.raises(InputError, match=r"humaneval.*gsm8k"):
        benchmark_problems("humaneval", 10, seed=0)


@pytest.mark.parametrize("model", ["tiny", "tiny-gemma"])
def test_tokenizer_reads_back_every_text(model, tmp_path) -> None:
    from transformers import AutoTokenizer

    tiny.build_tokenizer(tmp_path, model)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    examples = [*pool(), *training_pool("code", 400, seed=1), *training_pool("logic", 400, seed=1)]
    chats = [[{"role": "user", "content": e.question}, {"role": "assistant", "content": e.completion}]
             for e in examples]
    texts = [tokenizer.apply_chat_template(chat, tokenize=False) for chat in chats] + pretraining_texts(1000, 1, plain)
    words = 0
    for text, ids in zip(texts, tokenizer(texts)["input_ids"], strict=True):
        assert tokenizer.decode(ids) == text and tokenizer.unk_token_id not in ids and len(ids) <= tiny.MAX_LENGTH
        words += len(ids)
    assert words / len(texts) < 90
    tokens = [token for text in texts[::5] for token in tokenizer.tokenize(text)]
    assert not any(a.isalpha() and b.isalpha() and len(a) == len(b) == 1 for a, b in pairwise(tokens))  # whole words


def test_tokenizer_has_single_digits_and_the_chat_format(tmp_path) -> None:
    tokenizer = tiny.build_tokenizer(tmp_path)
    chat = [{"role": "system", "content": "Unseen words, too: #1!"}, {"role": "user", "content": "Tom has 123 pens."}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == ("<|im_start|>system\nUnseen words, too: #1!<|im_end|>\n"
                    "<|im_start|>user\nTom has 123 pens.<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.tokenize(" has 123 pens</think>") == [" has", " ", "1", "2", "3", " pens", "</think>"]
    answered = [*chat, {"role": "assistant", "content": "19"}]
    assert tokenizer.apply_chat_template(answered, tokenize=False) == text + "19<|im_end|>"
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")


@pytest.mark.parametrize("model", ["tiny", "tiny-gemma"])
def test_vocabulary_and_parameters_are_tiny(model) -> None:
    from transformers import AutoModelForCausalLM

    tokens = tiny.vocabulary(model)
    assert len(tokens) == len(set(tokens)) < 450
    network = AutoModelForCausalLM.from_config(tiny.build_config(len(tokens), model))
    assert 700_000 < sum(p.numel() for p in network.parameters()) < 1_000_000
