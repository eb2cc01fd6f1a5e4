"""Where a result comes from: commit, packages, machine. Collected once per process, without heavy imports."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from foundation.files import sha256_file
from foundation.locks import LOCK_PATH, SHIPPED_LOCK

PACKAGES = ("torch", "transformers", "trl", "accelerate", "peft", "datasets", "tokenizers", "safetensors", "numpy",
            "math-verify", "latex2sympy2-extended", "sympy", "vllm", "deepspeed", "flash-attn", "wmss-replication")
ROOT = Path(__file__).resolve().parent.parent


@cache
def packages() -> dict[str, str]:
    """Return the installed versions of the packages that can move a number."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def commit(root: Path = ROOT) -> dict[str, Any]:
    """Return the commit of a checkout and whether tracked files differ from it; nulls outside a checkout."""
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # The first fetch writes the lock file: its content is recorded by itself.
        dirty = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results", ":!foundation/lock.json")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(dirty)}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


@cache
def hardware() -> dict[str, Any]:
    """Return processor, cores and memory."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {"processor": model, "cores": usable_cores(), "memory_mib": _memory_mib(), "gpus": gpu_names()}


def usable_cores() -> int:
    """Return the cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # absent on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _memory_mib() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    except (OSError, ValueError):
        return None


@cache
def gpu_names() -> tuple[str, ...]:
    """Return the names of the CUDA GPUs the driver reports, without importing torch."""
    if not Path("/proc/driver/nvidia/gpus").is_dir():
        return ()
    names = []
    for info in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        lines = [line for line in info.read_text().splitlines() if line.startswith("Model:")]
        names.append(lines[0].split(":", 1)[1].strip() if lines else "unknown GPU")
    return tuple(names)


def gpu_devices() -> tuple[str, ...]:
    """Return the CUDA devices this process may use, as CUDA_VISIBLE_DEVICES names them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = gpu_names()
    if not names or chosen is None:
        return tuple(str(i) for i in range(len(names)))
    return tuple(name for part in chosen.split(",") if (name := part.strip()) not in ("", "-1"))


@cache
def _reported_memory() -> tuple[tuple[str, str, float], ...]:
    """Return (index, uuid, bytes) of each GPU that nvidia-smi lists; nothing where it cannot be asked."""
    command = ["nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
        rows = [[part.strip() for part in line.split(",")] for line in said.splitlines() if line.strip()]
        return tuple((index, uuid, float(mebibytes) * 2**20) for index, uuid, mebibytes in rows)
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()


def gpu_memory() -> tuple[float, ...]:
    """Return the bytes of memory of the devices this process may use, of those for which the driver tells it."""
    if not gpu_names():
        return ()
    return tuple(size for device in gpu_devices() for index, uuid, size in _reported_memory()
                 if device == index or (len(device) > 4 and uuid.startswith(device)))


def provenance() -> dict[str, Any]:
    """Return everything above, the Python version and the lock file's sha256, for manifests."""
    lock = LOCK_PATH if LOCK_PATH.is_file() else SHIPPED_LOCK
    return {**commit(), "lock_sha256": sha256_file(lock), "python": sys.version.split()[0], "packages": packages(),
            "hardware": hardware()}
