"""Keeps a table made with other settings, or with cells that the new one lacks, before its files are written anew.

    results/<model>/replaced/<table>-<hash of what it was made with>.{json,csv,md,tex}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from foundation.files import canonical_json, write_atomic
from replication.made_with import differences, made_with, text

FOLDER = "replaced"
Content = dict[str, Any]


def set_aside(base: Path, suffixes: Iterable[str], content: Content) -> str | None:
    """Copy the files of an earlier result that `content` does not merely renew; say so in a sentence.

    Args:
        base: results/<model>/<table>, without a suffix.
        suffixes: of the files that belong together.
        content: what is about to be written there.

    Returns:
        The sentence; None where nothing was there, or the same table made anew.
    """
    path = base.with_suffix(".json")
    if not path.is_file():
        return None
    data = path.read_bytes()
    why, identity = _compared(data, content)
    if why is None:
        return None
    kept = base.parent / FOLDER / f"{base.name}-{hashlib.sha256(identity).hexdigest()[:8]}.json"
    for file in (base.with_suffix(suffix) for suffix in suffixes):
        if file.is_file():
            write_atomic(kept.with_suffix(file.suffix), file.read_bytes())
    return f"{path} was {why}; it is kept as {kept}"


def _compared(data: bytes, new: Content) -> tuple[str | None, bytes]:
    """Return why an earlier file must be kept, if it must, and the bytes that tell it from others that are kept."""
    try:
        old = json.loads(data)
        before, cells = made_with(old), _measured(old)
    except (ValueError, TypeError, KeyError, AttributeError):
        return "no result file of this suite", data
    identity = canonical_json([before, sorted(cells)]).encode()
    now = made_with(new)
    if names := differences(before, now):
        shown = ", ".join(f"{name} {text(before[name])} (now {text(now[name])})" for name in names[:3])
        return f"made with {shown}{f' and {len(names) - 3} more' * (len(names) > 3)}", identity
    if lost := cells - _measured(new):
        rows = list(dict.fromkeys(row for row, _ in sorted(lost)))
        return (f"a table with {len(lost)} measured cells that this run has not measured (of "
                f"{', '.join(rows[:3])}{', ...' * (len(rows) > 3)})"), identity
    return None, identity


def _measured(content: Content) -> set[tuple[str, str]]:
    return {(cell["row"], cell["column"]) for cell in content["cells"] if cell["status"] == "measured"}
