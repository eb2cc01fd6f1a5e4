"""Training on tokens with TRL's SFTTrainer: settings in, a trained BranchedModel out (pairs: pair_trainer.py).

Accumulation, clipping, schedules, resuming and logging are TRL's and transformers'. What is ours: the loss comes from
the method (inside the model's forward), the data order comes prepared, and a loss that is not finite stops the run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from baselines import distributed
from baselines.batches import Row, collate, flatten
from baselines.branches import BranchedModel
from baselines.interface import StoredLogits
from baselines.resuming import (
    Origin,
    RecutResume,
    Resumption,
    last_complete_checkpoint,
    mark_complete,
    origin,
    recut,
    resumption,
)
from baselines.settings import JointTraining, TrainingSettings
from foundation.errors import InputError, TrainingError


@dataclass(frozen=True, slots=True)
class TrainingLog:
    """What a training did: one loss (token mean of the global batch) and learning rate per update."""

    losses: list[float]
    learning_rates: list[float]
    updates: int
    tokens: int
    """Attended tokens seen, prompts included."""


class MethodTrainer(RecutResume, SFTTrainer):
    """TRL's SFTTrainer with the loss of a BranchedModel."""

    def __init__(self, *, example_ids: list[str], items_per_update: int | None,
                 make_optimizer: Callable[[], torch.optim.Optimizer | None], **arguments: Any) -> None:
        """Take TRL's arguments, the id of each row, N_B where it is not the token count (A-07, example_mean), and what
        makes the optimizer (None: the trainer's own).
        """
        super().__init__(**arguments)
        self.example_ids, self.items_per_update = example_ids, items_per_update
        self.make_optimizer = make_optimizer
        self.model_accepts_loss_kwargs = True  # have N_B counted over the whole global batch
        self.remove_callback(PrinterCallback)  # the suite has its own display

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        if self.items_per_update is not None:
            return torch.tensor(self.items_per_update, device=device)
        return super()._get_num_items_in_batch(batch_samples, device)

    def create_optimizer(self, model: Any = None) -> Any:
        """Return ours, else the trainer's: under DeepSpeed an optimizer given to the constructor would be dropped."""
        if self.optimizer is None:
            self.optimizer = self.make_optimizer()
        return super().create_optimizer(model)

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False,
                     num_items_in_batch: Any = None) -> Any:
        """Return the micro-batch's share of the global batch's loss.

        Raises:
            TrainingError: the loss is NaN or infinite (update and example positions are named).
        """
        row = inputs.get("row")
        loss = model(**inputs, num_items_in_batch=num_items_in_batch)
        if not torch.isfinite(loss):
            self._diverged(loss.item(), [] if row is None else row.tolist())
        # the trainer averages gradients over processes, our divisor counts the tokens of all of them
        return loss * self.accelerator.num_processes if self.accelerator.num_processes > 1 else loss

    def _diverged(self, loss: float, rows: list[int]) -> None:
        ids = [self.example_ids[row] for row in rows]
        raise TrainingError(
            f"the loss became {loss} at update {self.state.global_step + 1} of {self.state.max_steps}, in the batch of "
            f"examples {', '.join(ids[:16])}; {_kept(Path(str(self.args.output_dir)))}. Lower train.learning_rate, or "
            "look at these examples"
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Pass logs on without TRL's own metrics, which need a second look at the logits.

        Raises:
            TrainingError: the gradient norm is not finite (DeepSpeed tells it only here).
        """
        if not math.isfinite(logs.get("grad_norm", 0.0)):
            raise _bad_gradient(logs["grad_norm"], self.state.global_step, self.args, self.state)
        self._metrics["train"].clear()
        super().log(logs, start_time)


def _kept(work: Path) -> str:
    last = last_complete_checkpoint(work)
    return "no checkpoint had been written yet" if last is None else f"the last good checkpoint is {last}"


def _bad_gradient(norm: float, update: int, args: Any, state: Any) -> TrainingError:
    return TrainingError(f"the gradient became {norm} at update {update} of {state.max_steps}; "
                         f"{_kept(Path(args.output_dir))}. Lower train.learning_rate")


AtUpdates = tuple[Sequence[int], Callable[[int], None]]
"""Numbers of updates, and what to do after each."""


class Observer(TrainerCallback):
    """Reports progress, marks whole checkpoints, refuses bad gradients, clips branches apart (A-71)."""

    def __init__(self, on_progress: Callable[[float], None], written_by: Origin,
                 clip_branches_at: float | None = None, at_updates: AtUpdates | None = None) -> None:
        self.on_progress, self.written_by, self.clip_branches_at = on_progress, written_by, clip_branches_at
        self.updates, self.at_update = at_updates or ((), lambda update: None)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Mark the checkpoint as whole."""
        distributed.wait_for_all()  # each process writes its part
        if distributed.is_main():
            mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}", self.written_by)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep a snapshot where one is due, and report."""
        if state.global_step in self.updates:
            self.at_update(state.global_step)
        self.on_progress(state.global_step / state.max_steps)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Refuse gradients that are not finite; clip branches apart.

        Raises:
            TrainingError: the gradient norm is NaN or infinite.
        """
        norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        if not torch.isfinite(norm):
            raise _bad_gradient(norm.item(), state.global_step + 1, args, state)
        if self.clip_branches_at is not None:
            for branch in (model.strong, model.weak):
                torch.nn.utils.clip_grad_norm_(branch.parameters(), self.clip_branches_at)


def train(model: BranchedModel, rows: list[Row], tokenizer: Any, training: TrainingSettings, *, seed: int,
          work: Path, joint: JointTraining | None = None, teacher: StoredLogits | None = None,
          library_arguments: Mapping[str, Any] | None = None, at_updates: AtUpdates | None = None,
          on_progress: Callable[[float], None] = lambda fraction: None) -> TrainingLog:
    """Train on `rows` in the order given, one pass, resuming from a checkpoint under `work` if there is one.

    Args:
        model: what is trained, in place.
        rows: encoded examples, `{id, input_ids, labels}`.
        tokenizer: for its padding token.
        training: optimisation settings.
        seed: of the library's own generators.
        work: folder of the trainer's checkpoints.
        joint: how a pair of models is trained.
        teacher: stored logits of all rows' supervised tokens; a row's begin at its `teacher_start`.
        library_arguments: further arguments of TRL's configuration.
        at_updates: called after given updates, to keep a snapshot.
        on_progress: told the fraction done.

    Raises:
        TrainingError: the loss turned NaN or infinite.
        InputError, PrerequisiteError: what was asked of several processes is not possible (see `distributed`).
    """
    updates = len(rows) // training.global_batch
    joint = joint or JointTraining()
    per_branch = training.clip_norm if joint.clip == "per_branch" and model.weak is not None else None
    if per_branch is not None and distributed.zero_stage(training):
        raise InputError(f"wdjt.clip=per_branch needs whole gradients, train.zero_stage={training.zero_stage} shares "
                         "them out; set wdjt.clip=joint or train.zero_stage=0")
    resumed = resumption(work, training)
    trainer = MethodTrainer(
        example_ids=[row["id"] for row in rows],
        items_per_update=training.global_batch if model.reduction == "example_mean" else None,
        model=model,
        args=SFTConfig(**shared_arguments(training, updates=updates, seed=seed, work=work,
                                          clip_globally=per_branch is None, universal=is_recut(resumed)),
                       max_length=None, packing=False, padding_free=False,
                       dataset_kwargs={"skip_prepare_dataset": True}, **(library_arguments or {})),
        train_dataset=_dataset(rows),
        processing_class=tokenizer,
        data_collator=_collator(rows, tokenizer.pad_token_id, teacher,
                                flat=lays_end_to_end(model, training, library_arguments)),
        callbacks=[Observer(on_progress, origin(training), per_branch, at_updates)],
        make_optimizer=lambda: _two_rate_optimizer(model, training, joint),
    )
    if distributed.zero_stage(training) == 3:
        distributed.share_heads(model)
    run(trainer, resumed)
    return training_log(trainer, sum(len(row["input_ids"]) for row in rows))


def lays_end_to_end(model: BranchedModel, training: TrainingSettings,
                    library_arguments: Mapping[str, Any] | None) -> bool:
    """Say whether micro-batches go without padding: asked for, and nothing perturbs embeddings by row or width."""
    return training.padding_free and not model.perturbs and not library_arguments


def _collator(rows: list[Row], pad_id: int, teacher: StoredLogits | None, *, flat: bool) -> Callable[..., Any]:
    def collated(items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        chosen = [rows[item["row"]] | {"row": item["row"]} for item in items]
        return flatten(chosen, teacher) if flat else collate(chosen, pad_id, teacher)

    return collated


def is_recut(resumed: Resumption | None) -> bool:
    """Say whether a training goes on from a checkpoint that is cut anew."""
    return resumed is not None and resumed.recut


def run(trainer: Any, resumed: Resumption | None) -> None:
    """Train, from a checkpoint if there is one, and leave nothing of DeepSpeed's behind in the process."""
    trainer.recut = is_recut(resumed)
    try:
        if resumed is not None:
            recut(resumed)
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed.checkpoint))
    finally:
        distributed.forget()


def training_log(trainer: Any, tokens: int) -> TrainingLog:
    """Return what a finished trainer has logged."""
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    return TrainingLog(losses=[entry["loss"] for entry in logs], updates=trainer.state.global_step, tokens=tokens,
                       learning_rates=[entry["learning_rate"] for entry in logs])


def shared_arguments(training: TrainingSettings, *, updates: int, seed: int, work: Path,
                     clip_globally: bool = True, universal: bool = False) -> dict[str, Any]:
    """Translate our settings; every default of the libraries' that matters is set explicitly."""
    optimizer = {"adamw": {}, "rmsprop": {"optim": "rmsprop"}}[training.optimizer]  # AdamW is the libraries' default
    micro, clip_norm = distributed.micro_batch(training), training.clip_norm if clip_globally else 0.0
    zero = distributed.deepspeed_config(training, clip_norm=clip_norm, universal=universal)
    return optimizer | {
        "output_dir": str(work),
        "max_steps": updates,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": training.global_batch // micro // distributed.processes(),
        "train_sampling_strategy": "sequential",
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": {"constant": "constant_with_warmup"}.get(training.lr_schedule, training.lr_schedule),
        "warmup_steps": math.ceil(training.warmup_ratio * updates),
        "adam_beta1": training.adam_beta1,
        "adam_beta2": training.adam_beta2,
        "adam_epsilon": training.adam_epsilon,
        "weight_decay": training.weight_decay,
        "max_grad_norm": clip_norm,
        "bf16": training.compute_dtype == "bfloat16" and zero is None,
        "deepspeed": zero,
        "fp16": False,
        "gradient_checkpointing": training.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if training.gradient_checkpointing else None,
        "use_cpu": not torch.cuda.is_available(),
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": [],
        "disable_tqdm": True,
        "save_strategy": "no" if training.checkpoint_every is None else "steps",
        "save_steps": training.checkpoint_every or 1,
        "save_total_limit": 2,
        "eval_strategy": "no",
        "seed": seed % 2**32,
        "data_seed": seed % 2**32,
    }


def _dataset(rows: list[Row]) -> Dataset:
    return Dataset.from_dict({"input_ids": [row["input_ids"] for row in rows], "row": list(range(len(rows)))})


def _two_rate_optimizer(model: BranchedModel, training: TrainingSettings, joint: JointTraining) -> Any:
    """Return an AdamW whose weak branch has its own rate (A-72), or None: the trainer then builds the shared one."""
    if joint.weak_learning_rate is None or model.weak is None or joint.freeze_weak:
        return None
    groups = []
    for branch, rate in ((model.strong, training.learning_rate), (model.weak, joint.weak_learning_rate)):
        for decay in (True, False):  # matrices decay, norms and biases do not, as in the trainer's own optimizer
            groups.append({"params": _decaying(branch, decay), "lr": rate,
                           "weight_decay": training.weight_decay if decay else 0.0})
    return torch.optim.AdamW(groups, betas=(training.adam_beta1, training.adam_beta2), eps=training.adam_epsilon)


def _decaying(branch: torch.nn.Module, decay: bool) -> list[torch.nn.Parameter]:
    return [p for p in branch.parameters() if (len(distributed.full_shape(p)) > 1) == decay]


def write_log(log: TrainingLog, path: Path) -> None:
    """Write one JSON line per update: update, loss, learning rate."""
    lines = [json.dumps({"update": i, "loss": loss, "learning_rate": rate})
             for i, (loss, rate) in enumerate(zip(log.losses, log.learning_rates, strict=True), start=1)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
