"""The account of one source file on the disk: kept rows so far, and a journal that says how far they reach.

Rows are appended to `N.rows`, then one line to `N.journal`, both on the disk before the next begins. After a kill at
any point the journal's last whole line tells which rows count; what was written beyond is cut off and done again.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from foundation.errors import InputError
from foundation.files import storage_error, write_atomic
from foundation.records import Malformed
from replication.corpora.batches import Judged


class Journal:
    """Context manager over the two files of a source; `read`, `kept` and so on are what is safe on the disk."""

    def __init__(self, folder: Path, number: int, source: str, identity: dict[str, Any]) -> None:
        self.rows_path, self.path = folder / f"{number:04d}.rows", folder / f"{number:04d}.journal"
        self.source = source
        self.read = self.kept = 0
        self.dropped: Counter[str] = Counter()
        self.malformed: list[Malformed] = []
        self.finished = False
        self._bytes = 0
        self._header = {"source": source} | identity
        self._restore()

    def __enter__(self) -> Journal:
        self._rows, self._journal = self.rows_path.open("ab"), self.path.open("ab")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        for file in (self._rows, self._journal):
            try:
                file.close()
            except OSError:
                if error is None:
                    raise

    def commit(self, judged: Judged, *, finished: bool = False) -> None:
        """Put what became of further records on the disk.

        Raises:
            StorageError: the disk is full or refuses; what was committed before is kept.
        """
        rows = "".join(row + "\n" for row in judged.kept).encode()
        entry = {"read": judged.read, "kept": len(judged.kept), "bytes": self._bytes + len(rows),
                 "dropped": dict(judged.dropped), "malformed": judged.malformed} | ({"end": True} if finished else {})
        try:
            for file, data in ((self._rows, rows), (self._journal, (json.dumps(entry) + "\n").encode())):
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise storage_error(error, self.rows_path) or error from error
        self._take(entry)

    def rows(self) -> Iterator[bytes]:
        """Yield the kept rows, one line each."""
        with self.rows_path.open("rb") as file:
            yield from file

    def _take(self, entry: dict[str, Any]) -> None:
        self.read += entry["read"]
        self.kept += entry["kept"]
        self.dropped += Counter(entry["dropped"])
        self.malformed += [Malformed(self.source, line, reason) for line, reason in entry["malformed"]]
        self._bytes = entry["bytes"]
        self.finished = bool(entry.get("end"))

    def _restore(self) -> None:
        content = self.path.read_bytes() if self.path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if not whole:
            self.rows_path.unlink(missing_ok=True)
            write_atomic(self.path, json.dumps(self._header) + "\n")
            self.rows_path.touch()
            return
        header, *entries = [json.loads(line) for line in whole.split(b"\n")[:-1]]
        if header != json.loads(json.dumps(self._header)):
            differing = sorted(name for name in {*header, *self._header} if header.get(name) != self._header.get(name))
            raise InputError(f"{self.path.parent} holds the work of another request ({', '.join(differing)} differ); "
                             "name another --out, or remove this folder to begin anew")
        for entry in entries:
            self._take(entry)
        with self.path.open("r+b") as file:
            file.truncate(len(whole))
        with self.rows_path.open("r+b") as file:
            file.truncate(self._bytes)
