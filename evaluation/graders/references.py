"""Does the code grader accept a benchmark's own reference solutions, and what does this machine lack to run them?

A reference is right, so what keeps it from running here is no failure: a package or data file that is not installed,
the network, a program of the shell. Such tasks are "not runnable", with what they lack.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from evaluation.benchmarks.code import CodeTask
from evaluation.graders.code import CodeGrader, CodeVerdict
from evaluation.graders.code_tasks import code_task

# What the end of a run looks like when something is not there; the first group is its name.
_LACKING = (
    ("package", re.compile(r"No module named '([\w]+)")),
    ("package", re.compile(r"Missing optional dependency '([\w.-]+)'")),
    ("package", re.compile(r"`Import ([\w.-]+)` failed")),
    ("package", re.compile(r"ImportError: ([\w-]+) is required\b")),
    ("nltk data", re.compile(r"LookupError: .*?Resource (?:\x1b\[\d+m)?\W*(\w+)")),
    ("shell program", re.compile(r"No such file or directory: '(?:/usr)?(?:/bin/)?([\w+-]+)'")),
    ("the network", re.compile(r"gaierror|[nN]ame resolution|Network is unreachable|NameResolutionError|Max retries|"
                               r"urlopen error|Failed to establish a new connection|Connection refused")),
)


@dataclass(slots=True)
class ReferenceReport:
    """How many references were run and passed; ids by what they lack here; ids with reasons of those not accepted."""

    passed: int = 0
    lacking: dict[str, list[str]] = field(default_factory=dict)
    rejected: list[tuple[str, str]] = field(default_factory=list)

    @property
    def not_runnable(self) -> int:
        """How many tasks lack something, each counted once."""
        return len({name for names in self.lacking.values() for name in names})


def run_references(benchmark: str, tasks: Sequence[CodeTask], grader: CodeGrader,
                   on_done: Callable[[], None] = lambda: None) -> ReferenceReport:
    """Run the reference solution of each task and sort what became of it."""
    report = ReferenceReport()
    verdicts = grader.grade_all((code_task(benchmark, task.row), task.problem.gold) for task in tasks)
    for task, verdict in zip(tasks, verdicts, strict=True):
        identity = task.problem.source_id or task.problem.id
        lacking = lacks(verdict)
        if verdict.correct:
            report.passed += 1
        elif lacking:
            for what in lacking:
                report.lacking.setdefault(what, []).append(identity)
        else:
            report.rejected.append((identity, f"{verdict.outcome}, {verdict.reason}"))
        on_done()
    return report


def lacks(verdict: CodeVerdict) -> list[str]:
    """Return what a reference that did not pass lacks here; nothing where it failed for another reason."""
    if verdict.outcome == "not_runnable":
        return [f"package {name}" for name in verdict.reason.partition(": ")[2].split(", ")]
    if verdict.outcome not in ("wrong", "exception"):
        return []
    for kind, pattern in _LACKING:
        found = pattern.search(verdict.reason)
        if found:
            return [f"{kind} {found[1]}" if found.groups() else kind]
    return []
