"""Cost of an update of each method, and of the entropy pass, relative to an SFT update (`make bench-step`).

The updates run through the real trainers on random weights. Every round times a few updates of each case one after the
other; a case's cost is the median over the rounds of its median update divided by SFT's in the same round, so that a
machine that slows down slows both. What a case is compared with has the same tokens: a pair is two sequences, compared
with one. References that a phase computes once, before its first update (log-probabilities of pairs), are not counted.

Two forwards and two backwards make 2.0 the floor of WD-JT and of pairs; a forward is a third of an update.
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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baselines import METHODS
from baselines.interface import Method
from baselines.settings import JointTraining
from replication.worker import ENVIRONMENT

SHAPES = {
    # hidden, intermediate, layers, heads, key-value heads, vocabulary, batch, micro-batch, length
    "tiny": (128, 384, 4, 4, 2, 400, 64, 32, 80),
    "smollm2": (576, 1536, 30, 9, 3, 49152, 4, 4, 128),
}
_ENVIRONMENT = ENVIRONMENT | {"TQDM_DISABLE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """Something to time: a method's update, on tokens or on pairs."""

    title: str
    method: Method
    target: float | None = None
    """Most that it may cost, in SFT updates; None: shown only."""
    other: str = ""
    """`weak` or `reference`: a second model takes part."""
    pairs: bool = False
    stored: bool = False
    """Trains on stored logits, with LoRA."""


def cases() -> dict[str, Case]:
    """Return what is timed, by name; `sft` is what the others are compared with."""
    of = {name: chosen() for name, chosen in METHODS.items()}
    frozen = METHODS["wmss"](joint=JointTraining(freeze_weak=True))
    original = METHODS["undial"](variant="original")
    return {
        "sft": Case(title="SFT", method=of["sft"]),
        "neftune": Case(title="NEFTune", method=of["neftune"], target=1.1),
        "undial": Case(title="UNDIAL (noise)", method=of["undial"], target=1.25),
        "undial-original": Case(title="UNDIAL (original)", method=original, target=1.5, other="reference"),
        "dpo": Case(title="DPO, a pair", method=of["dpo"], target=2.2, pairs=True),
        "spin": Case(title="SPIN, a pair", method=of["spin"], target=2.2, pairs=True),
        "ssb": Case(title="SSB (LoRA)", method=of["ssb"], stored=True),
        "wdjt-frozen": Case(title="WD-JT, frozen weak", method=frozen, target=1.5, other="weak"),
        "wdjt": Case(title="WD-JT", method=of["wmss"], target=2.1, other="weak"),
    }


ENTROPY, ENTROPY_TARGET = "entropy", 0.40
Times = dict[str, list[float]]
"""Clock -> seconds of each update."""


def main() -> int:
    options = _options()
    if any(os.environ.get(name) != value for name, value in _ENVIRONMENT.items()):  # as a worker process has it
        os.execve(sys.executable, [sys.executable, "-m", "bench.step", *sys.argv[1:]], dict(os.environ) | _ENVIRONMENT)
    result = measure(options.shape, options.updates, options.rounds, options.threads, options.clock,
                     options.only.split(",") if options.only else [*cases(), ENTROPY])
    print(json.dumps(result) if options.json else _text(result))
    return 0 if result["met"] else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.step", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--updates", type=int, default=4, help="updates of each case in a round (at least 2)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds in which the cases take turns")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=CLOCKS, default="wall",
                        help="what is judged: seconds that pass, or processor seconds (steadier on a busy machine)")
    parser.add_argument("--only", metavar="NAME,...", help=f"some of: {', '.join((*cases(), ENTROPY))}")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    options = parser.parse_args()
    unknown = set(options.only.split(",") if options.only else ()) - {*cases(), ENTROPY}
    if unknown:
        parser.error(f"--only {', '.join(sorted(unknown))}: choose from {', '.join((*cases(), ENTROPY))}")
    if options.updates < 2 or options.rounds < 1 or options.threads < 1:
        parser.error("--updates must be at least 2, --rounds and --threads at least 1")
    return options


def measure(shape: str, updates: int, rounds: int, threads: int, clock: str, names: list[str]) -> dict[str, Any]:
    """Return each case's seconds and its cost in SFT updates, by both clocks, and whether the targets are met."""
    import torch

    torch.set_num_threads(threads)
    bench = _Bench(shape, updates)
    names = ["sft", *(name for name in names if name != "sft")]
    for name in names:  # warm-up: allocator and kernels
        bench.run(name)
    seconds: dict[str, dict[str, list[float]]] = {name: {c: [] for c in CLOCKS} for name in names}
    for _ in range(rounds):
        for name in names:
            for key, values in bench.run(name).items():
                seconds[name][key].append(statistics.median(values))
    targets = {name: case.target for name, case in cases().items()} | {ENTROPY: ENTROPY_TARGET}
    report = {name: _judged(seconds[name], seconds["sft"], targets[name], clock) for name in names}
    return {"shape": shape, "threads": threads, "clock": clock, "updates": updates, "rounds": rounds,
            "tokens_per_update": bench.tokens, "cases": report, "met": all(row["met"] for row in report.values())}


def _judged(own: Times, sft: Times, target: float | None, clock: str) -> dict[str, Any]:
    """Return a case's seconds, and the median, least and greatest ratio to SFT over the rounds, by clock."""
    ratios = {c: [a / b for a, b in zip(own[c], sft[c], strict=True)] for c in CLOCKS}
    cost = {c: statistics.median(values) for c, values in ratios.items()}
    return {"seconds": {c: statistics.median(own[c]) for c in CLOCKS}, "cost": cost,
            "range": {c: [min(values), max(values)] for c, values in ratios.items()}, "target": target,
            "met": target is None or cost[clock] <= target}


class _Bench:
    """One shape's models and rows."""

    def __init__(self, shape: str, updates: int) -> None:
        from baselines.settings import TrainingSettings

        *self.model_shape, self.vocabulary, batch, micro, self.length = SHAPES[shape]
        self.tokens, self.updates, self.count = batch * self.length, updates, batch * updates
        self.training = TrainingSettings(learning_rate=1e-4, global_batch=batch, micro_batch=micro)
        self.cases = cases()
        self.prompt = self.length // 3
        self.rows, self.pairs = self._rows()

    def _rows(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        import numpy as np

        rng = np.random.default_rng(0)
        first, second = (rng.integers(8, self.vocabulary, size=(self.count, self.length)).tolist() for _ in range(2))
        p = self.prompt
        rows = [{"id": str(i), "input_ids": ids, "labels": [-100] * p + ids[p:], "teacher_start": i * (self.length - p)}
                for i, ids in enumerate(first)]
        return rows, [{"id": str(i), "prompt_ids": a[:p], "chosen_ids": a[p:], "rejected_ids": b[p:]}
                      for i, (a, b) in enumerate(zip(first, second, strict=True))]

    def run(self, name: str) -> Times:
        """Time a few updates of a case, by each clock."""
        if name == ENTROPY:
            return self._entropy()
        case, marks = self.cases[name], []

        def mark(fraction: float) -> None:
            marks.append({key: now() for key, now in CLOCKS.items()})

        with tempfile.TemporaryDirectory() as folder:
            (self._train_pairs if case.pairs else self._train_tokens)(case, Path(folder) / "trainer", mark)
        return {key: [after[key] - before[key] for before, after in itertools.pairwise(marks)] for key in CLOCKS}

    def _train_tokens(self, case: Case, work: Path, mark: Callable[[float], None]) -> None:
        from baselines.branches import BranchedModel
        from baselines.lora import attach
        from baselines.settings import LoRA
        from baselines.trainer import train

        strong = self._model()
        if case.stored:
            strong = attach(strong, LoRA(rank=32, alpha=32))
        joint = getattr(case.method, "joint", None)
        model = BranchedModel(case.method, strong, **({case.other: self._model(1)} if case.other else {}),
                              freeze_weak=joint is not None and joint.freeze_weak)
        train(model, self.rows, self._tokenizer(), self.training, seed=0, work=work, joint=joint, on_progress=mark,
              teacher=self._teacher() if case.stored else None)

    def _train_pairs(self, case: Case, work: Path, mark: Callable[[float], None]) -> None:
        from baselines.pair_trainer import train_pairs

        train_pairs(case.method, self._model(), None, self.pairs, self._tokenizer(), self.training, seed=0, work=work,
                    on_progress=mark)

    def _entropy(self) -> Times:
        from baselines.scoring import example_entropies

        model = self._model()
        before = {key: now() for key, now in CLOCKS.items()}
        example_entropies(model, self.rows, pad_id=0, batch_tokens=4096, compute_dtype="float32")
        return {key: [(now() - before[key]) / self.updates] for key, now in CLOCKS.items()}

    def _teacher(self, k: int = 20) -> Any:
        import torch

        from baselines.interface import StoredLogits

        tokens, generator = self.count * (self.length - self.prompt), torch.Generator().manual_seed(0)
        logits_NK = -torch.rand(tokens, k, generator=generator).sort(dim=1).values
        return StoredLogits(torch.randint(self.vocabulary - k, (tokens, 1), generator=generator) + torch.arange(k),
                            logits_NK, torch.full((tokens,), -3.0), torch.ones(tokens, dtype=torch.bool))

    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer, models
        from transformers import PreTrainedTokenizerFast

        words = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))
        return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")

    def _model(self, seed: int = 0) -> Any:
        import torch
        from transformers import AutoModelForCausalLM, Qwen3Config

        hidden, intermediate, layers, heads, kv_heads = self.model_shape
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(Qwen3Config(
            vocab_size=self.vocabulary, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=hidden // heads,
            tie_word_embeddings=True, max_position_embeddings=512, pad_token_id=0, eos_token_id=1,
        ))


def _text(result: dict[str, Any]) -> str:
    titles = {name: case.title for name, case in cases().items()} | {ENTROPY: "entropy pass"}
    lines = [f"shape {result['shape']}, {result['threads']} thread(s), {result['tokens_per_update']} tokens an SFT "
             f"update; {result['rounds']} rounds of {result['updates']} updates, judged by {result['clock']} time",
             f"{'':<20} {'wall':>9} {'cpu':>9}     times SFT, wall         times SFT, cpu         target"]
    for name, row in result["cases"].items():
        costs = "  ".join(f"{row['cost'][c]:5.2f} ({row['range'][c][0]:.2f}-{row['range'][c][1]:.2f})" for c in CLOCKS)
        target = "" if row["target"] is None else f"<= {row['target']:.2f}{'' if row['met'] else '  MISSED'}"
        lines.append(f"{titles[name]:<20} {row['seconds']['wall']:>7.4f} s {row['seconds']['cpu']:>7.4f} s   "
                     f"{costs:>44}   {target}")
    return "\n".join((*lines, "targets met" if result["met"] else "TARGET MISSED"))


if __name__ == "__main__":
    sys.exit(main())
