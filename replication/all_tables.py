"""Every table and figure from one plan: what several of them need is computed once, then all files and the page.

    python -m replication.all_tables --model tiny
    python -m replication.all_tables --model tiny --plan
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from foundation.errors import InputError, PrerequisiteError, SuiteError
from foundation.exits import exit_with_message
from replication.catalogue import tables
from replication.cli import Options, models, parse_options
from replication.display import clock
from replication.models import model_named
from replication.results import Content, contents, write
from replication.run import WHICH_FAILED, RunReport
from replication.running import Prepared, execute_plan, only_planned, prepare, try_out_own
from replication.store import Store


@dataclass(frozen=True, slots=True)
class Left:
    """A table that this model cannot have, and why."""

    place: str
    reason: str


def all_tables(options: Options) -> int:
    """Run the union of all plans; return the exit code.

    Raises:
        InputError: an option that only a single table understands.
        PrerequisiteError: no table can be made at all.
    """
    if options.methods or options.benchmarks:
        raise InputError("--methods and --benchmarks choose rows and columns of one table: run that table, "
                         "for example python -m replication.table1 --methods sft,wmss")
    prepared, left = plan_all(options)
    for gone in left:
        print(f"{gone.place} is left out: {gone.reason}")
    runs = [one.run for one in prepared]
    store = Store(options.store, repair=options.repair)
    if only_planned(runs, store, options):
        return 0
    for run in runs:
        try_out_own(run, store)
    report = execute_plan(runs, store, options)
    asked = tuple(dict.fromkeys(one.asked for one in prepared))
    for name in asked:
        _say([_write(one, report, store, options.results) for one in prepared if one.asked == name])
    wrong = _pages(options, asked)
    print(f"{len(report.ran)} steps run, {report.done_before} done before, {clock(report.seconds)}")
    for name, error in wrong.items():
        print(f"error: no page of {name}: {error}", file=sys.stderr)
    return report.exit_code or max((error.exit_code for error in wrong.values()), default=0)


def plan_all(options: Options) -> tuple[list[Prepared], list[Left]]:
    """Plan every table that the models asked for can have.

    Raises:
        PrerequisiteError: no table can be made at all.
    """
    prepared: list[Prepared] = []
    left: list[Left] = []
    for asked in models(options):
        for table in tables():
            try:
                prepared += prepare((table,), options if table.rows else replace(options, method=()), asked, prepared)
            except PrerequisiteError as error:
                left.append(Left(table.place, str(error)))
    if not prepared:
        raise PrerequisiteError(left[0].reason)
    return prepared, left


def _write(one: Prepared, report: RunReport, store: Store, folder: Path) -> tuple[Content, Path]:
    content = contents(one.run, report, store, one.asked)
    return content, write(content, folder)[0]


def _pages(options: Options, asked: Sequence[str]) -> dict[str, SuiteError]:
    """Write the audit of the paper, and figures and page of each model; return what hindered which model's page."""
    from replication import audit, page

    audit.write(options.results)
    wrong: dict[str, SuiteError] = {}
    for name in asked:
        try:
            written = page.write(options.results, model_named(name), options.store / ".drawings")
        except InputError as error:  # an old or foreign file in one model's folder hinders that page alone
            wrong[name] = error
        else:
            print(f"  {'Page':<51} {written.page}")
    return wrong


def _say(written: list[tuple[Content, Path]]) -> None:
    """Print one line a table: how many cells are measured, missing and failed, and where the file is."""
    for content, path in written:
        states = Counter(cell["status"] for cell in content["cells"])
        counted = ", ".join(f"{states[name]} {name}" for name in ("measured", "missing", "failed") if states[name])
        print(f"  {content['place']:<12} {counted:<38} {path}")
    roots = Counter(cell["reason"].rpartition(WHICH_FAILED)[2] for content, _ in written for cell in content["cells"]
                    if cell["status"] == "failed")
    for reason, count in roots.most_common():
        print(f"  failed ({count} cell{'s' * (count > 1)}): {reason}")


def main() -> None:
    """Run from the command line."""
    exit_with_message(lambda: all_tables(parse_options("python -m replication.all_tables",
                                                       "Every table and figure, and the page.",
                                                       ("methods", "benchmarks"))),
                      interrupted="interrupted; finished steps are kept, the same command goes on from there")


if __name__ == "__main__":
    main()
