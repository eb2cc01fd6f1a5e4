"""Small random models in the published form of the four backbones: real config fields, real weight names, two shards.

The configs are written as on the hub (fields of that time, not what today's `transformers` would write), smaller.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

CASES = json.loads((Path(__file__).parent / "cases" / "weight_names.json").read_text(encoding="utf-8"))
FAMILIES = ("qwen3-4b", "qwen3-8b", "qwen2.5-3b", "gemma-3-4b")
LAYERS = {"qwen3-4b": 2, "qwen3-8b": 2, "qwen2.5-3b": 2, "gemma-3-4b": 6}
WINDOW = 16
_QWEN_TEMPLATE = (
    "{%- for message in messages -%}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}"
)
_SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
_QWEN = _SMALL | {"attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "silu",
                  "initializer_range": 0.02, "max_position_embeddings": 256, "num_hidden_layers": 2,
                  "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None,
                  "torch_dtype": "bfloat16", "use_cache": True, "use_sliding_window": False}


def published_config(family: str, vocabulary: int) -> dict:
    """Return the config.json of a small model of the family."""
    if family == "gemma-3-4b":
        text = _SMALL | {"model_type": "gemma3_text", "num_hidden_layers": LAYERS[family], "sliding_window": WINDOW,
                         "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "vocab_size": vocabulary,
                         "query_pre_attn_scalar": 8, "initializer_range": 0.2}
        vision = {"hidden_size": 16, "image_size": 28, "intermediate_size": 32, "model_type": "siglip_vision_model",
                  "num_attention_heads": 2, "num_hidden_layers": 2, "patch_size": 14, "vision_use_head": False}
        return {"architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 255999,
                "eoi_token_index": 256000, "eos_token_id": [1, 106], "image_token_index": vocabulary - 1,
                "initializer_range": 0.02, "mm_tokens_per_image": 4, "model_type": "gemma3", "text_config": text,
                "torch_dtype": "bfloat16", "vision_config": vision}
    config = _QWEN | {"vocab_size": vocabulary, "tie_word_embeddings": family != "qwen3-8b", "initializer_range": 0.2}
    if family == "qwen2.5-3b":
        del config["head_dim"]  # Qwen2 has hidden_size / heads
        return config | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "max_window_layers": 36}
    return config | {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "attention_bias": False,
                     "max_window_layers": 36}


def published(family: str, folder: Path, seed: int = 0) -> Path:
    """Write a random model of the family as its publisher would: config, tokenizer, two shards with their index."""
    import transformers

    folder.mkdir(parents=True)
    vocabulary = _tokenizer(family, folder)
    (folder / "config.json").write_text(json.dumps(published_config(family, vocabulary)))
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    auto = (transformers.AutoModelForImageTextToText if family == "gemma-3-4b" else transformers.AutoModelForCausalLM)
    torch.manual_seed(seed)
    model = auto.from_config(config).to(torch.bfloat16)
    for name, parameter in model.named_parameters():  # what is initialised to a constant would hide a mix-up
        if "norm" in name or name.endswith(("bias", "_weight")):
            parameter.data.normal_(0.0, 0.1)
    write_shards(folder, weights_of(model))
    return folder


def weights_of(model) -> dict[str, torch.Tensor]:
    """Return the weights under the names on the hub, a tied head once."""
    tied = model.config.get_text_config().tie_word_embeddings
    state = {name: value for name, value in model.state_dict().items() if not (tied and name == "lm_head.weight")}
    return {_hub_name(name) if hasattr(model.config, "vision_config") else name: value for name, value in state.items()}


def _hub_name(name: str) -> str:
    """In memory `model.language_model.`, on the hub `language_model.model.`; the tower has one level more there."""
    name = re.sub(r"^model\.language_model\.", "language_model.model.", name)
    name = re.sub(r"^model\.(?=vision_tower|multi_modal)", "", name)
    return re.sub(r"^vision_tower\.(?!vision_model\.)", "vision_tower.vision_model.", name)


def write_shards(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """Write two shards and their index."""
    names, places = sorted(weights), {}
    for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), start=1):
        shard = f"model-0000{number}-of-00002.safetensors"
        save_file({name: weights[name].contiguous() for name in part}, folder / shard, {"format": "pt"})
        places |= dict.fromkeys(part, shard)
    size = sum(value.numel() * value.element_size() for value in weights.values())
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": size}, "weight_map": places}))


def _tokenizer(family: str, folder: Path) -> int:
    """Write the family's tokenizer with the words of the generated problems; return the size of its vocabulary."""
    from replication import tiny

    gemma = family == "gemma-3-4b"
    tokenizer = tiny.build_tokenizer(folder, "tiny-gemma" if gemma else "tiny")
    tokenizer.eos_token = "<eos>" if gemma else "<|endoftext|>"
    tokenizer.chat_template = None if gemma else _QWEN_TEMPLATE  # Gemma's PT ships without one (E.4)
    (folder / "chat_template.jinja").unlink()
    tokenizer.save_pretrained(folder)
    for name in ("preprocessor_config.json", "processor_config.json") if gemma else ():
        (folder / name).write_text(json.dumps({"processor_class": "Gemma3Processor", "image_seq_length": 4}))
    return len(tokenizer)


def fetched(family: str, source: Path, folder: Path) -> Path:
    """Write the text checkpoint of a published model, as fetching does."""
    from replication.actions.published import text_checkpoint
    from replication.models import MODELS

    text_checkpoint(source, MODELS[family], MODELS[family].chat_template, folder)
    return folder


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Return all weights of a checkpoint folder by name."""
    from foundation.weight_files import read_folder

    return {name: load_file(tensor.file)[name] for name, tensor in read_folder(folder).items()}


def pattern(name: str) -> str:
    """Return a weight's name with N for the number of its layer."""
    return re.sub(r"\.layers\.\d+\.", ".layers.N.", name)


def expand(patterns: list[str], layers: int) -> list[str]:
    """Return the names that patterns stand for."""
    return [p.replace(".N.", f".{i}.") for p in patterns for i in (range(layers) if ".N." in p else (0,))]
