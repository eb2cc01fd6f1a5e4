"""`python -m evaluation regrade`: grade stored records again, without generating, and say which verdicts moved.

    python -m evaluation regrade --diff --store runs                                     every graded answer of a store
    python -m evaluation regrade --diff --records R.jsonl --problems P.jsonl --verdicts OLD.jsonl
    python -m evaluation regrade --records R.jsonl --problems P.jsonl > NEW.jsonl        the new verdicts

Records are lines `{"id", "text", "finish_reason"}`, problems the suite's own, verdicts `{"id", "outcome", ...}`; the
store's generate-*, problems-* and grade-* folders hold such files. Programs are run again in isolation, on the tests
that lie beside the problems (tasks.jsonl). Nothing stored is changed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evaluation.benchmarks.code import CODE_BENCHMARKS
from evaluation.commands.code_options import add_code_options, code_grader
from evaluation.graders.cache import VerdictCache
from evaluation.graders.code import CODE_GRADER_VERSION
from evaluation.graders.math import MathGrader, grader_versions
from evaluation.graders.records import ProgramGrader, grade_records, packages_for
from evaluation.problem import Problem
from foundation.errors import InputError
from foundation.files import read_jsonl

Row = dict[str, Any]
@dataclass(frozen=True, slots=True)
class Answers:
    """Records of one run with their problems and, where there are any, the stored verdicts.

    For programs, `tasks` are the upstream rows of `benchmark` by problem id, as the store keeps them.
    """

    title: str
    records: list[Row]
    problems: dict[str, Problem]
    old: dict[str, Row] | None
    benchmark: str = ""
    tasks: dict[str, Row] | None = None


class Graders:
    """Context manager over the graders of a run of this command: each is started when first needed."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options, self._stack = options, contextlib.ExitStack()
        self._answers: VerdictCache | MathGrader | None = None
        self._programs: dict[tuple[str, ...], ProgramGrader] = {}

    def __enter__(self) -> Graders:
        return self

    def __exit__(self, *details: Any) -> None:
        self._stack.__exit__(*details)

    def regraded(self, answers: Answers) -> Iterator[Row]:
        """Yield the new verdicts, as the store writes them.

        Raises:
            PrerequisiteError: there are programs to run, and no isolation works here.
        """
        if answers.tasks is not None:
            yield from grade_records(answers.benchmark, answers.tasks, answers.records,
                                     self._of_programs(packages_for([answers.benchmark])))
            return
        grade = self._of_answers().grade
        for record in answers.records:
            verdict = grade(answers.problems[str(record["id"])], record["text"], record.get("finish_reason", "stop"))
            yield {"id": record["id"], "outcome": verdict.outcome, "extracted": verdict.extracted,
                   "rule": verdict.rule, "reason": verdict.reason}

    def versions(self) -> dict[str, Any]:
        """Return the versions of the graders that were used."""
        used: dict[str, Any] = {} if self._answers is None else dict(grader_versions())
        return used | ({"code grader": CODE_GRADER_VERSION} if self._programs else {})

    def _of_answers(self) -> VerdictCache | MathGrader:
        if self._answers is None:
            grader, cache = self._stack.enter_context(MathGrader()), self._options.cache
            self._answers = grader if cache is None else self._stack.enter_context(VerdictCache(cache, grader))
        return self._answers

    def _of_programs(self, packages: tuple[str, ...]) -> ProgramGrader:
        if packages not in self._programs:
            grader, cache = self._stack.enter_context(code_grader(self._options, packages)), self._options.cache
            kept = None if cache is None else cache.with_name(f"{cache.name}.programs")
            self._programs[packages] = self._stack.enter_context(ProgramGrader(grader, kept))
        return self._programs[packages]


def main(arguments: list[str]) -> int:
    """Run the command.

    Raises:
        InputError: files that do not belong together, or cannot be read.
        PrerequisiteError: there are programs to run, and no isolation works here.
        GoldError, GraderError: as for grading.
    """
    options = _parser().parse_args(arguments)
    with Graders(options) as graders:
        if options.diff:
            moved = sum(_show_moves(answers, graders) for answers in _chosen(options))
            print(f"{moved} verdicts moved in all; grader: "
                  + ", ".join(f"{name} {number}" for name, number in graders.versions().items()))
        else:
            for answers in _chosen(options):
                for row in graders.regraded(answers):
                    sys.stdout.write(json.dumps(row) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m evaluation regrade", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--diff", action="store_true", help="show which verdicts moved instead of the verdicts")
    parser.add_argument("--store", type=Path, help="look at every grade-* folder of this store")
    parser.add_argument("--records", type=Path)
    parser.add_argument("--problems", type=Path)
    parser.add_argument("--verdicts", type=Path, help="the old verdicts, for --diff")
    parser.add_argument("--cache", type=Path, help="keep verdicts in this file (programs: FILE.programs) and do not "
                                                   "grade twice")
    parser.add_argument("--benchmark", help="of --problems that are programming tasks, where no manifest names it")
    add_code_options(parser)
    return parser


def _chosen(options: argparse.Namespace) -> Iterator[Answers]:
    if options.store is not None:
        yield from store_answers(options.store)
        return
    if options.records is None or options.problems is None:
        raise InputError("name what to regrade: --store DIR, or --records FILE with --problems FILE")
    if options.diff and options.verdicts is None:
        raise InputError("--diff compares with old verdicts: name them with --verdicts FILE")
    yield read_answers(str(options.records), options.records, options.problems, options.verdicts, options.benchmark)


def store_answers(store: Path) -> Iterator[Answers]:
    """Yield the graded answers of a store, folder by folder.

    Raises:
        InputError: the folder has no grade-* folders.
    """
    manifests = sorted(store.glob("grade-*/manifest.json"))
    if not manifests:
        raise InputError(f"{store} holds no grade-* folders; name the store of a run that has graded something")
    for path in manifests:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        records = store / manifest["parents"]["records"] / "records.jsonl"
        problems = store / manifest["parents"]["problems"] / "problems.jsonl"
        if not records.is_file() or not problems.is_file():
            print(f"{path.parent.name}: its records are not in this store; left out", file=sys.stderr)
            continue
        if not (path.parent / "verdicts.jsonl").is_file():
            continue
        yield read_answers(f"{path.parent.name} ({manifest.get('label', '')})", records, problems,
                           path.parent / "verdicts.jsonl")


def read_answers(title: str, records: Path, problems: Path, verdicts: Path | None,
                 benchmark: str | None = None) -> Answers:
    """Read one run's files.

    Raises:
        InputError: a file is missing or broken, ids repeat, or records and problems do not belong together.
    """
    by_id = {name: Problem.from_row(row) for name, row in _rows(problems).items()}
    answers = Answers(title, list(_rows(records).values()), by_id, _rows(verdicts) if verdicts else None)
    unknown = [row["id"] for row in answers.records if row["id"] not in by_id]
    missing = set(by_id) - {row["id"] for row in answers.records}
    if unknown or missing:
        raise InputError(f"{records} does not belong to {problems}: {len(unknown)} records of unknown problems, "
                         f"{len(missing)} problems without a record (first: {(unknown or sorted(missing))[0]!r})")
    if any(problem.answer_type == "code" for problem in by_id.values()):
        return _with_tasks(answers, problems, benchmark)
    return answers


def _with_tasks(answers: Answers, problems: Path, benchmark: str | None) -> Answers:
    """Add the upstream rows that lie beside the problems.

    Raises:
        InputError: no such file, tasks missing from it, or nothing names their benchmark.
    """
    tasks = {name: task["row"] for name, task in _rows(problems.with_name("tasks.jsonl")).items()
             if isinstance(task.get("row"), dict)}
    if missing := [name for name in answers.problems if name not in tasks]:
        raise InputError(f"{problems.with_name('tasks.jsonl')} lacks the tests of {len(missing)} problems "
                         f"(first: {missing[0]!r})")
    manifest = problems.with_name("manifest.json")
    if benchmark is None and manifest.is_file():
        benchmark = json.loads(manifest.read_text(encoding="utf-8"))["settings"]["benchmark"]
    if benchmark not in CODE_BENCHMARKS:
        raise InputError(f"{problems} holds programming tasks of {benchmark or 'an unnamed benchmark'}: name one with "
                         f"--benchmark: {', '.join(CODE_BENCHMARKS)}")
    return replace(answers, benchmark=benchmark, tasks=tasks)


def _rows(path: Path) -> dict[str, Row]:
    try:
        rows = [row for row in read_jsonl(path) if "header" not in row]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    named = {str(row.get("id")): row for row in rows}
    if len(named) != len(rows) or not rows or "None" in named:
        raise InputError(f"{path} holds {len(rows)} lines with {len(named)} different ids: each needs one of its own")
    return named


def _show_moves(answers: Answers, graders: Graders) -> int:
    moves: Counter[str] = Counter()
    new = list(graders.regraded(answers))
    old = answers.old or {}
    for row in new:
        before = old.get(str(row["id"]), {"outcome": "none", "reason": ""})
        if before["outcome"] == row["outcome"]:
            continue
        move = f"{before['outcome']} -> {row['outcome']}"
        moves[move] += 1
        shown = "" if answers.tasks is not None else (  # programs and references are long: only what became of them
            f"gold {answers.problems[str(row['id'])].gold!r}, answer {before.get('extracted')!r} -> "
            f"{row['extracted']!r}; ")
        print(f"  {row['id']}: {move}; {shown}{before.get('reason', '')} -> {row['reason']}")
    right = sum(row["outcome"] == "correct" for row in new)
    was = sum(row["outcome"] == "correct" for row in old.values())
    account = ", ".join(f"{count} {move}" for move, count in sorted(moves.items())) or "nothing moved"
    print(f"{answers.title}: {len(new)} answers, {was} -> {right} correct; {account}", flush=True)
    return sum(moves.values())
