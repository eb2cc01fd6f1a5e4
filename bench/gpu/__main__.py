"""Measure what the suite does on this machine's GPU, in at most eight minutes (`make gpu-check`; docs/gpu-check.md).

Writes results/gpu/<device>.json and .md. Ends with 0 if every target is met and no part failed, 1 if not, 2 where
there is no CUDA GPU, 130 after Ctrl-C, which leaves what was measured in <device>.partial.json. `--small` and `--device
cpu` show how it runs: their numbers say nothing about GPUs and never lie under results/gpu.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import math
import signal
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.gpu.device import describe, require, slug
from bench.gpu.parts import PARTS, run_here
from bench.gpu.runner import judged, read, run_part
from bench.gpu.suite import ROOT
from foundation.errors import InputError
from foundation.exits import exit_with_message
from foundation.files import write_atomic

GPU_RESULTS = ROOT / "results" / "gpu"
_OTHER_RESULTS = ROOT / "runs" / "gpu-check"


def main(arguments: list[str] | None = None) -> int:
    """Run the check, or one part of it in this process; return the exit code."""
    options = _options(arguments)
    if options.part:
        faulthandler.enable()  # a crash below Python then says where
        return run_here(options.part, device=options.device, small=options.small, out=options.part_file,
                        seconds=options.part_seconds)
    names = _names(options.only)
    folder = _folder(options)
    require(options.device)
    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: end the part, keep what there is
        signal.signal(number, signal.default_int_handler)
    return check(options, names, folder)


def check(options: argparse.Namespace, names: list[str], folder: Path) -> int:
    """Run the parts and write the report; after an interrupt with what there is by then."""
    began, started = time.monotonic(), datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    machine = describe(options.device)
    print(f"{machine['name']}; torch {machine['packages']['torch']}, {'small' if options.small else 'full'} shapes"
          f"{'' if _is_gpu_result(options) else '; NOT A GPU RESULT'}", flush=True)
    parts: dict[str, dict[str, Any]] = {}
    partial = None if len(names) == len(PARTS) else f"only {', '.join(names)} asked for"
    interrupted = False
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as scratch:
        for name in names:
            try:
                parts[name] = run_part(name, device=options.device, small=options.small, folder=Path(scratch))
            except KeyboardInterrupt:
                interrupted, partial = True, f"interrupted in the part {name}"
                parts[name] = _broken_off(name, Path(scratch))
                break
    report = _report(options, machine, parts, partial) | {"started": started, "seconds": time.monotonic() - began}
    path = _write(report, folder)
    print(_summary(report, path), flush=True)
    if interrupted:
        raise KeyboardInterrupt
    failed = [part for part in parts.values() if part["status"] == "failed"]
    missed = [row for row in report["targets"] if row["verdict"] == "missed"]
    return 1 if failed or missed else 0


def _report(options: argparse.Namespace, machine: dict[str, Any], parts: dict[str, dict[str, Any]],
            partial: str | None) -> dict[str, Any]:
    from bench.gpu.judge import advice, judge

    is_gpu = _is_gpu_result(options)
    verdicts = judge(parts, small=not is_gpu)
    return {"schema": 1, "what": "gpu-check", "device": options.device, "small": options.small,
            "is_gpu_result": is_gpu, "partial": partial, "machine": machine, "targets": verdicts,
            "advice": advice(verdicts, parts) if is_gpu else None, "parts": parts}


def _write(report: dict[str, Any], folder: Path) -> Path:
    """Write the report and its table; a partial one never takes the place of a whole one."""
    from bench.gpu.report import markdown

    name = slug(report["machine"]["name"]) + (".partial" if report["partial"] else "")
    path = folder / f"{name}.json"
    write_atomic(folder / f"{name}.md", markdown(report))
    write_atomic(path, json.dumps(_plain(report), indent=1, allow_nan=False, default=str) + "\n")
    return path


def _plain(value: Any) -> Any:
    """Return JSON values: a number that is not finite becomes its name, for a wrong result must not cost the file."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _summary(report: dict[str, Any], path: Path) -> str:
    lines = [f"{row['verdict']:<13}{row['target']}"
             + ("" if row["value"] is None else f": {row['value']:.3g} (at most {row['limit']:.3g})")
             for row in report["targets"]]
    lines += [report["advice"]] if report["advice"] else []
    lines.append(f"{report['seconds']:.0f} s; {path} and {path.with_suffix('.md').name}"
                 + (f"; PARTIAL: {report['partial']}" if report["partial"] else "")
                 + ("" if report["is_gpu_result"] else "; NOT A GPU RESULT"))
    return "\n".join(lines)


def _broken_off(name: str, folder: Path) -> dict[str, Any]:
    found = judged(None, read(folder / f"{name}.json"))
    return {"title": PARTS[name].title, "share_seconds": PARTS[name].seconds, "seconds": 0.0, **found,
            "reason": "interrupted; what had been measured by then is kept"}


def _is_gpu_result(options: argparse.Namespace) -> bool:
    return options.device == "cuda" and not options.small


def _folder(options: argparse.Namespace) -> Path:
    """Return where results go.

    Raises:
        InputError: a CPU's or small numbers are to lie among those of GPUs.
    """
    if _is_gpu_result(options):
        return options.out or GPU_RESULTS
    folder: Path = options.out or _OTHER_RESULTS
    if folder.resolve().is_relative_to(GPU_RESULTS):
        raise InputError(f"--out {folder} is where GPU results lie, and --device {options.device}"
                         f"{' --small' if options.small else ''} gives none; name another folder")
    return folder


def _names(only: str | None) -> list[str]:
    """Return the parts asked for, in their order.

    Raises:
        InputError: a name that is none.
    """
    asked = list(PARTS) if only is None else [name.strip() for name in only.split(",") if name.strip()]
    unknown = [name for name in asked if name not in PARTS]
    if unknown or not asked:
        raise InputError(f"--only {only!r} names no part: {', '.join(unknown) or 'it is empty'}; choose from "
                         f"{', '.join(PARTS)}")
    return [name for name in PARTS if name in asked]


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="small shapes: shows in a minute how it runs")
    parser.add_argument("--only", metavar="PART,...", help=f"some of: {', '.join(PARTS)}; the report is then partial")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the report goes (default: results/gpu)")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--part-file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--part-seconds", type=float, default=60.0, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.device == "cpu" and not options.small and not options.part:
        parser.error("--device cpu needs --small: full shapes are for a GPU")
    return options


if __name__ == "__main__":
    exit_with_message(main, interrupted="interrupted")
