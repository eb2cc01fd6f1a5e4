"""Generated programs are run by the steps that grade code: isolation is asked for before anything else runs."""

from __future__ import annotations

from collections.abc import Iterable

from evaluation.benchmarks import benchmark
from evaluation.isolation import find_isolation
from replication.rollout_steps import GradeReplies
from replication.source_steps import BuildPool, LoadProblems
from replication.steps import Grade, Step


def runs_programs(step: Step) -> bool:
    """Whether a step runs programs that a model wrote."""
    if isinstance(step, Grade):
        return isinstance(step.problems, LoadProblems) and benchmark(step.problems.benchmark).domain == "code"
    return isinstance(step, GradeReplies) and isinstance(step.pool, BuildPool) and step.pool.domain == "code"


def require_isolation(steps: Iterable[Step], *, unsafe: bool) -> None:
    """Refuse steps that run programs where no isolation works; where that is waived, warn loudly.

    Raises:
        PrerequisiteError: no isolation works here and `unsafe` is not set.
    """
    if any(map(runs_programs, steps)):
        find_isolation(unsafe=unsafe)
