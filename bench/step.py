"""Cost of a WD-JT step and of the entropy pass relative to an SFT step on the same tokens (`make bench-step`).

The steps run through the real trainer on random weights: updates are timed one by one, SFT and WD-JT taking turns,
and the medians compared. Two forwards and two backwards make 2.0 the floor of WD-JT; a forward is a third of a step.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from replication.worker import ENVIRONMENT

STEP_TARGET = 2.1
ENTROPY_TARGET = 0.40
SHAPES = {
    # hidden, intermediate, layers, heads, key-value heads, vocabulary, batch, micro-batch, length
    "tiny": (128, 384, 4, 4, 2, 400, 64, 32, 80),
    "smollm2": (576, 1536, 30, 9, 3, 49152, 4, 4, 128),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.step", description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--updates", type=int, default=20, help="updates per round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of SFT, WD-JT and entropy, taking turns")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    options = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):  # as a worker process has it
        os.execve(sys.executable, [sys.executable, "-m", "bench.step", *sys.argv[1:]], dict(os.environ) | ENVIRONMENT)
    result = measure(options.shape, options.updates, options.rounds, options.threads)
    print(json.dumps(result) if options.json else _text(result))
    return 0 if result["met"] else 1


def measure(shape: str, updates: int, rounds: int, threads: int) -> dict[str, Any]:
    """Return median seconds of an SFT update, a WD-JT update and the entropy pass over one update's tokens."""
    import torch

    torch.set_num_threads(threads)
    bench = _Bench(shape, updates)
    bench.round()  # warm-up: allocator and kernels
    bench.seconds = {name: [] for name in bench.seconds}
    for _ in range(rounds):
        bench.round()
    medians = {name: statistics.median(values) for name, values in bench.seconds.items()}
    step, entropy = medians["wdjt"] / medians["sft"], medians["entropy"] / medians["sft"]
    return {"shape": shape, "threads": threads, "updates": updates * rounds, "tokens_per_update": bench.tokens,
            "seconds": medians, "wdjt_to_sft": step, "entropy_to_sft": entropy,
            "met": step <= STEP_TARGET and entropy <= ENTROPY_TARGET}


class _Bench:
    """One shape's models and rows, and the times measured on them."""

    def __init__(self, shape: str, updates: int) -> None:
        import numpy as np

        from baselines.settings import TrainingSettings

        *self.model_shape, vocabulary, batch, micro, length = SHAPES[shape]
        self.vocabulary, self.tokens = vocabulary, batch * length
        rng = np.random.default_rng(0)
        ids = rng.integers(8, vocabulary, size=(batch * updates, length)).tolist()
        self.rows = [{"id": str(i), "input_ids": row, "labels": [-100] * (length // 3) + row[length // 3 :]}
                     for i, row in enumerate(ids)]
        self.training = TrainingSettings(learning_rate=1e-4, global_batch=batch, micro_batch=micro)
        self.batch, self.updates = batch, updates
        self.seconds: dict[str, list[float]] = {"sft": [], "wdjt": [], "entropy": []}

    def round(self) -> None:
        from baselines.scoring import example_entropies
        from baselines.sft import SFT
        from baselines.wmss import WMSS

        self.seconds["sft"] += self._updates(SFT(), weak=False)
        self.seconds["wdjt"] += self._updates(WMSS(), weak=True)
        model = self._model()
        started = time.perf_counter()
        example_entropies(model, self.rows, pad_id=0, batch_tokens=4096, compute_dtype="float32")
        self.seconds["entropy"].append((time.perf_counter() - started) / self.updates)

    def _updates(self, method: Any, *, weak: bool) -> list[float]:
        from transformers import PreTrainedTokenizerFast

        from baselines.branches import BranchedModel
        from baselines.trainer import train

        model = BranchedModel(method, self._model(), self._model() if weak else None)
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=_words(), pad_token="<pad>", eos_token="<eos>")
        times = [time.perf_counter()]
        with tempfile.TemporaryDirectory() as folder:
            train(model, self.rows, tokenizer, self.training, seed=0, work=Path(folder) / "trainer",
                  on_progress=lambda fraction: times.append(time.perf_counter()))
        return [after - before for before, after in itertools.pairwise(times[1:])]

    def _model(self) -> Any:
        import torch
        from transformers import AutoModelForCausalLM, Qwen3Config

        hidden, intermediate, layers, heads, kv_heads = self.model_shape
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(Qwen3Config(
            vocab_size=self.vocabulary, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=hidden // heads,
            tie_word_embeddings=True, max_position_embeddings=512, pad_token_id=0, eos_token_id=1,
        ))


def _words() -> Any:
    from tokenizers import Tokenizer, models

    return Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))


def _text(result: dict[str, Any]) -> str:
    seconds = result["seconds"]
    return "\n".join((
        f"shape {result['shape']}, {result['threads']} thread(s), {result['tokens_per_update']} tokens an update, "
        f"medians over {result['updates']} updates",
        f"SFT update    {seconds['sft']:8.4f} s",
        f"WD-JT update  {seconds['wdjt']:8.4f} s   {result['wdjt_to_sft']:.2f}x SFT (target <= {STEP_TARGET})",
        f"entropy pass  {seconds['entropy']:8.4f} s   {result['entropy_to_sft']:.2f}x SFT "
        f"(target <= {ENTROPY_TARGET:.2f})",
        "targets met" if result["met"] else "TARGET MISSED",
    ))


if __name__ == "__main__":
    sys.exit(main())
