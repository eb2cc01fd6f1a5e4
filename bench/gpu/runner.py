"""Runs each part in a process of its own: one that crashes the GPU's context, hangs or eats memory ends alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.gpu.parts import GRACE_SECONDS, PARTS
from bench.gpu.suite import ROOT

Command = Callable[[str, Path, float], list[str]]


def run_part(name: str, *, device: str, small: bool, folder: Path, command: Command | None = None,
             seconds: float | None = None) -> dict[str, Any]:
    """Run a part until its share of time is over; return status, reason, times and what it measured.

    `status` is measured | cut (some of it is missing for lack of time) | skipped | failed. On Ctrl-C the process ends
    and the interrupt goes on; what it had measured lies in `folder`.

    Args:
        name: of PARTS.
        device: `cuda` or `cpu`.
        small: small shapes.
        folder: where the part's file is kept.
        command: what to start instead of this package, for tests.
        seconds: instead of the part's share, for tests.
    """
    part, out = PARTS[name], folder / f"{name}.json"
    seconds = part.seconds if seconds is None else seconds
    print(f"{part.title}: begins, at most {seconds:.0f} s", flush=True)
    make = command or (lambda name, out, seconds: _command(name, out, seconds, device, small))
    began = time.monotonic()
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} if device == "cpu" else {}  # tiny tensors
    code = _run(make(name, out, seconds), seconds, threads)
    took = time.monotonic() - began
    record = {"title": part.title, "share_seconds": seconds, "seconds": took, **judged(code, read(out))}
    reason = f": {record['reason'].splitlines()[0]}" if record["reason"] else ""
    print(f"{part.title}: {record['status'].upper() if reason else record['status']} after {took:.1f} s{reason}",
          flush=True)
    return record


def judged(code: int | None, result: dict[str, Any]) -> dict[str, Any]:
    """Return status, reason and result of a part that ended with an exit code (None: its time was over)."""
    status, reason = "measured", None
    if "skipped" in result:
        status, reason = "skipped", result.pop("skipped")
    elif "failed" in result:
        status, reason = "failed", result.pop("failed")
    elif code is None:
        status, reason = "cut", "its time was over; what had been measured by then is kept"
    elif not result.get("complete"):
        status, reason = "failed", f"its process ended with exit code {code}, without a word"
    elif result.get("cut"):
        status, reason = "cut", f"no time for: {'; '.join(result['cut'])}"
    return {"status": status, "reason": reason, "result": result}


def read(path: Path) -> dict[str, Any]:
    """Return what a part has left, which is nothing if it did not come so far."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}


def _command(name: str, out: Path, seconds: float, device: str, small: bool) -> list[str]:
    return [sys.executable, "-m", "bench.gpu", "--part", name, "--part-file", str(out), "--part-seconds", str(seconds),
            "--device", device, *(["--small"] if small else [])]


def _run(command: list[str], seconds: float, threads: dict[str, str]) -> int | None:
    """Run in a session of its own, so that all of it can be ended; return the exit code, None when time was over."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1",
                                "PYTHONWARNINGS": "ignore", **threads}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what the part has started: politely, then not."""
    deadline = time.monotonic() + GRACE_SECONDS
    _signal(process, signal.SIGTERM)
    while time.monotonic() < deadline and _alive(process):
        time.sleep(0.05)
    _signal(process, signal.SIGKILL)
    process.wait()


def _alive(process: subprocess.Popen[bytes]) -> bool:
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except OSError:
        return False
    return True


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
