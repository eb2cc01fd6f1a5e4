"""The phases a method can declare. They are data: the suite's plan turns each into a hashed step.

Checkpoints and data go by names: `M0` the base, `M1` the shared warm-up, `pool` the domain's examples; each phase
names what it makes (`out`), and later phases use that name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from baselines.selection import Selection
from baselines.settings import Departures, EntropySettings, JointTraining, LoRA
from foundation.errors import InputError

POOL = "pool"


def checkpoint_name(epoch: int) -> str:
    """Return the paper's name of a checkpoint: M0 the base, M1 after the SFT warm-up, M2 after the next phase."""
    return f"M{epoch}"


FULL_EPOCH = 218
"""Updates of the paper's warm-up; its checkpoints inside the epoch are named after them (B.5, Table 3)."""
SNAPSHOTS = (50, 100, 150, 200)


def snapshot_name(update: int) -> str:
    """Return the name of the warm-up's checkpoint at that update of the paper's 218 (elsewhere: that fraction).

    Raises:
        InputError: no checkpoint is kept there.
    """
    if update == FULL_EPOCH:
        return checkpoint_name(1)
    if update not in SNAPSHOTS:
        raise InputError(f"no checkpoint of the warm-up is kept at update {update}; choose one of: "
                         f"{', '.join(map(str, (*SNAPSHOTS, FULL_EPOCH)))} (of {FULL_EPOCH})")
    return f"M1/ck-{update}"


BASE = checkpoint_name(0)
WARMUP = checkpoint_name(1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """Compute the length-normalised entropy (Eq. 7) of each pool example under a checkpoint."""

    of: str
    entropy: EntropySettings = field(default_factory=EntropySettings)


@dataclass(frozen=True, kw_only=True, slots=True)
class Select:
    """Draw the active set from the entropies of two checkpoints (Eq. 8, 9)."""

    strong: str
    weak: str
    selection: Selection
    draw: int = 0
    """Number of the draw: each iteration of K > 1 has its own random stream (A-81)."""
    out: str = "active"


@dataclass(frozen=True, kw_only=True, slots=True)
class Subset:
    """Take `size` examples of the pool, the same for every method that asks for as many (E.2, A-14)."""

    size: int
    out: str = "subset"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Sample `n` replies to each prompt from a checkpoint, and grade them once."""

    of: str
    out: str
    prompts: str = POOL
    """`pool`, a Subset's name, or a Hint's: then the hinted prompts are answered."""
    n: int
    temperature: float
    top_k: int = 0
    """0: off."""
    top_p: float = 1.0
    max_tokens: int | None = None
    """Prompt and reply together; None: the training length (A-32, A-42)."""
    max_new_tokens: int | None = None
    """A further limit on the reply; None: no further one."""

    def __post_init__(self) -> None:
        """Refuse samplings that cannot be meant.

        Raises:
            InputError: n < 1, a negative temperature, or temperature 0 with n > 1 (equal replies).
        """
        if self.n < 1:
            raise InputError(f"a sampling phase asks for n = {self.n} replies a prompt; it must be at least 1")
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"a sampling phase has temperature {self.temperature}; it must be 0 (greedy) or more")
        if self.temperature == 0 and self.n > 1:
            raise InputError(f"a sampling phase asks for n = {self.n} replies at temperature 0: they would all be the "
                             "same; raise the temperature or set n to 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Make (chosen, rejected) pairs.

    `verified`: first verified correct and first verified incorrect rollout in sampling order (B.9).
    `gold_first`: the pool's completion against the first sampled reply (SPIN).
    """

    rollouts: str
    out: str
    rule: Literal["verified", "gold_first"]
    incorrect: Literal["finished_and_false", "any_false"] = "finished_and_false"
    """A-43."""
    drop_correct: bool = False
    """A-33: leave out sampled replies that are right."""
    overlength: Literal["truncate_right", "drop"] = "truncate_right"
    """A-35."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hint:
    """Keep prompts with a correct and an incorrect rollout; show both to the teacher in a hinted prompt (SSB)."""

    rollouts: str
    out: str
    incorrect: Literal["majority_wrong", "first"] = "majority_wrong"
    """A-47."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Distil:
    """Keep the teacher's right replies and store its largest logits under the hinted prompt."""

    of: str
    replies: str
    out: str
    top_k: int
    temperature: float
    """At which the mass outside the top k is recorded."""
    prompt: Literal["chat_template", "concat"] = "chat_template"
    """A-48: how the student sees the problem."""
    terminator: Literal["append", "none"] = "append"
    """A-49."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    """Train `strong` (and `weak`, when there is one) and keep the strong branch under the name `out`."""

    strong: str
    out: str
    weak: str | None = None
    weak_out: str | None = None
    """Name of the trained weak branch, where something asks for it (A-70, A-80)."""
    reference: str | None = None
    """A frozen model whose branch (or log-probabilities, for pairs) the loss is given."""
    data: str = POOL
    """`pool`, or what a Subset, Select, Pair or Distil made."""
    epochs: int = 1
    joint: JointTraining | None = None
    """How a pair of models is trained; None for a single one."""
    step_matched: bool = False
    """Repeat the data until there are as many updates as the whole pool would give (A-67)."""
    departures: Departures = field(default_factory=Departures)
    """Where this phase leaves the shared protocol (E.5); printed under every table."""
    lora: LoRA | None = None
    """None: all parameters are trained."""
    trainer: Mapping[str, float] = field(default_factory=dict)
    """Further arguments of the library's trainer, by its own names."""

    def __post_init__(self) -> None:
        """Refuse trainings that cannot be meant.

        Raises:
            InputError: both a weak and a reference model, a weak result without a trained weak side, or no epoch.
        """
        if self.weak is not None and self.reference is not None:
            raise InputError(f"a training phase names a weak model ({self.weak}) and a reference ({self.reference}); "
                             "a loss is given one other branch: leave one of them out")
        if self.weak_out is not None and self.weak is None:
            raise InputError(f"a training phase keeps its weak branch as {self.weak_out!r} but has none; name one with "
                             "weak=..., or leave weak_out out")
        if self.epochs < 1:
            raise InputError(f"a training phase has epochs = {self.epochs}; it must be at least 1")


Phase = Score | Select | Subset | Sample | Pair | Hint | Distil | Train
