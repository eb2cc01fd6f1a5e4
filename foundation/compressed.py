"""Opening a data file as plain bytes, whatever its compression; a damaged one says so instead of ending early.

`.gz` through gzip, `.zst` through the package zstandard. Everything is streamed: memory does not grow with the file,
except for the window that a zstd file asks for (up to 2 GiB if it was compressed with `--long=31`).
"""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from foundation.errors import InputError, PrerequisiteError

# The AM corpus is compressed with a long window, which zstandard refuses unless told otherwise.
_ZSTD_WINDOW_BYTES = 2**31
_CHUNK_BYTES = 1 << 17


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a .gz, .zst or plain file for reading its decompressed bytes.

    Raises:
        InputError: its compression is damaged or cut off (met while reading).
        PrerequisiteError: a .zst file without the zstandard package.
    """
    try:
        with _open(path) as file:
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: damaged or cut-off compressed file ({error}); fetch it again") from error


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    if path.suffix == ".zst":
        try:
            import zstandard
        except ImportError as error:
            raise PrerequisiteError(
                f"{path} is zstd-compressed: `pip install zstandard`, or decompress it (zstd -d --long=31)"
            ) from error
        return cast("IO[bytes]", io.BufferedReader(_ZstdReader(path, zstandard), _CHUNK_BYTES))
    return path.open("rb")


class _ZstdReader(io.RawIOBase):
    """Frames one after the other. zstandard's own stream reader takes a cut-off frame for the end of the file."""

    def __init__(self, path: Path, zstandard: Any) -> None:
        self._file, self._zstandard = path.open("rb"), zstandard
        self._frame: Any = None
        self._compressed = self._plain = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._plain:
            self._compressed = self._compressed or self._file.read(_CHUNK_BYTES)
            if not self._compressed:
                if self._frame is not None:
                    raise EOFError("the last frame has no end")
                return 0
            self._plain = self._decompress()
        given = self._plain[: len(buffer)]
        buffer[: len(given)] = given
        self._plain = self._plain[len(given):]
        return len(given)

    def _decompress(self) -> bytes:
        if self._frame is None:
            self._frame = self._zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).decompressobj()
        try:
            plain = bytes(self._frame.decompress(self._compressed))
        except self._zstandard.ZstdError as error:
            raise zlib.error(str(error)) from error
        self._compressed = b""
        if self._frame.eof:
            self._compressed, self._frame = self._frame.unused_data, None
        return plain

    def close(self) -> None:
        self._file.close()
        super().close()
