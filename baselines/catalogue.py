"""What each method says of itself, as plain data: objective, phases, settings with their sources, named rows.

Nothing is written here a second time: titles, objectives and variants are the methods' own, phases come from
`phases()` under the defaults (the paper's values), and the rest from what `baselines.declare.setting` puts on fields.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from baselines.interface import Method
from baselines.phases import Distil, Hint, Pair, Phase, Sample, Score, Select, Subset, Train

_ROOT = Path(__file__).resolve().parent.parent
_AT_OTHER_SCALES = {"learning_rate": "shared rate", "global_batch": "shared batch", "pool": "pool size",
                    "length": "length limit"}


@dataclass(frozen=True, kw_only=True, slots=True)
class SettingEntry:
    """One setting of a method."""

    name: str
    """`section.field`, as on the command line."""
    default: Any
    hint: Any
    """Its type."""
    place: str
    """Where the paper prints the value; empty where it does not."""
    paper: str
    """Name among the paper's hyperparameters, or empty."""
    ambiguity: str
    """Id of the open question it answers, or empty."""
    other_readings: tuple[str, ...]
    note: str
    """What becomes of it elsewhere: at other scales, with a base that writes no answers."""

    @property
    def value(self) -> str:
        """The default as on the command line."""
        return as_text(self.default)

    @property
    def source(self) -> str:
        """Section of the paper and open question."""
        return ", ".join(part for part in (self.place, self.ambiguity) if part)


@dataclass(frozen=True, kw_only=True, slots=True)
class RowEntry:
    """A row that a table can ask for."""

    name: str
    title: str
    changes: str
    """Settings in which it differs from the method's defaults, as on the command line; empty for the method itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodEntry:
    """One method."""

    name: str
    title: str
    objective: str
    loss: str
    """File and functions where the objective is written."""
    phases: tuple[str, ...]
    settings: tuple[SettingEntry, ...]
    rows: tuple[RowEntry, ...]


def entries(registry: Mapping[str, type[Method]]) -> list[MethodEntry]:
    """Return what there is to say of each method, in the registry's order."""
    return [_entry(name, chosen) for name, chosen in registry.items()]


def _entry(name: str, chosen: type[Method]) -> MethodEntry:
    method = chosen()
    variants = (RowEntry(name=f"{name}-{key}", title=variant.title,
                         changes="; ".join(f"{k}={v}" for k, v in variant.changes.items()))
                for key, variant in chosen.variants.items())
    return MethodEntry(
        name=name, title=chosen.title, objective=chosen.objective, loss=_where(chosen),
        phases=tuple(map(phase_text, method.phases())), settings=tuple(settings(name, method)),
        rows=(RowEntry(name=name, title=chosen.title, changes=""), *variants),
    )


def settings(name: str, method: Method) -> Iterator[SettingEntry]:
    """Yield a method's settings, its own and those of its nested sections, in the order of its fields."""
    section_of = {part: section for section, parts in method.sections.items() for part in parts}
    hints = get_type_hints(type(method))
    for f in dataclasses.fields(method):
        value = getattr(method, f.name)
        if not dataclasses.is_dataclass(value):
            yield _setting(name, f, value, hints[f.name])
        elif f.name in section_of:
            nested = get_type_hints(type(value))
            for inner in dataclasses.fields(value):
                yield _setting(section_of[f.name], inner, getattr(value, inner.name), nested[inner.name])


def _setting(section: str, f: dataclasses.Field[Any], value: Any, hint: Any) -> SettingEntry:
    declared = f.metadata
    notes = []
    if declared.get("scales_with"):
        notes.append(f"ratio to {_AT_OTHER_SCALES[declared['scales_with']]}")
    if declared.get("silent_base") is not None:
        notes.append(f"silent base: {as_text(declared['silent_base'])}")
    return SettingEntry(
        name=f"{section}.{f.name}", default=value, hint=hint, place=declared.get("place", ""),
        paper=declared.get("paper", ""), ambiguity=declared.get("ambiguity", ""),
        other_readings=_other_readings(hint, value, declared.get("options", ())), note="; ".join(notes),
    )


def _other_readings(hint: Any, value: Any, options: tuple[str, ...]) -> tuple[str, ...]:
    """Return what else can be chosen: what the declaration names, else what the type lists."""
    if options:
        return options
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(option for option in get_args(hint) if option is not type(None))
    listed = get_args(hint) if get_origin(hint) is Literal else (True, False) if hint is bool else ()
    return tuple(as_text(option) for option in listed if option != value)


def as_text(value: Any) -> str:
    """Return a setting's value as one would write it on the command line."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _where(chosen: type[Method]) -> str:
    """Return `file: Class.function, ...` of what the method overrides of the interface's losses."""
    file = Path(inspect.getfile(chosen)).resolve()
    own = [name for name in ("loss", "pair_loss", "embed") if getattr(chosen, name) is not getattr(Method, name)]
    shown = file.relative_to(_ROOT).as_posix() if file.is_relative_to(_ROOT) else file.name
    return f"{shown}: {', '.join(f'{chosen.__name__}.{name}' for name in own) or chosen.__name__}"


def phase_text(phase: Phase) -> str:
    """Return a phase in one line."""
    words: dict[type, Callable[[Any], str]] = {
        Score: lambda p: f"entropy of every example of the pool under {p.of}",
        Select: lambda p: f"draw examples by the entropies of {p.strong} and {p.weak} -> {p.out}",
        Subset: lambda p: f"take {p.size:,} examples of the pool, the same for every method -> {p.out}",
        Sample: _sample_text,
        Pair: _pair_text,
        Hint: lambda p: f"keep prompts with a right and a wrong reply in {p.rollouts}, show both -> {p.out}",
        Distil: lambda p: f"store the top-{p.top_k} logits of {p.of} on its right {p.replies} -> {p.out}",
        Train: _train_text,
    }
    return words[type(phase)](phase) if type(phase) in words else repr(phase)


def _sample_text(phase: Sample) -> str:
    limits = "".join((f", top-k {phase.top_k}" if phase.top_k else "",
                      f", top-p {phase.top_p:g}" if phase.top_p < 1 else "",
                      f", {phase.max_tokens:,} tokens at most" if phase.max_tokens else ""))
    replies = "1 reply" if phase.n == 1 else f"{phase.n} replies"
    return (f"sample {replies} to each prompt of {phase.prompts} from {phase.of} at T = {phase.temperature:g}{limits} "
            f"-> {phase.out}")


def _pair_text(phase: Pair) -> str:
    what = {"verified": f"pair the first right with the first wrong reply in {phase.rollouts}",
            "gold_first": f"pair the pool's reply with the one in {phase.rollouts}"}[phase.rule]
    return f"{what} -> {phase.out}"


def _train_text(phase: Train) -> str:
    beside = "".join((f" with {phase.weak} as the weak side" if phase.weak else "",
                      f" against {phase.reference} as reference" if phase.reference else "",
                      f" by LoRA (rank {phase.lora.rank})" if phase.lora else ""))
    return (f"train {phase.strong}{beside} on {phase.data}, {phase.epochs} epoch{'s' if phase.epochs > 1 else ''} "
            f"-> {phase.out}")
