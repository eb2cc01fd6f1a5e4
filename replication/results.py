"""Result files by the contract (docs/results.md): JSON for machines, CSV, Markdown and LaTeX for people."""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from baselines.user_methods import outside, source_sha256
from foundation.files import write_atomic
from replication import budget, formats, verdicts
from replication.paper_tables import ALL_MODELS, TABLES
from replication.plan import REFERENCE_TITLES
from replication.planning import TRAININGS
from replication.provenance import commit, hardware, packages
from replication.run import RunReport
from replication.sample_steps import GradeSamples
from replication.set_aside import set_aside
from replication.source_steps import hub_revisions
from replication.steps import closure
from replication.store import Store
from replication.tables import TableRun

SCHEMA = 1
Content = dict[str, Any]


def write(content: Content, folder: Path) -> list[Path]:
    """Write results/<model asked for>/<table>.{json,csv,md,tex}, each atomically; return their paths.

    What lies there of other settings, or with measured cells that this one lacks, is kept beside, and that is said.
    """
    base = folder / content["asked"] / content["table"]
    texts = {
        ".json": json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        ".csv": formats.as_csv(content["cells"]),
        ".md": formats.as_markdown(content),
        ".tex": formats.as_latex(content),
    }
    if said := set_aside(base, texts, content):
        print(said)
    for suffix, text in texts.items():
        write_atomic(base.with_suffix(suffix), text)
    return [base.with_suffix(suffix) for suffix in texts]


def contents(run: TableRun, report: RunReport, store: Store, asked: str | None = None) -> Content:
    """Return the whole result as plain data, unrounded. `asked` is the model on the command line, where another ran."""
    request = run.planners.request
    steps = [store.read_manifest(step.id) for step in closure(run.targets) if store.folder(step).is_dir()]
    budgets, footnotes = _budgets(run, store)
    cells, compared = run.content(store, report)
    content: Content = {
        "schema": SCHEMA,
        "table": run.table.name,
        "place": run.table.place,
        "title": run.table.title,
        "heading": heading(run),
        "model": request.model.name,
        "asked": asked or request.model.name,
        "scale": request.scale.name,
        "paper_source": _paper_source(run),
        "provenance": {"settings": _settings(run), "own_methods": own_methods(run), "computed_at": _commits(steps),
                       "trainings": [step.id for step in closure(run.targets)
                                     if step.kind in TRAININGS and store.folder(step).is_dir()],
                       "rendered_at": commit(),
                       "python": sys.version.split()[0], "packages": packages(), "hardware": hardware()},
        "cells": cells,
        "comparisons": compared,
        "budget": budgets,
        "notes": notes(run) + _unsafe_lines(steps) + footnotes,
        "footnotes": footnotes,
    }
    if revisions := hub_revisions(closure(run.targets)):
        content["provenance"]["revisions"] = revisions
    verdicts.judge_cells(content, run)
    content["ordering"] = verdicts.orderings(content, run) if run.table.cells is None and run.table.against else []
    if run.table.plots is not None:
        content["plots"] = run.table.plots(content)
    if run.table.extras is not None:
        found = run.table.extras(run, store)
        content["plots"] = [*content.get("plots", []), *found.get("plots", [])]
        content["notes"] = [*content["notes"], *found.get("notes", [])]
        content["comparisons"] = [*content["comparisons"], *found.get("comparisons", [])]
        content["cells"] = [*content["cells"], *found.get("cells", [])]
    return content


def _paper_source(run: TableRun) -> str:
    """Say whose values stand beside: the very model's, to be compared, or another's."""
    own, others = run.planners.request.model.published_as, _of_other_models(run)
    return printed_for(run) if own is not None and not others else f"{others or printed_for(run)}, for orientation"


def _of_other_models(run: TableRun) -> str:
    """Return the models, other than the one that ran, whose published values stand in cells."""
    own = run.planners.request.model.published_as
    found = dict.fromkeys(cell.paper_of or printed_for(run) for cell in run.cells if cell.paper is not None)
    return ", ".join(name for name in found if own is None or name not in (own, ALL_MODELS))


def _settings(run: TableRun) -> dict[str, Any]:
    request = run.planners.request
    return {"configuration": dataclasses.asdict(request.configuration), "seed": request.seed,
            "trainings": run.table.trainings, "limit_train": request.limit_train, "limit_eval": request.limit_eval,
            "pool_sources": {domain: list(run.planners(domain).pool().sources) for domain in _domains(run)}}


def _domains(run: TableRun) -> list[Any]:
    """Return the domains of which anything is measured."""
    asked = [group.domain for group in run.table.groups if any(c in run.planners.benchmarks for c in group.columns)]
    domains = dict.fromkeys(asked) or {"math": None}
    return [domain for domain in domains if run.planners(domain).unavailable is None]


def _budgets(run: TableRun, store: Store) -> tuple[list[budget.Budget], list[str]]:
    """Return what each row was trained with, by domain, and the footnotes that say it."""
    budgets, footnotes = [], []
    domains = _domains(run)
    rows = [row for row in (*run.methods, *run.table.trained) if row not in REFERENCE_TITLES]
    for domain in domains:
        planner = run.planners(domain)
        found = [budget.row_budget(planner.plan(row), store) | {"domain": domain} for row in rows]
        warmup = planner.warmup()
        notes = store.read_manifest(warmup.id)["notes"] if found and store.is_done(warmup) else None
        said = budget.lines(found, notes)
        footnotes += [f"{domain.capitalize()}: {line}" for line in said] if len(domains) > 1 else said
        budgets += found
    return budgets, footnotes + _own_lines(run)


def _commits(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the commits of the code that computed the steps, with how many steps each."""
    counted = Counter((m["provenance"]["commit"], m["provenance"]["dirty"]) for m in manifests)
    return [{"commit": commit_id, "dirty": dirty, "steps": n} for (commit_id, dirty), n in counted.most_common()]


def _unsafe_lines(manifests: list[dict[str, Any]]) -> list[str]:
    """Say which verdicts come from programs that ran without isolation: such a program may have forged its own."""
    graders = [(manifest["notes"] or {}).get("grader") for manifest in manifests]
    count = sum(isinstance(grader, dict) and grader.get("unsafe") is True for grader in graders)
    return [f"GRADED WITHOUT ISOLATION (--unsafe-code-execution): in {count} grading steps generated programs ran with "
            "the rights of the user, and could reach their own verdicts."] if count else []


def own_methods(run: TableRun) -> list[dict[str, Any]]:
    """Return where the methods from outside come from: row, class, file name, hash of the source."""
    rows = [run.planners().row(text) for text in run.methods if text not in REFERENCE_TITLES]
    methods = {row.title: type(row.method) for row in rows if outside(type(row.method))}
    return [{"row": title, "class": method.__name__, "file": Path(inspect.getfile(method)).name,
             "sha256": source_sha256(method)} for title, method in methods.items()]


def _own_lines(run: TableRun) -> list[str]:
    return [f"{own['row']} is no method of this suite: {own['file']}:{own['class']}, sha256 {own['sha256'][:16]}."
            for own in own_methods(run)]


def heading(run: TableRun) -> str:
    """Return the heading; the scale stands in it."""
    request = run.planners.request
    return f"{run.table.place} ({request.scale.name} scale, {request.model.title}). {run.table.title}"


def printed_for(run: TableRun) -> str:
    """Return the model whose values the paper prints there; Table 12's belong to none."""
    table = TABLES.get(run.table.paper_table or run.table.name)
    return ALL_MODELS if table is not None and ALL_MODELS in table.values else run.planners.request.model.context


def notes(run: TableRun) -> list[str]:
    """Return what a reader of the numbers must know."""
    request, table = run.planners.request, run.table
    lines = [request.scale.note + ".", *table.notes]
    if request.scale.problems_source == "synthetic":
        lines.append("Benchmarks are generated stand-ins of the same names and answer types, not the published sets.")
    limits = [f"training limited to {request.limit_train} examples"] if request.limit_train else []
    limits += [f"evaluation limited to {request.limit_eval} problems of each benchmark"] if request.limit_eval else []
    if table.sweep and request.scale.sweep_size is not None:
        limits.append(f"evaluation on {request.scale.sweep_size} problems of each benchmark, as in every table of many "
                      "trainings at this scale")
    if request.scale.sampled_size is not None and any(isinstance(step, GradeSamples) for step in run.targets):
        limits.append(f"evaluation on {request.scale.sampled_size} problems of each benchmark, as wherever many "
                      "answers to a problem are sampled at this scale")
    if limits:
        lines.append(f"Limits: {'; '.join(limits)} (seeded samples).")
    if table.cells is None:
        lines += _about_intervals(run)
    if request.model.published_as is not None and not run.planners().comparable_with_the_paper:
        lines.append(f"Trained on {', '.join(run.planners().pool().sources)}, or with limits, not on the paper's whole "
                     "corpus: its values are for orientation only.")
    if request.model.published_as is None or _of_other_models(run):
        lines.append(f"The paper's values are those of {_of_other_models(run) or printed_for(run)}, for "
                     "orientation only: never judged.")
    if request.configuration.methods:
        lines.append(f"Changed settings of methods: {'; '.join(request.configuration.methods)}. Rows that they change "
                     "stand without the paper's value.")
    if table.reference_rows:
        lines.append("Rows of the paper that are not shown were not asked for or are not part of this version.")
    return lines


def _about_intervals(run: TableRun) -> list[str]:
    table, seed = run.table, run.planners.request.seed
    if table.trainings > 1:
        return [f"Each cell is the mean of {table.trainings} trainings (seeds {seed} to {seed + table.trainings - 1}; "
                "one base, pool and set of problems). Intervals are 95 % and speak of questions and trainings alike.",
                "No answer, wrong and truncated answers all stay in the denominator."]
    lines = ["Intervals are 95 %: Wilson for a column (clustered where questions share a passage), the columns' limits "
             "combined (MOVER) for an average. They speak of the questions, not of a new training run: every row is "
             f"one training (seed {seed})."]
    if table.against or table.pairs:
        lines.append("p is unadjusted; p (Holm) is adjusted within the table's comparisons of single columns, and "
                     "within those of averages.")
    lines += [f"Nothing is compared with {anchor}: it is not among the rows asked for." for anchor in table.against
              if anchor not in run.methods]
    return [*lines, "No answer, wrong and truncated answers all stay in the denominator."]
