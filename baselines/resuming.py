"""Going on from a trainer's checkpoint, also with another number of processes than wrote it.

Each checkpoint says, in the file that marks it as whole, how many processes wrote it under which ZeRO stage. Without
ZeRO its weights and moments are whole, and any number of processes goes on from it. Under ZeRO each process wrote its
share: another number needs them put together and cut anew, which DeepSpeed's universal checkpoints do. Two things
that these lose are mended here (seen in DeepSpeed 0.19.8): under ZeRO-3 all groups of weights come to share one step
counter, which then counts an update several times, and every group takes the settings of the first.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from baselines import distributed
from baselines.settings import TrainingSettings
from foundation.errors import InputError

COMPLETE = "complete"
"""Marks a checkpoint folder that was written to its end, and says who wrote it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Who wrote a checkpoint."""

    processes: int
    zero_stage: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Resumption:
    """The checkpoint to go on from, and whether it must be cut anew for this number of processes."""

    checkpoint: Path
    recut: bool = False


def origin(training: TrainingSettings) -> Origin:
    """Return what checkpoints of this training say of it."""
    return Origin(processes=distributed.processes(), zero_stage=distributed.zero_stage(training))


def mark_complete(checkpoint: Path, written_by: Origin) -> None:
    """Mark a checkpoint as whole."""
    (checkpoint / COMPLETE).write_text(json.dumps(asdict(written_by)) + "\n", encoding="utf-8")


def read_origin(checkpoint: Path) -> Origin | None:
    """Return who wrote a checkpoint, or None where it does not say."""
    text = (checkpoint / COMPLETE).read_text(encoding="utf-8").strip()
    return Origin(**json.loads(text)) if text else None


def last_complete_checkpoint(work: Path) -> Path | None:
    """Return the newest checkpoint that was written to its end. Any process may ask: nothing is changed."""
    complete = [folder for folder in work.glob("checkpoint-*") if (folder / COMPLETE).is_file()]
    return max(complete, key=lambda folder: int(folder.name.rpartition("-")[2]), default=None)


def remove_half_written(work: Path) -> None:
    """Remove checkpoints that a kill left half-written; for one process, before those that train together start."""
    for folder in work.glob("checkpoint-*"):
        if not (folder / COMPLETE).is_file():
            shutil.rmtree(folder)


def resumption(work: Path, training: TrainingSettings) -> Resumption | None:
    """Return what this training goes on from; None: from the beginning.

    Raises:
        InputError: the last checkpoint was written under another ZeRO stage.
    """
    last = last_complete_checkpoint(work)
    if last is None:
        return None
    now, before = origin(training), read_origin(last)
    if before is None or (before.zero_stage == now.zero_stage == 0) or before == now:
        return Resumption(checkpoint=last)
    if before.zero_stage != now.zero_stage:
        raise InputError(
            f"the checkpoint {last} was written with train.zero_stage={before.zero_stage} by {before.processes} "
            f"processes, and cannot be read with train.zero_stage={now.zero_stage}; {_ways_on(before, now)}, or remove "
            f"{work} to begin this training again")
    return Resumption(checkpoint=last, recut=True)


def _ways_on(before: Origin, now: Origin) -> str:
    """Without ZeRO each process holds all that one holds alone, so what fitted one GPU fits each of several."""
    same = f"--train-processes {before.processes} --set train.zero_stage={before.zero_stage}"
    if before.zero_stage or now.processes == before.processes:
        return f"go on with {same}"
    return (f"go on with --train-processes {now.processes} --set train.zero_stage=0 (copies on {now.processes} "
            f"processes, each of which needs as much memory as before and 4 bytes a parameter for exchange), or with "
            f"{same}")


def recut(resumed: Resumption) -> None:
    """Have the main process convert a ZeRO checkpoint to a universal one beside it; all processes must call this."""
    if not resumed.recut:
        return
    if distributed.is_main():
        from deepspeed.checkpoint import ds_to_universal

        (source,) = (folder for folder in resumed.checkpoint.glob("global_step*") if folder.name[11:].isdigit())
        target = source.with_name(f"{source.name}_universal")
        shutil.rmtree(target, ignore_errors=True)  # of a conversion that was killed
        ds_to_universal.main(argparse.Namespace(
            input_folder=str(source), output_folder=str(target), num_extract_workers=1, num_merge_workers=1,
            keep_temp_folder=False, strict=True, inject_missing_state=True))
    distributed.wait_for_all()


class RecutResume:
    """Mixin of a transformers trainer: after a checkpoint that was cut anew, mends what the conversion lost."""

    recut = False
    group_settings: list[dict[str, Any]]
    optimizer: Any
    lr_scheduler: Any

    def create_optimizer(self, model: Any = None) -> Any:
        """Make the optimizer; remember the settings of its groups."""
        optimizer = super().create_optimizer(model)  # type: ignore[misc]
        self.group_settings = [{name: value for name, value in group.items() if name != "params"}
                               for group in optimizer.param_groups]
        return optimizer

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
        if not self.recut or checkpoint is None:
            return
        for state in self.optimizer.state.values():
            if torch.is_tensor(state.get("step")):
                state["step"] = state["step"].clone()
        rates = zip(self.lr_scheduler.base_lrs, self.lr_scheduler.get_last_lr(), strict=True)
        for group, settings, (first, last) in zip(self.optimizer.param_groups, self.group_settings, rates, strict=True):
            group.update(settings | {"initial_lr": first, "lr": last})
