"""What the commands that run programs share: options, the grader that these make, a bar that shows how far it is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from evaluation.graders.code import CodeGrader
from evaluation.isolation import find_isolation


def add_code_options(parser: argparse._ActionsContainer) -> None:
    """Add --workers, --isolation and --unsafe-code-execution."""
    parser.add_argument("--workers", type=int, metavar="N", help="programs at the same time (default: the cores)")
    parser.add_argument("--isolation", choices=("bubblewrap", "namespaces"), help="default: the first that works")
    parser.add_argument("--unsafe-code-execution", action="store_true",
                        help="where no isolation works, run the programs WITHOUT any: they can do all that you can")


def code_grader(options: argparse.Namespace, packages: tuple[str, ...]) -> CodeGrader:
    """Return the grader that the options ask for.

    Raises:
        PrerequisiteError: no isolation works here and it is not waived, or a package is missing.
        InputError: a setting is out of range.
    """
    isolation = find_isolation(options.isolation, unsafe=options.unsafe_code_execution)
    return CodeGrader(isolation, workers=options.workers, packages=packages)


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Callable[[], None]]:
    """Yield what is called after each item; shows a bar where the standard error is a terminal and the output is not.

    A line of output between two drawings of a bar would spoil both.
    """
    if not sys.stderr.isatty() or total == 0:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                  console=console, transient=True) as bars:
        bar = bars.add_task(title, total=total)
        yield lambda: bars.advance(bar)
