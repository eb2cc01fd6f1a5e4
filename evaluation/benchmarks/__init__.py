"""The benchmarks by their command-line names."""

from __future__ import annotations

from evaluation.benchmarks.loading import Benchmark, load_benchmark, load_files
from evaluation.benchmarks.math import MATH_BENCHMARKS
from foundation.errors import InputError

BENCHMARKS: dict[str, Benchmark] = dict(MATH_BENCHMARKS)

__all__ = ["BENCHMARKS", "Benchmark", "benchmark", "load_benchmark", "load_files"]


def benchmark(name: str) -> Benchmark:
    """Return a benchmark by its name.

    Raises:
        InputError: there is none of that name; the valid ones are listed.
    """
    if name not in BENCHMARKS:
        raise InputError(f"benchmark {name!r} is unknown; choose one of: {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
