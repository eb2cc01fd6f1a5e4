"""Speed of grading programs: HumanEval+ references, all tests, on 2 workers, here and in evalplus' own harness.

    python -m bench.grading_code --data-root DIR         with evalplus beside: pip install -e '.[bench]'

Wall seconds of one run after the other on the same machine. Ours computes the expected outputs anew, in isolation, and
isolates every program; evalplus is timed with and without its stored expected outputs. Ends with 1 if a reference is
not right for us.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from evaluation.benchmarks import BENCHMARKS
from evaluation.benchmarks.code import CodeTask
from evaluation.benchmarks.fetching import benchmark_tasks
from evaluation.graders.code import CodeGrader
from evaluation.graders.references import run_references
from foundation.exits import exit_with_message

HUMANEVAL = BENCHMARKS["humaneval_plus"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.grading_code", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    root = os.environ.get("WMSS_DATA_ROOT")
    parser.add_argument("--data-root", type=Path, default=Path(root) if root else None)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if options.data_root is None:
        print("SKIPPED, programs: they are timed on HumanEval+; name a folder with --data-root DIR (docs/data.md)")
        return 0
    tasks = benchmark_tasks(HUMANEVAL, options.data_root)
    started = time.perf_counter()
    with CodeGrader(workers=options.workers) as grader:
        report = run_references(HUMANEVAL.name, tasks, grader)
        row(f"HumanEval+ references, {grader.isolation.name}", time.perf_counter() - started, report.passed, len(tasks))
    if importlib.util.find_spec("evalplus") is None:
        print("SKIPPED, evalplus: it is not installed, so nothing is compared; pip install -e '.[bench]'")
    else:
        compare(tasks, options.data_root / HUMANEVAL.file, options.workers)
    return 0 if report.passed == len(tasks) else 1


def row(name: str, seconds: float, passed: int, total: int) -> None:
    print(f"{name:<52}{seconds:>8.1f} s   {passed} of {total} right", flush=True)


def compare(tasks: list[CodeTask], data: Path, workers: int) -> None:
    """Time evalplus on the same references: once with an empty cache, once with its expected outputs stored."""
    with tempfile.TemporaryDirectory() as folder:
        samples = Path(folder) / "samples.jsonl"
        samples.write_text("".join(json.dumps({"task_id": task.problem.source_id, "solution": task.problem.gold}) + "\n"
                                   for task in tasks), encoding="utf-8")
        environment = os.environ | {"HUMANEVAL_OVERRIDE_PATH": str(data.resolve()), "XDG_CACHE_HOME": folder}
        for cache in ("expected outputs computed", "expected outputs stored"):
            results = samples.with_name("samples_eval_results.json")
            results.unlink(missing_ok=True)
            started = time.perf_counter()
            done = subprocess.run([sys.executable, "-m", "evalplus.evaluate", "--dataset", "humaneval", "--samples",
                                   str(samples), "--parallel", str(workers), "--i-just-wanna-run"],
                                  env=environment, cwd=folder, capture_output=True, text=True)
            seconds = time.perf_counter() - started
            if done.returncode or not results.is_file():
                print(f"FAILED, evalplus: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
                return
            found = json.loads(results.read_text(encoding="utf-8"))["eval"].values()
            row(f"  evalplus, {cache}", seconds, sum(one[0]["plus_status"] == "pass" for one in found), len(tasks))


if __name__ == "__main__":
    exit_with_message(main)
