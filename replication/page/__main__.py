"""Write the report page of a model: results/<model>/report.html and results/<model>/figures/.

    python -m replication.page --model tiny --results results
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from foundation.exits import exit_with_message


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which results to show. Nothing is trained or graded: the page shows what the result files hold."""

    model: str = "tiny"
    """The model whose result files are shown: tiny, smollm2-135m, qwen3-4b, ..."""
    results: Path = Path("results")
    """Folder of the result files; the page is written to <results>/<model>/report.html."""


def run(options: Options) -> int:
    """Write the page and name what was written; return 0."""
    from replication.models import model_named
    from replication.page.writing import write

    written = write(options.results, model_named(options.model))
    for note in written.skipped:
        print(f"note: {note}")
    figures = len(written.figures) // 2
    print(f"wrote {written.page} ({written.page.stat().st_size / 1024:.0f} KiB)"
          + (f" and {figures} figures in {written.figures[0].parent}" if figures else ""))
    return 0


if __name__ == "__main__":
    exit_with_message(lambda: run(tyro.cli(Options, prog="python -m replication.page", description=__doc__)))
