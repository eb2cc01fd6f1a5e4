"""Rows kept in a file by key, from several threads and processes, so that a kill loses none that was finished.

JSON lines `[key, value, ...]`, appended to and handed to the operating system one by one. A line cut off by a kill is
ignored when the file is read again.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from foundation.files import storage_error


class KeptRows:
    """Context manager around the file; `rows` holds what is known, each without its key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, list[Any]] = {}
        self._file: IO[str] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> KeptRows:
        """Read what is known.

        Raises:
            StorageError: the file cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+", encoding="utf-8", errors="replace")
        except OSError as error:
            raise storage_error(error, self.path) or error from error
        self._file.seek(0)
        last = ""
        for last in self._file:
            self._read(last)
        if last and not last.endswith("\n"):
            self._append("\n")
        return self

    def _read(self, line: str) -> None:
        try:
            key, *row = json.loads(line)
        except (ValueError, TypeError):
            return
        if isinstance(key, str):
            self.rows[key] = row

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def add(self, key: str, *row: Any) -> None:
        """Keep a row.

        Raises:
            StorageError: the disk is full.
        """
        with self._lock:
            self.rows[key] = list(row)
            self._append(json.dumps([key, *row]) + "\n")

    def _append(self, text: str) -> None:
        if self._file is None:
            return
        try:
            self._file.write(text)
            self._file.flush()
        except OSError as error:
            raise storage_error(error, self.path) or error from error
