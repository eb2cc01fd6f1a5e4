"""What the page shows, in its order: Tables 1 to 12, figures, theory, audit, and what is said where one is absent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from replication.models import Model
from replication.paper_tables import ALL_MODELS, TABLES


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One result file's place on the page."""

    name: str
    """Stem of the result file, id of the section, and name of the module that makes it."""
    place: str
    title: str
    optional: bool = False
    """Left out, rather than named as absent, when there is no such file."""
    of_the_paper: bool = False
    """About the paper alone, the same for every model."""


_PACKAGE = Path(__file__).resolve().parent.parent

_MORE = (
    Section(name="figure3", place="Figure 3", title="Convergence over four epochs"),
    Section(name="figure4", place="Figure 4", title="Rise after the shared initialization, with and without WD-DS"),
    Section(name="figure5", place="Figure 5", title="Weak-strong entropy separation"),
    Section(name="theory", place="Theory", title="The paper's theorem and corollaries on real checkpoints"),
    Section(name="ambiguities", place="Ambiguities", title="What the readings of the paper change"),
    Section(name="overlap", place="Overlap", title="Overlap of training pools and benchmarks", optional=True),
    Section(name="compare", place="Comparison", title="Own methods", optional=True),
    Section(name="audit", place="Audit", title="The paper's own numbers, recomputed", of_the_paper=True),
)

SECTIONS: dict[str, Section] = {
    section.name: section
    for section in (
        *(Section(name=table.id, place=f"Table {table.id.removeprefix('table')}", title=table.caption)
          for table in TABLES.values()),
        *_MORE,
    )
}  # fmt: skip


def published_models(name: str) -> tuple[str, ...]:
    """Return the backbones for which the paper prints a table; empty for anything else and for model-free tables."""
    table = TABLES.get(name)
    return () if table is None or ALL_MODELS in table.values else tuple(table.values)


def absent(section: Section, model: Model) -> tuple[str, str | None]:
    """Return why a section has no result, and the command that makes it (None: there is none yet)."""
    if not any((_PACKAGE / name).is_file() for name in (f"{section.name}.py", f"{section.name}/__main__.py")):
        return "Not part of this version.", None
    what = f"--out results/{model.name}" if section.of_the_paper else f"--model {model.name}"
    return "Not there yet, run", f"python -m replication.{section.name} {what}"
