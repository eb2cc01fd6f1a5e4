"""From a pool of examples to the exact batches of a training: encoding, order, micro-batches.

Which examples form an update is fixed here by a named random stream; how an update is cut into micro-batches (sorted
by length, so that little is padded) cannot change what it computes beyond float rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from baselines.settings import DataSettings, LossSettings, TrainingSettings
from foundation.errors import InputError, TrainingError
from foundation.prompts import PromptFormat, encode_example
from foundation.seeds import stream

if TYPE_CHECKING:
    import torch

    from baselines.interface import StoredLogits

IGNORED = -100
TEACHER_PREFIX = "teacher_"
# A prompt+completion pair, as the pool stores it
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Encoded examples in pool order, and what the length limit did to them."""

    rows: list[Row]
    truncated: int
    dropped: int


def encode_pool(examples: Sequence[Row], tokenizer: Any, prompt: PromptFormat, data: DataSettings,
                loss: LossSettings) -> Encoded:
    """Return `{id, input_ids, labels}` per example, with unsupervised positions labelled -100 (A-08, A-11).

    Raises:
        InputError: a prompt alone fills the length limit (it would train on nothing).
    """
    rows, truncated, dropped = [], 0, 0
    for example in examples:
        encoded = encode_example(tokenizer, prompt, example["question"], example["completion"])
        if encoded.prompt_length >= data.max_length:
            raise InputError(
                f"example {example['id']}: its prompt has {encoded.prompt_length} tokens, the limit is "
                f"{data.max_length} (data.max_length); raise the limit or remove the example"
            )
        if len(encoded.ids) > data.max_length:
            truncated += data.overlength == "truncate_right"
            dropped += data.overlength == "drop"
            if data.overlength == "drop":
                continue
        ids = encoded.ids[: data.max_length]
        masked = 1 if loss.mask == "full_sequence" else encoded.prompt_length
        rows.append({"id": example["id"], "input_ids": ids, "labels": [IGNORED] * masked + ids[masked:]})
    return Encoded(rows, truncated, dropped)


def ordered(rows: list[Row], training: TrainingSettings, *, epochs: int, seed: int,
            updates: int | None = None, first_epoch: int = 0) -> list[Row]:
    """Return the rows in training order: each epoch shuffled by its own stream, partial last batches dropped (A-01).

    Within each global batch, rows are sorted by length (longest first), so micro-batches hold similar lengths.
    `updates` asks for that many batches instead, over as many epochs as that takes (A-67, step-matched). `first_epoch`
    numbers the first of them, so that a chain of trainings does not repeat one order.

    Raises:
        TrainingError: fewer rows than one global batch.
    """
    batch = training.global_batch
    if len(rows) < batch:
        raise TrainingError(
            f"only {len(rows)} examples for a global batch of {batch}: not one update; "
            "use more data (--limit-train, <method>.subset) or a smaller batch (--set train.global_batch=N; for a "
            "method with a batch of its own: --set <method>.global_batch=N)"
        )
    wanted = epochs * (len(rows) // batch) if updates is None else updates
    result: list[Row] = []
    for epoch in range(-(-wanted // (len(rows) // batch))):
        order = stream("training-order", seed, first_epoch + epoch).permutation(len(rows))
        for start in range(0, len(rows) - batch + 1, batch):
            chosen = [rows[i] for i in order[start : start + batch]]
            result.extend(sorted(chosen, key=lambda row: (-_length(row), row["id"])))
    return result[: wanted * batch]


def _length(row: Row) -> int:
    """Tokens of an encoded example, or of the longer side of a pair."""
    if "input_ids" in row:
        return len(row["input_ids"])
    return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))


def collate(rows: Sequence[Row], pad_id: int, teacher: StoredLogits | None = None) -> dict[str, torch.Tensor]:
    """Pad rows on the right to one tensor each of ids, mask, labels, shape (B, S), and their positions in the data.

    With stored logits, those of the rows' supervised tokens come along, one after the other, as `teacher_*`.
    """
    import torch

    width = max(len(row["input_ids"]) for row in rows)
    ids_BS = torch.full((len(rows), width), pad_id, dtype=torch.long)
    labels_BS = torch.full((len(rows), width), IGNORED, dtype=torch.long)
    mask_BS = torch.zeros((len(rows), width), dtype=torch.long)
    for b, row in enumerate(rows):
        length = len(row["input_ids"])
        ids_BS[b, :length] = torch.tensor(row["input_ids"])
        labels_BS[b, :length] = torch.tensor(row["labels"])
        mask_BS[b, :length] = 1
    batch = {"input_ids": ids_BS, "attention_mask": mask_BS, "labels": labels_BS}
    return batch | _beside(rows, teacher)


def flatten(rows: Sequence[Row], teacher: StoredLogits | None = None) -> dict[str, torch.Tensor]:
    """Lay rows end to end instead of padding them: ids, labels and positions, shape (1, T), else as `collate`.

    Positions begin at 0 with each row, which is how attention tells the rows apart. A row's first token is never
    predicted: what stands before it is another row.
    """
    import torch

    labels = [label for row in rows for label in (IGNORED, *row["labels"][1:])]
    batch = {
        "input_ids": torch.tensor([[token for row in rows for token in row["input_ids"]]]),
        "position_ids": torch.cat([torch.arange(len(row["input_ids"])) for row in rows]).unsqueeze(0),
        "labels": torch.tensor([labels]),
    }
    return batch | _beside(rows, teacher)


def _beside(rows: Sequence[Row], teacher: StoredLogits | None) -> dict[str, torch.Tensor]:
    """Return the rows' positions in the data, and their stored logits."""
    import torch

    batch = {}
    if "row" in rows[0]:
        batch["row"] = torch.tensor([row["row"] for row in rows])
    if teacher is not None:
        counts = [sum(label != IGNORED for label in row["labels"]) for row in rows]
        for name, column in teacher._asdict().items():
            batch[TEACHER_PREFIX + name] = torch.cat([column[row["teacher_start"] : row["teacher_start"] + count]
                                                      for row, count in zip(rows, counts, strict=True)])
    return batch
