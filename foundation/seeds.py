"""Named random streams: every random draw of the suite has its own, derived from names by a stable hash.

A stream depends on its names alone, never on the order in which streams are opened, so adding a draw somewhere
cannot move a number elsewhere.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def stream_seed(*names: str | int) -> int:
    """Return a seed in [0, 2**63) for the stream of these names, equal on every machine and Python version."""
    text = "\x1f".join(f"{type(name).__name__}:{name}" for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(*names: str | int) -> np.random.Generator:
    """Return a fresh NumPy generator at the start of the named stream."""
    import numpy as np

    return np.random.Generator(np.random.PCG64(stream_seed(*names)))
