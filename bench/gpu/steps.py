"""Updates of whole models with random weights: SFT, WD-JT, WD-JT with a frozen weak side, and the entropy pass.

The suite's own modules compute them (BranchedModel, the methods' losses, the entropy pass), without its trainer: an
update is a few micro-batches, clipping of the joint norm and AdamW. As at paper scale: fp32 weights and optimizer
state, bf16 autocast, gradient checkpointing, examples of mixed lengths up to 4,096 tokens, sorted within the update.
Rounds time the cases one after the other, so that a GPU that slows down slows all.

Utilisation counts 6 N a trained token and branch (forward 2, backward 4) and causal attention; a frozen branch and the
entropy pass 2 N. The recomputation of checkpointing is no model FLOP.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.gpu.context import Context
from bench.gpu.device import peak_flops
from bench.gpu.loss import CANDIDATE, PATHS, usable_paths
from bench.gpu.timing import Stopwatch, is_out_of_memory, spread
from replication.cost.compute import forward_flops
from replication.cost.shapes import Shape

SHAPES: dict[str, Shape] = {
    "qwen3-0.6b": Shape(layers=28, hidden=1024, intermediate=3072, heads=16, kv_heads=8, head_dim=128,
                        vocabulary=151_936, tied=True, card="0.6B parameters, 0.44B without embeddings, 28 layers"),
    "qwen3-1.7b": Shape(layers=28, hidden=2048, intermediate=6144, heads=16, kv_heads=8, head_dim=128,
                        vocabulary=151_936, tied=True, card="1.7B parameters, 1.4B without embeddings, 28 layers"),
    "small": Shape(layers=2, hidden=32, intermediate=64, heads=2, kv_heads=1, head_dim=16, vocabulary=200, tied=True,
                   card="made up"),
}
MICRO_BATCH = {"qwen3-0.6b": 2, "qwen3-1.7b": 1, "small": 2}
LENGTHS = (4096, 3712, 3072, 2560, 2304, 1792, 1280, 1024)
"""Tokens of an update's examples: their mean, 2,480, is near what the estimates assume of the math pool (2,500)."""
PROMPT = 200
_SMALL_LENGTHS, _SMALL_PROMPT = (16, 12, 10, 8), 4
CASES = ("sft", "wdjt", "wdjt-frozen", "entropy")
_LOSS = {"sft": "sft", "wdjt": "wmss", "wdjt-frozen": "wmss"}


@dataclass(frozen=True, slots=True)
class Work:
    """Tokens of an update."""

    attended: int
    padded: int
    supervised: int


def steps_part(context: Context, model: str) -> None:
    """Time the cases at a model's shape by the default path of the loss and by the candidate."""
    bench = Bench(context, "small" if context.small else model)
    context.put("shape", bench.shape_record())
    names = [name for name in ("default", CANDIDATE) if name in usable_paths(context)]
    plan = [(case, name) for case in CASES for name in names]
    found: dict[str, Any] = {f"{case}, {name}": {} for case, name in plan}
    alive = []
    for case, name in plan:  # warm-up, and the highest memory
        if not context.room_for(f"{case}, {name}", 1):
            continue
        try:
            found[f"{case}, {name}"]["peak_bytes"] = bench.peak(case, name)
            alive.append((case, name))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            bench.forget()
            found[f"{case}, {name}"]["reason"] = f"out of memory ({error})".splitlines()[0]
            context.say(f"{case}, {name}: does not fit into this GPU's memory")
    context.put("cases", found)
    _rounds(context, bench, alive, found)


def _rounds(context: Context, bench: Bench, alive: list[tuple[str, str]], found: dict[str, Any]) -> None:
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in alive}
    wanted, longest = (1 if context.small else 5), 0.0
    for number in range(wanted):
        if not alive or not context.room_for(f"round {number + 1} of {wanted}", 1.2 * longest + 0.5):
            break
        before = context.remaining()
        for case, name in alive:
            seconds[case, name].append(bench.watch.once(bench.action(case, name)))
        longest = max(longest, before - context.remaining())
        for (case, name), values in seconds.items():
            found[f"{case}, {name}"] |= bench.report(case, values, seconds.get(("sft", name)))
        context.put("cases", found)
    for title, row in found.items():
        if "seconds" in row:
            utilisation = "" if row["mfu"] is None else f", MFU {row['mfu']:.1%}"
            context.say(f"{title}: {row['seconds']['median']:.3f} s, {row['tokens_per_second']:,.0f} tokens/s, "
                        f"{row['times_sft'] or math.nan:.2f} x SFT{utilisation}")


class Bench:
    """One shape's models, rows and optimizers."""

    def __init__(self, context: Context, model: str) -> None:
        import torch

        self.torch, self.context, self.model = torch, context, model
        self.device, self.shape, self.micro = context.device, SHAPES[model], MICRO_BATCH[model]
        self.peak_flops = peak_flops(torch.cuda.get_device_name()) if context.device == "cuda" else None
        self.watch = Stopwatch(context.device)
        self.watch.flush = None if context.device == "cpu" else self.watch.flush
        self.lengths, self.prompt = (_SMALL_LENGTHS, _SMALL_PROMPT) if context.small else (LENGTHS, PROMPT)
        self.rows = self._rows()
        self.work = self._work()
        self.sides: dict[str, Any] = {}
        self.optimizers: dict[str, Any] = {}
        self.losses: list[float] = []

    def shape_record(self) -> dict[str, Any]:
        """Return what was timed, for the result file."""
        return {"model": self.model, "parameters": self.shape.parameters, "lengths": self.lengths,
                "prompt": self.prompt, "micro_batch": self.micro, "attended_tokens": self.work.attended,
                "padded_tokens": self.work.padded, "supervised_tokens": self.work.supervised,
                "weights": "float32", "autocast": "bfloat16", "gradient_checkpointing": True}

    def peak(self, case: str, path: str) -> int | None:
        """Run a case once; return the highest memory allocated, all models that are there included (None on a CPU)."""
        self._prepare(case)
        if self.device != "cuda":
            self.action(case, path)()
            return None
        self.torch.cuda.reset_peak_memory_stats()
        self.action(case, path)()
        self.torch.cuda.synchronize()
        return int(self.torch.cuda.max_memory_allocated())

    def forget(self) -> None:
        """Give back the memory of gradients after an update that did not fit."""
        for side in self.sides.values():
            side.zero_grad(set_to_none=True)
        if self.device == "cuda":
            self.torch.cuda.empty_cache()

    def action(self, case: str, path: str) -> Callable[[], None]:
        """Return what runs one update, or one entropy pass over the same examples."""
        from baselines.mixed_cross_entropy import computed_by

        def run() -> None:
            with computed_by(PATHS[path]):
                self._entropy() if case == "entropy" else self._update(case)

        return run

    def report(self, case: str, seconds: list[float], sft: list[float] | None) -> dict[str, Any]:
        """Return a case's times, its cost in SFT updates (median over the rounds), its rate and utilisation."""
        found, flops = spread(seconds), self.model_flops(case)
        times = None if sft is None else spread([own / other for own, other in zip(seconds, sft, strict=True)])
        rate = flops / found["median"]
        return {"seconds": found, "tokens_per_second": self.work.attended / found["median"], "model_flops": flops,
                "model_tflops_per_second": rate / 1e12, "mfu": rate / self.peak_flops if self.peak_flops else None,
                "times_sft": times and times["median"], "times_sft_spread": times}

    def model_flops(self, case: str) -> float:
        """Return the model FLOPs of an update; attended tokens, causal attention, nothing recomputed."""
        forward = sum(length * forward_flops(self.shape, length) for length in self.lengths)
        return forward * {"sft": 3, "wdjt": 6, "wdjt-frozen": 4, "entropy": 1}[case]

    def _prepare(self, case: str) -> None:
        for side in ("strong", "weak") if case.startswith("wdjt") else ("strong",):
            if side not in self.sides:
                self.sides[side] = self._model(len(self.sides))
                self.optimizers[side] = self.torch.optim.AdamW(
                    self.sides[side].parameters(), lr=1e-5, weight_decay=0.0, fused=self.device == "cuda")

    def _update(self, case: str) -> None:
        from baselines import METHODS
        from baselines.branches import BranchedModel

        pair = case != "sft"
        trained = ["strong", "weak"] if case == "wdjt" else ["strong"]
        if pair:
            self.sides["weak"].requires_grad_(case == "wdjt")
        module = BranchedModel(METHODS[_LOSS[case]](), self.sides["strong"], self.sides["weak"] if pair else None)
        module.gradient_checkpointing_enable()
        module.train()
        total = self.torch.zeros((), device=self.device)
        for batch in self._batches():
            with self.torch.autocast(self.device, self.torch.bfloat16):
                loss = module(**batch, num_items_in_batch=self.work.supervised)
            loss.backward()
            total += loss.detach()
        parameters = [p for side in trained for p in self.sides[side].parameters()]
        self.torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for side in trained:
            self.optimizers[side].step()
            self.optimizers[side].zero_grad(set_to_none=True)
        if not math.isfinite(float(total)):
            raise RuntimeError(f"{case}: the loss is {float(total)}")

    def _entropy(self) -> None:
        from baselines.scoring import example_entropies

        values = example_entropies(self.sides["strong"], self.rows, pad_id=0, compute_dtype="bfloat16",
                                   batch_tokens=16_384)
        if not all(math.isfinite(value) for value in values):
            raise RuntimeError(f"an entropy is not finite: {values}")

    def _batches(self) -> list[dict[str, Any]]:
        from baselines.batches import collate

        parts = [self.rows[i : i + self.micro] for i in range(0, len(self.rows), self.micro)]
        return [{name: tensor.to(self.device) for name, tensor in collate(part, 0).items()} for part in parts]

    def _rows(self) -> list[dict[str, Any]]:
        generator = self.torch.Generator().manual_seed(0)
        rows = []
        for number, length in enumerate(self.lengths):
            ids = self.torch.randint(1, self.shape.vocabulary, (length,), generator=generator).tolist()
            rows.append({"id": str(number), "input_ids": ids, "labels": [-100] * self.prompt + ids[self.prompt :]})
        return rows

    def _work(self) -> Work:
        batches = [self.lengths[i : i + self.micro] for i in range(0, len(self.lengths), self.micro)]
        return Work(attended=sum(self.lengths), padded=sum(len(batch) * max(batch) for batch in batches),
                    supervised=sum(self.lengths) - self.prompt * len(self.lengths))

    def _model(self, seed: int) -> Any:
        from transformers import AutoModelForCausalLM, Qwen3Config

        shape = self.shape
        self.torch.manual_seed(seed)
        config = Qwen3Config(
            vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
            num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
            head_dim=shape.head_dim, tie_word_embeddings=shape.tied, max_position_embeddings=8192, pad_token_id=0,
            bos_token_id=None, eos_token_id=1)
        with self.torch.device(self.device):
            return AutoModelForCausalLM.from_config(config, dtype=self.torch.float32)
