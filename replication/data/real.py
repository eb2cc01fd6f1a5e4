"""Training pools from real files of a data root: GSM8K train and MAWPS train, in the paper's completion format.

Reads `gsm8k/upstream/train.jsonl` and `mawps/wmss/trainset.json`, checked against the lock file, and the test sets
that lie beside them: no question of a test set is trained on.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from evaluation.benchmarks import BENCHMARKS, load_benchmark
from evaluation.benchmarks.fields import text_field
from evaluation.benchmarks.math import OPTIONS_HEADING, number_gold
from foundation.errors import InputError
from foundation.locks import LOCK_PATH, check_data_file, expected_sha256
from foundation.records import Malformed, read_records
from replication.data.equations import Equation, EquationError, evaluate, parse_equation, render, steps
from replication.data.pool import (
    MALFORMED,
    Example,
    PoolReport,
    normalised_question,
    stop_if_malformed,
    tagged_completion,
)

ANSWER_DISAGREES = "answer disagrees with its equation"
EQUATION_UNREADABLE = "equation cannot be read"
_CALCULATOR = re.compile(r"<<[^<>]*>>")
# A root given with three to five digits, put back into its equation.
_ROOT_TOLERANCE = Fraction(1, 1000)


class _Drop(Exception):
    """A well-formed record that is not trained on; its text is the reason it is counted under."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One training file: where it lies, which test set belongs to it, and how a row becomes (reasoning, answer)."""

    name: str
    file: str
    own_benchmark: str
    question_field: str
    solve: Callable[[Mapping[str, Any]], tuple[str, str]]


def read_real_pool(
    data_root: Path, sources: Sequence[str] = ("gsm8k", "mawps"), lock: Path = LOCK_PATH
) -> tuple[list[Example], PoolReport]:
    """Return the training examples of these sources, in file order, and the account of what was dropped.

    Raises:
        InputError: an unknown source, a file that is not the recorded one, over 1 % malformed, or nothing left.
        PrerequisiteError: a training file, or the test set that belongs to it, is missing.
    """
    for name in sources:
        if name not in SOURCES:
            raise InputError(f"training source {name!r} is unknown; choose among: {', '.join(SOURCES)}")
    if not sources or len(set(sources)) != len(sources):
        raise InputError(f"name each training source once; got: {', '.join(sources) or 'none'}")
    held_out = held_out_questions(data_root, [SOURCES[name].own_benchmark for name in sources], lock)
    parts = [read_source(SOURCES[name], data_root, held_out, lock) for name in sources]
    examples = [example for part, _ in parts for example in part]
    report = parts[0][1]
    for _, further in parts[1:]:
        report = report + further
    if not examples:
        raise InputError(f"no training example is left of {report.read} read (dropped: {dict(report.dropped)})")
    return examples, report


def read_source(
    source: Source, data_root: Path, held_out: Mapping[str, str], lock: Path = LOCK_PATH
) -> tuple[list[Example], PoolReport]:
    """Return one source's examples and report. `held_out`: normalised test question -> title of its test set.

    Raises:
        InputError, PrerequisiteError: as for `read_real_pool`.
    """
    path = check_data_file(data_root, source.file, lock)
    examples: list[Example] = []
    dropped: Counter[str] = Counter()
    malformed: list[Malformed] = []
    read = 0
    for position, record in enumerate(read_records(path)):
        read += 1
        if isinstance(record, Malformed):
            malformed.append(record)
            continue
        try:
            examples.append(_example(source, position, record.row, held_out))
        except _Drop as drop:
            dropped[str(drop)] += 1
        except ValueError as error:
            malformed.append(Malformed(str(path), record.line, str(error)))
    if read == 0:
        raise InputError(f"{path} holds no training records; fetch it again")
    stop_if_malformed(malformed, read)
    if malformed:
        dropped[MALFORMED] = len(malformed)
    return examples, PoolReport(read=read, kept=len(examples), dropped=dict(dropped), malformed=tuple(malformed),
                                checked_against=tuple(dict.fromkeys(held_out.values())))


def held_out_questions(data_root: Path, required: Sequence[str], lock: Path = LOCK_PATH) -> dict[str, str]:
    """Return the normalised questions of the mathematics test sets of this data root, each with the title of its set.

    A test set that belongs to a training source must be there; the others are looked through if they are.

    Raises:
        InputError, PrerequisiteError: a test set is unusable, or a required one missing.
    """
    questions: dict[str, str] = {}
    for name, benchmark in BENCHMARKS.items():
        if name not in required and not (benchmark.domain == "math" and (data_root / benchmark.file).is_file()):
            continue
        for problem in load_benchmark(benchmark, data_root, expected_sha256(benchmark.file, lock)):
            text = problem.question.partition(OPTIONS_HEADING)[0]
            questions[normalised_question(text)] = benchmark.title
    return questions


def _example(source: Source, position: int, row: dict[str, Any], held_out: Mapping[str, str]) -> Example:
    question = text_field(row, source.question_field)
    if not question:
        raise ValueError("the question is empty")
    test_set = held_out.get(normalised_question(question))
    if test_set is not None:
        raise _Drop(f"question stands in a test set ({test_set})")
    reasoning, answer = source.solve(row)
    if not reasoning:
        raise ValueError("the reasoning is empty")
    return Example(id=f"{source.name}-train-{position}", question=question, gold=answer, source=source.name,
                   answer_type="number", completion=tagged_completion(reasoning, answer))


def _solve_gsm8k(row: Mapping[str, Any]) -> tuple[str, str]:
    """Take the worked solution without its calculator annotations ("48/2 = <<48/2=24>>24")."""
    solution, mark, gold = text_field(dict(row), "answer").rpartition("####")
    if not mark:
        raise ValueError("the answer has no '####' line")
    return _CALCULATOR.sub("", solution).strip(), number_gold(gold)


def _solve_mawps(row: Mapping[str, Any]) -> tuple[str, str]:
    """Write the equation out; the data set has no worked solution."""
    answer = _plain_decimal(text_field(dict(row), "ans"))
    try:
        equation = parse_equation(text_field(dict(row), "equation"))
        return _reasoning(equation, answer), answer
    except EquationError as error:
        raise ValueError(f"{EQUATION_UNREADABLE}: {error}") from error


def _plain_decimal(text: str) -> str:
    """Return an integer without decimals, any other number as the shortest decimal of the same float."""
    value = Decimal(repr(float(number_gold(text))))
    if not value.is_finite():
        raise ValueError(f"the answer {text[:20]}... is out of range")
    return str(int(value)) if value == value.to_integral_value() else f"{value:f}"


def _reasoning(equation: Equation, answer: str) -> str:
    solved = equation.solved_side()
    if solved is None:
        return _reasoning_by_root(equation, answer)
    value, given = evaluate(solved), Fraction(answer)
    noise = abs(value) / 10**9
    # Half a unit of the answer's last decimal is rounding. An integer counts as given to one decimal ("41.0"), for
    # half of one would take 4.6 for 5.
    decimals = max(1, len(answer.partition(".")[2]))
    if abs(value - given) > max(noise, Fraction(1, 2 * 10**decimals)):
        raise _Drop(ANSWER_DISAGREES)
    if abs(value - given) > noise:
        return f"{render(solved)} is about {answer}"
    return "\n".join(steps(solved) or [f"{render(solved)} = {answer}"])


def _reasoning_by_root(equation: Equation, answer: str) -> str:
    """The unknown stands inside ("7*x+4 = 3*x-20"): state the equation and its root, checked by putting it in."""
    root = Fraction(answer)
    left, right = evaluate(equation.left, root), evaluate(equation.right, root)
    if abs(left - right) > _ROOT_TOLERANCE * max(Fraction(1), abs(right)):
        raise _Drop(ANSWER_DISAGREES)
    return f"Let x be the unknown.\n{render(equation.left)} = {render(equation.right)}\nx = {answer}"


SOURCES: dict[str, Source] = {
    "gsm8k": Source(name="gsm8k", file="gsm8k/upstream/train.jsonl", own_benchmark="gsm8k",
                    question_field="question", solve=_solve_gsm8k),
    "mawps": Source(name="mawps", file="mawps/wmss/trainset.json", own_benchmark="mawps",
                    question_field="original_text", solve=_solve_mawps),
}
