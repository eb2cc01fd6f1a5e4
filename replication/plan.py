"""From a method's phases to steps: the one place that knows which step feeds which.

Everything shared appears once because equal steps have equal keys: the base, the pool, the warm-up M1 and the
entropies are built by the same calls for every method and table.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from baselines import method_class
from baselines.interface import BASE, WARMUP, Method, Score, Select, Train
from baselines.sft import SFT
from baselines.wmss import WMSS
from evaluation.benchmarks import BENCHMARKS, benchmark
from evaluation.benchmarks.loading import how_to_get
from evaluation.graders.math import GRADER_VERSION
from foundation import hub, locks
from foundation.errors import InputError, PrerequisiteError
from foundation.files import sha256_file
from foundation.prompts import PromptFormat
from replication.configuration import Configuration
from replication.data.real import SOURCES
from replication.models import Model
from replication.scales import Scale
from replication.steps import (
    BuildPool,
    FetchModel,
    Generate,
    Grade,
    LoadProblems,
    PretrainTiny,
    ScoreEntropy,
    SelectActive,
    Step,
    TrainPhase,
)

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
    plan_only: bool = False
    """Ask nothing of the network and require no data: steps are shown, not run."""


def build_method(name: str, configuration: Configuration) -> Method:
    """Return a method with the run's settings.

    Raises:
        InputError: no such method.
    """
    chosen = method_class(name)
    if chosen is SFT:
        return SFT(two_epoch=configuration.second_epoch.two_epoch)
    if chosen is WMSS:
        return WMSS(
            joint=configuration.wdjt, entropy=configuration.wdds.entropy_settings(),
            selection=configuration.wdds.selection() if configuration.wmss.use_selection else None,
            iterations=configuration.wmss.iterations, steps=configuration.wmss.steps,
        )
    return chosen()


class Planner:
    """Builds the steps of one request. Reads file hashes, runs nothing."""

    def __init__(self, request: Request) -> None:
        self.request, self.model, self.scale = request, request.model, request.scale
        self.configuration = request.configuration
        self.prompt = request.configuration.prompt_format(request.model)

    # ------------------------------------------------------------------------------------------- data and base

    def base(self) -> Step:
        """M0."""
        pretrain = self.configuration.pretrain
        if pretrain is not None:
            return PretrainTiny(model=self.model.name, training=pretrain.training(), updates=pretrain.updates,
                                sequence_length=pretrain.sequence_length, seed=self.request.seed,
                                threads=self.scale.threads, hint_seconds=self._hint("pretrain"))
        return FetchModel(model=self.model.name, source=self.model.source, revision=self._revision(),
                          chat_template=self.model.chat_template,
                          threads=self.scale.threads, hint_seconds=self._hint("fetch"))

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

    def pool(self) -> BuildPool:
        """The training pool of the math domain."""
        sources = self.scale.pool_sources
        if self.scale.name == "paper" and self.request.data_root is not None:
            sources = ("gsm8k", "mawps")
        limit = self.scale.pool_size if self.request.limit_train is None else self.request.limit_train
        return BuildPool(domain="math", sources=sources, limit=limit, seed=self.request.seed,
                         sha256=self._pool_hashes(sources), hint_seconds=self._hint("pool"),
                         data_root=None if self.request.data_root is None else str(self.request.data_root))

    @property
    def comparable_with_the_paper(self) -> bool:
        """Whether a published value may be compared: the paper's corpus, whole."""
        return self.pool().sources == ("am",) and self.request.limit_train is None and self.request.limit_eval is None

    def _pool_hashes(self, sources: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
        """Hash the training files and the test sets that decontaminate them."""
        if sources == ("am",) and not self.request.plan_only:
            raise PrerequisiteError(
                "the filter of the AM-DeepSeek-R1-Distilled corpus is not part of this version; train on the pools of "
                "real files instead: --data-root DIR (layout: docs/data.md)"
            )
        if sources in (("synthetic",), ("am",)):
            return ()
        root = self._data_root()
        files = [locks.check_data_file(root, SOURCES[name].file) for name in sources]
        files += [path for b in BENCHMARKS.values() if b.domain == "math" and (path := root / b.file).is_file()]
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

    def problems(self, name: str) -> LoadProblems:
        """A benchmark's problems.

        Raises:
            InputError: no such benchmark.
            PrerequisiteError: its file is missing.
        """
        chosen = benchmark(name)
        limit = self.scale.benchmark_size if self.request.limit_eval is None else self.request.limit_eval
        if self.scale.problems_source == "synthetic":
            return LoadProblems(benchmark=name, source="synthetic", limit=limit, seed=self.request.seed,
                                hint_seconds=self._hint("problems"))
        if self.scale.problems_source == "hub" and self.request.data_root is None:
            revision = self._hub_revision(chosen.hub_repo, "dataset") if chosen.hub_repo else None
            return LoadProblems(benchmark=name, source=f"hub:{chosen.hub_repo}@{revision}", limit=limit,
                                seed=self.request.seed, hint_seconds=self._hint("problems"))
        root = self._data_root()
        path = locks.check_data_file(root, chosen.file, source=how_to_get(chosen))
        return LoadProblems(benchmark=name, source="data_root", limit=limit, seed=self.request.seed,
                            sha256=sha256_file(path), data_root=str(root), hint_seconds=self._hint("problems"))

    # ------------------------------------------------------------------------------------------------ training

    def warmup(self) -> TrainPhase:
        """M1: one SFT epoch from the base, shared by every method."""
        return self._train("sft", SFT(), Train(strong=BASE, out=WARMUP), {BASE: self.base()}, None, first=True)

    def checkpoints(self, name: str) -> dict[str, Step]:
        """All checkpoints of a method by their names: M0, M1, M2, ..."""
        method = build_method(name, self.configuration)
        made: dict[str, Step] = {BASE: self.base(), WARMUP: self.warmup()}
        entropies: dict[str, ScoreEntropy] = {}
        active: SelectActive | None = None
        for phase in method.phases():
            if isinstance(phase, Score):
                entropies[phase.of] = self._score(phase, made[phase.of])
            elif isinstance(phase, Select):
                active = SelectActive(strong=entropies[phase.strong], weak=entropies[phase.weak],
                                      selection=phase.selection, seed=self.request.seed, draw=phase.draw,
                                      hint_seconds=self._hint("select"))
            else:
                made[phase.out] = self._train(name, method, phase, made, active)
        return made

    def final(self, name: str) -> Step:
        """The checkpoint that a method's row evaluates; M0 and M1 are their own."""
        if name == BASE:
            return self.base()
        if name == WARMUP:
            return self.warmup()
        return list(self.checkpoints(name).values())[-1]

    def _score(self, phase: Score, checkpoint: Step) -> ScoreEntropy:
        return ScoreEntropy(
            checkpoint=checkpoint, pool=self.pool(), prompt=self._weak_driven_prompt(), data=self.configuration.data,
            loss=self.configuration.loss, entropy=phase.entropy, of=phase.of,
            compute_dtype=self.configuration.train.compute_dtype, batch_tokens=self.scale.entropy_batch_tokens,
            threads=self.scale.threads, hint_seconds=self._hint("entropy"),
        )

    def _weak_driven_prompt(self) -> PromptFormat:
        """The public code gives its system prompt to stage 1 alone (A-09)."""
        return replace(self.prompt, system=None) if self.configuration.prompt.system == "official" else self.prompt

    def _train(self, name: str, method: Method, phase: Train, made: dict[str, Step], active: SelectActive | None, *,
               first: bool = False) -> TrainPhase:
        prompt, loss = self.prompt, self.configuration.loss
        if phase.joint is not None:
            prompt = self._weak_driven_prompt()
            if phase.joint.format == "official_stage3":
                prompt = replace(prompt, system=None, terminator=self.model.terminator)
                loss = replace(loss, mask="full_sequence")
        from_base = first or phase.strong == BASE
        return TrainPhase(
            method=name, method_version=method.version, loss_settings=method.loss_settings(), loss_of=method,
            strong=made[phase.strong], weak=None if phase.weak is None else made[phase.weak], pool=self.pool(),
            active=active if phase.data == "active" else None, epochs=phase.epochs, step_matched=phase.step_matched,
            prompt=prompt, data=self.configuration.data, loss=loss, joint=phase.joint, seed=self.request.seed,
            training=self.configuration.train if from_base else self.configuration.second_epoch,
            threads=self.scale.threads, out=phase.out, title="warm-up" if first else method.title,
            hint_seconds=self._hint("train" if phase.weak is None else "train-pair") * phase.epochs,
        )

    # ---------------------------------------------------------------------------------------------- evaluation

    def grade(self, row: str, name: str) -> Grade:
        """Verdicts of a row (a method, M0 or M1) on a benchmark."""
        problems, title = self.problems(name), self.row_title(row)
        evaluation = self.configuration.eval
        records = Generate(
            checkpoint=self.final(row), problems=problems, prompt=self.prompt,
            max_new_tokens=evaluation.max_new_tokens or benchmark(name).max_new_tokens,
            max_prompt_tokens=evaluation.max_prompt_tokens, batch_size=evaluation.batch_size,
            compute_dtype=evaluation.compute_dtype, of=title, benchmark=name, threads=self.scale.threads,
            hint_seconds=self._hint("generate"),
        )
        return Grade(records=records, problems=problems, grader_version=GRADER_VERSION, of=title, benchmark=name,
                     hint_seconds=self._hint("grade"))

    def row_title(self, row: str) -> str:
        """Return a row's heading."""
        return REFERENCE_TITLES.get(row) or method_class(row).title

    def _hint(self, kind: str) -> float:
        return self.scale.hint_seconds.get(kind, 0.0)


def packages_version(package: str) -> str | None:
    """Return the installed version of a package that ships weights, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

