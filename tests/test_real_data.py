"""Real training pools: every record is kept or counted under a reason, and no test question is trained on."""

from __future__ import annotations

import gzip
import json
import os
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.benchmarks import BENCHMARKS
from foundation.errors import InputError, PrerequisiteError
from foundation.records import Malformed
from replication.data import real
from replication.data.am_corpus import AmRecord, read_am_corpus
from replication.data.equations import (
    EquationError,
    evaluate,
    parse_equation,
    parse_expression,
    render,
    short_decimal,
    steps,
)
from replication.data.pool import MALFORMED, PoolReport, normalised_question, stop_if_malformed
from replication.data.real import ANSWER_DISAGREES, EQUATION_UNREADABLE, read_real_pool

SHARED = Path(os.environ.get("WMSS_SHARED", Path(__file__).parents[1].parent / "shared"))
DATA_ROOT = SHARED / "datasets"
needs_data = pytest.mark.skipif(not DATA_ROOT.is_dir(), reason=f"no data sets at {DATA_ROOT} (set WMSS_SHARED)")
COMPLETION = re.compile(r"<think>\n(?P<think>.+)\n</think>\n<answer>\\boxed\{(?P<answer>.+)\}</answer>", re.DOTALL)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A data root of made files: one-problem test sets, and a lock file that records nothing."""
    lock = tmp_path / "lock.json"
    lock.write_text('{"schema": 1, "files": {}, "hub": {}}')
    for name in ("gsm8k", "mawps"):
        monkeypatch.setitem(BENCHMARKS, name, replace(BENCHMARKS[name], expected_count=1))
    write(tmp_path, BENCHMARKS["gsm8k"].file, [{"question": "Held out?", "answer": "#### 1"}])
    write(tmp_path, BENCHMARKS["mawps"].file, [{"instruction": "How many , held out ?", "answer": "1.0"}])
    return lambda *sources: read_real_pool(tmp_path, sources, lock)


def write(root: Path, file: str, rows: list[object]) -> Path:
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def gsm(count: int) -> list[object]:
    return [{"question": f"What is {n} + 1?", "answer": f"{n} + 1 = <<{n}+1={n + 1}>>{n + 1}\n#### {n + 1:,}"}
            for n in range(count)]


def mawps(equation: str, answer: object, question: str = "How many ?") -> dict[str, object]:
    return {"id": 1, "original_text": question, "equation": equation, "ans": answer}


@needs_data
def test_real_pool_counts_and_formats():
    examples, report = read_real_pool(DATA_ROOT)
    assert report.read == 7473 + 1898 and report.kept == len(examples)
    assert report.dropped == {"question stands in a test set (MAWPS)": 27, ANSWER_DISAGREES: 19, MALFORMED: 1}
    assert [EQUATION_UNREADABLE in item.reason for item in report.malformed] == [True]
    assert set(report.checked_against) == {entry.title for entry in BENCHMARKS.values() if entry.domain == "math"}
    assert sum(example.source == "gsm8k" for example in examples) == 7473
    assert len({example.id for example in examples}) == len(examples)
    for example in examples:
        match = COMPLETION.fullmatch(example.completion)
        assert match and match["answer"] == example.gold and "<<" not in example.completion
        Fraction(example.gold)
        assert not example.gold.endswith(".0") and "," not in example.gold


@needs_data
def test_no_test_question_is_left_in_the_real_pool():
    examples, _ = read_real_pool(DATA_ROOT)
    math = [name for name, entry in BENCHMARKS.items() if entry.domain == "math"]
    held_out = real.held_out_questions(DATA_ROOT, math)
    assert not [example.id for example in examples if normalised_question(example.question) in held_out]


@needs_data
def test_every_step_written_for_mawps_is_true():
    examples, _ = read_real_pool(DATA_ROOT, ["mawps"])
    for example in examples:
        for line in example.completion.split("\n")[1:-2]:
            left, mark, right = line.partition(" = ")
            if mark and "x" not in line:
                value = Fraction(right)
                assert abs(evaluate(parse_expression(left)) - value) <= abs(value) / 10**9, line


@needs_data
def test_truncated_real_train_file_is_caught_by_its_hash(tmp_path):
    for file in ("gsm8k/upstream/train.jsonl", "gsm8k/upstream/test.jsonl"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes((DATA_ROOT / file).read_bytes())
    whole = (tmp_path / "gsm8k/upstream/train.jsonl").read_bytes()
    # Cut between two lines: every remaining line is in order, only the hash can tell.
    (tmp_path / "gsm8k/upstream/train.jsonl").write_bytes(whole[: whole.index(b"\n", len(whole) // 2) + 1])
    with pytest.raises(InputError, match=r"train\.jsonl.*expected 17f347dc.*found.*lock"):
        read_real_pool(tmp_path, ["gsm8k"])


def test_gsm8k_completion(made, tmp_path):
    write(tmp_path, "gsm8k/upstream/train.jsonl", [
        {"question": " Two hens lay 1,100 eggs. ", "answer": "2*1100 = <<2*1100=2200>>2200 eggs\n#### 2,200"}])
    (example,), report = made("gsm8k")
    assert example.question == "Two hens lay 1,100 eggs." and example.gold == "2200" and example.source == "gsm8k"
    assert example.completion == "<think>\n2*1100 = 2200 eggs\n</think>\n<answer>\\boxed{2200}</answer>"
    assert report == PoolReport(read=1, kept=1, dropped={}, checked_against=("GSM8K", "MAWPS"))


def test_a_held_out_question_is_dropped_in_any_spelling(made, tmp_path):
    write(tmp_path, "gsm8k/upstream/train.jsonl", [{"question": "HELD  out ...", "answer": "a\n#### 2"}, *gsm(1)])
    examples, report = made("gsm8k")
    assert len(examples) == 1 and report.dropped == {"question stands in a test set (GSM8K)": 1}


def test_malformed_lines_are_counted_with_line_and_reason(made, tmp_path):
    broken = ["{", {"question": "q"}]
    write(tmp_path, "gsm8k/upstream/train.jsonl", [*gsm(198), *broken])
    examples, report = made("gsm8k")
    assert len(examples) == 198 and report.read == 200 and report.dropped == {"malformed": 2}
    assert [item.line for item in report.malformed] == [199, 200]
    assert "not a JSON line" in report.malformed[0].reason and "'answer'" in report.malformed[1].reason
    assert str(tmp_path) not in json.dumps(report.to_row())


def test_over_one_percent_malformed_stops_and_lists_the_first(made, tmp_path):
    write(tmp_path, "gsm8k/upstream/train.jsonl", [*["{"] * 7, *gsm(600)])
    with pytest.raises(InputError, match=r"(?s)7 of 607 .*train\.jsonl:1: not.*train\.jsonl:5: .*and 2 more"):
        made("gsm8k")


@pytest.mark.parametrize(("bad", "read", "stops"), [(0, 0, False), (1, 100, False), (1, 99, True), (2, 199, True)])
def test_the_limit_is_one_percent(bad, read, stops):
    malformed = [Malformed("f", n, "r") for n in range(bad)]
    if stops:
        with pytest.raises(InputError, match="malformed"):
            stop_if_malformed(malformed, read)
    else:
        stop_if_malformed(malformed, read)


@pytest.mark.parametrize("row", [
    {"question": "", "answer": "a\n#### 1"}, {"question": "q", "answer": "a"}, {"question": "q", "answer": "#### 1"},
    {"question": "q", "answer": "a\n#### one"}, {"question": None, "answer": "a\n#### 1"}, {}, "[]", "null"])
def test_unusable_gsm8k_rows_are_malformed(made, tmp_path, row):
    write(tmp_path, "gsm8k/upstream/train.jsonl", [*gsm(150), row])
    _, report = made("gsm8k")
    assert report.dropped == {"malformed": 1} and report.malformed[0].line == 151


def test_missing_and_empty_files(made, tmp_path):
    with pytest.raises(PrerequisiteError, match=r"gsm8k/upstream/train\.jsonl.*--data-root"):
        made("gsm8k")
    write(tmp_path, "gsm8k/upstream/train.jsonl", [])
    with pytest.raises(InputError, match="no training records"):
        made("gsm8k")
    write(tmp_path, "gsm8k/upstream/train.jsonl", [{"question": "Held out?", "answer": "a\n#### 1"}])
    with pytest.raises(InputError, match="no training example is left of 1"):
        made("gsm8k")
    (tmp_path / BENCHMARKS["gsm8k"].file).unlink()
    with pytest.raises(PrerequisiteError, match=r"gsm8k/upstream/test\.jsonl"):
        made("gsm8k")


@pytest.mark.parametrize("sources", [["gsm"], [], ["gsm8k", "gsm8k"]])
def test_sources_are_checked(made, sources):
    with pytest.raises(InputError, match=r"gsm8k, mawps|name each"):
        made(*sources)


@pytest.mark.parametrize(("equation", "answer", "reasoning", "printed"), [
    ("X=((22.0-14.0)/4.0)", 2.0, "22 - 14 = 8\n8 / 4 = 2", "2"),
    ("x=3-1.5", 1.5, "3 - 1.5 = 1.5", "1.5"),
    ("x=10.0/3.0", "3.33333", "10 / 3 is about 3.33333", "3.33333"),
    ("x=1.0/(1.0/4.0+1.0/6.0)", 2.4, "1 / (1 / 4 + 1 / 6) = 2.4", "2.4"),
    ("X-6=52", "58", "Let x be the unknown.\nx - 6 = 52\nx = 58", "58"),
    ("miles=2*3", 6.0, "2 * 3 = 6", "6"),
    ("x=5-(3-8)", 10.0, "3 - 8 = -5\n5 - (-5) = 10", "10"),
    ("x=3-1.1666666666666667", 1.8333333333333335, "3 - 1.1666666666666667 = 1.8333333333333335",
     "1.8333333333333335"),
    ("x=9.99+0.01", "9.99999999999999999", "9.99 + 0.01 = 10", "10")])
def test_mawps_reasoning(made, tmp_path, equation, answer, reasoning, printed):
    write(tmp_path, "mawps/wmss/trainset.json", [mawps(equation, answer)])
    (example,), _ = made("mawps")
    assert example.completion == f"<think>\n{reasoning}\n</think>\n<answer>\\boxed{{{printed}}}</answer>"


@pytest.mark.parametrize(("equation", "answer", "reason"), [
    ("x=40/7", 5.0, ANSWER_DISAGREES), ("x=700/7", 7.0, ANSWER_DISAGREES), ("x=4.6*1", "5", ANSWER_DISAGREES),
    ("X-6=52", 57.0, ANSWER_DISAGREES)])
def test_mawps_drops(made, tmp_path, equation, answer, reason):
    write(tmp_path, "mawps/wmss/trainset.json", [mawps(equation, answer), mawps("x=1+1", 2.0)])
    examples, report = made("mawps")
    assert len(examples) == 1 and report.dropped == {reason: 1}


@pytest.mark.parametrize(("equation", "answer", "reason"), [
    ("x=1/0", 1.0, EQUATION_UNREADABLE), ("X=0.32=0.21", 0.53, EQUATION_UNREADABLE),
    ("x=__import__('os')", 1.0, EQUATION_UNREADABLE), ("x=9**9**9", 1.0, EQUATION_UNREADABLE),
    ("x=y+1", 1.0, EQUATION_UNREADABLE), ("", 1.0, EQUATION_UNREADABLE), ("x=1+1", int("9" * 400), "out of range")])
def test_mawps_lines_that_cannot_be_read_are_malformed(made, tmp_path, equation, answer, reason):
    write(tmp_path, "mawps/wmss/trainset.json", [mawps(equation, answer), mawps("x=1+1", 2.0)])
    with pytest.raises(InputError, match=reason):
        made("mawps")


@pytest.mark.parametrize("text", [
    "", "1+", "(" * 150 + "1" + ")" * 150, "-" * 199 + "x(", "f(1)", "1//2", "2**3", "1j", "True", "x.y",
    "a if b else c", "[1]", "1;2", "'1'", "1_0", "1\n+1", "0" * 300, "lambda: 1", "1%2", "x:=1", "1 2", "é", "1\x00"])
def test_hostile_expressions_are_refused(text):
    with pytest.raises(EquationError):
        evaluate(parse_expression(text))


numbers = st.integers(-50, 50).map(str) | st.decimals(0, 9, places=2).map(str)
expressions = st.recursive(numbers, lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(
    lambda parts: f"({parts[0]}){parts[1]}({parts[2]})"), max_leaves=8).filter(lambda text: len(text) <= 200)


@settings(max_examples=150, deadline=None)
@given(expressions)
def test_rendering_and_steps_keep_the_value(text):
    try:
        expression = parse_expression(text)
        value = evaluate(expression)
    except EquationError:
        return
    assert evaluate(parse_expression(render(expression))) == value
    for line in steps(expression) or []:
        left, _, right = line.partition(" = ")
        assert evaluate(parse_expression(left)) == Fraction(right)


@pytest.mark.parametrize(("value", "text"), [
    (Fraction(3), "3"), (Fraction(-5, 2), "-2.5"), (Fraction(1, 3), None), (Fraction(1, 10**6), "0.000001"),
    (Fraction(1, 10**7), None), (Fraction(0), "0"), (Fraction(100), "100"),
    (Fraction(10**30) + Fraction(1, 2), "1" + "0" * 30 + ".5")])
def test_short_decimal(value, text):
    assert short_decimal(value) == text


def test_equation_solved_side():
    assert parse_equation("3*6=x").solved_side() == parse_expression("3*6")
    assert parse_equation("x=x+1").solved_side() is None and parse_equation("x-1=2").solved_side() is None


def am_row(**changes: object) -> dict[str, object]:
    info = {"source": "OpenR1", "reference_answer": "4", "test_case": None, "think_content": None,
            "answer_content": None}
    reply = "<think>2+2</think>\n<answer>\\boxed{4}</answer>"
    return {"messages": [{"role": "user", "content": "2+2?", "info": info | changes},
                         {"role": "assistant", "content": reply, "info": {}}]}


def test_am_records_plain_and_compressed(tmp_path):
    rows = [am_row(), am_row(test_case={"test_code": "assert f()", "test_entry_point": "f"}, reference_answer=None)]
    path = write(tmp_path, "am.jsonl", rows)
    (tmp_path / "am.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    for file in (path, tmp_path / "am.jsonl.gz"):
        first, second = read_am_corpus(file)
        assert first == AmRecord(line=1, question="2+2?", response="<think>2+2</think>\n<answer>\\boxed{4}</answer>",
                                 think="2+2", answer="\\boxed{4}", source="OpenR1", reference_answer="4",
                                 test_case=None)
        assert isinstance(second, AmRecord) and second.reference_answer is None
        assert json.loads(second.test_case or "")["test_entry_point"] == "f"


def test_am_zst_reads_or_says_what_is_missing(tmp_path):
    path = write(tmp_path, "am.jsonl", [am_row()])
    try:
        import zstandard
    except ImportError:
        path.rename(tmp_path / "am.jsonl.zst")
        with pytest.raises(PrerequisiteError, match="pip install zstandard"):
            list(read_am_corpus(tmp_path / "am.jsonl.zst"))
    else:
        (tmp_path / "am.jsonl.zst").write_bytes(zstandard.compress(path.read_bytes()))
        assert list(read_am_corpus(tmp_path / "am.jsonl.zst")) == list(read_am_corpus(path))


@pytest.mark.parametrize("row", [
    "{", "[]", {}, {"messages": "x"}, {"messages": []}, {"messages": [1]},
    {"messages": [{"role": "user", "content": "q"}]}, {"messages": [{"role": "user", "content": " "},
                                                                   {"role": "assistant", "content": "a"}]},
    {"messages": [{"role": "user", "content": "q", "info": 3}, {"role": "assistant", "content": "a"}]}])
def test_malformed_am_records_are_values(tmp_path, row):
    path = write(tmp_path, "am.jsonl", [am_row(), row, am_row()])
    first, bad, last = read_am_corpus(path)
    assert isinstance(first, AmRecord) and isinstance(last, AmRecord) and last.line == 3
    assert isinstance(bad, Malformed) and bad.line == 2 and bad.reason


@needs_data
def test_am_samples_read(tmp_path):
    folder = DATA_ROOT / "am_deepseek_r1_distilled"
    (record,) = read_am_corpus(folder / "am_0.9M_sample_1k.head1.jsonl")
    assert isinstance(record, AmRecord) and record.source == "natural_reasoning" and record.reference_answer is None
    assert record.response == f"<think>{record.think}</think>\n<answer>{record.answer}</answer>"
    card = json.loads((folder / "README.sample.json").read_text())
    (record,) = read_am_corpus(write(tmp_path, "card.jsonl", [card]))
    assert isinstance(record, AmRecord) and record.reference_answer and record.think and record.answer
