"""Generation with vLLM: one engine per GPU (or group of GPUs), each in a process of its own, one file of records.

Every (prompt, sample) is a request of its own with n = 1, its own seed and its own limit. vLLM would also take n
samples in one request, but derives their seeds itself then (its V1 engine: the request's seed plus the sample's index),
and promises nowhere to keep doing so; the recorded seed is to be the one that was used. Nothing is lost: the V1 engine
splits such a request in the same way, and prefix caching shares the prompt between the samples.

Reproducible on the same hardware, vLLM version and chunks only: vLLM's kernels are not invariant to batch composition
unless VLLM_BATCH_INVARIANT=1 is set. Texts differ from the `hf` backend's by rounding and by how noise is drawn.

The text model of a multimodal one (Gemma-3) is given to vLLM in the published form, as the paper does (App. E.4). That
form is written beside the records when there is something to generate, and removed afterwards.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from evaluation.backends.interface import Question, Request
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

_engine: Any = None  # of this process


def generate(checkpoint: Path, prompts: Sequence[Question], request: Request, records: Path, *, key: str,
             on_progress: Callable[[float], None] = lambda fraction: None, gpus_per_engine: int = 1) -> None:
    """Append the records of a request to a file: see `evaluation.backends.interface.Backend`.

    Args:
        checkpoint: as there.
        prompts: as there.
        request: as there; `batch_size` is not used, vLLM forms its own batches.
        records: as there; records come in the order in which chunks finish.
        key: as there.
        on_progress: as there.
        gpus_per_engine: tensor parallelism, for models that do not fit one GPU.

    Raises:
        InputError: as there, or a temperature that vLLM would change.
        PrerequisiteError: vLLM is not installed, or there are too few GPUs.
        ArtifactError: the checkpoint cannot be put back into its published form.
        GenerationError: vLLM gave up on a sequence.
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
    groups = _gpu_groups(gpus_per_engine)
    # A record stands for itself here: resuming does not depend on the number of GPUs or on chunks.
    done = open_records(records, key, [[s] for s in sequences])
    todo = [s for s in sequences if s.slot not in done]
    if not todo:
        return
    with multimodal.published_form(checkpoint, records.with_name(f".{records.name}.export")) as folder:
        settings = _engine_settings(folder, sequences, request, gpus_per_engine)
        if multimodal.is_part(checkpoint):
            settings["limit_mm_per_prompt"] = {"image": 0}  # no memory for pictures: prompts are text
        _run(settings, groups, todo, request, stop_ids(tokenizer, request.prompt), records,
             lambda left: on_progress(1 - left / len(sequences)))


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
                     gpus_per_engine: int) -> dict[str, Any]:
    return {
        "model": str(checkpoint),
        "tensor_parallel_size": gpus_per_engine,
        "enable_prefix_caching": True,
        "seed": request.seed % 2**32,
        "dtype": request.compute_dtype,
        "max_model_len": max(len(s.prompt_ids) + s.limit for s in sequences),
        # "vllm": decoding is the request's alone, without what the checkpoint's generation config would add.
        "generation_config": "vllm",
    }


def _run(settings: dict[str, Any], groups: list[str], todo: list[PlannedSequence], request: Request, stops: list[int],
         records: Path, on_left: Callable[[int], None]) -> None:
    size = min(CHUNK_SEQUENCES, -(-len(todo) // len(groups)))
    chunks = [todo[i : i + size] for i in range(0, len(todo), size)]
    context = multiprocessing.get_context("spawn")  # a forked process cannot use CUDA
    free = context.SimpleQueue()
    for group in groups:
        free.put(group)
    left = len(todo)
    with (records.open("a", encoding="utf-8") as file,
          ProcessPoolExecutor(min(len(groups), len(chunks)), context, _prepare_process, (free,)) as pool):
        answers = [pool.submit(_answer, chunk, request, stops, settings) for chunk in chunks]
        try:
            for answer in as_completed(answers):
                rows = answer.result()
                append(file, rows)
                left -= len(rows)
                on_left(left)
        except BrokenProcessPool as error:
            raise GenerationError("a vLLM process died (killed for want of memory?); rerun: finished samples are "
                                  "kept") from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _prepare_process(free: Any) -> None:
    """Give a new process the next free group of GPUs."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    os.environ["CUDA_VISIBLE_DEVICES"] = free.get()
    # The engine inside this process: deterministic scheduling, and no grandchild that could outlive a kill.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # an orphan would hold its GPU for ever


def _answer(chunk: Sequence[PlannedSequence], request: Request, stops: list[int],
            settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Generate a chunk with this process's engine, which its first chunk loads."""
    global _engine
    from vllm import LLM, SamplingParams

    _engine = _engine or LLM(**settings)
    sampling = request.sampling
    outputs = _engine.generate(
        [{"prompt_token_ids": s.prompt_ids} for s in chunk],
        [SamplingParams(n=1, temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k or -1,
                        max_tokens=s.limit, stop=list(request.stop) or None, stop_token_ids=stops, seed=s.seed)
         for s in chunk],
        use_tqdm=False)
    return [_record(s, output.outputs[0], request) for s, output in zip(chunk, outputs, strict=True)]


def _record(sequence: PlannedSequence, completion: Any, request: Request) -> dict[str, Any]:
    if completion.finish_reason not in ("stop", "length"):
        raise GenerationError(f"vLLM ended sample {sequence.slot.sample} of {sequence.slot.id} with "
                              f"{completion.finish_reason!r}; rerun: finished samples are kept")
    return record(sequence, text=completion.text, finish_reason=completion.finish_reason,
                  token_ids=list(completion.token_ids), keep_token_ids=request.keep_token_ids)
