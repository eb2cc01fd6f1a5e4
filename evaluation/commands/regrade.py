"""`python -m evaluation regrade`: grade stored records again, without generating, and say which verdicts moved.

    python -m evaluation regrade --diff --store runs                                     every graded answer of a store
    python -m evaluation regrade --diff --records R.jsonl --problems P.jsonl --verdicts OLD.jsonl
    python -m evaluation regrade --records R.jsonl --problems P.jsonl > NEW.jsonl        the new verdicts

Records are lines `{"id", "text", "finish_reason"}`, problems the suite's own, verdicts `{"id", "outcome", ...}`; the
store's generate-*, problems-* and grade-* folders hold such files. Nothing stored is changed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.graders.cache import VerdictCache
from evaluation.graders.math import MathGrader, Verdict, grader_versions
from evaluation.problem import Problem
from foundation.errors import InputError, PrerequisiteError
from foundation.files import read_jsonl

Row = dict[str, Any]
GradeOne = Callable[[Problem, str, str], Verdict]


@dataclass(frozen=True, slots=True)
class Answers:
    """Records of one run with their problems and, where there are any, the stored verdicts."""

    title: str
    records: list[Row]
    problems: dict[str, Problem]
    old: dict[str, Row] | None


def main(arguments: list[str]) -> int:
    """Run the command.

    Raises:
        InputError: files that do not belong together, or cannot be read.
        GoldError, GraderError: as for grading.
    """
    options = _parser().parse_args(arguments)
    with _grade_function(options.cache) as grade:
        if options.diff:
            moved = sum(_show_moves(answers, grade) for answers in _chosen(options))
            print(f"{moved} verdicts moved in all; grader: "
                  + ", ".join(f"{name} {number}" for name, number in grader_versions().items()))
        else:
            for answers in _chosen(options):
                for row in regraded(answers, grade):
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
    parser.add_argument("--cache", type=Path, help="keep verdicts in this file and do not grade twice")
    return parser


@contextlib.contextmanager
def _grade_function(cache: Path | None) -> Iterator[GradeOne]:
    with MathGrader() as grader:
        if cache is None:
            yield grader.grade
        else:
            with VerdictCache(cache, grader) as kept:
                yield kept.grade


def _chosen(options: argparse.Namespace) -> Iterator[Answers]:
    if options.store is not None:
        yield from store_answers(options.store)
        return
    if options.records is None or options.problems is None:
        raise InputError("name what to regrade: --store DIR, or --records FILE with --problems FILE")
    if options.diff and options.verdicts is None:
        raise InputError("--diff compares with old verdicts: name them with --verdicts FILE")
    yield read_answers(str(options.records), options.records, options.problems, options.verdicts)


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
        try:
            yield read_answers(f"{path.parent.name} ({manifest.get('label', '')})", records, problems,
                               path.parent / "verdicts.jsonl")
        except PrerequisiteError as error:  # programs: another command's
            print(f"{path.parent.name}: {error}; left out", file=sys.stderr)


def read_answers(title: str, records: Path, problems: Path, verdicts: Path | None) -> Answers:
    """Read one run's files.

    Raises:
        InputError: a file is missing or broken, ids repeat, or records and problems do not belong together.
        PrerequisiteError: the problems are programs, which this command does not grade.
    """
    by_id = {name: Problem.from_row(row) for name, row in _rows(problems).items()}
    answers = Answers(title, list(_rows(records).values()), by_id, _rows(verdicts) if verdicts else None)
    unknown = [row["id"] for row in answers.records if row["id"] not in by_id]
    missing = set(by_id) - {row["id"] for row in answers.records}
    if unknown or missing:
        raise InputError(f"{records} does not belong to {problems}: {len(unknown)} records of unknown problems, "
                         f"{len(missing)} problems without a record (first: {(unknown or sorted(missing))[0]!r})")
    if any(problem.answer_type == "code" for problem in by_id.values()):
        raise PrerequisiteError(f"{problems} holds programming tasks: grade their answers with grade-samples")
    return answers


def _rows(path: Path) -> dict[str, Row]:
    try:
        rows = [row for row in read_jsonl(path) if "header" not in row]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    named = {str(row.get("id")): row for row in rows}
    if len(named) != len(rows) or not rows or "None" in named:
        raise InputError(f"{path} holds {len(rows)} lines with {len(named)} different ids: each needs one of its own")
    return named


def regraded(answers: Answers, grade: GradeOne) -> Iterator[Row]:
    """Yield the new verdicts, as the store writes them."""
    for record in answers.records:
        verdict = grade(answers.problems[str(record["id"])], record["text"], record.get("finish_reason", "stop"))
        yield {"id": record["id"], "outcome": verdict.outcome, "extracted": verdict.extracted, "rule": verdict.rule,
               "reason": verdict.reason}


def _show_moves(answers: Answers, grade: GradeOne) -> int:
    moves: Counter[str] = Counter()
    new = list(regraded(answers, grade))
    old = answers.old or {}
    for row in new:
        before = old.get(str(row["id"]), {"outcome": "none", "reason": ""})
        if before["outcome"] == row["outcome"]:
            continue
        move = f"{before['outcome']} -> {row['outcome']}"
        moves[move] += 1
        gold = answers.problems[str(row["id"])].gold
        print(f"  {row['id']}: {move}; gold {gold!r}, answer {before.get('extracted')!r} -> {row['extracted']!r}; "
              f"{before.get('reason', '')} -> {row['reason']}")
    right = sum(row["outcome"] == "correct" for row in new)
    was = sum(row["outcome"] == "correct" for row in old.values())
    account = ", ".join(f"{count} {move}" for move, count in sorted(moves.items())) or "nothing moved"
    print(f"{answers.title}: {len(new)} answers, {was} -> {right} correct; {account}", flush=True)
    return sum(moves.values())
