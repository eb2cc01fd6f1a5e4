"""A result as CSV, Markdown and LaTeX: pure functions of its content."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

Cell = dict[str, Any]
Content = dict[str, Any]


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


def grid(content: Content) -> tuple[list[str], list[str], dict[tuple[str, str], Cell]]:
    """Return rows, columns and the cells by both."""
    cells = {(cell["row"], cell["column"]): cell for cell in content["cells"]}
    return list(dict.fromkeys(r for r, _ in cells)), list(dict.fromkeys(c for _, c in cells)), cells


def shown_columns(content: Content) -> list[str]:
    """Return the columns of which anything was tried."""
    _, columns, cells = grid(content)
    return [c for c in columns if any(cell["status"] != "missing" for (_, name), cell in cells.items() if name == c)]


def number(value: float, digits: int) -> str:
    """Return a number as it is shown; thousands are set apart in counts."""
    return f"{value:,.{digits}f}"


def value_text(cell: Cell | None) -> str:
    """Return a cell's value, `failed`, or a dash."""
    if cell is None:
        return ""
    if cell["status"] == "measured":
        unit = "" if cell["unit"] in ("%", "") else f" {cell['unit']}"
        return number(cell["value"], cell["digits"]) + unit
    return "failed" if cell["status"] == "failed" else "–"


def interval_text(cell: Cell | None) -> str:
    """Return a cell's 95 % interval."""
    if cell is None or not cell["ci95"]:
        return ""
    low, high = (number(limit, cell["digits"]) for limit in cell["ci95"])
    return f"[{low}, {high}]"


def paper_text(cell: Cell | None) -> str:
    """Return the paper's value beside a cell, as printed where that is known."""
    if cell is None:
        return ""
    value = cell["paper"] if cell["paper"] is not None else cell["paper_context"]
    return "" if value is None else cell.get("paper_text") or number(value, cell["digits"])


def as_markdown(content: Content) -> str:
    """Return the table with intervals, the paper's values, comparisons and notes."""
    rows, _, cells = grid(content)
    shown = shown_columns(content)
    lines = [f"# {content['heading']}", "", "| | " + " | ".join(shown) + " |", "|---|" + "---:|" * len(shown)]
    for row in rows:
        found = [cells.get((row, c)) for c in shown]
        lines.append(f"| {row} | " + " | ".join(f"{value_text(c)} {interval_text(c)}".strip() for c in found) + " |")
        if any(map(paper_text, found)):
            lines.append(f"| *{row} in the paper ({content['paper_source']})* | "
                         + " | ".join(paper_text(c) or "–" for c in found) + " |")
    lines += ["", *missing_lines(content), *_judgements(content), *_comparisons(content), "## Notes", ""]
    lines += [f"- {note}" for note in content["notes"]]
    for entry in content["provenance"]["computed_at"]:
        changed = " with local changes" if entry["dirty"] else ""
        lines.append(f"- {entry['steps']} steps computed at commit {entry['commit']}{changed}.")
    return "\n".join(lines) + "\n"


def _judgements(content: Content) -> list[str]:
    said = [f"- {c['row']}, {c['column']}: {c['judgement']['text']}" for c in content["cells"] if c.get("judgement")]
    said += [f"- {entry['text']}" for entry in content.get("ordering", ())]
    return ["## Paper against measured", "", *said, ""] if said else []


def _comparisons(content: Content) -> list[str]:
    if not content["comparisons"]:
        return []
    lines = ["## Paired comparisons", "", "| Row | Against | Column | Difference | 95 % | p | p (Holm) | Test |",
             "|---|---|---|---:|---:|---:|---:|---|"]
    for c in content["comparisons"]:
        lines.append(f"| {c['row']} | {c['against']} | {c['column']} | {c['difference']:+.1f} | [{c['ci95'][0]:+.1f}, "
                     f"{c['ci95'][1]:+.1f}] | {c['p']:.3g} | {c['p_holm']:.3g} | {c['test']} |")
    return [*lines, ""]


def missing_lines(content: Content) -> list[str]:
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


def _one_line(reason: str) -> str:
    """A reason may quote files and golds: keep it to one short line without markup."""
    return re.sub(r"[<>|`]", " ", " ".join(reason.split()))[:400]


_LATEX = str.maketrans({"\\": r"\textbackslash{}", "%": r"\%", "&": r"\&", "_": r"\_", "#": r"\#", "$": r"\$",
                        "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--",
                        "λ": r"$\lambda$", "Δ": r"$\Delta$"})


def as_latex(content: Content) -> str:
    """Return a booktabs table; every text is escaped."""
    rows, _, cells = grid(content)
    shown = shown_columns(content)

    def escaped(texts: list[str]) -> str:
        return " & ".join(text.translate(_LATEX) for text in texts) + r" \\"

    lines = [r"\begin{table}", r"\centering\small", rf"\caption{{{content['heading'].translate(_LATEX)}}}",
             r"\begin{tabular}{l" + "r" * len(shown) + "}", r"\toprule", escaped(["", *shown]), r"\midrule"]
    for row in rows:
        found = [cells.get((row, c)) for c in shown]
        lines.append(escaped([row, *map(value_text, found)]))
        if any(map(interval_text, found)):
            lines.append(escaped(["", *map(interval_text, found)]))
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [r"\par\footnotesize " + " ".join(content["notes"]).translate(_LATEX), r"\end{table}"]
    return "\n".join(lines) + "\n"
