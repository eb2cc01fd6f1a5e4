"""Training on pairs of replies with TRL's DPOTrainer: log-probabilities, references, accumulation are the library's.

What is ours: the pairs come as token ids (the library would append an end token even to a reply that was cut off),
the order comes prepared, and the loss is the method's `pair_loss` on the summed log-probabilities. The reference's
log-probabilities are computed once, before the first update. On a CPU the policy's come from log_probs.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, load_from_disk
from transformers import PreTrainedModel, PrinterCallback, Trainer
from trl import DPOConfig, DPOTrainer

from baselines import distributed
from baselines.batches import IGNORED, Row
from baselines.interface import Method, Pairs
from baselines.log_probs import add_log_prob_head
from baselines.resuming import RecutResume, origin, resumption
from baselines.settings import TrainingSettings
from baselines.trainer import Observer, TrainingLog, is_recut, run, shared_arguments, training_log
from foundation.errors import TrainingError

# B pairs; a batch holds 2B sequences, chosen ones first; S positions


class PairTrainer(RecutResume, DPOTrainer):
    """TRL's DPOTrainer with a method's loss."""

    def __init__(self, *, method: Method, **arguments: Any) -> None:
        """Take TRL's arguments and the method."""
        self.method = method
        super().__init__(**arguments)
        assert isinstance(self.model, PreTrainedModel)
        add_log_prob_head(self.model)
        self.model_accepts_loss_kwargs = False  # a mean over pairs: the trainer divides by the accumulation steps
        self.remove_callback(PrinterCallback)

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset  # the ids are final

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False) -> Any:
        """Return the mean of the method's loss over the micro-batch's pairs.

        Raises:
            TrainingError: the loss is NaN or infinite.
        """
        completion_BS = inputs["completion_mask"]
        labels_BS = inputs["input_ids"].masked_fill(completion_BS == 0, IGNORED)
        outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=labels_BS,
                        use_cache=False, fused_lm_head=True)
        chosen_B, rejected_B = outputs.log_probs.sum(dim=1).chunk(2)
        pairs = Pairs(chosen_B, rejected_B, inputs["ref_chosen_logps"], inputs["ref_rejected_logps"])
        loss = self.method.pair_loss(pairs).mean()
        if not torch.isfinite(loss):
            raise TrainingError(f"the loss became {loss.item()} at update {self.state.global_step + 1} of "
                                f"{self.state.max_steps}; lower the method's learning rate, or look at its pairs")
        return (loss, outputs) if return_outputs else loss

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        Trainer._save_checkpoint(self, model, trial)  # without the library's model card


def _dataset(rows: list[Row], folder: Path) -> Dataset:
    """Return the pairs as a data set; of several processes all read it from one folder.

    The library's main process leaves the reference's log-probabilities beside the data for the others to read, so
    they must not each have theirs in memory.
    """
    def made() -> Dataset:
        return Dataset.from_list([{k: row[k] for k in ("prompt_ids", "chosen_ids", "rejected_ids")} for row in rows])

    if distributed.processes() == 1:
        return made()
    if distributed.is_main():
        shutil.rmtree(folder, ignore_errors=True)
        made().save_to_disk(str(folder))
    distributed.wait_for_all()
    return load_from_disk(str(folder))


def train_pairs(method: Method, policy: PreTrainedModel, reference: PreTrainedModel | None, rows: list[Row],
                tokenizer: Any, training: TrainingSettings, *, seed: int, work: Path,
                on_progress: Callable[[float], None] = lambda fraction: None) -> TrainingLog:
    """Train `policy` on pairs in the order given, one pass, resuming from a checkpoint under `work` if there is one.

    Args:
        method: its `pair_loss` is minimised.
        policy: the model that is trained, in place.
        reference: the frozen model; None: the policy as it is now.
        rows: `{id, prompt_ids, chosen_ids, rejected_ids}`.
        tokenizer: for its padding token.
        training: optimisation settings; the batch counts pairs.
        seed: of the library's own generators.
        work: folder of the trainer's checkpoints.
        on_progress: told the fraction done.

    Raises:
        TrainingError: the loss turned NaN or infinite.
    """
    updates = len(rows) // training.global_batch
    resumed = resumption(work, training)
    # the configuration starts the process group, which sharing the data needs
    configuration = DPOConfig(
        **shared_arguments(training, updates=updates, seed=seed, work=work, universal=is_recut(resumed)),
        max_length=None, precompute_ref_log_probs=True, loss_type=["sigmoid"], disable_dropout=True)
    trainer = PairTrainer(
        method=method,
        model=policy,
        ref_model=reference,
        args=configuration,
        train_dataset=_dataset(rows, work / "pairs"),
        processing_class=tokenizer,
        callbacks=[Observer(on_progress, origin(training))],
    )
    run(trainer, resumed)
    tokens = sum(2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in rows)
    return training_log(trainer, tokens)
