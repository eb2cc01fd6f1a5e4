"""The machine: GPU, driver, libraries, clocks, power, temperature; what is not to be had is null."""

from __future__ import annotations

import importlib.util
import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata
from typing import Any

from foundation.errors import PrerequisiteError
from replication.provenance import commit, hardware

CLOCKS = ("clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem", "power.draw", "power.limit",
          "temperature.gpu", "utilization.gpu")
PACKAGES = ("torch", "triton", "transformers", "accelerate", "peft", "trl", "datasets", "numpy", "pytest")
DENSE_BF16_PEAKS = {"H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H800": 989e12, "H200": 989e12,
                    "GH200": 989e12, "A100": 312e12, "A800": 312e12, "B200": 2250e12}
"""FLOP/s of the data sheets, from memory: not looked up. The first name that is part of the device's counts."""


def require(device: str) -> None:
    """Refuse a machine that cannot run the check.

    Raises:
        PrerequisiteError: torch or transformers is missing, or there is no CUDA GPU.
    """
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise PrerequisiteError(f"{sys.executable} has no {' and no '.join(missing)}; name a Python that has both: "
                                "make gpu-check PYTHON=/path/to/python")
    if device == "cpu":
        return
    import torch

    if not torch.cuda.is_available():
        why = ("is built without CUDA" if torch.version.cuda is None else
               f"is built for CUDA {torch.version.cuda} but finds no GPU")
        raise PrerequisiteError(
            f"the check needs a CUDA GPU, and torch {torch.__version__} in {sys.executable} {why}. Run it on a machine "
            "with one (make gpu-check PYTHON=/path/to/python names another Python); to see how it runs without: make "
            "gpu-check ARGS='--device cpu --small', whose numbers say nothing about GPUs")


def describe(device: str) -> dict[str, Any]:
    """Return what is known of the device and the libraries, JSON values only."""
    found: dict[str, Any] = {
        "name": "no GPU (CPU run)", "python": platform.python_version(), "system": platform.platform(),
        "host": hardware(), "packages": {name: _version(name) for name in PACKAGES}, **commit()}
    if device == "cuda":
        found |= _cuda() | {"driver": smi(("driver_version",)).get("driver_version"), "clocks_at_rest": smi()}
    return found


def slug(name: str) -> str:
    """Return a device's name as a file name: `NVIDIA H100 80GB HBM3` -> `nvidia-h100-80gb-hbm3`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unknown-gpu"


def peak_flops(name: str) -> float | None:
    """Return the data sheet's dense bf16 FLOP/s of a device, None where it is not listed."""
    return next((peak for part, peak in DENSE_BF16_PEAKS.items() if part in name), None)


def smi(fields: tuple[str, ...] = CLOCKS) -> dict[str, str | None]:
    """Return what nvidia-smi says of the first visible GPU, by field; empty where it is missing or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    command = [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader", *_selected()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return {} if len(fields) == 1 else {name: smi((name,)).get(name) for name in fields}  # one unknown fails all
    first = done.stdout.strip().splitlines()[:1]
    values = [value.strip() for value in first[0].split(",")] if first else []
    return dict(zip(fields, values, strict=False))


def _selected() -> list[str]:
    import os

    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    return ["-i", first] if first else []


def _cuda() -> dict[str, Any]:
    """Ask for properties only: a context of the parent's own would take memory from the parts."""
    import torch

    properties = torch.cuda.get_device_properties(0)
    return {"name": properties.name, "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count, "memory_bytes": properties.total_memory,
            "l2_bytes": getattr(properties, "L2_cache_size", None),
            "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),
            "peak_bf16_flops": peak_flops(properties.name)}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
