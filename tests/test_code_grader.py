"""The code grader: programs with the verdicts they must get, comparison rules, values, extraction, the command."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evaluation.graders.code import CodeGrader
from evaluation.graders.code_compare import FunctionComparison, same_text, same_value
from evaluation.graders.code_extraction import complete_program, extract_program
from evaluation.graders.code_tasks import (
    AssertTask,
    FunctionTask,
    OutputTask,
    humaneval_plus_task,
    livecodebench_task,
    mbpp_plus_task,
)
from evaluation.graders.sandboxed.values import MAX_DEPTH, Opaque, TooLarge, decode, encode
from evaluation.isolation import Isolation, find_isolation, kinds
from foundation.errors import PrerequisiteError

CASES = [json.loads(line) for line in (Path(__file__).parent / "cases" / "programs.jsonl").read_text().splitlines()]
ROOT = Path(__file__).parent.parent
SLOW_CASES = frozenset({"sleeps", "ignores_signals", "hash_flood", "fork_bomb"})  # each costs two whole time limits


@pytest.fixture(scope="module")
def isolation() -> Isolation:
    try:
        return find_isolation()
    except PrerequisiteError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def grader(isolation: Isolation) -> Iterator[CodeGrader]:
    with CodeGrader(isolation, workers=2, time_limit_seconds=4) as found:
        yield found


def program(case: dict[str, Any]) -> str:
    return str(case["code"]).replace("@@10MB@@", "# " + "x" * (10 << 20) + "\n")


def task(case: dict[str, Any]) -> AssertTask:
    return AssertTask(id=case["id"], tests=case["tests"], entry_point=case.get("entry_point"))


def check_cases(isolation: Isolation, cases: list[dict[str, Any]], seconds: float) -> None:
    with CodeGrader(isolation, workers=2, time_limit_seconds=seconds) as grader:
        verdicts = list(grader.grade_all((task(case), program(case)) for case in cases))
    assert len(verdicts) == len(cases)
    wrong = [(case["id"], case["expected"], verdict) for case, verdict in zip(cases, verdicts, strict=True)
             if verdict.outcome not in case["expected"]]
    assert wrong == []


def test_the_cases_are_many_and_a_third_is_hostile() -> None:
    hostile = [case for case in CASES if case["kind"] in ("cheat", "breakout")]
    assert len(CASES) >= 60 and len(hostile) * 3 >= len(CASES)
    assert len({case["id"] for case in CASES}) == len(CASES)
    assert all("pass" not in case["expected"] for case in CASES if case["kind"] == "cheat")


def test_every_program_gets_its_verdict(isolation: Isolation) -> None:
    late = [case for case in CASES if case["expected"][0] == "timeout"]
    check_cases(isolation, [case for case in CASES if case not in late and case["id"] not in SLOW_CASES], 4)
    check_cases(isolation, [case for case in late if case["id"] not in SLOW_CASES], 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bubblewrap", "namespaces"])
def test_every_program_gets_its_verdict_on_every_kind(kind: str) -> None:
    found = kinds.probe(kind)
    if isinstance(found, str):
        pytest.skip(f"{kind}: {found}")
    check_cases(found, CASES, 4)


def test_verdicts_come_in_order_whatever_the_workers(isolation: Isolation) -> None:
    items = [(AssertTask(id=str(number), tests=f"assert f({number}) == {number}"),
              "def f(x):\n    return x" if number % 3 else "def f(x):\n    return -1") for number in range(12)]
    outcomes = []
    for workers in (1, 3):
        with CodeGrader(isolation, workers=workers) as grader:
            outcomes.append([verdict.outcome for verdict in grader.grade_all(items)])
    assert outcomes[0] == outcomes[1] == ["pass" if number % 3 else "wrong" for number in range(12)]


def test_a_late_program_runs_once_more_alone(isolation: Isolation) -> None:
    with CodeGrader(isolation, workers=2, time_limit_seconds=0.7) as grader:
        verdict = grader.grade(AssertTask(id="x", tests="assert f() == 1"), "import time\ndef f():\n    time.sleep(60)")
    assert verdict.outcome == "timeout" and verdict.retried
    assert 1.4 <= verdict.seconds < 10


def test_nothing_is_left_of_hostile_programs(isolation: Isolation) -> None:
    before = {path.name for path in Path("/tmp").iterdir()}
    code = ("import ctypes, os, time\nctypes.CDLL(None).prctl(15, b'wmss-hostile')\n"
            "for _ in range(5):\n    if os.fork() == 0:\n        os.setsid()\n        time.sleep(1000)\n"
            "open('/tmp/wmss-hostile', 'w').write('x')\nwhile True:\n    pass\n")
    with CodeGrader(isolation, time_limit_seconds=0.7) as grader:
        assert grader.grade(AssertTask(id="x", tests="assert f() == 1"), code).outcome == "timeout"
    names = [(entry / "comm").read_text().strip() for entry in Path("/proc").iterdir()
             if entry.name.isdigit() and (entry / "comm").exists()]
    assert "wmss-hostile" not in names
    assert "wmss-hostile" not in {path.name for path in Path("/tmp").iterdir()} - before
    assert threading.active_count() < 20


def function_task(**changes: Any) -> FunctionTask:
    settings: dict[str, Any] = {
        "id": "x/1", "family": "humaneval", "prompt": "def f(a):\n", "entry_point": "f", "base_input": [[1], [2]],
        "canonical_solution": "    return [a, (a, float(a))]\n", "plus_input": [[3], [10 ** 30]]}
    return FunctionTask(**(settings | changes))


def test_functions_are_compared_with_the_reference(grader: CodeGrader) -> None:
    right = function_task()
    assert grader.grade(right, right.reference).correct
    verdict = grader.grade(right, "def f(a):\n    return [a, (a, float(a))] if a < 3 else None\n")
    assert (verdict.outcome, verdict.base_correct) == ("wrong", True)
    verdict = grader.grade(right, "def f(a):\n    return [a, [a, float(a)]]\n")
    assert (verdict.outcome, verdict.base_correct) == ("wrong", False)
    verdict = grader.grade(right, "def f(a):\n    while a > 2:\n        pass\n    return [a, (a, float(a))]\n")
    assert (verdict.outcome, verdict.base_correct) == ("timeout", True)


def test_a_reference_that_fails_is_a_grader_failure(grader: CodeGrader) -> None:
    broken = function_task(id="x/2", canonical_solution="    return 1 / 0\n")
    verdict = grader.grade(broken, "def f(a):\n    return 1\n")
    assert verdict.outcome == "grader_failure" and "x/2" in verdict.reason


def test_a_changed_task_is_graded_by_its_own_reference(grader: CodeGrader) -> None:
    one, other = (function_task(id="x/3", canonical_solution=f"    return a + {i}\n") for i in (1, 2))
    code = "def f(a):\n    return a + 1\n"
    assert [grader.grade(task, code).outcome for task in (one, other, one)] == ["pass", "wrong", "pass"]


def test_very_large_outputs_are_compared(grader: CodeGrader) -> None:
    large = function_task(id="x/3", canonical_solution="    return [(a, a, a)] * 600000\n", plus_input=[])
    assert grader.grade(large, large.reference).correct
    assert grader.grade(large, "def f(a):\n    return [(a, a, a)] * 599999 + [(a, a, -a)]\n").outcome == "wrong"


def same(output: Any, expected: Any, **changes: Any) -> bool:
    return FunctionComparison(function_task(**changes)).same([[1.0, 2.0]], output, expected)


def test_comparison_follows_evalplus() -> None:
    assert same((1, 2), (1, 2)) and not same([1, 2], (1, 2))
    assert same(0.1 + 0.2, 0.3) and not same(0.3001, 0.3)
    assert same([0.1 + 0.2], [0.3]) and not same([0.3], [0.3, 0.1])
    assert not same(3, 3.0000001) and same(3, 3.0), "an integer is equal or not; only floats have a tolerance"
    assert not same(1.0000001, 1), "no tolerance where the reference has no floats"
    assert same(1.00001, 1.0, atol=1e-4) and not same("1.0", 1.0, atol=1e-4)
    assert not same(Opaque("X"), 1) and not same(None, 1)
    assert same(-0.5, 99, entry_point="find_zero", atol=1e-4) and not same(0.5, 99, entry_point="find_zero", atol=1e-4)
    mbpp = {"family": "mbpp"}
    assert same([2, 1], (1, 2), entry_point="similar_elements", **mbpp)
    assert not same([2, 1], (1, 2), entry_point="other", **mbpp)
    assert same("a match", True, entry_point="check_str", **mbpp)
    assert not same(None, True, entry_point="check_str", **mbpp)
    assert same(0, 17, entry_point="sum_div", **mbpp)


def test_a_float_reference_sets_the_tolerance_for_what_follows() -> None:
    comparison = FunctionComparison(function_task())
    assert not comparison.same([[1]], [[1.0 + 1e-9]], [[1.0]])
    assert comparison.same([[1]], 2.0, 2.0)
    assert comparison.same([[1]], [[1.0 + 1e-9]], [[1.0]])


def test_scripts_and_judged_functions(grader: CodeGrader) -> None:
    script = OutputTask(id="s", inputs=("2\n3 4\n", "1\n5\n"), outputs=("7\n", "5"))
    assert grader.grade(script, "input()\nprint(sum(map(int, input().split())))").correct
    assert grader.grade(script, "import sys\nd = sys.stdin.read().split()\n"
                                "print(sum(map(int, d[1:])), end=' \\n\\n')").correct
    assert grader.grade(script, "print(7)").outcome == "wrong"
    assert grader.grade(script, "print(7)\nimport sys\nsys.exit(0)").outcome == "wrong"
    assert grader.grade(script, "print(int('x'))").outcome == "exception"
    assert grader.grade(script, "import os\nprint(7, flush=True)\nos._exit(3)").outcome == "exception"
    assert grader.grade(script, "while True:\n    print('x' * 10 ** 6)").outcome in ("exception", "wrong", "timeout")
    judged = OutputTask(id="j", inputs=("[1, 2]\n3", "[]\n0"), outputs=("[4, 5]", "[]"), entry_point="Solution().f")
    assert grader.grade(judged, "class Solution:\n    def f(self, l: List[int], n: int):\n"
                                "        return tuple(x + n for x in l)").correct
    assert grader.grade(judged, "class Solution:\n    def f(self, l, n):\n        return l").outcome == "wrong"
    with pytest.raises(ValueError, match="at least one"):
        OutputTask(id="none", inputs=(), outputs=())


def test_output_rules() -> None:
    assert same_text("1 2\n", "1  2") and same_text("1.50", "1.5") and same_text(" a \n b", "a\nb\n")
    assert not same_text("1 2 3", "1 2") and not same_text("1.5001", "1.5") and not same_text("", "0")
    assert not same_text("nan", "NaN") and not same_text("1_0", "10") and not same_text("1e999999999", "5")
    assert same_value((1, [2]), "[1, [2]]") and not same_value(True, "1") and not same_value(1, "true")
    assert same_value(0.1 + 0.2, "0.3") and not same_value(None, "0")


def test_private_tests_are_read_without_unpickling_objects() -> None:
    import base64
    import pickle
    import zlib

    tests = json.dumps([{"input": "1", "output": "1", "testtype": "stdin"}])
    row = {"question_id": "q", "public_test_cases": "[]", "metadata": "{}",
           "private_test_cases": base64.b64encode(zlib.compress(pickle.dumps(tests))).decode()}
    assert livecodebench_task(row).inputs == ("1",)
    evil = base64.b64encode(zlib.compress(pickle.dumps(os.system))).decode()
    with pytest.raises(ValueError, match="private tests"):
        livecodebench_task(row | {"private_test_cases": evil})


def test_values_survive_the_way() -> None:
    value = [1, -2.5, True, None, "x\ud800", (1, [2]), {1: "a", (2, 3): {4}}, frozenset({1}), b"\x00", bytearray(b"y"),
             2 + 3j, range(3), 7 ** 20000, float("inf"), -0.0]
    again = decode(json.loads(json.dumps(encode(value))))
    assert again == value and [type(item) for item in again] == [type(item) for item in value]


def test_subclasses_cross_as_their_base_and_objects_as_nothing() -> None:
    class Liar(int):
        def __eq__(self, other: object) -> bool:
            return True
        __hash__ = int.__hash__

    class Thing:
        def __eq__(self, other: object) -> bool:
            return True

    assert decode(encode([Liar(3)])) != [4]
    thing = decode(encode(Thing()))
    assert thing != 1 and not thing == thing  # noqa: SIM201


@pytest.mark.parametrize("text", [
    '{"t":1,"s":2}', '{"zz":[]}', '{"i":[]}', '{"c":["x"]}', '{"d":[[1]]}', '{"s":[[1]]}'])
def test_what_no_harness_writes_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        decode(json.loads(text))


def test_values_are_bounded() -> None:
    deep: list[Any] = []
    for _ in range(MAX_DEPTH + 5):
        deep = [deep]
    with pytest.raises(TooLarge):
        encode(deep)
    flood = {"s": [{"i": hex(number * (2 ** 61 - 1))} for number in range(1, 20000)]}
    started = time.perf_counter()
    with pytest.raises(ValueError, match="equal hashes"):
        decode(flood)
    assert time.perf_counter() - started < 2


def test_extraction() -> None:
    text = ("<think>\n```python\nwrong\n```\n</think>\nHere:\n```python\ndef f():\n    return 1\n```\nor\n"
            "```python\nx = 2\n```\n")
    found = extract_program(text)
    assert found is not None and found.code == "def f():\n    return 1\n" and found.rule == "block"
    second = extract_program("```python\nhelper = 1\n```\n```python\ndef f(x):\n    pass\n```", "f")
    assert second is not None and second.code.startswith("def f")
    cut = extract_program("```python\ndef f():\n    retu")
    assert cut is not None and cut.rule == "open_block"
    assert extract_program("I do not know.") is None
    assert extract_program("<think>\n```python\nx = 1\n```") is None, "reasoning that never ends holds no answer"
    assert extract_program("```\n```") is None
    bare = extract_program("def f():\n    return 1")
    assert bare is not None and bare.rule == "whole_text"
    shell = extract_program("```bash\npip install x\n```\n```python\nx = 1\n```")
    assert shell is not None and shell.code == "x = 1\n"
    started = time.perf_counter()
    extract_program("`" * 2_000_000 + "\n" + "```\n" * 200_000)
    assert time.perf_counter() - started < 5


def test_a_completion_becomes_a_program() -> None:
    prompt = "import math\n\ndef f(x):\n    \"\"\"Doc.\"\"\"\n"
    assert complete_program(prompt, "    return x\n", "f") == prompt + "    return x\n"
    assert complete_program(prompt, "def f(x):\n    return math.pi\n", "f").startswith("import math")
    assert complete_program('"""Task in words."""\n', "def f(x): return 1\n", "f") == "def f(x): return 1\n"


def test_the_command_reports_every_line(isolation: Isolation, tmp_path: Path) -> None:
    lines = [json.dumps({"id": "right", "code": "def f(x): return x + 1", "tests": "assert f(1) == 2"}).encode(),
             json.dumps({"id": "null", "code": "def f(x): return 1\0", "tests": "assert f(1) == 2"}).encode(),
             b'{"id": "utf8", "code": "def f(x): return \xff", "tests": "assert f(1) == 2"}',
             b'{"id": "cut", "code": "def', b"[1]",
             json.dumps({"id": "none", "code": None, "tests": "assert 1"}).encode(),
             json.dumps({"id": "large", "code": "#" * (10 << 20) + "\ndef f(x): return 2",
                         "tests": "assert f(1) == 2"}).encode()]
    path = tmp_path / "programs.jsonl"
    path.write_bytes(b"\n".join(lines))
    done = subprocess.run([sys.executable, "-m", "evaluation", "grade-code", str(path), "--isolation", isolation.name],
                          cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["id"] for row in rows] == ["right", "null", "utf8", "cut", None, "none", "large"]
    assert [row["outcome"] for row in rows] == ["pass", "exception", "grader_failure", "grader_failure",
                                                "grader_failure", "no_code", "pass"]
    assert [row["correct"] for row in rows] == [True, False, False, False, False, False, True]
    assert "7 items" in done.stderr and "missing_layers" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("name", "build", "count"), [
    ("humaneval_plus/HumanEvalPlus.jsonl.gz", humaneval_plus_task, 164),
    ("mbpp_plus/MbppPlus.jsonl.gz", mbpp_plus_task, 378)])
def test_every_reference_solution_is_right(isolation: Isolation, data_root: Path, name: str, build: Any,
                                           count: int) -> None:
    with gzip.open(data_root / name, "rt") as file:
        tasks = [build(json.loads(line)) for line in file]
    assert len(tasks) == count
    with CodeGrader(isolation) as grader:
        verdicts = grader.grade_all((one, one.reference) for one in tasks)
        assert [(one.id, verdict) for one, verdict in zip(tasks, verdicts, strict=True) if not verdict.correct] == []
