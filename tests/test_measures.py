"""What a cell reads from finished steps: values, intervals, and what they speak of."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from evaluation.crossed import crossed_interval
from evaluation.statistics import clustered_mean, mean_of_proportions_interval, wilson
from replication.measures import Accuracy, Average, Dropped, EntropyGap, Gain, Noted, PassAtK, Seconds


@dataclass(frozen=True)
class Done:
    """A finished step: its folder and what others started from."""

    id: str
    parents: dict = field(default_factory=dict)


class Store:
    """Folders and manifests of finished steps, as the real store gives them."""

    def __init__(self, root):
        self.root, self.manifests = root, {}

    def use(self, step):
        return self.root / step.id

    def read_manifest(self, step_id):
        return self.manifests[step_id]

    def grade(self, name, answers, clusters=None, samples=False):
        problems = Done(f"problems-{name}")
        self._write(problems.id, "problems.jsonl", [{"id": f"p{i}"} | ({"cluster": clusters[i]} if clusters else {})
                                                    for i in range(len(answers))])
        rows = [{"id": f"p{i}", "outcome": "correct" if right else "wrong"}
                for i, given in enumerate(answers) for right in (given if samples else [given])]
        self._write(f"grade-{name}", "verdicts.jsonl", rows)
        counts = {"n": len(rows), "correct": sum(row["outcome"] == "correct" for row in rows), "truncated": 1}
        (self.root / f"grade-{name}" / "counts.json").write_text(json.dumps(counts), encoding="utf-8")
        return Done(f"grade-{name}", {"problems": problems})

    def noted(self, name, seconds=1.0, **notes):
        self.manifests[name] = {"seconds": seconds, "notes": notes}
        return Done(name)

    def _write(self, folder, name, rows):
        (self.root / folder).mkdir()
        (self.root / folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def test_one_training_has_wilsons_interval_and_keeps_its_answers(store):
    found = Accuracy((store.grade("a", [True, True, False, False]),)).read(store)
    assert (found.value, found.n, found.correct) == (50.0, 4, 2)
    assert found.ci95 == pytest.approx([100 * limit for limit in wilson(2, 4)])
    assert found.scores == ((True, True, False, False),) and found.outcomes == {"correct": 2, "truncated": 1}


def test_questions_that_share_a_passage_are_clustered(store):
    answers, clusters = [True, True, False, False], ["a", "a", "b", "b"]
    found = Accuracy((store.grade("a", answers, clusters),)).read(store)
    assert found.ci95 == pytest.approx([100 * x for x in clustered_mean([1, 1, 0, 0], clusters).ci95])


def test_several_trainings_count_all_answers_and_widen_the_interval(store):
    answers = ([True] * 30 + [False] * 20, [True] * 20 + [False] * 30)
    found = Accuracy(tuple(store.grade(f"s{i}", given) for i, given in enumerate(answers))).read(store)
    assert (found.value, found.n, found.correct) == (50.0, 100, 50)
    assert found.ci95 == pytest.approx([100 * x for x in crossed_interval([answers])[1]])


def test_an_average_counts_each_benchmark_once(store):
    columns = (Accuracy((store.grade("a", [True, False]),)), Accuracy((store.grade("b", [True] * 8 + [False] * 2),)))
    found = Average(columns).read(store)
    assert found.value == pytest.approx((50 + 80) / 2)
    assert found.ci95 == pytest.approx([100 * x for x in mean_of_proportions_interval([(1, 2), (8, 10)])])


def test_a_gain_is_the_difference_of_averages_on_the_same_questions(store):
    def average(name, *answers):
        return Average(tuple(Accuracy((store.grade(f"{name}{i}", given),)) for i, given in enumerate(answers)))

    found = Gain(average("a", [True, True], [True, False]), average("b", [True, False], [True, False])).read(store)
    assert found.value == pytest.approx(25) and found.unit == "points" and found.ci95[0] <= 25 <= found.ci95[1]


def test_pass_at_k_speaks_of_problems_not_of_samples(store):
    grades = store.grade("a", [[True, False, False, False], [False] * 4], samples=True)
    first = PassAtK(grades, 1).read(store)
    assert first.value == pytest.approx(12.5) and first.n == 2
    assert PassAtK(grades, 4).read(store).value == pytest.approx(50)
    assert PassAtK(grades, 4, minus=1).read(store).value == pytest.approx(37.5)


def test_counts_times_and_gaps_come_from_manifests(store):
    a, b = store.noted("a", 2.0, updates=3, tokens=10), store.noted("b", 3.0, updates=4, tokens=40)
    assert Noted((a, b), "updates").read(store).value == 7
    assert Seconds((a, b)).read(store).value == 5 and Seconds((a, b), per_token=True).read(store).value == 10
    draw = store.noted("d", mean_entropy_weak=1.5, mean_entropy_strong=0.5, pool=9)
    assert EntropyGap(draw).read(store).value == 1.0
    filtered = store.noted("p", examples=5, report={"read": 9, "dropped": {"x": 1, "y": 3}})
    assert Dropped(filtered, "read").read(store).value == 9 and Dropped(filtered, "dropped").read(store).value == 4
    assert Dropped(store.noted("q", examples=5), "dropped").read(store).value == 0
