"""Writes the page and its static figures: results/<model>/report.html, figures/<plot id>.svg and .png."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from foundation.files import write_atomic
from replication.models import Model
from replication.page.reading import read
from replication.page.render import drawings, render


@dataclass(frozen=True, slots=True)
class Written:
    """What was written, and what was left out of it."""

    page: Path
    figures: list[Path]
    skipped: list[str]


def write(results: Path, model: Model, kept: Path | None = None) -> Written:
    """Read the model's result files, then write page and figures, each atomically.

    `kept` is a folder for drawings, so that a plot that has not changed is not drawn again.

    Raises:
        InputError: result files that cannot be shown (replication.page.reading.read); nothing is then written.
    """
    found = read(results, model)
    drawn = drawings(found.contents, kept)
    text = render(found.contents, model, skipped=found.skipped, drawn=drawn)
    folder = results / model.name
    figures = []
    for name, drawing in drawn.items():
        for suffix, data in ((".svg", drawing.svg), (".png", drawing.png)):
            figures.append(folder / "figures" / f"{name}{suffix}")
            write_atomic(figures[-1], data)
    write_atomic(folder / "report.html", text)
    return Written(folder / "report.html", figures, found.skipped)
