"""A step that was interrupted counts the seconds of all its attempts."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from conftest import ROOT
from fake_steps import Interrupted

from replication.attempts import FILE
from replication.measures import Seconds
from replication.store import Store
from replication.worker import execute

KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from fake_steps import Interrupted
from replication import attempts
from replication.store import Store
from replication.worker import execute
attempts.EVERY_SECONDS = 0.0
execute(Interrupted(how="killed"), Store(Path(sys.argv[1])), lambda *told: None)
"""


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def run(step, store):
    return execute(step, store, lambda *told: None)


def test_an_attempt_that_was_killed_counts(store):
    done = subprocess.run([sys.executable, "-c", KILLED, str(store.root)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    _finished_in_two(Interrupted(how="killed"), store)


def test_an_attempt_that_failed_counts(store):
    step = Interrupted(how="failed")
    with pytest.raises(RuntimeError, match="out of memory"):
        run(step, store)
    _finished_in_two(step, store)


def _finished_in_two(step, store):
    told = run(step, store)
    manifest = store.read_manifest(step.id)
    first, second = manifest["attempts"]
    assert first >= 0.3 and second < first  # the first slept, the second went on from what it had left
    assert manifest["seconds"] == pytest.approx(first + second) and told.seconds == second
    assert Seconds((step,)).read(store).value == manifest["seconds"]
    assert not (store.root / ".building" / step.id).exists()


def test_a_step_that_was_not_interrupted_has_one_attempt(store):
    step = Interrupted(how="not at all")
    run(step, store)
    manifest = store.read_manifest(step.id)
    assert manifest["attempts"] == [manifest["seconds"]] and set(manifest["files"]) == {"text"}


@pytest.mark.parametrize("text", ["", "{", "null", "7", '{"a": 1}', '["x"]'])
def test_unreadable_notes_of_attempts_cost_only_their_seconds(store, text):
    step = Interrupted(how="not at all")
    (store.building_folder(step) / FILE).write_text(text)
    run(step, store)
    assert len(store.read_manifest(step.id)["attempts"]) == 1


def test_what_was_noted_is_a_list_of_seconds(store):
    step = Interrupted(how="failed")
    with pytest.raises(RuntimeError):
        run(step, store)
    (seconds,) = json.loads((store.root / ".building" / step.id / FILE).read_text())
    assert seconds >= 0.3
