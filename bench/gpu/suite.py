"""The tests that need a GPU, and a tiny Table 1 from pretraining to the table, each in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.gpu.context import Context, SkippedPart

ROOT = Path(__file__).resolve().parent.parent.parent
TABLE1_NEEDS = ("trl", "datasets", "peft", "accelerate", "tyro", "rich", "jinja2", "math_verify", "zstandard")
_TABLE1 = ("--methods", "sft,wmss", "--benchmarks", "gsm8k,svamp", "--limit-train", "960", "--limit-eval", "50",
           "--set", "pretrain.updates=300")
_TABLE1_COLUMNS = ("GSM8K", "SVAMP")
_TAIL = 40


def tests_part(context: Context) -> None:
    """Run the tests marked `gpu`, from the files that have any: the others may need packages that are not here.

    Raises:
        SkippedPart: pytest is not installed.
        RuntimeError: a test failed, or the run broke off.
    """
    if importlib.util.find_spec("pytest") is None:
        raise SkippedPart("pytest is not installed")
    files = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests").glob("test_*.py"))
             if "pytest.mark.gpu" in path.read_text(encoding="utf-8")]
    report = context.out.with_suffix(".xml")
    code, output = _run([sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", f"--junit-xml={report}",
                         *files], context)
    counts = _counts(report)
    context.put("files", files)
    context.put("tests", counts)
    context.say(", ".join(f"{number} {what}" for what, number in counts.items()) or "no test was counted")
    if code != 0:
        raise RuntimeError(f"pytest ended with exit code {code}:\n{output}")
    if context.device == "cuda" and counts["passed"] == 0:
        raise RuntimeError(f"not one GPU test ran:\n{output}")


def _counts(report: Path) -> dict[str, int]:
    text = report.read_text(encoding="utf-8") if report.is_file() else ""
    counts = re.findall(r'\b(tests|errors|failures|skipped)="(\d+)"', text[:2000])
    found = {name: int(number) for name, number in counts}
    total = found.get("tests", 0)
    failed = found.get("failures", 0) + found.get("errors", 0)
    skipped = found.get("skipped", 0)
    return {"passed": total - failed - skipped, "failed": failed, "skipped": skipped}


def table1_part(context: Context) -> None:
    """Run a cut-down tiny Table 1 into a folder that is thrown away; on a CPU only plan it.

    Raises:
        SkippedPart: packages of the suite are missing.
        RuntimeError: the table could not be made.
    """
    missing = [name for name in TABLE1_NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise SkippedPart(f"not installed: {', '.join(missing)}")
    with tempfile.TemporaryDirectory(dir=context.out.parent) as folder:
        results = Path(folder) / "results"
        command = [sys.executable, "-m", "replication.table1", "--model", "tiny", *_TABLE1,
                   "--store", str(Path(folder) / "runs"), "--results", str(results)]
        context.put("command", command[1:])
        if context.device == "cpu":
            command.append("--plan")
            context.put("planned_only", True)
        began = time.monotonic()
        code, output = _run(command, context)
        context.put("seconds", time.monotonic() - began)
        if code != 0:
            raise RuntimeError(f"Table 1 ended with exit code {code}:\n{output}")
        if context.device == "cpu":
            context.say("planned, not run: that is for a GPU")
            return
        cells = json.loads((results / "tiny" / "table1.json").read_text(encoding="utf-8"))["cells"]
    found = scores(cells)
    context.put("scores", found)
    context.say("; ".join(f"{name} {value}" for name, value in found.items()))
    if missing := [name for name, value in found.items() if value is None]:
        raise RuntimeError(f"cells without a number: {'; '.join(missing)}")


def scores(cells: list[dict[str, Any]]) -> dict[str, float | None]:
    """Return the cells that were asked for, None where there is no number."""
    return {f"{cell['row']}, {cell['column']}": cell["value"] if cell["status"] == "measured" else None
            for cell in cells if cell["column"] in _TABLE1_COLUMNS}


def _run(command: list[str], context: Context) -> tuple[int, str]:
    """Run a command in the repository's root until the part's time is over; return exit code and end of its output."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
                                "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, check=False, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, "\n".join(done.stdout.splitlines()[-_TAIL:])
