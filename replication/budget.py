"""What each row was trained with: updates and examples seen, and where it leaves the shared protocol (E.5).

Departures are read from the phases that the steps were built from, so that a departure cannot be left unsaid; what
was seen is read from the steps' manifests.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from baselines.settings import TrainingSettings
from replication.method_plan import MethodPlan
from replication.rollout_steps import DrawSubset, MakeHints, MakePairs, SampleReplies, Snapshot, StoreTargets
from replication.steps import SelectActive, Step, TrainPhase, closure
from replication.store import Store

_NAMES = {"learning_rate": "learning rate", "global_batch": "batch", "clip_norm": "gradient clip",
          "warmup_ratio": "learning rate warm-up", "optimizer": "optimizer"}
Budget = dict[str, Any]


def row_budget(plan: MethodPlan, store: Store) -> Budget:
    """Return `{row, updates, examples_seen, tokens, epochs, departures, data, warnings}`; None where not yet run."""
    notes = [_notes(step, store) for step in plan.trainings]
    measured = {key: None if any(n is None for n in notes) else sum(n[key] for n in notes if n is not None)
                for key in ("updates", "examples_seen", "tokens")}
    return {"row": plan.row.title, **measured, "epochs_after_warmup": sum(step.epochs for step in plan.trainings),
            "settings": asdict(plan.method), "departures": departures(plan, store), "data": _data(plan, store),
            "warnings": [w for n in notes if n is not None for w in n.get("warnings", [])]}


def _notes(step: Step, store: Store) -> dict[str, Any] | None:
    found: dict[str, Any] | None = store.read_manifest(step.id)["notes"] if store.is_done(step) else None
    return found


def departures(plan: MethodPlan, store: Store) -> list[str]:
    """Return where a row's trainings differ from the protocol that all methods share, in words with both values."""
    configuration, base = plan.planner.configuration, plan.planner.base()
    said: list[str] = []
    for step in plan.trainings:
        from_base = step.strong.key == base.key
        shared = configuration.train if from_base else configuration.second_epoch
        said += _optimisation(step.training, shared)
        if isinstance(step.strong, Snapshot):
            said.append(f"starts from {step.strong.label}")
        if from_base:
            said.append(f"starts from the base and trains {_times(step.epochs)}, instead of one epoch from M1")
        elif step.epochs != 1:
            said.append(f"{_times(step.epochs)} after the warm-up")
        if isinstance(step, TrainPhase):
            said += _tokens(step)
        else:
            said.append("trains on pairs of replies")
        said += [text for s in closure([step]) if isinstance(s, DrawSubset) and (text := _subset(s, store))]
    if len(plan.trainings) > 1:
        said.append(f"{len(plan.trainings)} trainings after the warm-up: more than the two-epoch budget")
    said += [f"{setting}, because the base of this backbone writes no verifiable answers (E.6)"
             for setting in plan.row.adapted]
    return list(dict.fromkeys(said))


def _subset(step: DrawSubset, store: Store) -> str:
    """Say how many of the pool's prompts are used; nothing where the pool is no larger."""
    notes = _notes(step, store)
    if notes is None:
        return f"subset of {step.size:,} prompts, or the pool where it is smaller"
    return f"subset of {notes['examples']:,} of {notes['pool']:,} prompts" if notes["examples"] < notes["pool"] else ""


def _times(epochs: int) -> str:
    return {1: "one epoch", 2: "two epochs"}.get(epochs, f"{epochs} epochs")


def _optimisation(own: TrainingSettings, shared: TrainingSettings) -> list[str]:
    return [f"{words} {_number(getattr(own, name))} (shared: {_number(getattr(shared, name))})"
            for name, words in _NAMES.items() if getattr(own, name) != getattr(shared, name)]


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _tokens(step: TrainPhase) -> list[str]:
    said = []
    if step.lora is not None:
        said.append(f"LoRA r = {step.lora.rank}, alpha = {step.lora.alpha} instead of all parameters")
    if isinstance(step.examples, StoreTargets):
        said.append("trains on its own hinted replies")
    said += [f"{name} = {value} of the library's trainer" for name, value in step.library_arguments.items()]
    if step.step_matched:
        said.append("repeats its examples up to a full epoch's updates")
    if step.joint is not None and step.joint.format == "official_stage3":
        said.append("full-sequence loss without a system prompt, as the public code's stage 3")
    return said


def _data(plan: MethodPlan, store: Store) -> dict[str, Any]:
    """Return what the steps between pool and training counted, by step."""
    kinds = (SelectActive, SampleReplies, MakePairs, MakeHints, StoreTargets)
    return {step.id: notes for training in plan.trainings for step in closure([training])
            if isinstance(step, kinds) and (notes := _notes(step, store)) is not None}


def lines(budgets: list[Budget], warmup: dict[str, Any] | None) -> list[str]:
    """Return the footnotes of a table: one for each row that departs, what was drawn or skipped, and warnings."""
    said = []
    seen = "; ".join(f"{b['row']} {b['updates']:,} / {b['examples_seen']:,}" for b in budgets
                     if b["updates"] is not None)
    if seen:
        before = "" if warmup is None else (f" ({warmup['updates']:,} updates, {warmup['examples_seen']:,} examples, "
                                            "shared by all)")
        said.append(f"Updates / examples seen after the warm-up{before}: {seen}.")
    said += _by_rows((b["row"], f"departs from the shared protocol: {'; '.join(b['departures'])}") for b in budgets
                     if b["departures"])
    said += _by_rows((b["row"], text) for b in budgets for notes in b["data"].values() if (text := _counted(notes)))
    said += [f"Warning: {warning}." for b in budgets for warning in b["warnings"]]
    return list(dict.fromkeys(said))


def _by_rows(remarks: Iterable[tuple[str, str]]) -> list[str]:
    """Say a remark once, for all rows that share it."""
    rows: dict[str, list[str]] = {}
    for row, text in remarks:
        rows.setdefault(text, []).append(row)
    return [f"{', '.join(dict.fromkeys(named))}: {text}." for text, named in rows.items()]


def _counted(notes: dict[str, Any]) -> str:
    if "unique_fraction_by_weighting" in notes:
        fractions = ", ".join(f"{name} {100 * value:.1f} %" for name, value in
                              notes["unique_fraction_by_weighting"].items())
        return (f"WD-DS kept {notes['active']:,} of {notes['pool']:,} examples ({100 * notes['unique_fraction']:.1f} % "
                f"unique; by formula: {fractions}; the paper's 123 of 218 updates are 56.4 %)")
    if "pairs" in notes:
        skipped = "".join(f", {n:,} {reason}" for reason, n in notes["skipped"].items())
        return f"{notes['pairs']:,} pairs from {notes['prompts']:,} prompts{skipped}"
    if "hinted" in notes and "kept" in notes:
        return f"{notes['kept']:,} of {notes['hinted']:,} hinted replies were right and kept"
    if "hinted" in notes:
        skipped = "".join(f", {n:,} {reason}" for reason, n in notes["skipped"].items())
        return f"{notes['hinted']:,} of {notes['prompts']:,} prompts could be hinted{skipped}"
    return ""
