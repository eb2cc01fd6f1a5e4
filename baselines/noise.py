"""Noise that belongs to an example and a visit, not to a process: each has a generator of its own.

So a noise is the same whatever the micro-batch, the number of processes, or whether training was resumed, and no
generator state has to be saved. Seeds come from a named stream (foundation.seeds).
"""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.interface import Batch
from foundation.seeds import stream_seed

# B examples, S positions, N supervised tokens, C tokens of a chunk, V vocabulary, D hidden size

_BLOCK = 64  # tokens whose noise is drawn together, so that it does not depend on how tokens are cut into chunks


def example_seeds(seed: int, rows: list[int]) -> list[int]:
    """Return the seed of each example at each visit; `rows` are positions in the training order."""
    return [stream_seed("method-noise", seed, row) for row in rows]


def uniform(shape: tuple[int, ...], seed: int, like: Tensor) -> Tensor:
    """Return i.i.d. Uniform(-1, 1) noise of `shape` for one example, on the device and in the dtype of `like`."""
    return torch.empty(shape, device=like.device, dtype=like.dtype).uniform_(-1, 1, generator=_generator(seed, like))


def token_normals(batch: Batch, rows: slice, width: int, like: Tensor) -> Tensor:
    """Return standard normal noise of the tokens `rows`, shape (C, width): independent of how they are chunked."""
    assert batch.seeds_B is not None, "noise is for training only"
    noise_CW = torch.empty(rows.stop - rows.start, width, device=like.device, dtype=like.dtype)
    at = 0
    for example, first, count in _runs(batch.example_N, rows):
        last = first + count
        for block in range(first // _BLOCK, -(-last // _BLOCK)):
            drawn = torch.empty(_BLOCK, width, device=like.device, dtype=like.dtype)
            drawn.normal_(generator=_generator(stream_seed("block", batch.seeds_B[example], block), like))
            begin, end = max(first - block * _BLOCK, 0), min(last - block * _BLOCK, _BLOCK)
            noise_CW[at : at + end - begin] = drawn[begin:end]
            at += end - begin
    return noise_CW


def _runs(example_N: Tensor, rows: slice) -> list[tuple[int, int, int]]:
    """Return (example, position of its first token here among its own, tokens here) of each example in `rows`."""
    if rows.stop <= rows.start:
        return []
    found, counts = example_N[rows].unique_consecutive(return_counts=True)
    first = rows.start - int((example_N == found[0]).int().argmax())  # only the first example can have begun before
    return list(zip(found.tolist(), [first, *[0] * (len(found) - 1)], counts.tolist(), strict=True))


def _generator(seed: int, like: Tensor) -> torch.Generator:
    return torch.Generator(device=like.device).manual_seed(seed % 2**63)
