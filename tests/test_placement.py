"""Needs of steps, and where they are placed: never more than there is, none starved, the same every time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from fake_steps import Write
from hypothesis import given, settings
from hypothesis import strategies as st

from replication.models import MODELS
from replication.needs import Needs, needs_of
from replication.placement import Node, Place, Placement
from replication.simulate import targets_of
from replication.steps import closure

GPU = [str(i) for i in range(8)]


def node(name="n", gpus=8, cores=96.0, memory=1000.0, slots=1000):
    return Node(name=name, gpus=tuple(GPU[:gpus]), cores=cores, memory_gib=memory, slots=slots)


# ----------------------------------------------------------------------------------------------------------- needs


@pytest.fixture(scope="module")
def paper():
    return closure(targets_of("table1", "qwen3-4b"))


def test_at_paper_scale_trainings_take_a_node_models_one_gpu_and_the_rest_none(paper):
    asked = {step.kind: needs_of(step).gpus for step in paper}
    assert {kind for kind, gpus in asked.items() if gpus == 8} == {"train", "train-pairs"}
    assert {kind for kind, gpus in asked.items() if gpus == 1} == {"entropy", "generate", "rollouts", "targets"}
    assert {kind for kind, gpus in asked.items() if gpus == 0} >= {"fetch", "pool", "problems", "grade", "select"}
    assert all(needs_of(step, 2).gpus == 2 for step in paper if step.kind == "train")
    rollouts = next(step for step in paper if step.kind == "rollouts")
    wide = replace(rollouts, engine=replace(rollouts.engine, gpus_per_engine=4))
    assert needs_of(wide).gpus == 4 and needs_of(replace(wide, backend="hf")).gpus == 1


def test_a_pair_of_models_needs_the_memory_of_two(paper):
    single, pair = (next(step for step in paper if step.kind == "train" and (step.weak is not None) == both)
                    for both in (False, True))
    weights, pool = 4 * 4.0e9 / 2**30, 111_657 * 2500 * 44 / 2**30
    assert needs_of(single).memory_gib > 8 * (weights + pool)  # each process tokenises the whole pool
    assert needs_of(pair).memory_gib - needs_of(single).memory_gib > 8 * weights


def test_a_pool_takes_its_threads_and_the_theory_all_its_models(paper):
    from replication.cli import Options
    from replication.running import prepare
    from replication.theory import TABLE as THEORY

    pool = next(step for step in paper if step.kind == "pool" and step.domain == "math")
    assert (needs_of(pool).cores, needs_of(pool).memory_gib) == (8, 4.0)
    theory = prepare((THEORY,), Options(model=("qwen3-4b",), data_root=None, plan=True), "qwen3-4b")[0].run.targets
    steps = closure([*theory, *targets_of("table7", "qwen3-4b")])
    alone, theory = (max(needs_of(step).memory_gib for step in steps if step.kind == kind)
                     for kind in ("logit-statistics", "theory"))
    assert theory > alone + 2 * 4 * 4.0e9 / 2**30


def test_a_model_on_a_cpu_needs_its_threads_and_shares_a_gpu_where_there_is_one():
    from replication.cli import Options
    from replication.running import prepare
    from replication.table1 import TABLE

    steps = closure(prepare((TABLE,), Options())[0].run.targets)
    assert all(needs_of(step).gpus == 0 and needs_of(step).cores == step.threads == 1 for step in steps)
    assert {step.kind for step in steps if needs_of(step).shares_gpu} >= {"pretrain", "train", "entropy", "generate"}
    assert max(needs_of(step).memory_gib for step in steps) < 2
    shared = {step.kind: needs_of(step, processes=2) for step in steps}
    assert shared["train"].processes == shared["train"].cores == 2 and shared["generate"].processes == 1


def test_what_a_step_needs_is_no_part_of_its_hash():
    step = Write(text="a", threads=1)
    assert needs_of(step) != needs_of(Write(text="a", threads=4)) and Write(text="a", threads=4).key == step.key


def test_every_model_with_gpus_has_a_shape():
    from replication.cost.shapes import SHAPES

    assert {name for name, model in MODELS.items() if model.gpu_memory_gib} <= set(SHAPES)


# ------------------------------------------------------------------------------------------------------- placement


def test_one_gpu_steps_are_packed_so_that_a_node_stays_free():
    placement = Placement([node("a"), node("b")])
    places = placement.place([Needs(gpus=1)] * 3 + [Needs(gpus=8)])
    assert [place and place.node for place in places] == ["a", "a", "a", "b"]
    assert [place.gpus for place in places[:3]] == [("0",), ("1",), ("2",)]


def test_light_steps_run_beside_a_training():
    placement = Placement([node()])
    assert None not in placement.place([Needs(gpus=8, cores=16), *[Needs(cores=8)] * 10])


def test_a_training_holds_a_node_back_and_light_steps_still_run():
    placement = Placement([node()])
    first = placement.place([Needs(gpus=1)])
    training, generation, light = placement.place([Needs(gpus=8, cores=16), Needs(gpus=1), Needs(cores=8)])
    assert training is None and generation is None and light is not None
    placement.give_back(Needs(gpus=1), first[0])
    assert placement.place([Needs(gpus=8, cores=16)])[0].gpus == tuple(GPU)


def test_what_is_held_back_on_one_node_leaves_the_others():
    placement = Placement([node("a"), node("b")])
    placement.place([Needs(gpus=5), Needs(gpus=6)])
    training, generation = placement.place([Needs(gpus=8), Needs(gpus=1)])
    assert training is None and generation.node == "b", "node a, where more is free, is held back"


def test_a_lost_node_takes_what_it_held_with_it():
    placement = Placement([node("a", gpus=1), node("b", gpus=1)])
    first, second = placement.place([Needs(gpus=1)] * 2)
    placement.drop(first.node)
    placement.give_back(Needs(gpus=1), first)
    assert placement.place([Needs(gpus=1)]) == [None] and placement.could_hold(Needs(gpus=1))
    placement.drop(second.node)
    assert not placement.could_hold(Needs(gpus=1))


@dataclass
class Cluster:
    """Runs placed work in rounds; each piece ends after its number of rounds."""

    placement: Placement
    sizes: dict[str, int]
    running: list[tuple[int, Needs, Place]] = field(default_factory=list)

    def step(self, waiting):
        for _, needs, place in [run for run in self.running if run[0] == 0]:
            self.placement.give_back(needs, place)
        self.running = [(left - 1, needs, place) for left, needs, place in self.running if left]
        places = self.placement.place([needs for needs, _ in waiting])
        for (needs, rounds), place in zip(waiting, places, strict=True):
            if place is not None:
                self.running.append((rounds, needs, place))
        for name, size in self.sizes.items():
            held = [gpu for _, _, place in self.running if place.node == name for gpu in place.gpus]
            assert len(held) == len(set(held)) <= size, "a GPU is given once"
        return [work for work, place in zip(waiting, places, strict=True) if place is None], places


NEEDS = st.builds(lambda gpus, cores: Needs(gpus=gpus, cores=cores, memory_gib=0.1 * cores), st.integers(0, 8),
                  st.integers(1, 16))
WORK = st.lists(st.tuples(NEEDS, st.integers(0, 5)), max_size=40)


@given(WORK, st.lists(st.integers(0, 8), min_size=0, max_size=3))
@settings(max_examples=150, deadline=None)
def test_never_more_than_there_is_and_all_work_ends(work, sizes):
    nodes = [node("n8"), *(node(f"n{i}", gpus=size, cores=16) for i, size in enumerate(sizes))]
    runs = []
    for _ in range(2):
        cluster = Cluster(Placement(nodes), {n.name: len(n.gpus) for n in nodes})
        waiting, seen = list(work), []
        for _ in range(7 * len(work) + 1):
            waiting, places = cluster.step(waiting)
            seen.append(places)
        assert not waiting, "everything was placed"
        runs.append(seen)
    assert runs[0] == runs[1]


def test_a_stream_of_generations_does_not_starve_a_training():
    """New one-GPU steps come for ever; the training is the most urgent and gets its node within the longest of them."""
    cluster = Cluster(Placement([node()]), {"n": 8})
    waiting = []
    for i in range(12):
        waiting, _ = cluster.step([*waiting, *[(Needs(gpus=1), 1 + i % 4)] * 3])
    training = (Needs(gpus=8, cores=16), 3)
    waiting = [training, *waiting]
    for rounds in range(1, 20):
        waiting, _ = cluster.step([*waiting, *[(Needs(gpus=1), 1 + rounds % 4)] * 3])
        if training not in waiting:
            break
    assert training not in waiting and rounds <= 6
