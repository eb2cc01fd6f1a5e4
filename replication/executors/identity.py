"""What must be equal on all nodes of a cluster: the sources of the suite, and the packages that can move a number."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import replication
from replication.provenance import packages

SOURCES = ("foundation", "baselines", "evaluation", "replication")


def code_identity() -> dict[str, str]:
    """Return the sha256 of the suite's Python files, and package versions without their build tags (`+cu130`)."""
    found = hashlib.sha256()
    root = Path(replication.__file__).resolve().parent.parent
    for path in sorted(path for name in SOURCES for path in (root / name).rglob("*.py")):
        found.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return {"sources": found.hexdigest()[:16],
            **{name: version.partition("+")[0] for name, version in packages().items()}}


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """Return what differs, `name: there (here: ...)`."""
    return [f"{name}: {there.get(name, 'absent')} (here: {here.get(name, 'absent')})"
            for name in sorted({*here, *there}) if here.get(name) != there.get(name)]
