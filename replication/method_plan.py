"""A method's phases turned into steps, for one domain.

Checkpoints and data are found by the names the phases use; steps that are equal have equal keys, so whatever two
methods share (warm-up, entropies, subset, rollouts, verdicts) appears once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from baselines.interface import loss_identity
from baselines.phases import (
    BASE,
    FULL_EPOCH,
    POOL,
    SNAPSHOTS,
    WARMUP,
    Distil,
    Hint,
    Pair,
    Phase,
    Sample,
    Score,
    Select,
    Subset,
    Train,
    snapshot_name,
)
from baselines.user_methods import Handle, declared_phases, guarded, said_of, source_sha256
from evaluation.graders.versions import grader_version
from foundation.errors import InputError
from foundation.files import canonical_json
from foundation.prompts import PromptFormat
from replication.hints import HINT_TEMPLATES
from replication.rollout_steps import (
    DrawSubset,
    GradeReplies,
    MakeHints,
    MakePairs,
    SampleReplies,
    Snapshot,
    StoreTargets,
    TrainPairs,
)
from replication.rows import Row
from replication.source_steps import FetchModel, PretrainTiny
from replication.steps import ScoreEntropy, SelectActive, Step, TrainPhase, plain

if TYPE_CHECKING:
    from replication.plan import Planner

CHECKPOINTS = (PretrainTiny, FetchModel, TrainPhase, TrainPairs, Snapshot)


class MethodPlan:
    """The steps of one row; `made` maps the names that phases use to steps."""

    def __init__(self, planner: Planner, row: Row) -> None:
        self.planner, self.row, self.method = planner, row, row.method
        self.pool = planner.pool()
        self.made: dict[str, Step] = {BASE: planner.base()}
        self.rollouts: dict[str, SampleReplies] = {}
        self.entropies: dict[str, ScoreEntropy] = {}
        self.trainings: list[TrainPhase | TrainPairs] = []

    def build(self) -> MethodPlan:
        """Go through the phases.

        Raises:
            InputError: a phase uses a name that nothing before it has made, or that is something else.
        """
        self.made[WARMUP] = warmup = self.planner.warmup()
        for update in SNAPSHOTS:
            self.made[snapshot_name(update)] = Snapshot(of=warmup, which=f"ck-{update}")
        handlers: dict[type, Callable[[Any], None]] = {
            Score: self._score, Select: self._select, Subset: self._subset, Sample: self._sample, Pair: self._pair,
            Hint: self._hint, Distil: self._distil, Train: self._train,
        }
        reserved = {POOL, *self.made}
        for phase in declared_phases(self.method):
            if type(phase) not in handlers:
                raise self._refusal(f"{phase!r} is no phase; phases are: "
                                    f"{', '.join(kind.__name__ for kind in handlers)}")
            for field_name in ("out", "weak_out"):
                if (made := getattr(phase, field_name, None)) in reserved:
                    raise self._refusal(f"{field_name}={made!r} is the name of something that every method shares; "
                                        "call it otherwise", phase)
            handlers[type(phase)](phase)
        return self

    def result(self) -> Step:
        """Return the checkpoint that is evaluated."""
        if not self.trainings:
            raise self._refusal("has no Train phase: there is nothing to evaluate")
        return self._checkpoint(guarded(type(self.method), "has a `result` that fails", self.method.result))

    def checkpoint(self, name: str) -> Step:
        """Return a checkpoint by the name its phase gave it.

        Raises:
            InputError: there is none of that name.
        """
        return self._checkpoint(name)

    def _refusal(self, text: str, phase: Phase | None = None) -> InputError:
        where = "" if phase is None else f", phase {type(phase).__name__}"
        return InputError(f"{said_of(self.method, 'phases' if phase else 'result')}{where}: {text}")

    def _checkpoint(self, name: str, phase: Phase | None = None) -> Step:
        return self._of_kind(name, CHECKPOINTS, "checkpoint", phase)

    def _of_kind(self, name: str, kinds: tuple[type, ...], what: str, phase: Phase | None) -> Step:
        """Return what a name stands for, if it is of these kinds."""
        step = self.made.get(name)
        if step is None or not isinstance(step, kinds):
            there = [other for other, made in self.made.items() if isinstance(made, kinds)]
            found = "nothing" if step is None and name not in (POOL, *self.rollouts) else "something else"
            raise self._refusal(f"no {what} is called {name!r} ({found} is); so far there are: "
                                f"{', '.join(there) or 'none'}", phase)
        return step

    def _replies(self, name: str, phase: Phase) -> SampleReplies:
        if name not in self.rollouts:
            raise self._refusal(f"no Sample phase is called {name!r}; so far there are: "
                                f"{', '.join(self.rollouts) or 'none'}", phase)
        return self.rollouts[name]

    # -------------------------------------------------------------------------------------------------- WD-DS

    def _score(self, phase: Score) -> None:
        planner = self.planner
        self.entropies[phase.of] = ScoreEntropy(
            checkpoint=self._checkpoint(phase.of, phase), pool=self.pool, prompt=self._weak_driven_prompt(),
            data=planner.configuration.data, loss=planner.configuration.loss, entropy=phase.entropy, of=phase.of,
            compute_dtype=planner.configuration.train.compute_dtype, batch_tokens=planner.scale.entropy_batch_tokens,
            threads=planner.scale.threads, hint_seconds=planner.hint("entropy"),
        )

    def _select(self, phase: Select) -> None:
        for name in (phase.strong, phase.weak):
            if name not in self.entropies:
                raise self._refusal(f"it needs Score(of={name!r}) before it", phase)
        self.made[phase.out] = SelectActive(
            strong=self.entropies[phase.strong], weak=self.entropies[phase.weak], selection=phase.selection,
            seed=self.planner.seed, draw=phase.draw, hint_seconds=self.planner.hint("select"))

    def _weak_driven_prompt(self) -> PromptFormat:
        """The public code gives its system prompt to stage 1 alone (A-09)."""
        prompt, official = self.planner.prompt, self.planner.configuration.prompt.system == "official"
        return replace(prompt, system=None) if official else prompt

    # ------------------------------------------------------------------------------------------------ rollouts

    def _subset(self, phase: Subset) -> None:
        limit = self.planner.scale.subset_limit
        size = phase.size if limit is None else min(phase.size, limit)
        self.made[phase.out] = DrawSubset(pool=self.pool, size=size, seed=self.planner.seed)

    def _sample(self, phase: Sample) -> None:
        configuration, planner = self.planner.configuration, self.planner
        prompts = None if phase.prompts == POOL else self._of_kind(
            phase.prompts, (DrawSubset, SelectActive, MakeHints), "set of prompts", phase)
        hinted = isinstance(prompts, MakeHints)
        self.rollouts[phase.out] = SampleReplies(
            checkpoint=self._checkpoint(phase.of, phase), pool=self.pool, subset=None if hinted else prompts,
            hints=prompts if hinted else None, prompt=planner.prompt, n=phase.n, temperature=phase.temperature,
            top_k=phase.top_k, top_p=phase.top_p, max_tokens=phase.max_tokens or configuration.data.max_length,
            max_new_tokens=phase.max_new_tokens, batch_size=configuration.rollouts.batch_size,
            compute_dtype=configuration.train.compute_dtype, seed=planner.seed,
            backend=configuration.rollouts.backend, engine=configuration.engine, of=phase.of,
            threads=planner.scale.threads,
            hint_seconds=planner.hint("rollouts") * phase.n / 4,
        )

    def _grades(self, replies: SampleReplies) -> GradeReplies:
        return GradeReplies(replies=replies, pool=self.pool, grader_version=grader_version(self.planner.domain),
                            unsafe_code_execution=self.planner.request.unsafe_code_execution,
                            threads=self.planner.scale.threads,
                            hint_seconds=self.planner.hint("grade"))

    def _pair(self, phase: Pair) -> None:
        replies = self._replies(phase.rollouts, phase)
        graded = phase.rule == "verified" or phase.drop_correct
        self.made[phase.out] = MakePairs(
            checkpoint=replies.checkpoint, replies=replies, grades=self._grades(replies) if graded else None,
            pool=self.pool,
            prompt=self.planner.prompt, data=replace(self.planner.configuration.data, overlength=phase.overlength),
            rule=phase.rule, incorrect=phase.incorrect, drop_correct=phase.drop_correct)

    def _hint(self, phase: Hint) -> None:
        replies = self._replies(phase.rollouts, phase)
        self.made[phase.out] = MakeHints(
            replies=replies, grades=self._grades(replies), pool=self.pool, incorrect=phase.incorrect,
            seed=self.planner.seed, template=HINT_TEMPLATES[self.planner.domain])

    def _distil(self, phase: Distil) -> None:
        replies, planner = self._replies(phase.replies, phase), self.planner
        if replies.hints is None:
            raise self._refusal(f"it needs replies to hinted prompts (Sample(prompts=<the name of a Hint>)), "
                                f"{phase.replies!r} answers plain ones", phase)
        self.made[phase.out] = StoreTargets(
            teacher=self._checkpoint(phase.of, phase), replies=replies, grades=self._grades(replies),
            hints=replies.hints, pool=self.pool, prompt=planner.prompt, data=planner.configuration.data,
            top_k=phase.top_k, temperature=phase.temperature, student_prompt=phase.prompt, terminator=phase.terminator,
            compute_dtype=planner.configuration.train.compute_dtype, batch_tokens=planner.scale.entropy_batch_tokens,
            threads=planner.scale.threads, hint_seconds=planner.hint("targets"))

    # ------------------------------------------------------------------------------------------------ training

    def _train(self, phase: Train) -> None:
        data = None if phase.data == POOL else self._of_kind(
            phase.data, (DrawSubset, SelectActive, MakePairs, StoreTargets), "training data", phase)
        step = self._train_pairs(phase, data) if isinstance(data, MakePairs) else self._train_tokens(phase, data)
        self.trainings.append(step)
        self.made[phase.out] = step
        if phase.weak_out is not None:
            self.made[phase.weak_out] = Snapshot(of=step, which="weak")

    def _shared(self, phase: Train) -> dict[str, Any]:
        """What both kinds of training say of the method."""
        planner, method = self.planner, self.method
        shared = planner.configuration.train if phase.strong == BASE else planner.configuration.second_epoch
        return {
            "method": self.row.name, "method_version": method.version, "loss_settings": self._loss_identity(),
            "method_source": source_sha256(type(method)), "loss_of": Handle(method),
            "strong": self._checkpoint(phase.strong, phase), "epochs": phase.epochs, "prompt": planner.prompt,
            "training": phase.departures.applied(shared), "seed": planner.seed, "out": phase.out,
            "title": self.row.title, "threads": planner.scale.threads,
        }

    def _loss_identity(self) -> dict[str, Any]:
        settings = guarded(type(self.method), "has `loss_settings` that fail", lambda: loss_identity(self.method))
        try:
            canonical_json(plain(settings))
        except (TypeError, ValueError) as error:
            raise InputError(f"{said_of(self.method, 'loss_settings')}: its settings are part of a training's identity "
                             f"and must be plain values (numbers, texts, tuples, dataclasses of them): {error}"
                             ) from error
        return settings

    def _train_pairs(self, phase: Train, pairs: MakePairs) -> TrainPairs:
        if ignored := [name for name in ("weak", "joint", "lora", "step_matched", "trainer") if getattr(phase, name)]:
            raise self._refusal(f"a training on pairs does not know {', '.join(ignored)}; leave it out", phase)
        return TrainPairs(**self._shared(phase), reference=self._checkpoint(phase.reference or phase.strong, phase),
                          pairs=pairs, hint_seconds=self.planner.hint("train-pairs"))

    def _train_tokens(self, phase: Train, data: Step | None) -> TrainPhase:
        shared, loss = self._shared(phase), self.planner.configuration.loss
        if phase.joint is not None:
            shared["prompt"] = self._weak_driven_prompt()
            if phase.joint.format == "official_stage3":
                shared["prompt"] = replace(shared["prompt"], system=None, terminator=self.planner.model.terminator)
                loss = replace(loss, mask="full_sequence")
        if phase.trainer:  # the library's own noise depends on how an update is cut
            shared["loss_settings"] = {**shared["loss_settings"], "micro_batch": shared["training"].micro_batch}
        kind = "train" if phase.weak is None else "train-pair"
        keep = self.row.snapshots and self.planner.seed == self.planner.request.seed
        return TrainPhase(
            **shared, first_epoch=epochs_before(shared["strong"]), pool=self.pool,
            snapshots=snapshot_fractions() if keep else (), examples=data, step_matched=phase.step_matched,
            joint=phase.joint, lora=phase.lora,
            weak=None if phase.weak is None else self._checkpoint(phase.weak, phase),
            reference=None if phase.reference is None else self._checkpoint(phase.reference, phase),
            data=self.planner.configuration.data, loss=loss, library_arguments=dict(phase.trainer),
            hint_seconds=self.planner.hint(kind) * phase.epochs)


def epochs_before(checkpoint: Step) -> int:
    """Return the epochs that a checkpoint has been trained for, along the branch that is kept."""
    if isinstance(checkpoint, Snapshot):
        return epochs_before(checkpoint.of)
    if isinstance(checkpoint, TrainPhase):
        return checkpoint.epochs + epochs_before(checkpoint.strong)
    return 1 + epochs_before(checkpoint.strong) if isinstance(checkpoint, TrainPairs) else 0


def snapshot_fractions() -> tuple[float, ...]:
    """Return where the warm-up keeps checkpoints inside its epoch, as fractions of its updates (B.5)."""
    return tuple(update / FULL_EPOCH for update in SNAPSHOTS)
