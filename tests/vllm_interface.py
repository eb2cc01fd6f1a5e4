"""vLLM's interface as far as the backend uses it: recorded from a real installation, by signature.

    python tests/vllm_interface.py      records it anew; needs vllm (its GPU build or a CPU build)
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path

RECORD = Path(__file__).parent / "cases" / "vllm_interface.json"
USED = {
    "LLM": ("model", "tensor_parallel_size", "gpu_memory_utilization", "seed", "dtype"),
    "EngineArgs": ("enable_prefix_caching", "max_model_len", "generation_config"),  # what LLM passes on
    "LLM.generate": ("prompts", "sampling_params", "use_tqdm"),
    "SamplingParams": ("n", "temperature", "top_p", "top_k", "max_tokens", "stop", "stop_token_ids", "seed"),
    "CompletionOutput": ("text", "token_ids", "finish_reason"),
    "RequestOutput": ("outputs",),
    "TokensPrompt": ("prompt_token_ids",),
}
PASSED = ("gpu_memory_utilization", "top_k")
"""Always given by the backend, so their defaults may change from version to version."""


def described(function):
    """Return kind, default and type of every parameter."""
    return {name: [p.kind.name, _plain(p.default), _type(p.annotation)]
            for name, p in inspect.signature(function).parameters.items() if name != "self"}


def _type(annotation):
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return text if len(text) <= 60 else "<long>"


def _plain(value):
    if value is inspect.Parameter.empty:
        return "<required>"
    return value if value is None or isinstance(value, bool | int | float | str) else "<other>"


def installed():
    """Describe the vllm that is installed."""
    import vllm
    from vllm.engine.arg_utils import EngineArgs
    from vllm.inputs import TokensPrompt

    found = {"LLM": vllm.LLM.__init__, "LLM.generate": vllm.LLM.generate, "SamplingParams": vllm.SamplingParams,
             "EngineArgs": EngineArgs, "CompletionOutput": vllm.CompletionOutput, "RequestOutput": vllm.RequestOutput}
    keys = {name: ["KEYWORD_ONLY", "<required>" if name in TokensPrompt.__required_keys__ else "<other>", ""]
            for name in TokensPrompt.__annotations__}
    return {"version": vllm.__version__, "signatures": {name: described(it) for name, it in found.items()} | {
        "TokensPrompt": keys}}


if __name__ == "__main__":
    content = installed()
    texts = [f"{json.dumps(name)}: {{\n" + ",\n".join(f"{json.dumps(it)}: {json.dumps(value)}"
             for it, value in parameters.items()) + "}" for name, parameters in content["signatures"].items()]
    RECORD.write_text(f'{{"version": {json.dumps(content["version"])}, "signatures": {{\n' + ",\n".join(texts) + "}}\n")
