"""Build the paper's training pools from their sources: `python -m replication.corpora math|code|logic --help`.

    python -m replication.corpora math --source am_0.5M.jsonl.zst --source am_0.9M.jsonl.zst --out pools/math

Writes `pool.jsonl`, the account of what was dropped and why (`report.txt`, `report.json`: Table 12) and, with
`--data-root`, the overlap with every benchmark. A run that was stopped goes on when the same command is given again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from foundation.exits import exit_with_message

Sources = Annotated[tuple[Path, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="FILE")]


@dataclass(frozen=True, kw_only=True)
class Common:
    """What all pools understand."""

    source: Sources = ()
    """A source file (repeatable, in this order): .jsonl, also as .gz or .zst."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """Where the pool and its reports are written."""
    limit: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Read only the first N records (logic: distil only the first N candidates)."""
    data_root: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of the benchmark files (docs/data.md): report the overlap with them."""
    decontaminate: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Leave out questions that stand in a benchmark of the data root. The paper does not; counted apart."""


@dataclass(frozen=True, kw_only=True)
class Math(Common):
    """The math pool: records of the AM corpus whose answer math-verify accepts (111,657 in the paper)."""

    workers: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Processes at a time (default: the cores). Changes no byte of the pool."""


@dataclass(frozen=True, kw_only=True)
class Code(Common):
    """The code pool: records of the AM corpus whose program passes their unit tests (19,457 in the paper)."""

    workers: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Programs at a time, each in isolation (default: the cores)."""


@dataclass(frozen=True, kw_only=True)
class Logic(Common):
    """The logic pool: LogiQA 2.0 and ReClor, merged, distilled, checked (14,882 in the paper).

    Name the files of all splits with --source: train, dev and test of LogiQA 2.0 (MRC), train and val of ReClor. The
    evaluation splits are held out. Without --checkpoint only the candidates are written.
    """

    checkpoint: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of the teacher, Qwen3-32B."""
    backend: str = "vllm"
    """What generates: vllm or hf."""
    seed: int = 0
    """Of the teacher's sampling."""


def main() -> int:
    """Build what the command line asks for."""
    options = tyro.extras.subcommand_cli_from_dict(
        {"math": Math, "code": Code, "logic": Logic}, prog="python -m replication.corpora",
        description="Build the paper's training pools from their sources (App. E.2, E.3, Table 12).")
    from replication.corpora.command import build_am, build_logic
    from replication.corpora.report import as_text

    if isinstance(options, Logic):
        row = build_logic(options.source, options.out, checkpoint=options.checkpoint, backend=options.backend,
                          seed=options.seed, limit=options.limit, data_root=options.data_root,
                          decontaminate=options.decontaminate)
        if row is None:
            print((options.out / "candidates.txt").read_text(encoding="utf-8"), end="")
            print("no teacher named: stopped here; give --checkpoint DIR (Qwen3-32B) to distil and check")
            return 0
    else:
        row = build_am("math" if isinstance(options, Math) else "code", options.source, options.out,
                       workers=options.workers, limit=options.limit, data_root=options.data_root,
                       decontaminate=options.decontaminate)
    print(as_text(row), end="")
    return 0


if __name__ == "__main__":
    exit_with_message(main, interrupted="interrupted; finished work is kept, the same command goes on from there")
