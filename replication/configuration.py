"""Everything a table's run can be told, as one frozen value; `--set section.field=value` changes a field.

Section and field names are those of `python -m replication.paper --assumptions` (ids A-nn): what the paper leaves
open can be set by name.
"""

from __future__ import annotations

import dataclasses
import math
import types
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from baselines.selection import Selection
from baselines.settings import DataSettings, EntropySettings, JointTraining, LossSettings, TrainingSettings
from foundation.errors import InputError
from foundation.prompts import PromptFormat
from replication.models import Model


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptSettings:
    """A-09 and A-10."""

    system: Literal["unified", "official", "none"] = "unified"
    """`official`: as the public code, none in the entropy pass and in WD-JT; `none`: none anywhere."""
    eos: Literal["template_eot", "tokenizer_eos"] = "template_eot"


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationSettings:
    """Greedy decoding (A-90); a prompt over the limit is an error (A-91)."""

    max_new_tokens: int | None = None
    """None: each benchmark's own budget (A-91)."""
    max_prompt_tokens: int = 4096
    batch_size: int = 64
    compute_dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        """Refuse sizes below one (InputError)."""
        _at_least_one("eval", max_new_tokens=self.max_new_tokens, max_prompt_tokens=self.max_prompt_tokens,
                      batch_size=self.batch_size)


def _at_least_one(section: str, **values: int | None) -> None:
    for name, value in values.items():
        if value is not None and value < 1:
            raise InputError(f"{section}.{name} is {value}; it must be at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class DiscrepancySelection:
    """WD-DS: Eq. 7 to 9 (A-60 to A-65)."""

    alpha: float
    beta: float
    gamma: float
    weighting: Literal["eq9", "official_termnorm", "eq9_termnorm"] = "eq9"
    difficulty: Literal["strong", "weak"] = "strong"
    dedup: bool = True
    entropy: Literal["paper", "official"] = "paper"
    dtype: Literal["fp32", "model"] = "fp32"
    degenerate: Literal["uniform", "error"] = "uniform"

    def __post_init__(self) -> None:
        """Refuse coefficients that are no weights (InputError)."""
        self.selection()

    def selection(self) -> Selection:
        """Return how examples are weighed and drawn."""
        return Selection(alpha=self.alpha, beta=self.beta, gamma=self.gamma, weighting=self.weighting,
                         difficulty=self.difficulty, dedup=self.dedup, degenerate=self.degenerate)

    def entropy_settings(self) -> EntropySettings:
        """Return how entropies are computed."""
        return EntropySettings(variant=self.entropy, dtype=self.dtype)


@dataclass(frozen=True, kw_only=True, slots=True)
class WmssSettings:
    """Which modules of WMSS run, and how often."""

    use_selection: bool = True
    """False: WD-JT on the full pool (Table 2)."""
    iterations: int = 1
    """K (A-83)."""
    steps: Literal["as_is", "refill"] = "as_is"
    """A-67."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainingSettings:
    """How the tiny base is made on the spot; other models bring their weights."""

    updates: int
    sequence_length: int
    learning_rate: float
    batch: int

    def __post_init__(self) -> None:
        """Refuse sizes below one (InputError); the optimisation settings check themselves."""
        _at_least_one("pretrain", updates=self.updates, sequence_length=self.sequence_length, batch=self.batch)
        self.training()

    def training(self) -> TrainingSettings:
        """Return the optimisation settings."""
        return TrainingSettings(learning_rate=self.learning_rate, global_batch=self.batch, micro_batch=self.batch)


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration:
    """All settings of a run, by section."""

    train: TrainingSettings
    second_epoch: TrainingSettings
    """Settings of every phase after the warm-up; the paper's are the same as `train`."""
    wdds: DiscrepancySelection
    loss: LossSettings = LossSettings()
    data: DataSettings = DataSettings()
    prompt: PromptSettings = PromptSettings()
    wdjt: JointTraining = JointTraining()
    wmss: WmssSettings = WmssSettings()
    eval: EvaluationSettings = EvaluationSettings()
    pretrain: PretrainingSettings | None = None

    def prompt_format(self, model: Model) -> PromptFormat:
        """Return the prompt of a model under these settings."""
        return PromptFormat(
            style=model.style,
            system=None if self.prompt.system == "none" else model.system,
            terminator=model.terminator if self.prompt.eos == "template_eot" else model.end_of_text,
            tokenise=self.data.tokenise,
        )


def with_changes(configuration: Configuration, changes: list[str]) -> Configuration:
    """Return the configuration with `section.field=value` changes applied in order.

    A change of `train.x` holds for both epochs, unless a later one sets `second_epoch.x`.

    Raises:
        InputError: an unknown name (the valid ones are listed) or a value that is not allowed.
    """
    for change in changes:
        name, equals, value = change.partition("=")
        section, dot, field_name = name.strip().partition(".")
        if not (equals and dot):
            raise InputError(f"--set {change!r} is not of the form section.field=value")
        for part in ("train", "second_epoch") if section == "train" else (section,):
            configuration = _changed(configuration, part, field_name, value.strip())
    return configuration


def _changed(configuration: Configuration, section: str, field_name: str, value: str) -> Configuration:
    sections = [f.name for f in dataclasses.fields(configuration) if getattr(configuration, f.name) is not None]
    if section not in sections:
        raise InputError(f"--set {section}.{field_name}: no section {section!r}; sections: {', '.join(sections)}")
    part = getattr(configuration, section)
    names = [f.name for f in dataclasses.fields(part)]
    if field_name not in names:
        raise InputError(f"--set {section}.{field_name}: no such setting; {section} has: {', '.join(names)}")
    hint = get_type_hints(type(part))[field_name]
    parsed = _parsed(hint, value, f"{section}.{field_name}")
    changed = dataclasses.replace(part, **{field_name: parsed})
    if isinstance(parsed, float) and not math.isfinite(parsed):
        raise InputError(f"{section}.{field_name} is {parsed}; it must be a finite number")
    return dataclasses.replace(configuration, **{section: changed})


def is_setting(name: str) -> bool:
    """Say whether `section.field` can be set in this version."""
    section, _, field_name = name.partition(".")
    part = get_type_hints(Configuration).get(section)
    return part is not None and field_name in getattr(part, "__dataclass_fields__", {})


def _parsed(hint: Any, text: str, name: str) -> Any:
    """Parse a value by its field's type."""
    if get_origin(hint) in (Union, types.UnionType):
        options = [option for option in get_args(hint) if option is not type(None)]
        return None if text.lower() == "none" else _parsed(options[0], text, name)
    if get_origin(hint) is Literal:
        choices = {str(choice): choice for choice in get_args(hint)}
        if text not in choices:
            raise InputError(f"{name} is {text!r}; choose one of: {', '.join(choices)}")
        return choices[text]
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise InputError(f"{name} is {text!r}; choose true or false")
        return text.lower() == "true"
    try:
        return hint(text)
    except ValueError as error:
        raise InputError(f"{name} is {text!r}; expected {hint.__name__}") from error
