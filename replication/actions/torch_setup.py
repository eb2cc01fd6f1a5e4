"""One place that sets torch's global state for a step, so that a step never depends on what its worker ran before."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from baselines import distributed
from foundation import multimodal
from foundation.errors import PrerequisiteError


def prepare(threads: int, seed: int = 0, gpus: Sequence[str] = ()) -> torch.device:
    """Set threads, seeds and deterministic kernels; return the device to compute on.

    Args:
        threads: of this process.
        seed: of the global generators.
        gpus: that the step was given, which it must not leave unused.

    Raises:
        PrerequisiteError: it was given GPUs, and torch finds none.
    """
    if gpus and not torch.cuda.is_available():
        raise PrerequisiteError(f"given GPUs {', '.join(gpus)}, torch {torch.__version__} finds none; install a CUDA "
                                "build of torch that fits the driver (nvidia-smi names its CUDA version)")
    torch.set_num_threads(threads)
    transformers.set_seed(seed % 2**32)
    torch.use_deterministic_algorithms(True, warn_only=True)
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", module="torch|transformers|trl|accelerate|datasets")
    device = distributed.device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


SHARD_SIZE = "5GB"
"""Of an exported checkpoint's files: larger models are split."""


def save_checkpoint(model: Any, tokenizer: Any, folder: Any, stop_ids: list[int]) -> None:
    """Write a plain checkpoint that `AutoModelForCausalLM.from_pretrained` loads, with the ids that end generation.

    What the checkpoint that the model was loaded from carries beside a text model goes along (foundation.multimodal).
    Of several processes all must call this; the main one writes.
    """
    weights = distributed.whole_weights(model)
    if not distributed.is_main():
        return
    model.config.use_cache = True
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=stop_ids, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    model.save_pretrained(folder, state_dict=weights, max_shard_size=SHARD_SIZE)
    tokenizer.save_pretrained(folder)
    multimodal.carry(model.name_or_path, Path(folder))
