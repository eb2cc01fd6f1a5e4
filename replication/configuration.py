"""Everything a table's run can be told, as one frozen value; `--set section.field=value` changes a field.

Section and field names are those of `python -m replication.paper --assumptions` (ids A-nn): what the paper leaves
open can be set by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_type_hints

from baselines import METHODS
from baselines.interface import Method
from baselines.settings import DataSettings, LossSettings, TrainingSettings
from evaluation.backends.interface import Engine
from foundation.errors import InputError
from foundation.prompts import Domain, PromptFormat, system_prompt
from replication.models import Model
from replication.rows import changed, owner, sections
from replication.settings_text import parsed


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
    backend: Literal["hf", "vllm"] = "hf"

    def __post_init__(self) -> None:
        """Refuse sizes below one (InputError)."""
        _at_least_one("eval", max_new_tokens=self.max_new_tokens, max_prompt_tokens=self.max_prompt_tokens,
                      batch_size=self.batch_size)


def _at_least_one(section: str, **values: int | None) -> None:
    for name, value in values.items():
        if value is not None and value < 1:
            raise InputError(f"{section}.{name} is {value}; it must be at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutSettings:
    """How rollouts are produced; sampling itself is the methods' business."""

    batch_size: int = 64
    backend: Literal["hf", "vllm"] = "hf"

    def __post_init__(self) -> None:
        """Refuse a batch below one (InputError)."""
        _at_least_one("rollouts", batch_size=self.batch_size)


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainingSettings:
    """How the tiny base is made on the spot; other models bring their weights."""

    updates: int
    sequence_length: int
    learning_rate: float
    batch: int
    adam_beta2: float = 0.98
    """Lower than in fine-tuning: a thousand updates are a short time to average over."""

    def __post_init__(self) -> None:
        """Refuse sizes below one (InputError); the optimisation settings check themselves."""
        _at_least_one("pretrain", updates=self.updates, sequence_length=self.sequence_length, batch=self.batch)
        self.training()

    def training(self) -> TrainingSettings:
        """Return the optimisation settings."""
        return TrainingSettings(learning_rate=self.learning_rate, global_batch=self.batch, micro_batch=self.batch,
                                adam_beta2=self.adam_beta2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration:
    """All settings of a run, by section."""

    train: TrainingSettings
    second_epoch: TrainingSettings
    """Settings of every phase after the warm-up; the paper's are the same as `train`."""
    loss: LossSettings = LossSettings()
    data: DataSettings = DataSettings()
    prompt: PromptSettings = PromptSettings()
    rollouts: RolloutSettings = RolloutSettings()
    eval: EvaluationSettings = EvaluationSettings()
    engine: Engine = Engine()
    """How a vLLM engine uses its GPUs; moves no text but by rounding."""
    pretrain: PretrainingSettings | None = None
    methods: tuple[str, ...] = ()
    """Changes of methods' settings, `section.field=value`; the methods' own files hold the defaults."""

    def prompt_format(self, model: Model, domain: Domain = "math") -> PromptFormat:
        """Return the prompt of a model in a domain under these settings."""
        spoken = model.system is not None and self.prompt.system != "none"
        return PromptFormat(
            style=model.style,
            system=system_prompt(model.style, domain) if spoken else None,
            terminator=model.terminator if self.prompt.eos == "template_eot" else model.end_of_text,
            tokenise=self.data.tokenise,
        )


def with_changes(configuration: Configuration, changes: list[str],
                 registry: Mapping[str, type[Method]] = METHODS) -> Configuration:
    """Return the configuration with `section.field=value` changes applied in order.

    A change of `train.x` holds for both epochs, unless a later one sets `second_epoch.x`. Sections of methods
    (`spin.beta`, `wdjt.mix_weight`) change every row of that method.

    Raises:
        InputError: an unknown name (the valid ones are listed) or a value that is not allowed.
    """
    for change in changes:
        name, equals, value = change.partition("=")
        section, dot, field_name = name.strip().partition(".")
        if not (equals and dot):
            raise InputError(f"--set {change!r} is not of the form section.field=value")
        if (method := owner(registry, section)) is not None:
            changed(registry[method](), method, name.strip(), value.strip())
            text = f"{name.strip()}={value.strip()}"
            configuration = dataclasses.replace(configuration, methods=(*configuration.methods, text))
            continue
        for part in ("train", "second_epoch") if section == "train" else (section,):
            configuration = _changed(configuration, part, field_name, value.strip(), registry)
    return configuration


def _changed(configuration: Configuration, section: str, field_name: str, value: str,
             registry: Mapping[str, type[Method]]) -> Configuration:
    known = [f.name for f in dataclasses.fields(configuration)
             if dataclasses.is_dataclass(getattr(configuration, f.name))]
    if section not in known:
        known += [name for method, chosen in registry.items() for name in sections(method, chosen)]
        raise InputError(f"--set {section}.{field_name}: no section {section!r}; sections: {', '.join(known)}")
    part = getattr(configuration, section)
    names = [f.name for f in dataclasses.fields(part)]
    if field_name not in names:
        raise InputError(f"--set {section}.{field_name}: no such setting; {section} has: {', '.join(names)}")
    value_of = parsed(get_type_hints(type(part))[field_name], value, f"{section}.{field_name}")
    return dataclasses.replace(configuration, **{section: dataclasses.replace(part, **{field_name: value_of})})


def is_setting(name: str) -> bool:
    """Say whether `section.field` can be set in this version."""
    section, _, field_name = name.partition(".")
    if (method := owner(METHODS, section)) is not None:
        chosen = METHODS[method]
        parts = [chosen] if section == method else [type(getattr(chosen(), p)) for p in chosen.sections[section]]
        return any(field_name in part.__dataclass_fields__ for part in parts)
    part = get_type_hints(Configuration).get(section)
    return part is not None and field_name in getattr(part, "__dataclass_fields__", {})
