"""Clocks and memory: CUDA events and the allocator on a GPU, wall clock and resident memory on a CPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from bench.gpu.context import Context

_FLUSH_BYTES = 256 * 2**20  # several times the L2 cache of any GPU


def spread(values: list[float]) -> dict[str, float]:
    """Return median, least, greatest and number of some seconds."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


class Stopwatch:
    """Times functions on a device."""

    def __init__(self, device: str) -> None:
        import torch

        self.torch, self.device = torch, device
        self.flush = torch.empty(_FLUSH_BYTES, dtype=torch.int8, device=device) if device == "cuda" else None

    def once(self, action: Callable[[], Any]) -> float:
        """Return the seconds of one call, the caches cleared before it."""
        if self.flush is None:
            began = time.perf_counter()
            action()
            return time.perf_counter() - began
        self.flush.zero_()
        first, last = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        action()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1000

    def measure(self, context: Context, what: str, action: Callable[[], Any], *, repeats: int = 7,
                warm_ups: int = 2, share: float = 0.5) -> dict[str, float] | None:
        """Return the spread of the seconds of `action`; None if not even one repetition fits.

        Args:
            context: whose time is spent, of what remains at most `share`.
            what: named in what is printed.
            action: what is timed.
            repeats: repetitions that count.
            warm_ups: repetitions before them (allocator, autotuning, compilation).
            share: of the part's remaining time.
        """
        repeats, warm_ups = (2, 1) if context.small else (repeats, warm_ups)
        end = context.remaining() * (1 - share)
        values = []
        for number in range(warm_ups + repeats):
            seconds = self.once(action)
            if number >= warm_ups:
                values.append(seconds)
            if number + 1 < warm_ups + repeats and context.remaining() - 2 * seconds < end:
                context.cut(f"{what}: {len(values)} of {repeats} repetitions")
                break
        if not values:
            return None
        found = spread(values)
        context.say(f"{what}: {found['median'] * 1000:,.2f} ms ({found['min'] * 1000:,.2f} to "
                    f"{found['max'] * 1000:,.2f}, {found['n']} times)")
        return found

    def peak(self, action: Callable[[], Any]) -> int:
        """Return the bytes that `action` takes at its highest beyond what lay in memory before it."""
        if self.device == "cuda":
            cuda = self.torch.cuda
            cuda.synchronize()
            cuda.empty_cache()
            before = cuda.memory_allocated()
            cuda.reset_peak_memory_stats()
            action()
            cuda.synchronize()
            return cuda.max_memory_allocated() - before
        from bench.loss import reset_high_water_mark, status_bytes

        reset_high_water_mark()
        before = status_bytes("VmRSS")
        action()
        return max(status_bytes("VmHWM") - before, 0)


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that the device's memory did not suffice."""
    import torch

    return isinstance(error, torch.cuda.OutOfMemoryError | MemoryError)
