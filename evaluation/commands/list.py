"""`python -m evaluation list`: the benchmarks with their source, count, answer type, token budget and known defects."""

from __future__ import annotations

import argparse
import json
from typing import Any

from evaluation.benchmarks import BENCHMARKS, Benchmark
from evaluation.statistics import smallest_detectable_difference
from foundation.locks import expected_sha256, hub_entry


def main(arguments: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m evaluation list", description=__doc__)
    parser.add_argument("--json", action="store_true", help="everything a declaration says, prompts included")
    parser.add_argument("--defects", action="store_true", help="also the known defects of the published data")
    options = parser.parse_args(arguments)
    if options.json:
        print(json.dumps([describe(entry) for entry in BENCHMARKS.values()], indent=1))
        return 0
    print(f"{'name':<16}{'column':<10}{'domain':<7}{'answer':<12}{'count':>5} {'tokens':>6} {'MDD':>5}  "
          f"{'file under the data root':<44}hub dataset")
    for entry in BENCHMARKS.values():
        smallest = 100 * smallest_detectable_difference(entry.expected_count, 0.5)
        print(f"{entry.name:<16}{entry.title:<10}{entry.domain:<7}{entry.answer_type:<12}{entry.expected_count:>5} "
              f"{entry.max_new_tokens:>6} {smallest:>5.1f}  {entry.file:<44}{_hub(entry)}")
        if options.defects:
            for defect in entry.known_defects:
                print(f"    {defect.kind}: {defect.what}" + (f" ({', '.join(defect.ids)})" if defect.ids else ""))
    print("\nMDD: smallest difference between two models, in points, that is found with 80 % power\n"
          "(paired, 5 %, half of the questions solved, correlation 0.5).")
    return 0


def _hub(entry: Benchmark) -> str:
    if entry.hub_repo is None:
        return "none known"
    locked = hub_entry(entry.hub_repo)
    return f"{entry.hub_repo} @ {locked.revision[:12] if locked and locked.revision else 'not fetched yet'}"


def describe(entry: Benchmark) -> dict[str, Any]:
    """Return a declaration and what the lock file records for it, as plain data."""
    locked = hub_entry(entry.hub_repo) if entry.hub_repo else None
    return {
        "name": entry.name, "title": entry.title, "domain": entry.domain, "answer_type": entry.answer_type,
        "expected_count": entry.expected_count, "max_new_tokens": entry.max_new_tokens, "version": entry.version,
        "data_root_file": entry.file, "sha256": expected_sha256(entry.file),
        "hub": None if entry.hub_repo is None else {
            "repo": entry.hub_repo, "revision": locked.revision if locked else None,
            "files": {name: locked.files.get(name) if locked else None for name in entry.hub_files}},
        "system_prompt": {style: entry.system_prompt(style) for style in ("tags", "tag_free")},
        "known_defects": [{"kind": d.kind, "ids": list(d.ids), "what": d.what} for d in entry.known_defects],
        "smallest_detectable_points": {
            f"p={p}": round(100 * smallest_detectable_difference(entry.expected_count, p), 1) for p in (0.5, 0.7, 0.9)},
    }
