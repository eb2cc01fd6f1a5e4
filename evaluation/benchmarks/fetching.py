"""A benchmark's problems from wherever they are: the user's data root, or the hub, checked against the lock file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from evaluation.benchmarks.code import CodeTask, load_tasks
from evaluation.benchmarks.loading import Benchmark, checked_path, load_files
from evaluation.problem import Problem
from foundation.errors import PrerequisiteError
from foundation.hub import fetch_all
from foundation.locks import LOCK_PATH, expected_sha256


def benchmark_problems(benchmark: Benchmark, data_root: Path | None, lock: Path = LOCK_PATH) -> list[Problem]:
    """Return a benchmark's problems, from the data root if one is given, else from the hub.

    Raises:
        InputError, PrerequisiteError: as for `load_benchmark` and `fetch_files`.
    """
    return load_files(benchmark, _paths(benchmark, data_root, lock))


def benchmark_tasks(benchmark: Benchmark, data_root: Path | None, lock: Path = LOCK_PATH) -> list[CodeTask]:
    """Return a code benchmark's problems with their rows, from where `benchmark_problems` takes them.

    Raises:
        InputError, PrerequisiteError: as for `benchmark_problems`.
    """
    return load_tasks(benchmark, _paths(benchmark, data_root, lock))


def _paths(benchmark: Benchmark, data_root: Path | None, lock: Path) -> list[Path]:
    if data_root is None:
        return fetch_files(benchmark, lock)
    return [checked_path(benchmark, data_root, expected_sha256(benchmark.file, lock))]


def fetch_files(benchmark: Benchmark, lock: Path = LOCK_PATH, on_progress: Callable[[float], None] | None = None,
                revision: str | None = None) -> list[Path]:
    """Return the local paths of a benchmark's hub files, fetched at the locked commit and checked.

    Args:
        benchmark: whose files.
        lock: the lock file.
        on_progress: told the fraction fetched; None: the hub's client shows a bar of its own.
        revision: the commit that is meant, where the caller knows it.

    Raises:
        PrerequisiteError: there is no hub copy of this set, or the hub cannot be reached or does not give it.
        InputError: a file differs from the recorded hash.
        StorageError: no space for it.
    """
    if benchmark.hub_repo is None:
        raise PrerequisiteError(
            f"{benchmark.title}: no hub copy of this exact set is known; name a folder that holds {benchmark.file} "
            "(from the paper's code repository) with --data-root DIR or WMSS_DATA_ROOT")
    return fetch_all(benchmark.hub_repo, benchmark.hub_files, repo_type="dataset", lock=lock, revision=revision,
                     on_progress=on_progress)
