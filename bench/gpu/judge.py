"""The targets, held against what was measured. What was not measured is not judged, and says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.gpu.loss import CANDIDATE

Parts = dict[str, dict[str, Any]]
TIME_LIMIT, MEMORY_LIMIT, STEP_LIMIT, FROZEN_LIMIT, ENTROPY_LIMIT = 1.3, 1 / 20, 2.1, 1.5, 0.40
ERROR_LIMIT, LOSS_ERROR_LIMIT = 2.5, 1e-4  # eight sums rounded to bf16 on the way double a rounding
PATH_TITLES = {"default": "default path", CANDIDATE: "bf16 path with Triton"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A number that may not be exceeded."""

    title: str
    part: str
    limit: float
    find: Callable[[dict[str, Any]], float]
    """The number, from the part's result; KeyError or TypeError where it is not there."""
    unit: str = ""


def targets() -> list[Target]:
    """Return what is judged: for the loss and for updates, the suite's default path and the candidate."""
    found = []
    for path, title in PATH_TITLES.items():
        found += [
            Target(title=f"mixed loss, {title}: time over that of its six matrix products", part="loss-time",
                   limit=TIME_LIMIT, find=lambda r, p=path: r["paths"]["mixed"][p]["times_products"]),
            Target(title=f"mixed loss, {title}: memory over that of full logits", part="loss-memory",
                   limit=MEMORY_LIMIT, find=lambda r, p=path: _memory(r, p)),
            Target(title=f"mixed loss, {title}: largest gradient error over that of full logits in bf16",
                   part="loss-numerics", limit=ERROR_LIMIT, find=lambda r, p=path: _error(r, p)),
            Target(title=f"mixed loss, {title}: relative error of the loss", part="loss-numerics",
                   limit=LOSS_ERROR_LIMIT, find=lambda r, p=path: r["numerics"]["errors"][p]["loss"]),
        ]
        for model in ("0.6b", "1.7b"):
            found += [Target(title=f"{name}, Qwen3-{model.upper()} shape, {title}: time in SFT updates",
                             part=f"steps-{model}", limit=limit,
                             find=lambda r, c=case, p=path: r["cases"][f"{c}, {p}"]["times_sft"])
                      for name, case, limit in (("WD-JT", "wdjt", STEP_LIMIT),
                                                ("WD-JT, frozen weak side", "wdjt-frozen", FROZEN_LIMIT),
                                                ("entropy pass", "entropy", ENTROPY_LIMIT))]
    return found


def judge(parts: Parts, *, small: bool) -> list[dict[str, Any]]:
    """Return each target with its value and verdict: met | missed | not measured | not judged (small shapes)."""
    return [_verdict(target, parts.get(target.part), small) for target in targets()]


def _verdict(target: Target, part: dict[str, Any] | None, small: bool) -> dict[str, Any]:
    value, reason = None, None
    try:
        value = None if part is None else target.find(part["result"])
    except (KeyError, TypeError, ZeroDivisionError):
        value = None
    if value is None:
        verdict = "not measured"
        reason = "not asked for" if part is None else (part["reason"] or part["result"].get("no_triton")
                                                       or "no such result")
    elif small:
        verdict, reason = "not judged", "small shapes"
    else:
        verdict = "met" if value <= target.limit else "missed"
    return {"target": target.title, "value": value, "limit": target.limit, "verdict": verdict, "reason": reason}


def _memory(result: dict[str, Any], path: str) -> float:
    memory = result["memory"]
    return float(memory["beyond_bytes"][path] / memory["full_bytes"])


def _error(result: dict[str, Any], path: str) -> float:
    errors = result["numerics"]["errors"]
    return max(errors[path][name] / errors["full logits"][name] for name in errors[path] if name != "loss")


def advice(verdicts: list[dict[str, Any]], parts: Parts) -> str | None:
    """Return what the numbers say of the default path, None where they say nothing."""
    mixed = parts.get("loss-time", {}).get("result", {}).get("paths", {}).get("mixed", {})
    if "default" not in mixed or CANDIDATE not in mixed:
        return None
    gain = mixed["default"]["median"] / mixed[CANDIDATE]["median"]
    exact = [row["verdict"] for row in verdicts if PATH_TITLES[CANDIDATE] in row["target"] and "error" in row["target"]]
    if any(verdict != "met" for verdict in exact):
        return (f"The bf16 path with Triton takes 1/{gain:.2f} of the default's time, but its numbers are not held "
                "against float64 with success: leave mixed_cross_entropy.PATH as it is.")
    if gain <= 1.05:
        return "The bf16 path with Triton is not faster here: leave mixed_cross_entropy.PATH as it is."
    return (f"The bf16 path with Triton is {gain:.2f} times as fast as the default, its errors are within the limits: "
            "for runs on this device one may set baselines.mixed_cross_entropy.PATH = HalfPath(softmax='triton') "
            "(docs/gpu-check.md).")
