"""Verdicts kept on disk, so that records are scored again without being graded again.

The key is a hash of the grader's version and its packages', the answer type, options, gold, finish reason and text:
whatever can move a verdict. Verdicts in which a time or memory limit had a part are not kept.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import TracebackType

from evaluation.graders.kept_rows import KeptRows
from evaluation.graders.math import MathGrader, Verdict, grader_versions
from evaluation.problem import Problem
from foundation.files import canonical_json

_LENGTH = 4  # outcome, extracted, rule, reason


class VerdictCache:
    """Context manager around a cache file; several processes may append to one file."""

    def __init__(self, path: Path, grader: MathGrader) -> None:
        self.path, self.grader = path, grader
        self.hits = self.misses = 0
        self._kept = KeptRows(path)
        self._problems: dict[Problem, hashlib._Hash] = {}
        self._versions = canonical_json(grader_versions())

    def __enter__(self) -> VerdictCache:
        """Read what is known.

        Raises:
            StorageError: the file cannot be written.
        """
        self._kept.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._kept.__exit__(kind, error, trace)

    def grade(self, problem: Problem, text: str, finish_reason: str = "stop") -> Verdict:
        """Return the stored verdict, or grade and store it.

        Raises:
            GoldError: the gold answer does not parse.
        """
        key = self._key(problem, text, finish_reason)
        known = self._kept.rows.get(key)
        if known is not None and len(known) == _LENGTH:
            self.hits += 1
            return Verdict(known[0], known[1], known[2], known[3], 0.0)
        self.misses += 1
        verdict = self.grader.grade(problem, text, finish_reason)
        if verdict.settled:
            self._kept.add(key, verdict.outcome, verdict.extracted, verdict.rule, verdict.reason)
        return verdict

    def _key(self, problem: Problem, text: str, finish_reason: str) -> str:
        base = self._problems.get(problem)
        if base is None:
            graded = [self._versions, problem.answer_type, problem.gold, *problem.options]
            base = self._problems[problem] = hashlib.sha256(json.dumps(graded).encode())
        digest = base.copy()
        digest.update(f"\x00{finish_reason}\x00{text}".encode(errors="surrogatepass"))
        return digest.hexdigest()
