"""A step: a small frozen dataclass saying what is done, with which settings, from which other steps.

Its identity is the hash of its kind, the version of the code behind it, its settings, its parents and the minor
versions of the libraries it computes with. Paths, micro-batches and worker counts are no part of it: fields marked
`metadata=NOT_IDENTITY` are left out.

RAISE `version` of a kind whenever what its action computes changes: tests/test_versions.py keeps a recorded output
per kind.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import metadata
from typing import Any, ClassVar

from baselines.selection import Selection
from baselines.settings import DataSettings, EntropySettings, JointTraining, LoRA, LossSettings, TrainingSettings
from baselines.user_methods import Handle
from evaluation.backends.interface import Engine
from foundation.files import canonical_json
from foundation.prompts import PromptFormat

NOT_IDENTITY: dict[str, Any] = {"identity": False}
ADDED_LATER: dict[str, Any] = {"added_later": True}
"""Of a field that a kind of step got when there were results already: its default value is left out of the identity."""
TRAINING_LIBRARIES = ("torch", "transformers", "trl")
GRADING_LIBRARIES = ("math-verify", "latex2sympy2-extended", "sympy")
BACKEND_LIBRARIES = {"hf": (), "vllm": ("vllm",)}
"""What a generation backend computes with, beside what the step names itself."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """Base of all steps. Fields that are steps (or tuples of them) are parents; the rest are settings."""

    kind: ClassVar[str]
    version: ClassVar[int] = 1
    action: ClassVar[str]
    """`module:function` that runs it; imported only in a worker."""
    libraries: ClassVar[tuple[str, ...]] = ()
    threads: int = field(default=1, metadata=NOT_IDENTITY)
    """Compute threads; fixed by the scale, so that results do not depend on what runs beside."""
    hint_seconds: float = field(default=0.0, metadata=NOT_IDENTITY)
    """Expected duration on the reference machine, for order and estimate only."""

    @cached_property
    def parents(self) -> dict[str, Step]:
        """Map role to parent step; the members of a tuple field are numbered."""
        found: dict[str, Step] = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Step):
                found[f.name] = value
            elif isinstance(value, tuple) and value and isinstance(value[0], Step):
                found.update({f"{f.name}-{i}": parent for i, parent in enumerate(value)})
        return found

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The step's own settings, as plain data."""
        return {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self)
                if f.metadata.get("identity", True) and not _is_parent(getattr(self, f.name))
                and not (f.metadata.get("added_later") and getattr(self, f.name) == f.default)}

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that the hash covers."""
        return {
            "kind": self.kind,
            "version": self.version,
            "settings": self.settings,
            "parents": {role: parent.key for role, parent in self.parents.items()},
            "libraries": {name: minor_version(name) for name in
                          (*self.libraries, *BACKEND_LIBRARIES[getattr(self, "backend", "hf")])},
        }

    @cached_property
    def key(self) -> str:
        """The sha256 of the identity, in hex."""
        return hashlib.sha256(canonical_json(self.identity).encode()).hexdigest()

    @cached_property
    def id(self) -> str:
        """Short name, as printed and as folder: kind and the first digits of the key."""
        return f"{self.kind}-{self.key[:12]}"

    @property
    def label(self) -> str:
        """A few words for the progress display."""
        return self.kind


def of_domain(pool: Step) -> str:
    """Return what a label says of a pool's domain: nothing for math."""
    domain = getattr(pool, "domain", "math")
    return "" if domain == "math" else f" on {domain}"


def _is_parent(value: Any) -> bool:
    return isinstance(value, Step) or (isinstance(value, tuple) and bool(value) and isinstance(value[0], Step))


def plain(value: Any) -> Any:
    """Turn nested dataclasses and tuples into plain JSON data, without the fields that are no identity."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)
                if f.metadata.get("identity", True)}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    return value


@cache
def minor_version(package: str) -> str:
    """Return `major.minor` of an installed package, or `absent`."""
    try:
        return ".".join(metadata.version(package).split("+")[0].split(".")[:2])
    except metadata.PackageNotFoundError:
        return "absent"


def closure(targets: Iterable[Step]) -> list[Step]:
    """Return the targets and all they need, each once, parents before children."""
    ordered: dict[str, Step] = {}

    def visit(step: Step) -> None:
        if step.key not in ordered:
            for parent in step.parents.values():
                visit(parent)
            ordered[step.key] = step

    for target in targets:
        visit(target)
    return list(ordered.values())


def ancestors(step: Step) -> Iterator[Step]:
    """Yield the step and everything it comes from, nearest first."""
    yield from reversed(closure([step]))


# ---------------------------------------------------------------------------------------------- checkpoints and data


@dataclass(frozen=True, kw_only=True)
class TrainPhase(Step):
    """One training phase of a method: strong (and weak) branch, data, loss; keeps the strong branch."""

    kind = "train"
    action = "replication.actions.training:train_phase"
    libraries = TRAINING_LIBRARIES
    version = 3
    method: str
    method_version: int
    method_source: str | None = None
    """Hash of the file of a method from outside."""
    loss_settings: dict[str, Any]
    """What the loss depends on; the method itself travels beside, so that equal trainings are shared."""
    loss_of: Handle = field(metadata=NOT_IDENTITY)
    strong: Step
    weak: Step | None = None
    reference: Step | None = None
    pool: Step
    examples: Step | None = None
    """What is trained on: a subset or an active set of the pool, or stored targets; None: the whole pool."""
    epochs: int
    first_epoch: int = 0
    """Epochs that the strong branch has behind it: each epoch of a chain has an order of its own."""
    step_matched: bool = False
    prompt: PromptFormat
    data: DataSettings
    training: TrainingSettings
    loss: LossSettings
    joint: JointTraining | None = None
    lora: LoRA | None = None
    library_arguments: dict[str, Any] = field(default_factory=dict)
    snapshots: tuple[float, ...] = ()
    """Fractions of the updates after which the strong branch is also kept, for what looks inside an epoch."""
    seed: int
    out: str = field(default="M1", metadata=NOT_IDENTITY)
    title: str = field(default="", metadata=NOT_IDENTITY)

    @property
    def label(self) -> str:
        """Name the method, the checkpoint it makes, and the domain where it is not math."""
        return f"train {self.title} ({self.out}){of_domain(self.pool)}"


@dataclass(frozen=True, kw_only=True)
class ScoreEntropy(Step):
    """Entropy of every pool example under one checkpoint (Eq. 7)."""

    kind = "entropy"
    action = "replication.actions.training:score_entropy"
    libraries = TRAINING_LIBRARIES
    checkpoint: Step
    pool: Step
    prompt: PromptFormat
    data: DataSettings
    loss: LossSettings
    entropy: EntropySettings
    compute_dtype: str
    batch_tokens: int
    of: str = field(default="", metadata=NOT_IDENTITY)

    @property
    def label(self) -> str:
        """Name the checkpoint."""
        return f"entropy of {self.of}{of_domain(self.pool)}"


@dataclass(frozen=True, kw_only=True)
class SelectActive(Step):
    """WD-DS: draw the active set from two checkpoints' entropies (Eq. 8, 9)."""

    kind = "select"
    action = "replication.actions.training:select_active"
    strong: Step
    weak: Step
    selection: Selection
    seed: int
    draw: int

    @property
    def label(self) -> str:
        """Name the module."""
        return "select (WD-DS)"


# ------------------------------------------------------------------------------------------------------- evaluation


@dataclass(frozen=True, kw_only=True)
class Generate(Step):
    """Greedy answers of a checkpoint to a benchmark's problems, one record each."""

    kind = "generate"
    action = "replication.actions.evaluation:generate"
    libraries = ("torch", "transformers")
    checkpoint: Step
    problems: Step
    prompt: PromptFormat
    max_new_tokens: int
    max_prompt_tokens: int
    batch_size: int
    """Part of the identity: batched generation is not invariant to how batches are formed."""
    compute_dtype: str
    backend: str = field(default="hf", metadata=ADDED_LATER)
    """Part of the identity: the backends' texts differ by rounding."""
    engine: Engine = field(default=Engine(), metadata=NOT_IDENTITY)
    of: str = field(default="", metadata=NOT_IDENTITY)
    benchmark: str = field(default="", metadata=NOT_IDENTITY)

    @property
    def label(self) -> str:
        """Name the checkpoint and the benchmark."""
        return f"generate {self.of}: {self.benchmark}"


@dataclass(frozen=True, kw_only=True)
class Grade(Step):
    """Verdicts on the records of a Generate step; never generates anything."""

    kind = "grade"
    action = "replication.actions.evaluation:grade"
    libraries = GRADING_LIBRARIES
    records: Step
    problems: Step
    grader_version: int
    unsafe_code_execution: bool = field(default=False, metadata=NOT_IDENTITY)
    """Run programs even where no isolation works; the verdicts' notes say so."""
    of: str = field(default="", metadata=NOT_IDENTITY)
    benchmark: str = field(default="", metadata=NOT_IDENTITY)

    @property
    def label(self) -> str:
        """Name the checkpoint and the benchmark."""
        return f"grade {self.of}: {self.benchmark}"
