"""What a machine lacks for a run at paper scale, found without importing anything heavy and without the network."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from replication.backends import INSTALL
from replication.corpora import sources
from replication.cost.estimate import Estimate
from replication.plan import Request
from replication.provenance import gpu_devices, gpu_memory

TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH")


def lacks(estimate: Estimate, request: Request, store_root: Path, absent: Iterable[str] = ()) -> list[str]:
    """Return what is missing, one line each, with what to do; empty where nothing is.

    Args:
        estimate: of the steps to run.
        request: what was asked for.
        store_root: where the steps' results will lie.
        absent: why benchmarks that were asked for have no data.
    """
    found = [_gpus(estimate.gpus), _memory(estimate), _torch(),
             _package("vllm", estimate.needs_vllm, f"{INSTALL}, or pass --backend hf"),
             _package("deepspeed", estimate.needs_deepspeed,
                      "python -m pip install --no-build-isolation -e '.[distributed]'"),
             _disk(estimate, store_root), _data(estimate, request), *(f"benchmark data: {why}" for why in absent),
             _token(estimate, request)]
    return [line for line in found if line is not None]


def _gpus(wanted: int) -> str | None:
    there = len(gpu_devices())
    if there >= wanted:
        return None
    if there == 0:
        return (f"GPUs: none (no NVIDIA driver was found, or CUDA_VISIBLE_DEVICES hides them); this plan is for "
                f"{wanted} of 80 GB (--gpus N changes it)")
    return f"GPUs: {there}, this plan is for {wanted}; --gpus {there} plans for those"


def _memory(estimate: Estimate) -> str | None:
    """The GPUs that are there may be smaller than those of the plan."""
    there = min(gpu_memory(), default=None)
    needed = max((entry.fp32.total for entry in estimate.memory), default=0.0)
    if there is None or there >= needed:
        return None
    return (f"GPU memory: {there / 1e9:.0f} GB each, {needed / 1e9:.0f} GB needed with the micro-batch that is set and "
            f"train.zero_stage={estimate.zero_stage}; more GPUs, train.zero_stage=3 and train.micro_batch=1 need less")


def _torch() -> str | None:
    """A wheel with CUDA holds libtorch_cuda; torch itself takes seconds to import."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return "torch: not installed"
    libraries = Path(next(iter(spec.submodule_search_locations))) / "lib"
    if any(libraries.glob("*torch_cuda*")):
        return None
    return f"torch with CUDA: {metadata.version('torch')} is a build for CPUs; install the one of your CUDA version"


def _package(name: str, needed: bool, how: str) -> str | None:
    if not needed or importlib.util.find_spec(name) is not None:
        return None
    return f"{name}: not installed; {how}"


def _disk(estimate: Estimate, store_root: Path) -> str | None:
    place = next(folder for folder in (store_root, *store_root.parents) if folder.exists())
    free, needed = shutil.disk_usage(place).free, estimate.disk_bytes + estimate.transient_bytes
    if free >= needed:
        return None
    return (f"disk: {free / 1e9:,.0f} GB free at {place}, {needed / 1e9:,.0f} GB needed; name another store with "
            "--store DIR or WMSS_STORE")


def _data(estimate: Estimate, request: Request) -> str | None:
    """Math and code can be filtered from the hub's corpus on the way; logic needs a teacher before."""
    if "logic" not in estimate.pool_domains:
        return None
    if sources.find("logic", "logic", request.data_root, hashing=False) is not None:
        return None
    return f"training data: {sources.how_to_get('logic', 'logic', request.data_root)}"


def _token(estimate: Estimate, request: Request) -> str | None:
    """A gated repository asks for a token; only whether there is one is looked at, never the token."""
    if not (estimate.gated and estimate.needs_fetch) or any(os.environ.get(name) for name in TOKEN_VARIABLES):
        return None
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    if (home / "token").is_file():
        return None
    repository = request.model.source.partition(":")[2]
    return (f"hub token: {repository} is gated; accept its licence on the hub, then set HF_TOKEN or run hf auth login")
