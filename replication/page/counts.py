"""How many questions or examples stand behind the cells of a table, as the page says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from replication.page.numbers import count_text

Content = dict[str, Any]
Span = tuple[int, int]


def trainings(content: Content) -> int:
    """Return the trainings behind each cell (Table 9: three); its `n` counts the answers of all of them."""
    settings = (content.get("provenance") or {}).get("settings") or {}
    found: int = settings.get("trainings") or 1
    return found


def questions(cell: Content, content: Content) -> int | None:
    """Return the questions of a graded cell, each counted once; None where nothing was graded in that very cell.

    An average has no step of its own: its columns are counted.
    """
    sampled = "samples" in (cell.get("outcomes") or {})
    if not cell.get("n") or not cell.get("step") or (cell.get("correct") is None and not sampled):
        return None
    return int(cell["n"]) // (1 if sampled else trainings(content))


def graded_span(contents: Mapping[str, Content]) -> Span | None:
    """Return the fewest and the most questions behind a graded cell of any table."""
    found = [n for content in contents.values() for cell in content.get("cells") or []
             if (n := questions(cell, content)) is not None]
    return (min(found), max(found)) if found else None


def span_text(span: Span) -> str:
    """Return `200` or `50 to 200`."""
    return f"{span[0]:,}" if span[0] == span[1] else f"{span[0]:,} to {span[1]:,}"


def legend(content: Content) -> str:
    """Return what a table's cells rest on: `n = 200 questions a cell`, or by column; empty where nothing is counted."""
    spans: dict[tuple[str, str], Span] = {}
    cells = content.get("cells") or []
    graded = {cell["column"] for cell in cells if questions(cell, content) is not None}
    for cell in cells:
        asked = questions(cell, content)
        n = asked if asked is not None else cell.get("n") if cell.get("step") else None
        if n:
            key = (cell["column"], "questions" if cell["column"] in graded else "examples")
            low, high = spans.get(key, (n, n))
            spans[key] = (min(low, n), max(high, n))
    columns: dict[tuple[str, str], list[str]] = {}
    for (column, word), span in spans.items():
        columns.setdefault((span_text(span), word), []).append(column)
    many = trainings(content)
    each = f", each answered by {count_text(many, 'training')}" if many > 1 else ""
    if len(columns) == 1:
        ((size, word),) = columns
        return f"n = {size} {word} a cell{each}"
    return "n: " + ", ".join(f"{size} {word} ({', '.join(names)})" for (size, word), names in columns.items()) + each \
        if columns else ""
