"""The audit's command line: `python -m replication.audit [--json] [--kind KIND] [--out FOLDER]`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from foundation.exits import exit_with_message
from replication.audit.finding import KINDS


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the audit, or write it to a folder."""
    parser = argparse.ArgumentParser(
        prog="python -m replication.audit",
        description="Recompute what the paper prints from what it prints, and list what does not come out.")
    parser.add_argument("--json", action="store_true", help="print the findings as a JSON list")
    parser.add_argument("--kind", choices=tuple(KINDS), help="only findings of this kind")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="also write audit.json, audit.md, audit.csv there")
    options = parser.parse_args(arguments)
    from replication.audit.report import as_text, content, write

    made = content()
    paths = write(options.out) if options.out else []
    if options.kind:
        made["findings"] = [row for row in made["findings"] if row["kind"] == options.kind]
    if options.json:
        print(json.dumps(made["findings"], indent=1, ensure_ascii=False))
    else:
        print("\n".join([as_text(made), *(f"wrote {path}" for path in paths)]))
    return 0


if __name__ == "__main__":
    exit_with_message(main)
