"""What the steps that grade programs share: a grader in isolation, and verdicts that survive a kill."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from evaluation.graders.code import CodeGrader
from evaluation.graders.records import ProgramGrader, packages_for
from evaluation.isolation import find_isolation
from replication.worker import Job


@contextmanager
def program_grader(job: Job, styles: Iterable[str]) -> Iterator[ProgramGrader]:
    """Yield a grader for programs of these benchmarks, with as many workers as the step has threads.

    Raises:
        PrerequisiteError: no isolation works here and the step does not waive it.
    """
    isolation = find_isolation(unsafe=job.step.unsafe_code_execution)
    with (CodeGrader(isolation, workers=job.step.threads, packages=packages_for(styles)) as grader,
          ProgramGrader(grader, job.scratch / "programs.jsonl") as programs):
        yield programs
