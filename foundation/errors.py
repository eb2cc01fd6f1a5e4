"""The errors a user can meet. Each says what happened, where, with the value, and what to do.

The command line prints a `SuiteError` without a traceback and ends with its exit code; anything else is a defect
of the suite and keeps its traceback.
"""


class SuiteError(Exception):
    """Base of all errors meant for the user."""

    exit_code = 2


class InputError(SuiteError, ValueError):
    """A name, value or data file of the user's that cannot be used."""


class PrerequisiteError(SuiteError, RuntimeError):
    """Something the machine lacks: hardware, a package, a data file. The message names how to get it."""


class UnreachableError(PrerequisiteError):
    """A server that does not answer: whatever else it is asked will fail in the same way."""


class ArtifactError(SuiteError, RuntimeError):
    """A stored artifact that is damaged, incomplete or from another version."""


class GoldError(SuiteError, ValueError):
    """A gold answer that does not parse: an error of the suite or its data, never a wrong answer of the model."""


class GraderError(SuiteError, RuntimeError):
    """A grader that failed even when retried alone: the run is incomplete, nothing is scored 0."""


class TrainingError(SuiteError, RuntimeError):
    """Training that cannot go on: a loss that is NaN or infinite, or nothing to train on."""


class GenerationError(SuiteError, RuntimeError):
    """A generation backend that gave up on a sequence: the run is incomplete, nothing is scored 0."""


class ProcessError(SuiteError, RuntimeError):
    """A process that ended without a word: killed, most often for want of memory. Running again may well succeed."""

    exit_code = 1


class StorageError(SuiteError, RuntimeError):
    """The disk is full, read-only or otherwise refuses a write."""
