"""What the commands `python -m replication.corpora math|code|logic` do; their options are in `__main__`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foundation.errors import InputError
from foundation.files import read_jsonl, sha256_file, write_atomic, write_jsonl
from replication.corpora.building import Corpus, Kind, build
from replication.corpora.report import CorpusReport, SourceReport, as_text
from replication.data.pool import PoolReport

Questions = tuple[dict[str, list[str]], list[str]]


def build_am(kind: Kind, sources: tuple[Path, ...], out: Path, *, workers: int | None, limit: int | None,
             data_root: Path | None, decontaminate: bool) -> dict[str, Any]:
    """Build the math or the code pool, show progress, and write the overlap report where a data root is given.

    Raises:
        InputError, PrerequisiteError, StorageError: as `replication.corpora.building.build`.
    """
    questions = _questions(data_root, decontaminate)
    corpus = Corpus(kind=kind, sources=sources, limit=limit, held_out=_held_out(questions, decontaminate))
    with _progress(f"{kind} pool") as show:
        row = build(corpus, out, workers=workers,
                    on_progress=lambda source, read, kept: show(f"{source}: {read:,} read, {kept:,} kept"))
    _write_overlap(out, questions, row["pool"]["kept"])
    return row


def build_logic(sources: tuple[Path, ...], out: Path, *, checkpoint: Path | None, backend: str, seed: int,
                limit: int | None, data_root: Path | None, decontaminate: bool) -> dict[str, Any] | None:
    """Merge, distil and check the logic pool; without a checkpoint stop after merging and return None.

    Raises:
        InputError, PrerequisiteError, GenerationError, StorageError: see `replication.corpora.logic`.
    """
    from evaluation.backends.interface import BACKENDS
    from replication.corpora import logic

    if backend not in BACKENDS:
        raise InputError(f"backend {backend!r} is unknown; choose one of: {', '.join(BACKENDS)}")
    if checkpoint is not None and not checkpoint.is_dir():
        raise InputError(f"--checkpoint {checkpoint} is not a folder; name the folder of the teacher (Qwen3-32B)")
    if limit is not None and limit < 1:
        raise InputError(f"--limit {limit} must be at least 1")
    questions = _questions(data_root, decontaminate)
    candidates, reports = logic.merge(sources, _held_out(questions, decontaminate))
    candidates = candidates[:limit]
    write_jsonl(out / "candidates.jsonl", (candidate.to_row() for candidate in candidates))
    write_atomic(out / "candidates.txt", _merge_text(len(candidates), reports))
    if checkpoint is None:
        return None
    records = out / "records.jsonl"
    with _progress("distilling") as show:
        logic.distil(candidates, checkpoint, records, BACKENDS[backend], logic.Teacher(seed=seed),
                     on_progress=lambda fraction: show(f"{fraction:.1%} of {len(candidates):,} answers"))
    examples, dropped = logic.keep_verified(candidates, records)
    write_jsonl(out / "pool.jsonl", (example.to_row() for example in examples))
    answered = SourceReport(name="records.jsonl", sha256=sha256_file(records), pool=PoolReport(
        read=len(candidates), kept=len(examples), dropped=dict(dropped)))
    return _report_logic(out, reports, answered, limit, questions)


def _report_logic(out: Path, merged: list[SourceReport], answered: SourceReport, limit: int | None,
                  questions: Questions | None) -> dict[str, Any]:
    """The files' account shows what was merged; the pool's own is what became of all items read."""
    row = CorpusReport(kind="logic", sources=(*merged, answered), pool_sha256=sha256_file(out / "pool.jsonl"),
                       limit=limit).to_row()
    read, kept = sum(source.pool.read for source in merged), answered.pool.kept
    dropped: dict[str, int] = {}
    for source in (*merged, answered):
        for reason, count in source.pool.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    beyond = read - kept - sum(dropped.values())
    total = PoolReport(read=read, kept=kept, dropped=dropped | ({"beyond --limit": beyond} if beyond else {}),
                       malformed=tuple(item for source in merged for item in source.pool.malformed))
    table = {"printed": row["table12"]["printed"], "kept": kept, "difference": kept - row["table12"]["printed"],
             "equal": kept == row["table12"]["printed"]}
    row |= {"pool": total.to_row(), "table12": table}
    write_atomic(out / "report.txt", as_text(row))
    write_atomic(out / "report.json", json.dumps(row, indent=1) + "\n")
    _write_overlap(out, questions, kept)
    return row


def _merge_text(count: int, reports: list[SourceReport]) -> str:
    from replication.corpora.logic import CANDIDATES

    read = sum(report.pool.read for report in reports)
    lines = [f"{read:,} items merged, {count:,} candidates (the paper: about 17,205 and {CANDIDATES:,})"]
    for report in reports:
        why = "; ".join(f"{number} {reason}" for reason, number in sorted(report.pool.dropped.items()))
        lines.append(f"  {report.name}: {report.pool.kept:,} of {report.pool.read:,}" + (f" ({why})" if why else ""))
    return "\n".join(lines) + "\n"


def _questions(data_root: Path | None, decontaminate: bool) -> Questions | None:
    from replication.corpora.overlap import benchmark_questions

    if data_root is None:
        if decontaminate:
            raise InputError("--decontaminate needs the benchmarks: name their folder with --data-root DIR")
        return None
    found, missing = benchmark_questions(data_root)
    if not found:
        raise InputError(f"--data-root {data_root} holds no benchmark file; docs/data.md lists them")
    return found, missing


def _held_out(questions: Questions | None, decontaminate: bool) -> Mapping[str, str] | None:
    from replication.corpora.overlap import held_out

    return held_out(questions[0]) if questions is not None and decontaminate else None


def _write_overlap(out: Path, questions: Questions | None, examples: int) -> None:
    if questions is None:
        return
    from replication.corpora.overlap import as_markdown, measure

    found, missing = questions
    rows = [entry.to_row() for entry in measure((row["question"] for row in read_jsonl(out / "pool.jsonl")), found)]
    write_atomic(out / "overlap.json", json.dumps({"examples": examples, "benchmarks": rows, "missing": missing},
                                                  indent=1) + "\n")
    write_atomic(out / "overlap.md", as_markdown(rows, examples, missing))


@contextmanager
def _progress(what: str) -> Iterator[Callable[[str], None]]:
    """Show one line that changes, on a terminal; nothing elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: None
        return
    with console.status(f"{what}: starting") as status:
        yield lambda text: status.update(f"{what}: {text}")
