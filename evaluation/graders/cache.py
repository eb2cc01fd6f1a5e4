"""Verdicts kept on disk, so that records are scored again without being graded again.

The key is a hash of the grader's version and its packages', the answer type, options, gold, finish reason and text:
whatever can move a verdict. Verdicts in which a time or memory limit had a part are not kept. The file is JSON lines,
appended to and flushed; a last line cut off by a kill is ignored.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import TracebackType
from typing import IO

from evaluation.graders.math import MathGrader, Verdict, grader_versions
from evaluation.problem import Problem
from foundation.files import canonical_json, storage_error


class VerdictCache:
    """Context manager around a cache file; several processes may append to one file."""

    def __init__(self, path: Path, grader: MathGrader) -> None:
        self.path, self.grader = path, grader
        self.hits = self.misses = 0
        self._known: dict[str, tuple[str, str | None, str | None, str]] = {}
        self._problems: dict[Problem, hashlib._Hash] = {}
        self._versions = canonical_json(grader_versions())
        self._file: IO[str] | None = None

    def __enter__(self) -> VerdictCache:
        """Read what is known.

        Raises:
            StorageError: the file cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+", encoding="utf-8", errors="surrogatepass")
        except OSError as error:
            raise storage_error(error, self.path) or error from error
        self._file.seek(0)
        content = self._file.read()
        for line in content.splitlines():
            try:
                key, *verdict = json.loads(line)
                outcome, extracted, rule, reason = verdict
            except ValueError:
                continue
            self._known[key] = (outcome, extracted, rule, reason)
        if content and not content.endswith("\n"):
            self._file.write("\n")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def grade(self, problem: Problem, text: str, finish_reason: str = "stop") -> Verdict:
        """Return the stored verdict, or grade and store it.

        Raises:
            GoldError: the gold answer does not parse.
        """
        key = self._key(problem, text, finish_reason)
        known = self._known.get(key)
        if known is not None:
            self.hits += 1
            return Verdict(*known, 0.0)  # type: ignore[arg-type]
        self.misses += 1
        verdict = self.grader.grade(problem, text, finish_reason)
        if verdict.settled and self._file is not None:
            self._known[key] = (verdict.outcome, verdict.extracted, verdict.rule, verdict.reason)
            self._file.write(json.dumps([key, *self._known[key]]) + "\n")
            self._file.flush()
        return verdict

    def _key(self, problem: Problem, text: str, finish_reason: str) -> str:
        base = self._problems.get(problem)
        if base is None:
            graded = [self._versions, problem.answer_type, problem.gold, *problem.options]
            base = self._problems[problem] = hashlib.sha256(json.dumps(graded).encode())
        digest = base.copy()
        digest.update(f"\x00{finish_reason}\x00{text}".encode(errors="surrogatepass"))
        return digest.hexdigest()
