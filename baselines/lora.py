"""Low-rank adapters through peft: attached before a training, merged into plain weights before the export."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from baselines import distributed
from baselines.settings import LoRA
from foundation.errors import InputError


def attach(model: PreTrainedModel, lora: LoRA) -> Any:
    """Return the model with fresh adapters (B = 0: its outputs are unchanged); only they require gradients.

    Raises:
        InputError: the model lacks one of the target modules.
    """
    import peft

    present = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    absent = [name for name in lora.targets if name not in present]
    if absent:
        linear = sorted({name.rpartition(".")[2] for name, module in model.named_modules()
                         if type(module).__name__ == "Linear"})
        raise InputError(f"the LoRA target modules {', '.join(absent)} are not in {type(model).__name__}; its linear "
                         f"layers are: {', '.join(linear)}")
    configuration = peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=0.0, bias="none",
                                    target_modules=list(lora.targets), task_type="CAUSAL_LM")
    return peft.get_peft_model(model, configuration)


def merge(model: Any) -> PreTrainedModel:
    """Return the plain model with its adapters added into its weights.

    Where ZeRO-3 shares out the weights, each layer's are made whole for its sum; the library would add to nothing.
    """
    if not distributed.is_partitioned(model):
        merged: PreTrainedModel = model.merge_and_unload()
        return merged
    from peft.tuners.lora import LoraLayer

    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        with distributed.gathered(*layer.parameters(), change=True):
            layer.merge()
    plain: PreTrainedModel = model.unload()
    return plain
