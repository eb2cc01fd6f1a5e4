"""Says where result files on one page were made with different seeds, limits or settings: read apart, not compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from replication.made_with import made_with, text
from replication.page.sections import SECTIONS

Content = dict[str, Any]
_OF_THE_TABLE = ("model", "trainings")
"""What tables differ in by their declaration."""
_OF_ALL_MODELS = ("seed", "limit_train", "limit_eval", "methods")
"""What sections share even where another model ran (Table 4)."""
_SHOWN = 4


def mixture(contents: Mapping[str, Content]) -> dict[str, str]:
    """Return, for each section made otherwise than most of the page, what was different there."""
    found = {name: {key: text(value) for key, value in made_with(content).items() if key not in _OF_THE_TABLE}
             for name, content in contents.items() if (content.get("provenance") or {}).get("settings")}
    usual: dict[tuple[str, str], Counter[str]] = {}
    for name, values in found.items():
        for key, value in values.items():
            usual.setdefault(_shared(contents[name], key), Counter())[value] += 1
    most = {key: counted.most_common(1)[0][0] for key, counted in usual.items()}
    result = {}
    for name, values in found.items():
        other = [f"{key} {value} ({most[_shared(contents[name], key)]} in most others)" for key, value in values.items()
                 if value != most[_shared(contents[name], key)]]
        if other:
            more = f" and {len(other) - _SHOWN} more settings" * (len(other) > _SHOWN)
            result[name] = ", ".join(other[:_SHOWN]) + more
    return result


def _shared(content: Content, key: str) -> tuple[str, str]:
    """Return what a value is compared with: other sections' of the same model, or of all."""
    return ("" if key in _OF_ALL_MODELS else str(content.get("model")), key)


def sentences(contents: Mapping[str, Content]) -> list[str]:
    """Return what the summary says of it: one sentence a section, and what follows from them."""
    lines = [f"{SECTIONS[name].place} was made with {what}." for name, what in mixture(contents).items()]
    return [*lines, "Numbers of sections that were made with different settings are not comparable with one another."
            ] if lines else []
