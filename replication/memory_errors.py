"""Memory that ran out, however a library words it."""

from __future__ import annotations


class MemoryShort(Exception):
    """Memory ran out in a rank; the first line of what the allocator said."""


def memory_message(error: BaseException) -> str | None:
    """Return what the allocator said if an error means that memory ran out, else None."""
    if isinstance(error, MemoryShort):
        return str(error)
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, torch.OutOfMemoryError | MemoryError) or (
                isinstance(seen, Exception) and should_reduce_batch_size(seen)):
            return (str(seen).strip() or type(seen).__name__).splitlines()[0]
        seen = seen.__cause__
    return None
