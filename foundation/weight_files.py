"""Safetensors files as bytes: which tensors they hold, and new files made of the same bytes under other names.

The library writes a file only from tensors that are all in memory. Renaming weights needs no tensors: a safetensors
file is the length of a JSON header (8 bytes, little endian), the header (name -> dtype, shape, offsets), and the data.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundation.errors import InputError
from foundation.files import storage_error

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_LENGTH_BYTES = 8
_LARGEST_HEADER = 100_000_000  # the format's own limit
_PIECE = 16 * 2**20


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor where it lies: bytes `begin` to `end` of a file."""

    file: Path
    dtype: str
    """As the format names it: BF16, F32, ..."""
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.end - self.begin

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def read_file(path: Path) -> dict[str, StoredTensor]:
    """Return the tensors of one safetensors file by name, without reading their data.

    Raises:
        InputError: not such a file, or cut off.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            if size < _LENGTH_BYTES or length > min(_LARGEST_HEADER, size - _LENGTH_BYTES):
                raise ValueError(f"its header should have {length} bytes, the whole file has {size}")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        begin = _LENGTH_BYTES + length
        found = {name: _tensor(path, entry, begin) for name, entry in header.items()}
    except FileNotFoundError as error:
        raise InputError(f"the weights {path} are missing; fetch or write them again") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no whole safetensors file ({error}); fetch or write it again") from error
    end = max((tensor.end for tensor in found.values()), default=begin)
    if end != size:
        raise InputError(f"{path} has {size} bytes, its header speaks of {end}; fetch or write it again")
    return found


def _tensor(path: Path, entry: Any, data: int) -> StoredTensor:
    begin, end = entry["data_offsets"]
    if not 0 <= begin <= end:
        raise ValueError(f"offsets {begin} to {end}")
    return StoredTensor(path, str(entry["dtype"]), tuple(entry["shape"]), data + begin, data + end)


def read_folder(folder: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a checkpoint folder by name: of its one file, or of the shards that its index names.

    Raises:
        InputError: no weights, a shard that the index names and the folder lacks, or a weight that its shard lacks.
    """
    if not (folder / INDEX).is_file():
        if not (folder / SINGLE).is_file():
            raise InputError(f"{folder} has neither {SINGLE} nor {INDEX}; name a folder with a model's weights")
        return read_file(folder / SINGLE)
    weight_map = read_index(folder / INDEX)
    shards = sorted(set(weight_map.values()))
    missing = [name for name in shards if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder / INDEX} names {len(shards)} shards, {len(missing)} of them are missing "
                         f"({', '.join(missing[:3])}); fetch the model again")
    held = {name: read_file(folder / name) for name in shards}
    absent = [name for name, shard in weight_map.items() if name not in held[shard]]
    if absent:
        raise InputError(f"{folder / INDEX} places {absent[0]} in {weight_map[absent[0]]}, which does not hold it "
                         f"({len(absent)} such weights); index and shards are of different versions, fetch both again")
    return {name: held[shard][name] for name, shard in weight_map.items()}


def read_index(path: Path) -> dict[str, str]:
    """Return which shard holds each weight.

    Raises:
        InputError: not an index.
    """
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        if not weight_map or not all(isinstance(name, str) and Path(name).name == name for name in weight_map.values()):
            raise ValueError("weight_map names no shards beside it")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no index of weights ({type(error).__name__}: {error}); fetch it again") from error
    return dict(weight_map)


def write_file(path: Path, tensors: Mapping[str, StoredTensor]) -> None:
    """Write a safetensors file of tensors that lie in other files, a piece at a time; whole or not at all.

    Raises:
        StorageError: the disk is full or refuses the write.
    """
    # the library's own order: wide numbers first, so that each tensor begins at a multiple of its number's width
    order = sorted(tensors, key=lambda name: (-_width(tensors[name]), name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name in order:
        tensor = tensors[name]
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape),
                        "data_offsets": [place, place + tensor.bytes]}
        place += tensor.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)
    half = path.with_name(f".{path.name}.half")
    try:
        with half.open("wb") as target:
            target.write(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
            for name in order:
                for piece in pieces(tensors[name]):
                    target.write(piece)
            target.flush()
            os.fsync(target.fileno())
        half.replace(path)
    except OSError as error:
        raise storage_error(error, path) or error from error
    finally:
        half.unlink(missing_ok=True)


def _width(tensor: StoredTensor) -> int:
    """Bits of a number, which its type's name says (BOOL, of 8, alone does not)."""
    bits = re.search(r"\d+", tensor.dtype)
    return int(bits[0]) if bits else 8


def pieces(tensor: StoredTensor) -> Iterator[bytes]:
    """Yield a tensor's bytes, at most 16 MiB at a time."""
    with tensor.file.open("rb") as source:
        source.seek(tensor.begin)
        left = tensor.bytes
        while left:
            piece = source.read(min(_PIECE, left))
            if not piece:
                raise InputError(f"{tensor.file} ended within a tensor; fetch or write it again")
            left -= len(piece)
            yield piece


def same_content(one: StoredTensor, other: StoredTensor) -> bool:
    """Say whether two tensors are equal to the last bit."""
    return (one.dtype, one.shape) == (other.dtype, other.shape) and all(
        a == b for a, b in zip(pieces(one), pieces(other), strict=True))
