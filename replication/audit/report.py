"""The audit as a whole: all checks, counted, and the files and the text they are shown in."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from foundation.errors import InputError
from foundation.files import write_atomic
from replication.audit import averages, claims, contradictions, grim, text_figures
from replication.audit.finding import KINDS, Check, Finding, differing
from replication.audit.quantities import PAPER, Printed

HEADING = ("Audit of the paper's printed figures (arXiv:2602.08222v2). Nothing here was measured: every line is "
           "arithmetic on what the paper prints.")
RULES = (
    "A printed figure stands for anything within half a unit of its last digit. An average, difference or ratio is "
    "reported under its own kind only if neither such values nor cutting off further digits give it; if plain "
    "recomputation of the printed parts gives another figure, but one of the two gives this, it is 'recomputed'.",
    "GRIM: a percentage of n answers is impossible only if neither rounding (a tie either way) nor cutting off further "
    "digits of any k/n, k = 0..n, gives it. n is the benchmark's number of problems in this suite: "
    + ", ".join(f"{name} {count}" for name, count in grim.PROBLEMS.items())
    + "; times 3 in Table 9 (three trainings), times 64 for pass@1 of Table 10 (mean over 64 samples).",
    "Two places that state one quantity are compared at the coarser of their decimals. A difference does not say which "
    "is right, nor why. Where the two are not the same runs (Table 9 averages three trainings; Tables 6 and 7 are of "
    "other checkpoints) it is listed as 'differs'. Passages under 'wording' were read by us, and count as no check.",
)
_COLUMNS = ("kind", "place", "table", "model", "row", "column", "value", "n", "arithmetic")


def all_checks(paper: Printed = PAPER) -> Iterator[Check]:
    """Yield every check; tests pass changed figures."""
    for module in (grim, averages, text_figures, contradictions, claims):
        yield from module.checks(paper)


def findings(paper: Printed = PAPER) -> list[Finding]:
    """Return what does not come out, in the order of KINDS and then of the paper's tables."""
    return _ordered(differing(all_checks(paper)))


def _ordered(found: Iterator[Finding]) -> list[Finding]:
    kinds = list(KINDS)
    return sorted(found, key=lambda finding: (kinds.index(finding.kind), _table_number(finding.table)))


def _table_number(table: str) -> int:
    return int(table.removeprefix("table")) if table != "text" else 99


def content(paper: Printed = PAPER) -> dict[str, Any]:
    """Return what audit.json holds: findings, and per kind how many checks were made and how many differ.

    A check counts under the kind it tests, also where its finding is of kind `recomputed`; what was only read is none.
    """
    checks = list(all_checks(paper))
    found = _ordered(differing(checks))
    checked = Counter(check.kind for check in checks if check.computed)
    return {
        "schema": 1, "table": "audit", "place": "Audit", "title": "Printed figures that do not come out",
        "heading": HEADING, "model": None, "scale": None, "cells": [], "comparisons": [],
        "findings": [finding.as_dict() for finding in found],
        "checked": {kind: checked[kind] for kind in KINDS if checked[kind]},
        "differing": dict(Counter(finding.kind for finding in found)),
        "kinds": dict(KINDS), "notes": list(RULES), "footnotes": [f"Left out: {text}." for text in grim.LEFT_OUT],
    }  # fmt: skip


def write(folder: Path, paper: Printed = PAPER) -> list[Path]:
    """Write audit.json, audit.md and audit.csv to a folder, each whole or not at all, and return their paths.

    Raises:
        StorageError: the disk is full or refuses the write.
        InputError: the folder is a file.
    """
    made = content(paper)
    texts = {"json": json.dumps(made, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
             "md": as_markdown(made), "csv": as_csv(made["findings"])}
    paths = [folder / f"audit.{suffix}" for suffix in texts]
    try:
        for path, text in zip(paths, texts.values(), strict=True):
            write_atomic(path, text)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{folder} is a file or lies under one; name a folder for the audit's files") from error
    return paths


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Return the findings as CSV with a header."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def as_markdown(made: dict[str, Any]) -> str:
    """Return the audit as Markdown, one table per kind."""
    lines = ["# Audit of the paper's printed figures", "", HEADING, "", *(f"- {line}" for line in counted(made)), ""]
    for kind, words in KINDS.items():
        rows = [row for row in made["findings"] if row["kind"] == kind]
        if rows:
            lines += [f"## {kind}", "", words[0].upper() + words[1:] + ".", "",
                      "| Place | Model | Row | Column | Printed | n | Arithmetic |", "|---|---|---|---|---|---|---|"]
            lines += ["| " + " | ".join(_escaped(text) for text in _row_texts(row)) + " |" for row in rows]
            lines.append("")
    return "\n".join([*lines, "## Rules", "", *(f"- {text}" for text in (*made["notes"], *made["footnotes"])), ""])


def _row_texts(row: dict[str, Any]) -> list[str]:
    value, n = ("" if row[key] is None else f"{row[key]:g}" for key in ("value", "n"))
    return [row["place"], row["model"] or "", row["row"], row["column"], value, n, row["arithmetic"]]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def counted(made: dict[str, Any]) -> list[str]:
    """Return a line per kind: how many were checked, how many differ."""
    lines = [f"{kind}: {count} checked, {made['differing'].get(kind, 0)} differ" for kind, count in
             made["checked"].items()]
    return [*lines, f"wording: {made['differing'].get('wording', 0)} pairs of passages, read and not computed",
            f"recomputed: {made['differing'].get('recomputed', 0)} figures among the checked come out only within the "
            "rounding of their parts, or by cutting off digits"]


def as_text(made: dict[str, Any]) -> str:
    """Return the audit as plain text for a terminal."""
    lines = [HEADING, "", *counted(made)]
    for kind, words in KINDS.items():
        rows = [row for row in made["findings"] if row["kind"] == kind]
        if rows:
            lines += ["", f"{kind} ({len(rows)}): {words}"]
        for row in rows:
            head = [row["place"], row["model"], row["row"], row["column"]]
            lines += [f"  {', '.join(text for text in head if text)}", f"      {row['arithmetic']}"]
    return "\n".join([*lines, "", *made["notes"], *made["footnotes"]])
