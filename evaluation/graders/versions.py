"""The version of each domain's grader: part of the identity of everything that was graded."""

from __future__ import annotations

from evaluation.graders.code import CODE_GRADER_VERSION
from evaluation.graders.math import GRADER_VERSION
from foundation.prompts import Domain


def grader_version(domain: Domain | str) -> int:
    """Return the version of the grader of a domain's answers; logic has the one of mathematics."""
    return CODE_GRADER_VERSION if domain == "code" else GRADER_VERSION
