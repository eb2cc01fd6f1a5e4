"""The methods on the command line: what each minimises, its phases, its settings and where they come from.

    python -m baselines list                        all methods
    python -m baselines list spin wmss              some of them
    python -m baselines list --method my.py:Mine    also one of your own
    python -m baselines list --markdown             the page docs/methods.md
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from baselines import METHODS, method_class
from baselines.catalogue import MethodEntry, entries
from baselines.method_registry import load, with_methods
from foundation.errors import SuiteError

_PIPED_WIDTH = 240  # no line is broken for a reader that is a program
_LEGEND = (
    "M0 is the base; M1 comes from the SFT warm-up that all methods share, one epoch on the pool, a domain's training "
    "examples. What stands after an arrow is the name of what a phase makes.",
    "A value is the paper's where a section stands beside it, else the reading taken of the open question A-nn "
    "(reasons: python -m replication.paper --assumptions). At other scales the values marked so keep their ratio to "
    "the shared protocol; a silent base is one that writes no verifiable answers (Gemma).",
    "A table takes every row by its name, and any setting for the whole run (--set wdjt.mix_weight=0.42) or in one "
    "row, as in wmss[wdjt.mix_weight=0.42].",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the list, or how to use this command; return the exit code."""
    parser, options = _options(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    try:
        registry = with_methods(METHODS, [load(spec) for spec in options.method])
        own = [name for name in registry if name not in METHODS]
        chosen = {name: registry[name] if name in registry else method_class(name)
                  for name in (*options.names, *(own if options.names else registry))}
        listed = entries(chosen)
    except SuiteError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if options.markdown:
        print(markdown(listed), end="")
    else:
        _print(listed)
    return 0


def _options(arguments: Sequence[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(prog="python -m baselines", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    listing = commands.add_parser("list", help="print the methods", description="Print the methods.")
    listing.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(METHODS)} (default: all)")
    listing.add_argument("--method", action="append", default=[], metavar="FILE.py:CLASS",
                         help="a method of your own (repeatable)")
    listing.add_argument("--markdown", action="store_true", help="print the page docs/methods.md")
    return parser, parser.parse_args(arguments)


def _print(listed: Sequence[MethodEntry]) -> None:
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        show(listed, Console(highlight=False))
        return
    plain = Console(file=io.StringIO(), width=_PIPED_WIDTH, color_system=None, highlight=False)
    with plain.capture() as captured:
        show(listed, plain)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def show(listed: Sequence[MethodEntry], console: Console) -> None:
    """Print the methods to a console, folded to its width."""
    def say(text: str, indent: int = 2, style: str = "") -> None:
        console.print(Padding.indent(Text(text, style=style), indent))

    for entry in listed:
        say(f"{entry.title}  ({entry.name})", 0, "bold")
        say(entry.objective)
        say(f"written in {entry.loss}", style="dim")
        for number, phase in enumerate(entry.phases, start=1):
            say(f"{number}. {phase}")
        _tables(entry, console)
        console.print()
    for paragraph in _LEGEND:
        say(paragraph, 0, "dim")


def _tables(entry: MethodEntry, console: Console) -> None:
    if entry.settings:
        console.print(_table(("setting", "value", "from", "or", "elsewhere"),
                             [(s.name, s.value, s.source, " | ".join(s.other_readings), s.note)
                              for s in entry.settings]))
    if len(entry.rows) > 1:
        console.print(_table(("row", "heading", "is"), [(r.name, r.title, r.changes or "the settings above")
                                                       for r in entry.rows]))


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("", *headings):
        table.add_column(heading, overflow="fold", no_wrap=heading in (headings[0], headings[1]))
    for row in rows:
        table.add_row("", *map(Text, row))
    return table


def markdown(listed: Sequence[MethodEntry]) -> str:
    """Return the page docs/methods.md."""
    lines = ["# Methods", "", "Written by `make docs` from what the methods declare; edit `baselines/`, not this page.",
             "", *(line for paragraph in _LEGEND for line in (paragraph, ""))]
    for entry in listed:
        lines += [f"## {entry.title} (`{entry.name}`)", "", f"{_sentence(entry.objective)}. Written in "
                  f"`{entry.loss.replace(': ', '`: `')}`.", ""]
        lines += [f"{number}. {_cell(phase)}" for number, phase in enumerate(entry.phases, start=1)] + [""]
        if entry.settings:
            lines += _markdown_table(("setting", "value", "from", "or", "elsewhere"),
                                     [(f"`{s.name}`", s.value, s.source, ", ".join(s.other_readings), s.note)
                                      for s in entry.settings])
        if len(entry.rows) > 1:
            lines += _markdown_table(("row", "heading", "is"),
                                     [(f"`{r.name}`", r.title, f"`{r.changes}`" if r.changes else "the settings above")
                                      for r in entry.rows])
    return "\n".join(lines).rstrip() + "\n"


def _markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(map(_cell, cells))} |".replace("  ", " ") for cells in (headings, *rows)]
    return [lines[0], f"|{'---|' * len(headings)}", *lines[1:], ""]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("->", "→")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it quietly
    sys.exit(main())
