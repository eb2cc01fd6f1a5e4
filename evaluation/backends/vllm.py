"""Generation with vLLM: one engine per GPU (or group of GPUs), each in a process of its own, one file of records.

Work is shared out by problem, in chunks: engines do not wait for each other as tensor parallelism would, a problem's
samples stay on one engine, whose prefix cache then reads their prompt once, and chunks get smaller towards the end, so
that no GPU is idle for long. Resuming goes by sequence and does not depend on chunks or on the number of GPUs.

Every (prompt, sample) is a request of its own with n = 1, its own seed and its own limit. vLLM would also take n
samples in one request, but derives their seeds itself then (its V1 engine: the request's seed plus the sample's index),
and promises nowhere to keep doing so; the recorded seed is to be the one that was used. Nothing is lost: the V1 engine
splits such a request in the same way.

Reproducible on the same hardware, vLLM version and chunks only: vLLM's kernels are not invariant to batch composition
unless VLLM_BATCH_INVARIANT=1 is set. Texts differ from the `hf` backend's by rounding and by how noise is drawn.

The text model of a multimodal one (Gemma-3) is given to vLLM in the published form, as the paper does (App. E.4). That
form is written beside the records when there is something to generate, and removed afterwards.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from evaluation.backends.engines import Answer, Rows, run_chunks
from evaluation.backends.interface import ONE_GPU, Engine, Question, Request
from evaluation.backends.sequences import (
    PlannedSequence,
    append,
    open_records,
    plan_sequences,
    record,
    refuse_large_top_k,
)
from foundation import multimodal
from foundation.errors import GenerationError, InputError, PrerequisiteError
from foundation.prompts import stop_ids

SMALLEST_TEMPERATURE = 0.01
"""vLLM raises smaller temperatures to this with no more than a warning."""
CHUNK_SEQUENCES = 2048
"""Given to an engine at a time, and lost at most by a kill: enough to keep its continuous batching busy."""
LAST_CHUNKS = 128
"""A chunk is not made smaller: fewer sequences take an engine no less time, as reading the weights dominates."""


def generate(checkpoint: Path, prompts: Sequence[Question], request: Request, records: Path, *, key: str,
             on_progress: Callable[[float], None] = lambda fraction: None, engine: Engine = ONE_GPU) -> None:
    """Append the records of a request to a file: see `evaluation.backends.interface.Backend`.

    Args:
        checkpoint: as there.
        prompts: as there.
        request: as there; `batch_size` is not used, vLLM forms its own batches.
        records: as there; records come in the order in which chunks finish. Logs of engines that fail stay beside it.
        key: as there.
        on_progress: as there.
        engine: how each engine uses its GPUs; there are as many engines as CUDA_VISIBLE_DEVICES allows.

    Raises:
        InputError: as there, or a temperature that vLLM would change.
        PrerequisiteError: vLLM is not installed, there are too few GPUs, or they have too little memory.
        ArtifactError: the checkpoint cannot be put back into its published form.
        GenerationError: vLLM gave up on a sequence, or engines died.
    """
    if importlib.util.find_spec("vllm") is None:
        raise PrerequisiteError("the vllm backend needs the package vllm; install it with: python -m pip install vllm "
                                "(it needs a GPU), or use the hf backend")
    if 0 < request.sampling.temperature < SMALLEST_TEMPERATURE:
        raise InputError(f"vLLM would raise temperature {request.sampling.temperature} to {SMALLEST_TEMPERATURE}; give "
                         "0 for greedy decoding, or use the hf backend")
    from transformers import AutoConfig, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    sequences = plan_sequences(tokenizer, prompts, request)
    config = AutoConfig.from_pretrained(checkpoint, local_files_only=True).get_text_config()
    refuse_large_top_k(request, config.vocab_size)
    groups = _gpu_groups(engine.gpus_per_engine)
    # A record stands for itself here: resuming does not depend on the number of GPUs or on chunks.
    done = open_records(records, key, [[s] for s in sequences])
    todo = [s for s in sequences if s.slot not in done]
    if not todo:
        return
    with multimodal.published_form(checkpoint, records.with_name(f".{records.name}.export")) as folder:
        settings = _engine_settings(folder, sequences, request, engine)
        if multimodal.is_part(checkpoint):
            settings["limit_mm_per_prompt"] = {"image": 0}  # no memory for pictures: prompts are text
        make = partial(load, settings, request, stop_ids(tokenizer, request.prompt))
        _run(form_chunks(todo, len(groups)), groups, make, records,
             lambda left: on_progress(1 - left / len(sequences)))


def _run(chunks: list[list[PlannedSequence]], groups: list[str], make: Callable[[Path], Answer], records: Path,
         on_left: Callable[[int], None]) -> None:
    left = sum(map(len, chunks))
    with records.open("a", encoding="utf-8") as file:
        def keep(rows: Rows) -> None:
            nonlocal left
            append(file, rows)
            left -= len(rows)
            on_left(left)

        run_chunks(groups, chunks, make, records, keep)


def form_chunks(todo: Sequence[PlannedSequence], engines: int) -> list[list[PlannedSequence]]:
    """Share sequences out: problems stay whole where they fit a chunk, and chunks shrink towards the end.

    A chunk is half of what would be an engine's equal share of the rest: whoever is done early takes the next one, and
    the last ones are short. One engine has nobody to wait for, and only durability asks for chunks.
    """
    chunks: list[list[PlannedSequence]] = []
    current: list[PlannedSequence] = []
    left = len(todo)
    for problem in _problems(todo):
        share = CHUNK_SEQUENCES if engines == 1 else max(LAST_CHUNKS, -(-left // (2 * engines)))
        if current and len(current) + len(problem) > min(CHUNK_SEQUENCES, share):
            chunks.append(current)
            left -= len(current)
            current = []
        current = current + problem
    return [*chunks, current] if current else chunks


def _problems(todo: Sequence[PlannedSequence]) -> list[list[PlannedSequence]]:
    """Return the sequences of each prompt; more than a chunk of them in pieces."""
    whole = [list(group) for _, group in itertools.groupby(todo, key=lambda s: s.slot.id)]
    return [problem[i : i + CHUNK_SEQUENCES] for problem in whole for i in range(0, len(problem), CHUNK_SEQUENCES)]


def _gpu_groups(gpus_per_engine: int) -> list[str]:
    """Return the CUDA_VISIBLE_DEVICES of each engine."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        import torch

        gpus = [str(i) for i in range(torch.cuda.device_count())]
    else:
        gpus = [name for name in visible.split(",") if name.strip()]
    whole = len(gpus) // gpus_per_engine * gpus_per_engine
    if whole == 0:
        raise PrerequisiteError(f"the vllm backend needs {gpus_per_engine} GPU(s), found {len(gpus)}; run on a machine "
                                "that has them, or use the hf backend")
    return [",".join(gpus[i : i + gpus_per_engine]) for i in range(0, whole, gpus_per_engine)]


def _engine_settings(checkpoint: Path, sequences: Sequence[PlannedSequence], request: Request,
                     engine: Engine) -> dict[str, Any]:
    return {
        "model": str(checkpoint),
        "tensor_parallel_size": engine.gpus_per_engine,
        "gpu_memory_utilization": engine.gpu_memory_utilization,
        "enable_prefix_caching": True,
        "seed": request.seed % 2**32,
        "dtype": request.compute_dtype,
        "max_model_len": max(len(s.prompt_ids) + s.limit for s in sequences),
        # "vllm": decoding is the request's alone, without what the checkpoint's generation config would add.
        "generation_config": "vllm",
    }


def load(settings: dict[str, Any], request: Request, stops: list[int], log: Path) -> Answer:
    """Load an engine in this process and return what answers chunks with it.

    Args:
        settings: of the engine.
        request: what is asked of it.
        stops: token ids that end a sequence.
        log: what this process said so far: engines on several GPUs give their reasons there alone.

    Raises:
        PrerequisiteError: the GPU has too little memory; the message names the setting that helps.
    """
    # The engine inside this process: deterministic scheduling, and no grandchild that could outlive a kill.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    from vllm import LLM

    try:
        engine = LLM(**settings)
    except Exception as error:
        said = f"{type(error).__name__}: {error}\n{log.read_text(encoding='utf-8', errors='replace')}"
        if (advice := _memory_advice(said, settings)) is None:
            raise
        raise PrerequisiteError(f"vLLM cannot start on GPU {os.environ['CUDA_VISIBLE_DEVICES']}: "
                                f"{' '.join(str(error).split())[:500]} What helps: {advice}") from error
    return partial(_answer, engine, request, stops)


def _memory_advice(said: str, settings: dict[str, Any]) -> str | None:
    """Return what to set where an engine found too little memory, by vLLM's words for it; None for other errors."""
    share, gpus = settings["gpu_memory_utilization"], settings["tensor_parallel_size"]
    wider = f"--set engine.gpus_per_engine={2 * gpus} spreads the weights over more GPUs"
    if "less than desired GPU memory utilization" in said:
        return ("free the GPU of other processes (nvidia-smi names them), or take less than "
                f"{share} of it: --set engine.gpu_memory_utilization=0.5; {wider}")
    if "No available memory for the cache blocks" in said or "larger than the available KV cache memory" in said:
        return (f"weights leave too little room for {settings['max_model_len']} tokens within {share} of the memory: "
                f"--set engine.gpu_memory_utilization=0.95; {wider}; shorter limits (eval.max_new_tokens) need less")
    if "OutOfMemoryError" in said or "CUDA out of memory" in said:
        return f"{wider}; a lower engine.gpu_memory_utilization than {share} leaves more to the rest of the process"
    return None


def _answer(engine: Any, request: Request, stops: list[int], chunk: Sequence[PlannedSequence]) -> Rows:
    from vllm import SamplingParams

    sampling = request.sampling
    outputs = engine.generate(
        [{"prompt_token_ids": s.prompt_ids} for s in chunk],
        [SamplingParams(n=1, temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k or -1,
                        max_tokens=s.limit, stop=list(request.stop) or None, stop_token_ids=stops, seed=s.seed)
         for s in chunk],
        use_tqdm=False)
    return [_record(s, output.outputs[0], request) for s, output in zip(chunk, outputs, strict=True)]


def _record(sequence: PlannedSequence, completion: Any, request: Request) -> dict[str, Any]:
    if completion.finish_reason not in ("stop", "length"):
        raise GenerationError(f"vLLM ended sample {sequence.slot.sample} of {sequence.slot.id} with "
                              f"{completion.finish_reason!r}")
    return record(sequence, text=completion.text, finish_reason=completion.finish_reason,
                  token_ids=list(completion.token_ids), keep_token_ids=request.keep_token_ids)
