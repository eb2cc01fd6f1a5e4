"""Completions that were produced elsewhere, mapped to a benchmark's problems by their ids or their questions.

Three layouts: evalplus' samples.jsonl (`task_id` with `solution`, a whole program, or `completion`, what follows the
prompt), lm-eval's logged samples (`doc_id`, `doc`, `resps`, `filter`), and this suite's records (`id`, `text`).
Nothing is dropped: what cannot be read, names no problem or is one too many is returned with the reason, and problems
with too few samples are the caller's to count.
"""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from evaluation.benchmarks.loading import Benchmark
from evaluation.benchmarks.math import OPTIONS_HEADING
from evaluation.graders.code_extraction import Form
from evaluation.lines import Line
from evaluation.problem import Problem

_QUESTION_FIELDS = ("question", "problem", "Problem", "Question", "instruction", "query", "prompt", "question_content")


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion. `form`: a model's text, a whole program, or a program's continuation of the prompt."""

    text: str
    form: Form = "text"
    finish_reason: str = "stop"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something in the file that is no sample of a problem. `identity` is what the file calls it."""

    identity: Any
    outcome: Literal["unreadable", "unknown_id", "surplus"]
    reason: str


@dataclass(slots=True)
class Matched:
    """The samples of each problem, in file order, and everything that is not one."""

    samples: dict[str, list[Sample]]
    faults: list[Fault] = field(default_factory=list)

    def samples_per_problem(self) -> int:
        """Return the largest number of samples that a problem has."""
        return max((len(listed) for listed in self.samples.values()), default=0)


def match_samples(benchmark: Benchmark, problems: Sequence[Problem], lines: Iterable[Line],
                  samples: int | None = None) -> Matched:
    """Assign every line's completions to a problem.

    Args:
        benchmark: whose samples these are; its parser reads lm-eval's copies of its rows.
        problems: all of its problems.
        lines: the file.
        samples: how many of each problem to keep; more are `surplus`. None keeps all.
    """
    index = _Index(benchmark, problems)
    matched = Matched({problem.id: [] for problem in problems})
    for line in lines:
        if line.row is None:
            matched.faults.append(Fault(line.identity, "unreadable", line.trouble))
            continue
        identity = next((line.row[name] for name in ("id", "task_id", "doc_id") if name in line.row), None)
        try:
            completions = _completions(line.row)
        except ValueError as error:
            matched.faults.append(Fault(identity, "unreadable", f"line {line.number}: {error}"))
            continue
        if index.is_repeat_of_a_filter(line.row):
            continue
        found, reason = index.find(line.row)
        if found is None:
            matched.faults.append(Fault(identity, "unknown_id", f"line {line.number}: {reason}"))
            continue
        matched.samples[found].extend(completions)
    _cut_surplus(matched, samples)
    return matched


def _cut_surplus(matched: Matched, samples: int | None) -> None:
    if samples is None:
        return
    for identity, listed in matched.samples.items():
        for number in range(samples, len(listed)):
            matched.faults.append(Fault(identity, "surplus", f"sample {number + 1} of a problem that should have "
                                                             f"{samples}: not graded"))
        del listed[samples:]


def _completions(row: dict[str, Any]) -> list[Sample]:
    """Return a line's completions; one line of lm-eval can hold several.

    Raises:
        ValueError: it holds none, or log-likelihoods.
    """
    if "resps" in row:
        responses = row["resps"]
        flat = [text for group in responses for text in (group if isinstance(group, list) else [group])] if isinstance(
            responses, list) else []
        if not flat or not all(isinstance(text, str) for text in flat):
            raise ValueError("its 'resps' hold no generated text (log-likelihoods cannot be graded as answers)")
        return [Sample(text) for text in flat]
    forms: tuple[tuple[str, Form], ...] = (("solution", "solution"), ("completion", "completion"), ("text", "text"))
    for name, form in forms:
        if name in row:
            if not isinstance(row[name], str):
                raise ValueError(f"field {name!r} should be text, found {type(row[name]).__name__}")
            return [Sample(row[name], form, str(row.get("finish_reason", "stop")))]
    raise ValueError("has none of the fields 'resps', 'solution', 'completion', 'text'")


class _Index:
    """Finds the problem a line speaks of."""

    def __init__(self, benchmark: Benchmark, problems: Sequence[Problem]) -> None:
        self.benchmark, self.problems = benchmark, {problem.id: problem for problem in problems}
        counts = Counter(problem.source_id for problem in problems if problem.source_id)
        self.repeated = {name for name, count in counts.items() if count > 1}
        self.by_source = {problem.source_id: problem.id for problem in problems if problem.source_id}
        self.by_question: dict[str, list[str]] = defaultdict(list)
        for problem in problems:
            for key in {_key(problem.question), _key(problem.question.partition(OPTIONS_HEADING)[0])}:
                self.by_question[key].append(problem.id)
        self.documents: dict[Any, str] = {}
        self.filters: dict[Any, Any] = {}

    def is_repeat_of_a_filter(self, row: dict[str, Any]) -> bool:
        """lm-eval logs a document once per filter, each time with the same responses."""
        if "resps" not in row or "filter" not in row:
            return False
        document = row.get("doc_id")
        return self.filters.setdefault(document, row["filter"]) != row["filter"]

    def find(self, row: dict[str, Any]) -> tuple[str | None, str]:
        """Return the problem's id, or None and why there is none."""
        document = row.get("doc")
        names = [row.get("id"), row.get("task_id")]
        if isinstance(document, dict):
            names += [document.get(name) for name in ("id", "task_id", "question_id", "id_string")]
        for name in (str(name) for name in names if isinstance(name, str | int)):
            if name in self.problems:
                return name, ""
            if name in self.by_source:
                if name not in self.repeated:
                    return self.by_source[name], ""
                if not isinstance(document, dict):
                    return None, f"{self.benchmark.title} has two problems with the id {name!r}: use the suite's ids"
        if isinstance(document, dict):
            return self._by_question(row.get("doc_id"), document)
        named = next((name for name in names if name is not None), None)
        return None, f"{named!r} is no problem of {self.benchmark.title}"

    def _by_question(self, doc_id: Any, document: dict[str, Any]) -> tuple[str | None, str]:
        if doc_id in self.documents:
            return self.documents[doc_id], ""
        for key in self._keys(document):
            # Where one question stands twice, the first document with it is the first problem.
            free = [found for found in self.by_question.get(key, []) if found not in self.documents.values()]
            if free:
                self.documents[doc_id] = free[0]
                return free[0], ""
        return None, f"its document's question is none of {self.benchmark.title}"

    def _keys(self, document: dict[str, Any]) -> list[str]:
        keys = []
        with contextlib.suppress(ValueError, TypeError, AttributeError):  # another layout than the benchmark's own
            keys.append(_key(self.benchmark.parse(document).question))
        keys += [_key(document[name]) for name in _QUESTION_FIELDS if isinstance(document.get(name), str)]
        return keys


def _key(question: str) -> str:
    return "".join(question.split()).lower()
