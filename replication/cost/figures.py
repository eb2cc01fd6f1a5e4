"""What the estimate assumes, one named value each, with what it rests on. Change one here and all sums follow.

`paper` values come from replication.paper and are not repeated here. Hardware figures are of the H800's data sheet
(compute and memory as the H100 SXM's), from memory: they were not looked up.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """An assumed value: its unit and why it is not far off."""

    value: float
    unit: str
    why: str


FIGURES: dict[str, Figure] = {
    # data
    "tokens.math": Figure(2500, "tokens an example", "DeepSeek-R1 reasoning on math, cut at 4,096; not measured"),
    "tokens.code": Figure(3000, "tokens an example", "as math, longer; not measured"),
    "tokens.logic": Figure(1000, "tokens an example", "Qwen3-32B reasoning on one question; not measured"),
    "tokens.real_files": Figure(250, "tokens an example", "GSM8K and MAWPS solutions with the system prompt"),
    "tokens.prompt": Figure(200, "tokens of an example", "system prompt and problem"),
    "examples.real_files": Figure(9371, "examples", "GSM8K 7,473 and MAWPS 1,898, before test problems are removed"),
    # fractions that only a run can tell
    "fraction.mixed": Figure(0.5, "of the prompts", "have both a right and a wrong rollout among four"),
    "fraction.right_hinted": Figure(0.8, "of the hinted replies", "are right"),
    "fraction.of_limit": Figure(0.5, "of the token limit", "is the mean answer to a benchmark problem"),
    # hardware
    "gpu.peak_flops": Figure(989e12, "FLOP/s", "H800, bf16, dense"),
    "gpu.bandwidth": Figure(3.35e12, "bytes/s", "H800 80 GB"),
    "gpu.memory": Figure(80e9, "bytes", "App. E.5"),
    "gpu.usable": Figure(0.9, "of the memory", "the rest: CUDA context, NCCL buffers, fragmentation"),
    "network": Figure(100e6, "bytes/s", "a gigabit line"),
    # speeds that Table 11 does not fix
    "forward.efficiency": Figure(0.30, "of the peak", "a pass without gradients, 16,384 tokens a batch; not measured"),
    "decode.efficiency": Figure(0.5, "of the bandwidth", "paged attention and sampling; not measured"),
    "decode.sequences": Figure(256, "at a time", "vLLM's default limit"),
    "decode.hf_step": Figure(0.04, "s a token step", "Python between kernels of 36 layers; not measured"),
    "decode.start": Figure(90, "s", "loading an engine and capturing its graphs"),
    "grading": Figure(50, "verdicts/s", "math-verify on one core, timeouts included"),
    "filter.math": Figure(100, "records/s a core", "the math rules with math-verify, Table 12's order of size; not "
                          "measured on the corpus"),
    "filter.code": Figure(20, "records/s a core", "each program runs in isolation; most records have no tests and are "
                          "passed over; not measured on the corpus"),
    "corpus.records": Figure(1.4e6, "records", "AM-DeepSeek-R1-Distilled-1.4M, by its name"),
    # storage
    "corpus": Figure(6e9, "bytes", "AM-DeepSeek-R1-Distilled-1.4M, two .zst files; size not looked up"),
}


def value(name: str) -> float:
    """Return an assumed value."""
    return FIGURES[name].value
