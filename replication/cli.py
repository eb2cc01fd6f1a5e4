"""The command line that the tables share. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import tyro

from foundation.exits import exit_with_message
from replication.declarations import Table


def _environment(name: str, default: str) -> Path:
    return Path(os.environ.get(name) or default)


def data_root() -> Path | None:
    """Return the folder of real data files that the environment names, if it names one."""
    return Path(named) if (named := os.environ.get("WMSS_DATA_ROOT")) else None


def arg(metavar: str, default: str) -> Any:
    """Describe an option of which None stands for a default that has words of its own."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})")


def named_or_none(default: str) -> str:
    """Word the default of an option that the environment may set."""
    return f"(default: {'none' if default == 'None' else default})"


STORE = _environment("WMSS_STORE", "runs")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every table understands. Only --model decides what is measured; the rest narrows or places it."""

    model: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME")] = ()
    """tiny (default) | tiny-gemma | smollm2-135m | qwen3-4b | qwen3-8b | qwen2.5-3b | gemma-3-4b"""
    methods: Annotated[str | None, arg("NAME,...", "all rows of the table")] = None
    """Rows, comma-separated: sft,undial-original,wmss[wdjt.mix_weight=0.42]"""
    method: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="FILE.py:CLASS")] = ()
    """A method of your own as one more row, or the name of one that an installed package offers; docs/new-method.md
    shows how to write one."""
    benchmarks: Annotated[str | None, arg("NAME,...", "all of the table")] = None
    """Columns, comma-separated: gsm8k,svamp,..."""
    data_root: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint=named_or_none)] = field(
        default_factory=data_root)
    """Folder of real data files (WMSS_DATA_ROOT); layout in docs/data.md."""
    pool: Literal["own", "files"] = "own"
    """At paper scale: own trains on the paper's corpora, files on the GSM8K and MAWPS training files of the data root,
    whose results are never compared with the paper's."""
    store: Path = STORE
    """Where the results of steps live (WMSS_STORE)."""
    results: Path = Path("results")
    """Where result files are written, under <model>/."""
    limit_train: Annotated[int | None, arg("N", "no limit")] = None
    """Train on a seeded sample of at most this many examples."""
    limit_eval: Annotated[int | None, arg("N", "no limit")] = None
    """Evaluate on a seeded sample of at most this many problems of each benchmark."""
    seed: int = 0
    """Seed of training order, sampling and generated problems."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="SETTING=VALUE")] = ()
    """Change a setting: --set wdjt.mix_weight=0.42. A wrong name lists the right ones."""
    jobs: Annotated[int | None, arg("N", "as many as fit the cores")] = None
    """Worker processes. Does not change results."""
    executor: Literal["local", "ray"] = "local"
    """What runs the steps: processes here, or a Ray cluster whose nodes share the store (docs/cluster.md)."""
    address: Annotated[str | None, arg("auto|HOST:PORT", "auto")] = None
    """Of the Ray cluster that this machine is a node of."""
    train_processes: Annotated[int | None, arg("N", "all GPUs of a node, up to eight; on a CPU 1")] = None
    """Processes that share each training, one a GPU or, on a CPU, one a core. Does not change results beyond float
    rounding."""
    plan: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the steps: which are done, which are shared, and at paper scale what they would take; run nothing."""
    backend: Literal["auto", "hf", "vllm"] = "auto"
    """What generates answers and rollouts: auto takes vllm for models of paper scale, hf for all others. Texts of the
    two differ by rounding, so it is part of what is computed."""
    gpus: Annotated[int, tyro.conf.arg(metavar="N")] = 8
    """GPUs that the plan's estimate at paper scale is for. Does not change what is run."""
    unsafe_code_execution: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Where no isolation works here, grade programs WITHOUT any: they can do all that you can. The result says so."""
    repair: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Check every stored artifact and rebuild damaged ones."""


def main(table: Table) -> NoReturn:
    """Run a table from the command line and exit: 0 done, 2 a mistake that the message explains, 1 a defect."""
    exit_with_message(lambda: run_table(table, parse(table)),
                      interrupted="interrupted; finished steps are kept, the same command goes on from there")


def parse(table: Table) -> Options:
    """Read the command line of a table."""
    refused = [name for name, there in (("methods", table.rows), ("method", table.rows), ("benchmarks", table.columns))
               if not there]
    return parse_options(f"python -m replication.{table.name}", f"{table.place}. {table.title}.", refused)


def parse_options(prog: str, description: str, refused: Sequence[str] = ()) -> Options:
    """Read a command line. Options that the command refuses are not in its help; given, they are refused with words."""
    kind = _without(refused) if refused and {"-h", "--help"} & set(sys.argv[1:]) else Options
    return tyro.cli(kind, prog=prog, description=description)


def _without(names: Sequence[str]) -> type[Options]:
    """Return the options without some."""
    hidden = [(f.name, Annotated[Any, tyro.conf.Suppress], field(default=f.default))
              for f in fields(Options) if f.name in names]
    kind: type[Options] = make_dataclass("Options", hidden, bases=(Options,), frozen=True, kw_only=True)
    return kind


def run_table(table: Table, options: Options) -> int:
    """Plan, run, write and show a table for each model asked for; return the exit code."""
    from replication.running import prepare, run_prepared

    prepared = [one for asked in models(options) for one in prepare((table,), options, asked)]
    return run_prepared(prepared, options)


def models(options: Options) -> tuple[str, ...]:
    """Return the models asked for, each once."""
    return tuple(dict.fromkeys(name.strip() for text in options.model for name in text.split(","))) or ("tiny",)
