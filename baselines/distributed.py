"""Training on several processes, one a GPU (or CPU share), as torchrun or `accelerate launch` starts them.

    torchrun --nproc-per-node 8 ...        with train.zero_stage = 3

Stage 0 copies the model to every process (DDP). DeepSpeed's ZeRO shares out the optimizer's state and the gradients
(2), and the weights as well (3). The trainer's own integration drives it; here are its configuration and what ZeRO-3
asks of those who touch weights outside of a module's forward pass. Nothing of this changes what an update computes
beyond float rounding: the examples of each update are the same, and its loss is averaged over all of them. DeepSpeed
itself is imported only where a stage is asked for.

Not supported: half-precision master weights and clipping by branch under ZeRO, and offloading.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from baselines.settings import TrainingSettings
from foundation.errors import InputError, PrerequisiteError

BUCKET_ELEMENTS = 50_000_000
"""Gradients and weights travel in buckets of so many elements (200 MB); DeepSpeed's default is ten times as large."""
WHOLE_ELEMENTS = 10_000
"""ZeRO-3 leaves weights of fewer elements whole: norms and biases of any backbone, no matrix of it."""


def processes() -> int:
    """Return how many processes train together; launchers say so before any process group exists."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return this process's number among those that train together."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Say whether this process is the one that writes files."""
    return rank() == 0


def device() -> torch.device:
    """Return what this process computes on: the GPU of its number on this machine, the first one without a launcher."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", torch.cuda.current_device())))


def wait_for_all() -> None:
    """Return when every process has come here."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def micro_batch(training: TrainingSettings, count: int | None = None) -> int:
    """Return the examples per forward pass of one process: the setting, or less so that updates split evenly.

    Args:
        training: the settings.
        count: of processes; None: as many as the launcher started.

    Raises:
        InputError: the global batch cannot be shared out evenly.
    """
    count = processes() if count is None else count
    share, rest = divmod(training.global_batch, count)
    if rest:
        raise InputError(f"train.global_batch is {training.global_batch}, which {count} processes cannot share "
                         f"evenly; start a number of processes that divides {training.global_batch}")
    return math.gcd(training.micro_batch, share)


def smaller_micro_batch(training: TrainingSettings, count: int) -> int | None:
    """Return the largest micro-batch of at most half the size that still shares out an update evenly; None below 1."""
    now = micro_batch(training, count)
    return next((size for size in range(now // 2, 0, -1) if now % size == 0), None)


def zero_stage(training: TrainingSettings) -> int:
    """Return the stage in force: without a launcher there is nothing to share out."""
    return training.zero_stage if "WORLD_SIZE" in os.environ else 0


def check_zero(training: TrainingSettings) -> None:
    """Refuse a ZeRO stage that this machine or these settings cannot have.

    Raises:
        PrerequisiteError: DeepSpeed is not installed.
        InputError: bf16_pure, whose weights have no fp32 master that ZeRO could share out.
    """
    stage = training.zero_stage
    if stage == 0:
        return
    if importlib.util.find_spec("deepspeed") is None:
        raise PrerequisiteError(f"train.zero_stage={stage} needs DeepSpeed, which is not installed; "
                                "pip install --no-build-isolation -e '.[distributed]', or set train.zero_stage=0")
    if training.param_dtype == "bf16_pure":
        raise InputError(f"train.zero_stage={stage} shares out fp32 master weights, train.param_dtype is bf16_pure; "
                         "set train.zero_stage=0 or train.param_dtype=fp32_master")


def deepspeed_config(training: TrainingSettings, *, clip_norm: float,
                     universal: bool = False) -> dict[str, Any] | None:
    """Return DeepSpeed's configuration, or None without ZeRO. The optimizer is the trainer's AdamW (no compiled one).

    Args:
        training: the settings.
        clip_norm: of the gradients of all processes together.
        universal: resume from a checkpoint that was converted for another number of processes.

    Raises:
        PrerequisiteError, InputError: as `check_zero`.
    """
    stage = zero_stage(training)
    if stage == 0:
        return None
    check_zero(training)
    micro = micro_batch(training)
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": training.global_batch // micro // processes(),
        "gradient_clipping": clip_norm,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": stage,
            "reduce_bucket_size": BUCKET_ELEMENTS,
            "allgather_bucket_size": BUCKET_ELEMENTS,
            "stage3_prefetch_bucket_size": BUCKET_ELEMENTS,
            "stage3_param_persistence_threshold": WHOLE_ELEMENTS,
            "stage3_gather_16bit_weights_on_model_save": True,
        },
    }
    if universal:
        config["checkpoint"] = {"load_universal": True}
    if training.compute_dtype == "bfloat16":  # autocast over fp32 weights, as in one process
        # By default DeepSpeed also sends the gradients of every Linear (and under ZeRO-3 its weights) in bfloat16:
        # sums over processes would be rounded to 8 bits. Named modules are those; with none, all stays fp32.
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    return config


@contextmanager
def partitioned_loading(training: TrainingSettings) -> Iterator[None]:
    """Under ZeRO-3, let models loaded in this block keep only this process's share of each weight."""
    config = deepspeed_config(training, clip_norm=training.clip_norm) if zero_stage(training) == 3 else None
    if config is None:
        yield
        return
    import deepspeed
    from transformers.integrations import HfDeepSpeedConfig

    deepspeed.init_distributed(dist_backend="nccl" if torch.cuda.is_available() else "gloo", auto_mpi_discovery=False)
    alive = HfDeepSpeedConfig(config)  # transformers holds it by a weak reference only
    try:
        yield
    finally:
        del alive
        forget()


def forget() -> None:
    """Clear what a DeepSpeed training leaves behind in the process, so that the next one (or none) starts afresh."""
    os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()


def share_heads(model: nn.Module) -> None:
    """Tell ZeRO-3 that `model.forward` itself uses the head weights of its branches, outside of the heads' forward.

    They are then whole from the begin of forward to its end, and again during backward, where their gradient is added
    to that of a tied embedding before it is reduced.
    """
    import deepspeed

    for branch in model.children():
        if isinstance(branch, PreTrainedModel):
            deepspeed.zero.register_external_parameter(model, branch.get_output_embeddings().weight)


def full_shape(parameter: torch.Tensor) -> torch.Size:
    """Return the shape of a weight, also when this process holds only a share of it."""
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))


@contextmanager
def gathered(*parameters: nn.Parameter, change: bool = False) -> Iterator[None]:
    """Make weights whole on every process within the block; all processes must enter.

    Changes are lost, unless `change` announces them: then the main process's hold for all.
    """
    if not any(hasattr(parameter, "ds_id") for parameter in parameters):
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(parameters), modifier_rank=0 if change else None):
        yield


def is_partitioned(model: nn.Module) -> bool:
    """Say whether this process holds only a share of a model's weights."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


def whole_weights(model: nn.Module) -> dict[str, torch.Tensor] | None:
    """Collect partitioned weights on the main process's CPU, one at a time; every process must call this.

    Returns:
        The weights by name, a tied one once, for `save_pretrained(..., state_dict=)`; empty on other processes.
        None when the weights are not partitioned: the model can then save itself.
    """
    if not is_partitioned(model):
        return None
    whole = {}
    for name, parameter in model.named_parameters():
        with gathered(parameter):
            if is_main():
                whole[name] = parameter.detach().cpu().clone()
    if is_main():
        names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        whole.update({name: value for name, value in model.state_dict().items() if name not in names})  # buffers
    return whole
