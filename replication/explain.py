"""Walk back from a number: a cell's verdicts, answers, checkpoint, data, settings, down to the base model.

    python -m replication.explain results/tiny/table1.json WMSS GSM8K
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import tyro

from foundation.errors import ArtifactError, InputError
from foundation.exits import exit_with_message
from foundation.files import canonical_json
from replication.cli import STORE
from replication.display import clock
from replication.formats import interval_text, value_text
from replication.store import require_schema


def explain(
    result: tyro.conf.Positional[Path],
    row: tyro.conf.Positional[str],
    column: tyro.conf.Positional[str],
    /,
    store: Annotated[Path, tyro.conf.arg(help="where the steps live (WMSS_STORE)")] = STORE,
) -> int:
    """Print the whole lineage of one cell of a result file."""
    cell = find_cell(read_result(result), row, column)
    print(f"{cell['row']}, {cell['column']}: {summary(cell)}")
    if cell["step"] is None:
        if cell["status"] == "measured":
            print("This cell was computed from other cells or from several steps together.")
        return 0
    for depth, manifest, roles in lineage(store, cell["step"]):
        print(f"\n{'  ' * min(depth, 1)}{manifest['id']}  {manifest['label']}" + (f"  (as {roles})" if roles else ""))
        for line in _details(manifest):
            print(f"    {line}")
    return 0


def read_result(path: Path) -> dict[str, Any]:
    """Read a result file.

    Raises:
        InputError: it is not there or not a result file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"no result file {path}; make it with: python -m replication.table1") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a result file: {error}") from error
    if not isinstance(content, dict) or "cells" not in content:
        raise InputError(f"{path} is not a result file: it has no cells")
    return content


def find_cell(content: dict[str, Any], row: str, column: str) -> dict[str, Any]:
    """Return the named cell; names are compared without case.

    Raises:
        InputError: no such row or column; the ones there are listed.
    """
    cells = content["cells"]
    for name, given in (("row", row), ("column", column)):
        known = list(dict.fromkeys(cell[name] for cell in cells))
        if given.lower() not in (k.lower() for k in known):
            raise InputError(f"no {name} {given!r}; there are: {', '.join(known)}")
    return next(cell for cell in cells
                if cell["row"].lower() == row.lower() and cell["column"].lower() == column.lower())


def summary(cell: dict[str, Any]) -> str:
    """Return a cell's number in words: right answers where these were counted, value with unit, 95 % interval."""
    if cell["status"] != "measured":
        return f"{cell['status']}: {cell['reason']}"
    parts = [f"{cell['correct']} of {cell['n']} correct"] if cell.get("correct") is not None and cell.get("n") else []
    cell = {"digits": 1} | cell
    unit = " %" if cell["unit"] == "%" else ""  # formats.value_text leaves that one to the table's heading
    parts.append(" ".join(part for part in (value_text(cell) + unit, interval_text(cell)) if part))
    return ", ".join(parts)


def lineage(store: Path, step_id: str) -> list[tuple[int, dict[str, Any], str]]:
    """Return (depth, manifest, role) of the step and of everything it comes from, nearest first, each once.

    Raises:
        ArtifactError: the store does not hold the step, or is of another version.
    """
    found: dict[str, tuple[int, dict[str, Any], str]] = {}
    queue = [(0, step_id, "")]
    while queue:
        depth, current, role = queue.pop(0)
        if current in found:
            continue
        path = store / current / "manifest.json"
        if not path.is_file():
            raise ArtifactError(f"step {current} is not in the store {store}; name the store that made this result "
                                "with --store, or make it again")
        manifest = json.loads(path.read_text(encoding="utf-8"))
        require_schema(manifest, store)
        found[current] = (depth, manifest, role)
        queue += [(depth + 1, parent, name) for name, parent in manifest["parents"].items()]
    return list(found.values())


def _details(manifest: dict[str, Any]) -> list[str]:
    origin = manifest["provenance"]
    lines = [f"{name}: {canonical_json(value)}" for name, value in manifest["settings"].items()]
    lines += [f"measured {name}: {canonical_json(value)}" for name, value in (manifest["notes"] or {}).items()]
    lines += [f"file {name}: {entry['bytes']} bytes, sha256 {entry['sha256'][:16]}..."
              for name, entry in manifest["files"].items()]
    parents = ", ".join(f"{role} = {parent}" for role, parent in manifest["parents"].items())
    lines.append(f"from: {parents or 'nothing'}")
    libraries = ", ".join(f"{name} {version}" for name, version in manifest["libraries"].items())
    tries = len(manifest.get("attempts", [1]))
    took = clock(manifest["seconds"]) + (f" in {tries} attempts" if tries > 1 else "")
    lines.append(f"took {took}; version {manifest['version']}; {libraries or 'no libraries'}; commit "
                 f" {origin['commit']}{' (changed files)' if origin['dirty'] else ''}")
    return lines


def main() -> None:
    """Run from the command line."""
    exit_with_message(lambda: tyro.cli(explain, prog="python -m replication.explain"))


if __name__ == "__main__":
    main()
