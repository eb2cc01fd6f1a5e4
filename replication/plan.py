"""What a request needs: base, pool, warm-up, problems, verdicts; a method's own phases are in method_plan.py.

Everything shared appears once because equal steps have equal keys: the base, the pool, the warm-up M1 and the
entropies are built by the same calls for every method and table.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from baselines import METHODS
from baselines.interface import BASE, WARMUP, Method
from baselines.sft import SFT
from baselines.user_methods import Handle
from evaluation.backends.interface import Sampling
from evaluation.benchmarks import BENCHMARKS, benchmark
from evaluation.benchmarks.loading import how_to_get
from evaluation.graders.versions import grader_version
from foundation import hub, locks
from foundation.errors import InputError, PrerequisiteError
from foundation.files import sha256_file
from foundation.prompts import Domain
from replication.configuration import Configuration
from replication.corpora import sources as corpora
from replication.corpora.sources import CORPUS_SOURCES
from replication.data.real import SOURCES
from replication.declarations import FINAL, Line, Table
from replication.diagnostic_steps import LogitStatistics, TheoryStatistics
from replication.method_plan import MethodPlan, snapshot_fractions
from replication.models import Model
from replication.paper import number
from replication.rollout_steps import Snapshot
from replication.rows import Row, resolve
from replication.sample_steps import GradeSamples, SampleAnswers
from replication.scales import SCALES, Scale
from replication.source_steps import BuildPool, FetchModel, LoadProblems, PretrainTiny
from replication.steps import Generate, Grade, Step, TrainPhase

SNAPSHOT_PREFIX = "ck-"
REFERENCE_TITLES = {BASE: "Base (M0)", WARMUP: "Warm-up (M1)"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What a user asked for, resolved: model, scale, settings, data, limits."""

    model: Model
    scale: Scale
    configuration: Configuration
    data_root: Path | None
    limit_train: int | None
    limit_eval: int | None
    seed: int
    registry: Mapping[str, type[Method]] = field(default_factory=lambda: METHODS)
    """The methods at hand, the user's included."""
    unsafe_code_execution: bool = False
    """Run programs even where no isolation works."""
    pool_files: bool = False
    """Train on the real files of the data root where the scale's own pool is the paper's corpus."""
    plan_only: bool = False
    """Ask nothing of the network and require no data: steps are shown, not run."""


class Planner:
    """Builds the steps of one request in one domain, for one training seed. Reads file hashes, runs nothing."""

    def __init__(self, request: Request, domain: Domain = "math", seed: int | None = None) -> None:
        """Plan for a domain.

        Args:
            request: what was asked for; its seed also fixes the base, the pool and the problems.
            domain: math, code or logic.
            seed: of the trainings and draws; None: the request's.
        """
        self.request, self.model, self.scale, self.domain = request, request.model, request.scale, domain
        self.seed = request.seed if seed is None else seed
        self.configuration = request.configuration
        self.prompt = request.configuration.prompt_format(request.model, domain)
        self.rows: dict[str, Row] = {}
        self.plans: dict[str, MethodPlan] = {}

    def row(self, text: str) -> Row:
        """Return the row that a text asks for (replication.rows).

        Raises:
            InputError: no such method, variant or setting.
        """
        if text not in self.rows:
            self.rows[text] = resolve(text, self.request.registry, self.configuration.methods, self.scale,
                                      silent_base=self.model.silent_base, domain=self.domain)
        return self.rows[text]

    def plan(self, text: str) -> MethodPlan:
        """Return the steps of a row."""
        if text not in self.plans:
            self.plans[text] = MethodPlan(self, self.row(text)).build()
        return self.plans[text]

    # ------------------------------------------------------------------------------------------- data and base

    def base(self) -> Step:
        """M0."""
        pretrain = self.configuration.pretrain
        if pretrain is not None:
            return PretrainTiny(model=self.model.name, training=pretrain.training(), updates=pretrain.updates,
                                sequence_length=pretrain.sequence_length, seed=self.request.seed,
                                threads=self.scale.threads, hint_seconds=self.hint("pretrain"))
        return FetchModel(model=self.model.name, source=self.model.source, revision=self._revision(),
                          chat_template=self.model.chat_template,
                          threads=self.scale.threads, hint_seconds=self.hint("fetch"))

    def _revision(self) -> str | None:
        if self.model.package is not None:
            return packages_version(self.model.package)
        return self._hub_revision(self.model.source.partition(":")[2], "model")

    def _hub_revision(self, repo_id: str, repo_type: locks.RepoType) -> str | None:
        """A step's identity needs the commit before anything runs, else the first fetch would change it."""
        entry = locks.hub_entry(repo_id)
        if self.request.plan_only:
            return None if entry is None else entry.revision
        return hub.pinned_revision(repo_id, repo_type)

    @cached_property
    def unavailable(self) -> str | None:
        """Why nothing can be trained in this domain here, or None."""
        if self._sources():
            return None
        where = "among real files (--pool files)" if self.request.pool_files else f"at {self.scale.name} scale"
        return f"there is no {self.domain} pool to train on {where} (docs/data.md)"

    def _sources(self) -> tuple[str, ...]:
        """The scale's own: a data root that lacks the paper's corpus never stands in for it unless that was asked."""
        scale = SCALES["small"] if self.request.pool_files else self.scale
        return scale.pool_sources.get(self.domain, ())

    @cached_property
    def _origin(self) -> corpora.Origin | None:
        """Where the paper's corpus would come from."""
        (source,) = self.scale.pool_sources[self.domain]
        root = None if self.request.data_root is None else self._data_root()
        return corpora.find(source, self.domain, root, hashing=not self.request.plan_only)

    @cached_property
    def _pool(self) -> BuildPool:
        sources = self._sources()
        limit = self.scale.pool_size_of(self.domain) if self.request.limit_train is None else self.request.limit_train
        hashes, root = self._pool_hashes(sources), self.request.data_root
        if sources in CORPUS_SOURCES:
            root = None if self._origin is None else self._origin.root
        return BuildPool(domain=self.domain, sources=sources, limit=limit, seed=self.request.seed,
                         sha256=hashes, threads=self.scale.threads, hint_seconds=self.hint("pool"),
                         data_root=None if root is None else str(root))

    def pool(self) -> BuildPool:
        """The training pool of the domain."""
        return self._pool

    @property
    def comparable_with_the_paper(self) -> bool:
        """Whether a published value may be compared: the paper's corpus, whole."""
        return (self.pool().sources in CORPUS_SOURCES and (self._origin is None or self._origin.whole)
                and self.request.limit_train is None and self.request.limit_eval is None)

    def _pool_hashes(self, sources: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
        """Hash the training files and the test sets that decontaminate them."""
        if sources == ("synthetic",):
            return ()
        if sources in CORPUS_SOURCES:
            if self._origin is None and not self.request.plan_only:
                raise PrerequisiteError(corpora.how_to_get(sources[0], self.domain, self.request.data_root))
            return () if self._origin is None else self._origin.identity
        root = self._data_root()
        files = [locks.check_data_file(root, SOURCES[name].file) for name in sources]
        files += [path for b in BENCHMARKS.values() if b.domain == self.domain and (path := root / b.file).is_file()]
        return tuple((path.relative_to(root).as_posix(), sha256_file(path)) for path in files)

    def _data_root(self) -> Path:
        root = self.request.data_root
        if root is None:
            raise PrerequisiteError(
                f"{self.model.title} trains and is evaluated on real files: name their folder with --data-root DIR "
                "or WMSS_DATA_ROOT (layout: docs/data.md)"
            )
        if not root.is_dir():
            raise InputError(f"the data root {root} is not a folder; name one with --data-root DIR or WMSS_DATA_ROOT")
        return root

    def problems(self, name: str, limit: int | None = None) -> LoadProblems:
        """A benchmark's problems, at most `limit` of them, or as many as scale and request say.

        Raises:
            InputError: no such benchmark.
            PrerequisiteError: its file is missing, and the hub has no copy.
        """
        chosen = benchmark(name)
        of_code = self.scale.code_size if chosen.domain == "code" else None
        limits = [n for n in (limit, of_code, self.scale.benchmark_size, self.request.limit_eval) if n is not None]
        limit = min(limits) if limits else None
        if self.scale.problems_source == "synthetic":
            return LoadProblems(benchmark=name, source="synthetic", limit=limit, seed=self.request.seed,
                                hint_seconds=self.hint("problems"))
        if (reason := self.absent(name)) is not None:
            raise PrerequisiteError(reason)
        if self.scale.problems_source == "hub" and chosen.hub_repo is not None and not self._in_data_root(chosen.file):
            revision = self._hub_revision(chosen.hub_repo, "dataset")
            return LoadProblems(benchmark=name, source=f"hub:{chosen.hub_repo}@{revision}", limit=limit,
                                seed=self.request.seed, hint_seconds=self.hint("problems"))
        root = self._data_root()
        path = locks.check_data_file(root, chosen.file, source=how_to_get(chosen))
        return LoadProblems(benchmark=name, source="data_root", limit=limit, seed=self.request.seed,
                            sha256=sha256_file(path), data_root=str(root), hint_seconds=self.hint("problems"))

    def _in_data_root(self, file: str) -> bool:
        return self.request.data_root is not None and (self._data_root() / file).is_file()

    def absent(self, name: str) -> str | None:
        """Return why a benchmark of a scale that reads the hub has no data, neither there nor in the data root."""
        chosen = benchmark(name)
        if self.scale.problems_source != "hub" or chosen.hub_repo is not None or self._in_data_root(chosen.file):
            return None
        return f"{chosen.title} has no data. {how_to_get(chosen)}"

    # ------------------------------------------------------------------------------------------------ training

    def warmup(self) -> TrainPhase:
        """M1: one SFT epoch from the base, shared by every method; it also keeps checkpoints inside the epoch."""
        sft = SFT()
        return TrainPhase(
            method="sft", method_version=sft.version, loss_settings=sft.loss_settings(), loss_of=Handle(sft),
            strong=self.base(), pool=self.pool(), epochs=1, prompt=self.prompt, data=self.configuration.data,
            training=self.configuration.train, loss=self.configuration.loss, snapshots=snapshot_fractions(),
            seed=self.seed, out=WARMUP, title="warm-up", threads=self.scale.threads,
            hint_seconds=self.hint("train"))

    def final(self, row: str) -> Step:
        """The checkpoint that a row evaluates; M0 and M1 are their own."""
        return self.checkpoint(row)

    def checkpoint(self, row: str, at: str = FINAL) -> Step:
        """A row's checkpoint: the last one, one inside its last training (`ck-50`), or an earlier one (`M2`).

        Raises:
            InputError: the row has no such checkpoint.
        """
        if at.startswith(SNAPSHOT_PREFIX):
            training = self.warmup() if row == WARMUP else self.plan(row).trainings[-1]
            return Snapshot(of=training, which=at)
        if at != FINAL:
            return self.plan(row).checkpoint(at)
        if row == BASE:
            return self.base()
        return self.warmup() if row == WARMUP else self.plan(row).result()

    # ---------------------------------------------------------------------------------------------- evaluation

    def grade(self, row: str, name: str, at: str = FINAL, limit: int | None = None) -> Grade:
        """Verdicts of a row (a method, M0 or M1) on a benchmark."""
        problems, title = self.problems(name, limit), self.row_title(row)
        if at != FINAL:
            title = f"{title} {at}"
        evaluation = self.configuration.eval
        records = Generate(
            checkpoint=self.checkpoint(row, at), problems=problems, prompt=self.prompt,
            max_new_tokens=evaluation.max_new_tokens or benchmark(name).max_new_tokens,
            max_prompt_tokens=evaluation.max_prompt_tokens, batch_size=evaluation.batch_size,
            compute_dtype=evaluation.compute_dtype, backend=evaluation.backend, engine=self.configuration.engine,
            of=title, benchmark=name, threads=self.scale.threads, hint_seconds=self.hint("generate"),
        )
        return Grade(records=records, problems=problems, grader_version=grader_version(benchmark(name).domain),
                     unsafe_code_execution=self.request.unsafe_code_execution, of=title, benchmark=name,
                     threads=self.scale.threads,
                     hint_seconds=self.hint("grade-code" if benchmark(name).domain == "code" else "grade"))

    def sampled_grade(self, row: str, name: str, sampling: Sampling) -> GradeSamples:
        """Verdicts on sampled answers of a row to a benchmark (B.9)."""
        problems, settings = self.problems(name, self.scale.sampled_size), self.configuration
        title = self.row_title(row)
        records = SampleAnswers(
            checkpoint=self.checkpoint(row), problems=problems, prompt=self.prompt, n=sampling.n,
            temperature=sampling.temperature, top_p=sampling.top_p,
            max_new_tokens=settings.eval.max_new_tokens or benchmark(name).max_new_tokens,
            max_prompt_tokens=settings.eval.max_prompt_tokens, batch_size=settings.rollouts.batch_size,
            compute_dtype=settings.eval.compute_dtype, seed=self.seed, backend=settings.eval.backend,
            engine=settings.engine, of=title, benchmark=name, threads=self.scale.threads,
            hint_seconds=self.hint("samples"))
        return GradeSamples(records=records, problems=problems, grader_version=grader_version(benchmark(name).domain),
                            of=title, benchmark=name, hint_seconds=self.hint("grade"))

    def logit_statistics(self, checkpoint: Step, of: str) -> LogitStatistics:
        """Statistics of a checkpoint's logits on sampled pool examples (App. B.4)."""
        return LogitStatistics(checkpoint=checkpoint, of=of, hint_seconds=self.hint("logits"), **self._diagnosed())

    def theory(self, weak: Step, strong: Step, strong_post: Step, of: str) -> TheoryStatistics:
        """The theory's conditions and conclusions on a pair of checkpoints, at the paper's lambda."""
        return TheoryStatistics(weak=weak, strong=strong, strong_post=strong_post, mix_weight=number("wmss.lambda"),
                                of=of, hint_seconds=self.hint("theory"), **self._diagnosed())

    def _diagnosed(self) -> dict[str, Any]:
        """What every measurement on pool tokens shares."""
        return {"pool": self.pool(), "prompt": self.prompt, "data": self.configuration.data,
                "loss": self.configuration.loss, "seed": self.request.seed, "threads": self.scale.threads,
                "compute_dtype": self.configuration.train.compute_dtype,
                "batch_tokens": self.scale.entropy_batch_tokens}

    def row_title(self, row: str) -> str:
        """Return a row's heading."""
        return REFERENCE_TITLES.get(row) or self.row(row).title

    def hint(self, kind: str) -> float:
        """Return the expected seconds of a kind of step, 0 where unknown."""
        return self.scale.hint_seconds.get(kind, 0.0)


class Planners:
    """The planners of one request, one for each domain and training seed; what two tables share is planned once."""

    def __init__(self, request: Request, benchmarks: Container[str] = BENCHMARKS) -> None:
        """Plan for a request; `benchmarks` are the columns that were asked for."""
        self.request, self.benchmarks = request, benchmarks
        self._made: dict[tuple[Domain, int], Planner] = {}

    def limited(self, benchmarks: Container[str]) -> Planners:
        """Return the same planners for another choice of columns."""
        other = Planners(self.request, benchmarks)
        other._made = self._made
        return other

    def __call__(self, domain: Domain = "math", training: int = 0) -> Planner:
        """Return the planner of a domain, for the first training or a later one with a seed of its own."""
        key = domain, self.request.seed + training
        if key not in self._made:
            self._made[key] = Planner(self.request, *key)
        return self._made[key]

    def lines(self, table: Table) -> tuple[Line, ...]:
        """Return a table's rows: the references, then the methods."""
        return (*(Line(row) for row in table.reference_rows), *table.lines)

    def methods(self, table: Table) -> tuple[str, ...]:
        """Return the texts of a table's method rows, each once."""
        return tuple(dict.fromkeys(line.text for line in table.lines))

    def lacking(self, name: str) -> str | None:
        """Return why a column has no cells in this run: it was not asked for, or has no data. Else None."""
        if name not in self.benchmarks:
            return "not asked for (--benchmarks)"
        return self(benchmark(name).domain).absent(name)

    def grades(self, table: Table, line: Line, name: str) -> tuple[Grade, ...]:
        """Return the verdicts behind a cell, one step for each of the table's trainings."""
        limit = self.request.scale.sweep_size if table.sweep else None
        domain = benchmark(name).domain
        return tuple(self(domain, training).grade(line.text, name, line.at, limit)
                     for training in range(table.trainings))


def packages_version(package: str) -> str | None:
    """Return the installed version of a package that ships weights, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

