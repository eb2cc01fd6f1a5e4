"""Which records of the AM corpus are the code pool: those whose program passes their own unit tests (App. E.2).

Programs run in the isolation of the evaluation harness. The reply keeps its think block. Unit tests stand in the first
message's `test_case`, in one of these forms (each as such, or as JSON text):

- `{"test_code": "...", "test_entry_point": "..."}`: Python text; imports from the module `solution` mean the program;
- `{"inputs": [...], "outputs": [...], "fn_name"?: "..."}`: of a script, or of a function;
- a list of statements (`["assert f(1) == 2", ...]`), or Python text.

Records without tests are no code records. A verdict of "too late" is only given after a second run, alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from evaluation.graders.code import CodeGrader
from evaluation.graders.code_extraction import extract_program
from evaluation.graders.code_tasks import AssertTask, OutputTask
from evaluation.isolation import Isolation, Limits
from replication.corpora.batches import Batch, Judged, judge
from replication.corpora.math_rules import IN_TEST_SET, well_formed
from replication.data.am_corpus import AmRecord
from replication.data.pool import normalised_question

FORMAT = "not one think block and one answer block"
NO_FIELD = "the first message's info has no field test_case"
NO_TESTS = "no unit tests"
UNKNOWN_TESTS = "unit tests of an unknown form"
NO_PROGRAM = "no program in the answer"
MEMORY_MIB = 512
"""For each program: two at a time stay below 2 GiB with everything else."""
_OUTCOMES = {"wrong": "a unit test fails", "exception": "the program raises", "timeout": "the program takes too long",
             "memory": "the program takes too much memory", "crash": "the program crashes", "no_code": NO_PROGRAM,
             "not_runnable": "the tests need a package that is not installed",
             "grader_failure": "the tests cannot be run"}
_SOLUTION = re.compile(r"^[ \t]*(?:from\s+solution\s+import\s+(?:\([^)]*\)|[^\n]*)|import\s+solution[ \t]*)$",
                       re.MULTILINE)


class CodeRules:
    """Context manager; call it with batches, from as many threads as programs shall run at a time.

    Raises:
        PrerequisiteError: no isolation works on this machine.
    """

    def __init__(self, held_out: Mapping[str, str] | None = None, *, workers: int | None = None,
                 isolation: Isolation | None = None) -> None:
        self._held_out = dict(held_out or {})
        self._grader = CodeGrader(isolation, workers=workers, limits=Limits(memory_mib=MEMORY_MIB))

    def __enter__(self) -> CodeRules:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._grader.close()

    def __call__(self, batch: Batch) -> Judged:
        """Return what became of a batch."""
        return judge(batch, self)

    def settings(self) -> dict[str, Any]:
        """Return what the verdicts depend on."""
        return self._grader.settings()

    def reason(self, record: AmRecord) -> str | None:
        """Return why the record is left out, or None."""
        if "test_case" in record.absent:
            return NO_FIELD
        if not record.test_case:
            return NO_TESTS
        reply = record.response.strip()
        if not well_formed(reply, box=False):
            return FORMAT
        task = unit_tests(record.test_case)
        if task is None:
            return UNKNOWN_TESTS
        program = extract_program(reply.removesuffix("</answer>").replace("<answer>", "\n"),
                                  None if isinstance(task, OutputTask) else task.entry_point)
        if program is None:
            return NO_PROGRAM
        verdict = self._grader.grade(task, program.code)
        if not verdict.correct:
            return _OUTCOMES[verdict.outcome]
        title = self._held_out.get(normalised_question(record.question)) if self._held_out else None
        return f"{IN_TEST_SET} ({title})" if title else None

    def row(self, record: AmRecord) -> dict[str, Any]:
        """Return the pool's row; there is no gold answer, the tests are what decides."""
        return {"question": record.question.strip(), "completion": record.response.strip(), "gold": "",
                "source": record.source or "", "answer_type": "code", "options": []}


def unit_tests(text: str) -> AssertTask | OutputTask | None:
    """Return the task of a record's `test_case`, or None where its form is none of the known ones."""
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if isinstance(value, str):
        return _asserts(value, None)
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return _asserts("\n".join(value), None)
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("test_code"), str):
        return _asserts(value["test_code"], value.get("test_entry_point") or None)
    return _inputs_and_outputs(value)


def _asserts(tests: str, entry: Any) -> AssertTask | None:
    if "assert" not in tests or not isinstance(entry, str | None):
        return None
    return AssertTask(id="test_case", tests=_SOLUTION.sub("", tests), entry_point=entry)


def _inputs_and_outputs(value: dict[str, Any]) -> OutputTask | None:
    inputs, outputs, name = value.get("inputs"), value.get("outputs"), value.get("fn_name")
    if not (isinstance(inputs, list) and isinstance(outputs, list) and isinstance(name, str | None)):
        return None
    if name:
        # LiveCodeBench's form of a function's tests: one argument a line, as JSON.
        inputs = ["\n".join(json.dumps(part) for part in item) if isinstance(item, list) else item for item in inputs]
        outputs = [item if isinstance(item, str) else json.dumps(item) for item in outputs]
    try:
        return OutputTask(id="test_case", inputs=tuple(map(_text, inputs)), outputs=tuple(map(_text, outputs)),
                          entry_point=name or None)
    except ValueError:
        return None


def _text(item: Any) -> str:
    if isinstance(item, list):
        return "\n".join(str(part) for part in item)
    return item if isinstance(item, str) else json.dumps(item)


