"""Result files by the contract (docs/results.md): JSON for machines, CSV, Markdown and LaTeX for people."""

from __future__ import annotations

import csv
import dataclasses
import inspect
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from baselines.user_methods import outside, source_sha256
from foundation.files import write_atomic
from replication import budget
from replication.plan import Request
from replication.provenance import commit, hardware, packages
from replication.run import RunReport
from replication.steps import closure
from replication.store import Store
from replication.tables import Cell, TableRun, Verdicts

SCHEMA = 1
Found = dict[tuple[str, str], Verdicts]


def write(run: TableRun, request: Request, content: dict[str, Any], folder: Path) -> list[Path]:
    """Write results/<model>/<table>.{json,csv,md,tex}, each atomically; return their paths."""
    base = folder / request.model.name / run.table.name
    texts = {
        ".json": json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        ".csv": as_csv(content["cells"]),
        ".md": as_markdown(run, request, content),
        ".tex": as_latex(run, request, content),
    }
    for suffix, text in texts.items():
        write_atomic(base.with_suffix(suffix), text)
    return [base.with_suffix(suffix) for suffix in texts]


def contents(run: TableRun, request: Request, verdicts: Found, report: RunReport, store: Store) -> dict[str, Any]:
    """Return the whole result as plain data, unrounded."""
    steps = [store.read_manifest(step.id) for step in closure(run.targets) if store.folder(step).is_dir()]
    budgets = [budget.row_budget(run.planner.plan(row), store) for row in run.methods]
    footnotes = budget.lines(budgets, run.warmup_notes(store)) + _own_lines(run)
    settings = {
        "configuration": dataclasses.asdict(request.configuration), "seed": request.seed,
        "limit_train": request.limit_train, "limit_eval": request.limit_eval,
        "pool_sources": list(run.planner.pool().sources),
    }
    return {
        "schema": SCHEMA,
        "table": run.table.name,
        "model": request.model.name,
        "scale": request.scale.name,
        "provenance": {"settings": settings, "own_methods": own_methods(run), "computed_at": _commits(steps),
                       "rendered_at": commit(),
                       "python": sys.version.split()[0], "packages": packages(), "hardware": hardware()},
        "cells": run.cells(verdicts, report),
        "comparisons": run.comparisons(verdicts),
        "budget": budgets,
        "notes": notes(run, request) + _unsafe_lines(steps) + footnotes,
        "footnotes": footnotes,
    }


def _commits(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the commits of the code that computed the steps, with how many steps each."""
    counted = Counter((m["provenance"]["commit"], m["provenance"]["dirty"]) for m in manifests)
    return [{"commit": commit_id, "dirty": dirty, "steps": n} for (commit_id, dirty), n in counted.most_common()]


def _unsafe_lines(manifests: list[dict[str, Any]]) -> list[str]:
    """Say which verdicts come from programs that ran without isolation: such a program may have forged its own."""
    graders = [manifest["notes"].get("grader") for manifest in manifests]
    count = sum(isinstance(grader, dict) and grader.get("unsafe") is True for grader in graders)
    return [f"GRADED WITHOUT ISOLATION (--unsafe-code-execution): in {count} grading steps generated programs ran with "
            "the rights of the user, and could reach their own verdicts."] if count else []


def own_methods(run: TableRun) -> list[dict[str, Any]]:
    """Return where the methods from outside come from: row, class, file name, hash of the source."""
    methods = {row.title: type(row.method) for row in map(run.planner.row, run.methods) if outside(type(row.method))}
    return [{"row": title, "class": method.__name__, "file": Path(inspect.getfile(method)).name,
             "sha256": source_sha256(method)} for title, method in methods.items()]


def _own_lines(run: TableRun) -> list[str]:
    return [f"{own['row']} is no method of this suite: {own['file']}:{own['class']}, sha256 {own['sha256'][:16]}."
            for own in own_methods(run)]


def heading(run: TableRun, request: Request) -> str:
    """Return the heading; the scale stands in it."""
    return f"{run.table.place} ({request.scale.name} scale, {request.model.title}). {run.table.title}"


def notes(run: TableRun, request: Request) -> list[str]:
    """Return what a reader of the numbers must know."""
    lines = [request.scale.note + "."]
    if request.scale.problems_source == "synthetic":
        lines.append("Benchmarks are generated stand-ins of the same names and answer types, not the published sets.")
    limits = [f"training limited to {request.limit_train} examples"] if request.limit_train else []
    limits += [f"evaluation limited to {request.limit_eval} problems of each benchmark"] if request.limit_eval else []
    if limits:
        lines.append(f"Limits: {'; '.join(limits)} (seeded samples).")
    lines.append("Intervals are 95 %: Wilson for a column, MOVER from the columns' Wilson limits for an average. They "
                 "speak of the questions, not of a new training run: every row is one training (seed "
                 f"{request.seed}).")
    lines.append("p is unadjusted; p (Holm) is adjusted for all of the table's comparisons that test a single column.")
    lines += [f"Nothing is compared with {anchor}: it is not among the rows asked for." for anchor in run.table.against
              if anchor not in run.methods]
    lines.append("No answer, wrong and truncated answers all stay in the denominator.")
    if request.model.published_as is not None and not run.planner.comparable_with_the_paper:
        lines.append(f"Trained on {', '.join(run.planner.pool().sources)}, or with limits, not on the paper's whole "
                     "corpus: its values are for orientation only.")
    if request.model.published_as is None:
        lines.append(f"The paper's values are those of {request.model.context}, for orientation only: never judged.")
    if request.configuration.methods:
        lines.append(f"Changed settings of methods: {'; '.join(request.configuration.methods)}. Rows that they change "
                     "stand without the paper's value.")
    lines.append("Rows of the paper that are not shown were not asked for or are not part of this version.")
    return lines


def as_csv(cells: list[Cell]) -> str:
    """Return one line per cell, values unrounded."""
    columns = ["row", "column", "group", "value", "unit", "n", "correct", "ci95_low", "ci95_high", "paper",
               "paper_context", "status", "reason", "step"]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for cell in cells:
        low, high = cell["ci95"] or (None, None)
        writer.writerow({**cell, "ci95_low": low, "ci95_high": high})
    return buffer.getvalue()


def grid(content: dict[str, Any]) -> tuple[list[str], list[str], dict[tuple[str, str], Cell]]:
    """Return rows, columns and the cells by both."""
    cells = {(cell["row"], cell["column"]): cell for cell in content["cells"]}
    return list(dict.fromkeys(r for r, _ in cells)), list(dict.fromkeys(c for _, c in cells)), cells


def _value(cell: Cell) -> str:
    return f"{cell['value']:.1f}" if cell["status"] == "measured" else "failed" if cell["status"] == "failed" else "–"


def _interval(cell: Cell) -> str:
    return f"[{cell['ci95'][0]:.1f}, {cell['ci95'][1]:.1f}]" if cell["ci95"] else ""


def _paper(cell: Cell) -> str:
    value = cell["paper"] if cell["paper"] is not None else cell["paper_context"]
    return "" if value is None else f"{value:.1f}"


def as_markdown(run: TableRun, request: Request, content: dict[str, Any]) -> str:
    """Return the table with intervals, the paper's values, comparisons and notes."""
    rows, _, cells = grid(content)
    shown = _shown(content)
    lines = [f"# {heading(run, request)}", "", "| Method | " + " | ".join(shown) + " |",
             "|---|" + "---:|" * len(shown)]
    paper_name = request.model.published_as or f"{request.model.context}, for orientation"
    for row in rows:
        lines.append(f"| {row} | " + " | ".join(f"{_value(cells[row, c])} {_interval(cells[row, c])}".strip()
                                               for c in shown) + " |")
        if any(_paper(cells[row, c]) for c in shown):
            lines.append(f"| *{row} in the paper ({paper_name})* | "
                         + " | ".join(_paper(cells[row, c]) or "–" for c in shown) + " |")
    lines += ["", *_missing_lines(content), "## Paired comparisons", ""]
    lines += ["| Row | Against | Column | Difference | 95 % | p | p (Holm) | Test |",
              "|---|---|---|---:|---:|---:|---:|---|"]
    for c in content["comparisons"]:
        lines.append(f"| {c['row']} | {c['against']} | {c['column']} | {c['difference']:+.1f} | [{c['ci95'][0]:+.1f}, "
                     f"{c['ci95'][1]:+.1f}] | {c['p']:.3g} | {c['p_holm']:.3g} | {c['test']} |")
    lines += ["", "## Notes", "", *(f"- {note}" for note in content["notes"])]
    for entry in content["provenance"]["computed_at"]:
        changed = " with local changes" if entry["dirty"] else ""
        lines.append(f"- {entry['steps']} steps computed at commit {entry['commit']}{changed}.")
    return "\n".join(lines) + "\n"


def _shown(content: dict[str, Any]) -> list[str]:
    """Return the columns of which anything was tried."""
    rows, columns, cells = grid(content)
    return [c for c in columns if any(cells[r, c]["status"] != "missing" for r in rows)]


def _missing_lines(content: dict[str, Any]) -> list[str]:
    """Say once per reason which columns, of which rows, are missing or failed."""
    all_rows, _, _ = grid(content)
    reasons: dict[str, dict[str, list[str]]] = {}
    for cell in content["cells"]:
        if cell["status"] != "measured":
            where = reasons.setdefault(f"{cell['status']}: {cell['reason'].rstrip('.')}", {})
            where.setdefault(cell["column"], []).append(cell["row"])
    lines = []
    for reason, where in reasons.items():
        rows = next(iter(where.values()))
        of = "" if rows == all_rows else f" of {', '.join(rows)}"
        lines.append(f"- {', '.join(where)}{of}: {_one_line(reason)}.")
    return [*lines, ""] if lines else []


_LATEX = str.maketrans({"\\": r"\textbackslash{}", "%": r"\%", "&": r"\&", "_": r"\_", "#": r"\#", "$": r"\$",
                        "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--"})


def _one_line(reason: str) -> str:
    """A reason may quote files and golds: keep it to one short line without markup."""
    return re.sub(r"[<>|`]", " ", " ".join(reason.split()))[:400]


def as_latex(run: TableRun, request: Request, content: dict[str, Any]) -> str:
    """Return a booktabs table; every text is escaped."""
    rows, _, cells = grid(content)
    shown = _shown(content)

    def escaped(texts: list[str]) -> str:
        return " & ".join(text.translate(_LATEX) for text in texts) + r" \\"

    lines = [r"\begin{table}", r"\centering\small", rf"\caption{{{heading(run, request).translate(_LATEX)}}}",
             r"\begin{tabular}{l" + "r" * len(shown) + "}", r"\toprule", escaped(["Method", *shown]), r"\midrule"]
    for row in rows:
        lines.append(escaped([row, *(_value(cells[row, c]) for c in shown)]))
        lines.append(escaped(["", *(_interval(cells[row, c]) for c in shown)]))
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [r"\par\footnotesize " + " ".join(content["notes"]).translate(_LATEX), r"\end{table}"]
    return "\n".join(lines) + "\n"


def show(run: TableRun, request: Request, content: dict[str, Any], report: RunReport, paths: list[Path]) -> None:
    """Print the table in the terminal, one line a benchmark, with intervals and the paper's values."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 120)
    for table in _terminal_tables(run, request, content, console.width):
        console.print(table)
    for c in _headline(content["comparisons"]):
        console.print(f"{c['row']} - {c['against']}, {c['column']}: {c['difference']:+.1f} points, 95 % "
                      f"{c['ci95'][0]:+.1f} to {c['ci95'][1]:+.1f}, p = {c['p']:.3g}", highlight=False, markup=False)
    for line in _missing_lines(content):
        if line:
            console.print(line, highlight=False, markup=False)
    for line in content["footnotes"]:
        console.print(f"- {line}", highlight=False, markup=False)
    console.print(f"{len(report.ran)} steps run, {report.done_before} done before, {report.seconds:.1f} s; wrote "
                  + ", ".join(str(path) for path in paths), highlight=False, markup=False, soft_wrap=True)


def _headline(comparisons: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the comparisons of averages, and single columns where a pair of rows has no average."""
    averages = [c for c in comparisons if c["test"] != "mcnemar_exact"]
    averaged = {(c["row"], c["against"]) for c in averages}
    return [c for c in comparisons if c in averages or (c["row"], c["against"]) not in averaged]


def _terminal_tables(run: TableRun, request: Request, content: dict[str, Any], width: int) -> Iterator[Any]:
    """Yield tables of as many rows side by side as the width holds: value, interval, and the paper's in parentheses."""
    from rich.table import Table
    from rich.text import Text

    rows, columns, cells = grid(content)
    source = request.model.published_as or f"{request.model.context}, for orientation"
    with_paper = any(_paper(cells[row, c]) for row in rows for c in columns)
    caption = content["notes"][0] + (f" In parentheses: the paper's ({source})." if with_paper else "")
    side_by_side = max(1, (width - 13) // 15)
    for start in range(0, len(rows), side_by_side):
        shown = rows[start : start + side_by_side]
        table = Table(title=heading(run, request) if start == 0 else None,
                      caption=caption if start + side_by_side >= len(rows) else None)
        table.add_column("")
        for row in shown:
            table.add_column(row, justify="right", min_width=12)
        for column in _shown(content):
            found = [cells[row, column] for row in shown]
            table.add_row(column, *(Text.assemble(_value(cell), (f"\n{_interval(cell)}", "dim"),
                                                  (f"\n({_paper(cell)})" if _paper(cell) else "", "dim italic"))
                                    for cell in found))
        yield table
