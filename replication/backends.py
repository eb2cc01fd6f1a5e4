"""Which backend generates is part of the plan; whether it can run here is asked before anything else runs."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable

from foundation.errors import PrerequisiteError
from replication.provenance import gpu_names
from replication.steps import Step

INSTALL = "python -m pip install vllm"


def uses_vllm(step: Step) -> bool:
    """Whether a step generates with vLLM."""
    return getattr(step, "backend", "hf") == "vllm"


def require_backends(steps: Iterable[Step]) -> None:
    """Refuse steps that generate with vLLM where it is not installed, or where it has no GPU.

    Raises:
        PrerequisiteError: with what to install, or how to do without.
    """
    waiting = [step for step in steps if uses_vllm(step)]
    if not waiting:
        return
    instead = "or pass --backend hf: the reference, far slower, and its texts count as another computation"
    what = f"{len(waiting)} steps generate with vLLM (first: {waiting[0].label})"
    if importlib.util.find_spec("vllm") is None:
        raise PrerequisiteError(f"{what}, and the package vllm is not installed; install it with: {INSTALL} (it needs "
                                f"a CUDA GPU), {instead}")
    if not gpu_names() and not os.environ.get("CUDA_VISIBLE_DEVICES"):
        raise PrerequisiteError(f"{what}, and this machine has no CUDA GPU (no NVIDIA driver was found); run on one "
                                f"that has, {instead}")
