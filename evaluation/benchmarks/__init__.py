"""The benchmarks by their command-line names."""

from __future__ import annotations

from evaluation.benchmarks.code import CODE_BENCHMARKS
from evaluation.benchmarks.loading import Benchmark, load_benchmark, load_files
from evaluation.benchmarks.logic import LOGIC_BENCHMARKS
from evaluation.benchmarks.math import MATH_BENCHMARKS
from foundation.errors import InputError

BENCHMARKS: dict[str, Benchmark] = {**MATH_BENCHMARKS, **CODE_BENCHMARKS, **LOGIC_BENCHMARKS}

__all__ = ["BENCHMARKS", "Benchmark", "benchmark", "load_benchmark", "load_files"]


def benchmark(name: str) -> Benchmark:
    """Return a benchmark by its name, or by its column title whatever its case ("HE+").

    Raises:
        InputError: there is none of that name; the valid ones are listed.
    """
    by_title = {entry.title.lower(): entry for entry in BENCHMARKS.values()}
    found = BENCHMARKS.get(name) or by_title.get(name.lower())
    if found is None:
        raise InputError(f"benchmark {name!r} is unknown; choose one of: {', '.join(BENCHMARKS)}")
    return found
