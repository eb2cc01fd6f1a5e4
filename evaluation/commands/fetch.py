"""`python -m evaluation fetch`: get the benchmarks from the hub, pinned and checked by `foundation/lock.json`.

The first fetch of a repository records its commit and the sha256 of each file; every later one must agree with them.
Each set is then read in full, so that a wrong count or a bad gold answer shows here and not in a long run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from evaluation.benchmarks import BENCHMARKS, benchmark, load_files
from evaluation.benchmarks.fetching import fetch_files
from foundation.errors import SuiteError, UnreachableError
from foundation.locks import LOCK_PATH


def main(arguments: list[str]) -> int:
    """Run the command.

    Raises:
        PrerequisiteError: the hub cannot be reached, or does not give a file.
        InputError: what was fetched is not what the lock file records, or not the expected problems.
    """
    parser = argparse.ArgumentParser(prog="python -m evaluation fetch", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmark", action="append", metavar="NAME", help="only this one (repeatable)")
    parser.add_argument("--lock", type=Path, default=LOCK_PATH, help="the lock file to check against and complete")
    options = parser.parse_args(arguments)
    chosen = [benchmark(name) for name in options.benchmark or BENCHMARKS]
    failed: list[SuiteError] = []
    without_hub = [entry for entry in chosen if entry.hub_repo is None]
    for entry in chosen:
        if entry.hub_repo is None:
            continue
        try:
            paths = fetch_files(entry, options.lock)
            problems = load_files(entry, paths)
        except SuiteError as error:
            failed.append(error)
            print(f"{entry.title:<10} FAILED: {error}", file=sys.stderr)
            if isinstance(error, UnreachableError) and not options.benchmark:
                break  # no network: the others would only say so again
            continue
        print(f"{entry.title:<10} {len(problems)} problems: {', '.join(map(str, paths))}")
    for entry in without_hub:
        print(f"{entry.title:<10} has no known hub copy: put {entry.file} into a data root (docs/data.md)")
    if failed:
        raise type(failed[0])(f"{len(failed)} of {len(chosen)} benchmarks could not be fetched; first: {failed[0]}")
    return 0
