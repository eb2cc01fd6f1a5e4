"""The four code benchmarks of the paper: HumanEval+, MBPP+, BigCodeBench, LiveCodeBench.

Here a row becomes a question, and the row itself, with its tests, goes along as it is (`CodeTask.row`) for the code
graders. Nothing of a row is executed, evaluated or unpickled here: LiveCodeBench's private tests stay the base64 text
they are upstream.

The paper names no prompt for code (A-95): the wording around the task is ours, the task is the benchmark's own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.benchmarks.fields import code_field, text_field
from evaluation.benchmarks.loading import Benchmark, Defect, Parsed, load_rows
from evaluation.problem import Problem

_COMPLETE = "Complete this Python function. Give the whole program, with imports and signature, in one code block.\n\n"
_TASK = "Write a Python function for this task. The assertion shows its name and how it is called.\n\n"
_STDIN = "Write a Python program that reads from standard input and writes to standard output.\n\n"
_STARTER = "Complete this Python class without changing its signature.\n\n"
_LINK = re.compile(r"https?://\S+")


@dataclass(frozen=True, slots=True)
class CodeTask:
    """A problem with the row it came from: tests, entry point and reference solution under their upstream names."""

    problem: Problem
    row: dict[str, Any]


def load_tasks(benchmark: Benchmark, paths: list[Path]) -> list[CodeTask]:
    """Return a code benchmark's problems with their rows.

    Raises:
        InputError: as for `loading.load_files`.
    """
    return [CodeTask(problem, row) for problem, row in load_rows(benchmark, paths)]


def parse_humaneval(row: dict[str, Any]) -> Parsed:
    """Read a row of HumanEval+: the function's head with its docstring; the gold is the reference program."""
    head = code_field(row, "prompt")
    _require_tests(row, "base_input", "test")
    _require(row, "entry_point")
    return Parsed(question=f"{_COMPLETE}```python\n{head.rstrip()}\n```",
                  gold=head + code_field(row, "canonical_solution"), source_id=text_field(row, "task_id"))


def parse_mbpp(row: dict[str, Any]) -> Parsed:
    """Read a row of MBPP+: a sentence and one assertion. The hub's copy has a bare id, no assertion, and `code`."""
    task = code_field(row, "prompt").strip().strip('"').strip()
    _require_tests(row, "base_input", "test")
    identity = text_field(row, "task_id")
    if "code" in row:  # the layout of the hub's copy
        tests = row.get("test_list")
        first = tests[0] if isinstance(tests, list) and tests else ""
        task = _LINK.sub("", task)  # evalplus' own release leaves the links out
        return Parsed(question=f"{_TASK}{task}\n{first}".rstrip(), gold=code_field(row, "code"),
                      source_id=f"Mbpp/{identity.removeprefix('Mbpp/')}")
    _require(row, "entry_point")
    return Parsed(question=_TASK + task, gold=code_field(row, "canonical_solution"), source_id=identity)


def parse_bigcodebench(row: dict[str, Any]) -> Parsed:
    """Read a row of BigCodeBench, "instruct" form: the task in words with the code to begin with."""
    _require_tests(row, "test")
    _require(row, "entry_point")
    return Parsed(question=code_field(row, "instruct_prompt").strip(),
                  gold=code_field(row, "complete_prompt") + code_field(row, "canonical_solution"),
                  source_id=text_field(row, "task_id"))


def parse_livecodebench(row: dict[str, Any]) -> Parsed:
    """Read a row of LiveCodeBench: a contest problem, with a class to complete or on standard input. It has no gold."""
    _require_tests(row, "public_test_cases")
    content, starter = code_field(row, "question_content").strip(), code_field(row, "starter_code").rstrip()
    how = f"{_STARTER}```python\n{starter}\n```" if starter else _STDIN.rstrip()
    return Parsed(question=f"{content}\n\n{how}", gold="", source_id=text_field(row, "question_id"))


def _require_tests(row: dict[str, Any], *names: str) -> None:
    """Refuse a row without tests: no tests must never become a pass."""
    if not any(row.get(name) not in (None, "", "[]", []) for name in names):
        raise ValueError(f"has no tests (none in {' or '.join(repr(name) for name in names)})")


def _require(row: dict[str, Any], name: str) -> None:
    if not text_field(row, name):
        raise ValueError(f"field {name!r} is empty")


# A-95: 4096 new tokens, LiveCodeBench 8192. Files: evalplus' own releases have inputs apart from the program; the hub's
# copies of HumanEval+ and MBPP+ hold the same tests as one program.
_BENCHMARKS = (
    Benchmark(
        name="humaneval_plus", title="HE+", domain="code", answer_type="code", expected_count=164,
        file="humaneval_plus/HumanEvalPlus.jsonl.gz", hub_repo="evalplus/humanevalplus", hub_files=("test.jsonl",),
        max_new_tokens=4096, parse=parse_humaneval, version="HumanEval+ as released by evalplus"),
    Benchmark(
        name="mbpp_plus", title="MBPP+", domain="code", answer_type="code", expected_count=378,
        file="mbpp_plus/MbppPlus.jsonl.gz", hub_repo="evalplus/mbppplus",
        hub_files=("data/test-00000-of-00001-d5781c9c51e02795.parquet",), max_new_tokens=4096, parse=parse_mbpp,
        version="MBPP+ of 378 tasks as released by evalplus",
        known_defects=(Defect("malformed_tests", ("Mbpp/793",), "its plus_input is {}, not a list: no plus tests"),)),
    Benchmark(
        name="bigcodebench", title="BCB", domain="code", answer_type="code", expected_count=1140,
        file="bigcodebench/hf_data/BigCodeBench.jsonl.gz", hub_repo="bigcode/bigcodebench",
        hub_files=("data/v0.1.0-00000-of-00001.parquet",), max_new_tokens=4096, parse=parse_bigcodebench,
        version="full set, instruct form, first release (June 2024)",
        known_defects=(Defect("wrong_tests", (), "later releases corrected some tasks"),)),
    Benchmark(
        name="livecodebench", title="LCB", domain="code", answer_type="code", expected_count=400,
        file="livecodebench/public-only/lcb.jsonl", hub_repo="livecodebench/code_generation_lite",
        hub_files=("test.jsonl",), max_new_tokens=8192, parse=parse_livecodebench,
        version="release_v1, contests of 2023-05-07 to 2024-03-02",
        known_defects=(Defect("missing_tests", (), "the data root's file has the public tests only"),)),
)
CODE_BENCHMARKS: dict[str, Benchmark] = {entry.name: entry for entry in _BENCHMARKS}
