"""Verdicts on generated programs: a model's text and an upstream row in, one of the four outcomes out.

The program is extracted, run against the row's tests by the code grader, on several workers, and each verdict can be
kept in a file as soon as it is there: a grading that is killed anywhere and begun again repeats what was in work at
that moment and nothing else. What went wrong with the grading itself is never kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

from evaluation.graders.code import CodeGrader, CodeVerdict
from evaluation.graders.code_extraction import Form, Program, program_of
from evaluation.graders.code_tasks import code_task
from evaluation.graders.in_order import in_order
from evaluation.graders.kept_rows import KeptRows
from evaluation.graders.math import Outcome
from foundation.errors import GraderError, SuiteError

_EXTRACTED = 4096  # characters of a program that a verdict shows
_NEVER_KEPT = ("grader_failure", "not_runnable")
_OUTCOMES: Mapping[str, Outcome] = {"pass": "correct", "no_code": "no_answer", "grader_failure": "grader_failure",
                                    "not_runnable": "grader_failure"}  # all others are wrong answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What is to be graded. `style` is the code benchmark whose rows `row` is one of, `text` is of the form `form`."""

    style: str
    row: Mapping[str, Any] = field(repr=False)
    text: str = field(repr=False)
    form: Form = "text"
    finish_reason: str = "stop"


@dataclass(frozen=True, slots=True)
class ProgramVerdict:
    """What became of one submission, in the words that math verdicts use.

    `reason` begins with the code grader's outcome where that says more ("timeout: ..."). `base_correct` tells, for
    HumanEval+ and MBPP+, whether the original tests passed.
    """

    outcome: Outcome
    extracted: str | None
    rule: str | None
    reason: str
    seconds: float = 0.0
    base_correct: bool | None = None

    def to_row(self, identity: Any) -> dict[str, Any]:
        """Return the JSON form that verdict files hold."""
        return {"id": identity, "outcome": self.outcome, "extracted": self.extracted, "rule": self.rule,
                "reason": self.reason}


def packages_for(styles: Iterable[str]) -> tuple[str, ...]:
    """Return the packages that programs of these benchmarks may import: all of them where BigCodeBench is one."""
    return ("*",) if "bigcodebench" in set(styles) else ("numpy",)


class ProgramGrader:
    """Context manager around a code grader, whose owner ends it, and the file of verdicts.

    Args:
        grader: it runs the programs; its `workers` are used.
        kept: the file; None keeps nothing.

    Raises:
        StorageError: on entering, the file cannot be written.
    """

    def __init__(self, grader: CodeGrader, kept: Path | None = None) -> None:
        self.grader = grader
        self.repeated = 0
        self._kept = None if kept is None else KeptRows(kept)
        self._settings = json.dumps([grader.verdict_settings(), version("numpy")], sort_keys=True)

    def __enter__(self) -> ProgramGrader:
        if self._kept is not None:
            self._kept.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._kept is not None:
            self._kept.__exit__(kind, error, trace)

    def grade_all(self, submissions: Iterable[Submission]) -> Iterator[ProgramVerdict]:
        """Yield the verdicts in the order of the submissions; each is kept when it is there, not when it is yielded."""
        return in_order(self.grade, submissions, self.grader.workers)

    def grade(self, submission: Submission) -> ProgramVerdict:
        """Return the verdict on one submission. Nothing that is in it raises.

        Raises:
            StorageError: the file of verdicts cannot be written.
        """
        row = submission.row
        entry = row.get("entry_point")
        prompt = row.get("complete_prompt") or row.get("prompt") or ""
        program = program_of(submission.form, submission.text, prompt, entry if isinstance(entry, str) else None)
        truncated = submission.finish_reason == "length"
        if program is None or (truncated and not program.complete):
            return ProgramVerdict("no_answer", None, None,
                                  "truncated before the end of a program" if truncated else "no program found")
        verdict = self._kept_or_run(submission, program)
        outcome = _OUTCOMES.get(verdict.outcome, "wrong")
        reason = verdict.reason if verdict.outcome in ("pass", "wrong") else f"{verdict.outcome}: {verdict.reason}"
        return ProgramVerdict(outcome, program.code[:_EXTRACTED], program.rule,
                              reason + (" (truncated)" if truncated and outcome == "wrong" else ""), verdict.seconds,
                              verdict.base_correct)

    def _kept_or_run(self, submission: Submission, program: Program) -> CodeVerdict:
        if self._kept is None:
            return self._run(submission, program.code)
        key = self._key(submission, program.code)
        known = self._kept.rows.get(key)
        if known is not None:
            with contextlib.suppress(TypeError):  # a row of another version of this file
                verdict = CodeVerdict(*known)
                self.repeated += 1
                return verdict
        verdict = self._run(submission, program.code)
        if verdict.outcome not in _NEVER_KEPT:
            self._kept.add(key, verdict.outcome, verdict.reason, round(verdict.seconds, 6), verdict.mode,
                           verdict.base_correct, verdict.retried)
        return verdict

    def _run(self, submission: Submission, code: str) -> CodeVerdict:
        try:
            task = code_task(submission.style, dict(submission.row))
        except Exception as error:  # rows are data from elsewhere: whatever is wrong with one, the others are graded
            return CodeVerdict("grader_failure", f"the task cannot be read ({type(error).__name__}: {error})", 0.0)
        try:
            return self.grader.grade(task, code)
        except SuiteError:
            raise
        except Exception as error:  # nor must a program nobody thought of end the other programs' grading
            return CodeVerdict("grader_failure", f"the grader failed ({type(error).__name__}: {error})", 0.0)

    def _key(self, submission: Submission, code: str) -> str:
        """A hash of everything that can move the verdict."""
        digest = hashlib.sha256(self._settings.encode())
        for part in (submission.style, json.dumps(submission.row, sort_keys=True, default=str), code):
            digest.update(b"\x00" + part.encode(errors="surrogatepass"))
        return digest.hexdigest()




def grade_records(benchmark: str, rows: Mapping[str, Mapping[str, Any]], records: Iterable[Mapping[str, Any]],
                  programs: ProgramGrader) -> Iterator[dict[str, Any]]:
    """Yield a verdict row `{"id", "outcome", "extracted", "rule", "reason"}` for each record, in their order.

    Args:
        benchmark: the code benchmark's name.
        rows: the upstream row of each problem id.
        records: `{"id", "text", "finish_reason", ...}`.
        programs: an entered grader.

    Raises:
        GraderError: a record has no row.
    """
    listed = list(records)
    unknown = [record["id"] for record in listed if record["id"] not in rows]
    if unknown:
        raise GraderError(f"{len(unknown)} of {len(listed)} records belong to no task of {benchmark} "
                          f"(first: {unknown[0]!r})")
    submissions = (Submission(style=benchmark, row=rows[record["id"]], text=record["text"],
                              finish_reason=record["finish_reason"]) for record in listed)
    for record, verdict in zip(listed, programs.grade_all(submissions), strict=True):
        yield verdict.to_row(record["id"])
