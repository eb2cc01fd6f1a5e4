"""Worker processes with GPUs of their own, and what is refused of clusters; GPUs are names here, processes are real."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import threading
import time
import types

import pytest
from conftest import ROOT
from fake_steps import ShowDevices, Write, read

from foundation.errors import ArtifactError, InputError, PrerequisiteError
from replication.cli import Options
from replication.executors.identity import code_identity, differences
from replication.executors.local import LocalExecutor, local
from replication.executors.ray_connection import check_address, check_form, require_ray
from replication.needs import Needs
from replication.provenance import gpu_devices
from replication.run import MOST_LOSSES, run_steps
from replication.store import Store
from replication.worker import Assignment, Done, Failed, Lost, attempt

EIGHT = tuple(str(i) for i in range(8))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


def needs(step):
    return Needs(gpus=step.gpus, cores=1, processes=max(1, step.gpus), shares_gpu=step.shares)


def on_gpus(store, steps, gpus, jobs=6):
    report = run_steps(steps, store, jobs=jobs,
                       open_executor=lambda _: LocalExecutor(store, jobs, gpus=gpus, needs=needs))
    assert report.exit_code == 0, report.failed
    return report


def events(log):
    return [json.loads(line) for line in log.read_text().splitlines()]


# ------------------------------------------------------------------------------------------------------------ GPUs


def test_no_gpu_is_used_twice_at_a_time_and_a_step_sees_its_own(store, log):
    one = [ShowDevices(text=f"one{i}", gpus=1, seconds=0.3, log=str(log)) for i in range(5)]
    many = [ShowDevices(text="all", gpus=8, seconds=0.2, log=str(log), hint_seconds=1.0),
            ShowDevices(text="light", log=str(log))]
    on_gpus(store, [*one, *many], EIGHT)
    held = {}
    for event in events(log):
        assert event["seen"] == ",".join(event["given"])
        assert event["processes"] == max(1, len(event["given"]))
        if event["event"] == "begin":
            assert not set(event["given"]) & {gpu for gpus in held.values() for gpu in gpus}
            held[event["text"]] = event["given"]
        else:
            del held[event["text"]]
    sizes = {event["text"]: len(event["given"]) for event in events(log)}
    assert sizes == {**{f"one{i}": 1 for i in range(5)}, "all": 8, "light": 0}


def test_a_process_that_had_devices_of_its_own_is_not_used_again_and_ends_first(store, log):
    """It still holds memory on them, which an engine or ranks that come next would miss; others live long."""
    steps = []
    for text, gpus in (("a", 1), ("b", 1), ("c", 2), ("d", 0), ("e", 1), ("f", 0)):
        steps.append(ShowDevices(text=text, gpus=gpus, log=str(log), needs=tuple(steps[-1:])))
    on_gpus(store, steps, ("0", "1"))
    process = {event["text"]: event["process"] for event in events(log)}
    before = {event["text"]: event["alive"] for event in events(log) if event["event"] == "begin"}
    assert len({process[text] for text in "abce"}) == 4 and process["d"] == process["f"]
    assert before == {"a": [], "b": [], "c": [], "d": [], "e": [process["d"]], "f": [process["d"]]}


def test_small_models_share_the_gpus_as_they_have_none_of_their_own(store, log):
    first, second = (ShowDevices(text=text, shares=True, seconds=1.0, log=str(log)) for text in "ab")
    on_gpus(store, [first, second], ("2", "5"), jobs=2)
    assert {event["text"]: event["seen"] for event in events(log)} == {"a": "2", "b": "5"}
    assert all(event["given"] == [] and event["processes"] == 1 for event in events(log))


def test_without_gpus_nothing_is_hidden_and_the_longest_chain_is_first(store, log, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    short = ShowDevices(text="short", hint_seconds=1.0, log=str(log))
    long = ShowDevices(text="long", hint_seconds=9.0, gpus=8, log=str(log))
    on_gpus(store, [short, long], (), jobs=1)
    begun = [event for event in events(log) if event["event"] == "begin"]
    assert [event["text"] for event in begun] == ["long", "short"]
    assert len({event["process"] for event in begun}) == 1 and {event["seen"] for event in begun} == {None}


def test_a_training_takes_no_more_gpus_than_there_are(store):
    from replication.simulate import targets_of
    from replication.steps import closure

    training = next(step for step in closure(targets_of("table1", "qwen3-4b")) if step.kind == "train")
    for gpus, asked, expected in ((EIGHT, None, 8), (EIGHT, 4, 4), (("0", "1"), None, 2), (("0",), 8, 1)):
        assert LocalExecutor(store, 1, gpus=gpus, gpus_per_training=asked).needs(training).gpus == expected


@pytest.mark.parametrize(("variable", "expected"), [(None, ("0", "1")), ("1", ("1",)), ("GPU-ab, 0", ("GPU-ab", "0")),
                                                    ("", ()), ("-1", ())])
def test_devices_are_those_that_this_process_may_use(monkeypatch, variable, expected):
    monkeypatch.setattr("replication.provenance.gpu_names", lambda: ("H100", "H100"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert gpu_devices() == expected


# ------------------------------------------------------------------------------------------------------ lost steps


class Losing:
    """Runs steps in this process, and loses the first so many attempts at one of them."""

    width = 1

    def __init__(self, store, victim, losses):
        self.store, self.victim, self.losses, self.begun = store, victim, losses, []

    def start(self, ready):
        self.begun = list(ready[:1])
        return self.begun

    def events(self, seconds):
        for step in self.begun:
            if step.key == self.victim.key and self.losses:
                self.losses -= 1
                yield step, Lost(step.key, "node n2 was lost")
            else:
                yield step, attempt(Assignment(step), self.store, lambda *_, **__: None)

    def hopeless(self, step):
        return None

    def close(self):
        pass


@pytest.mark.parametrize("losses", [1, MOST_LOSSES])
def test_a_lost_step_runs_again(store, losses, capsys):
    base = Write(text="a")
    top = Write(text="b", needs=(base,))
    report = run_steps([top], store, jobs=1, open_executor=lambda _: Losing(store, base, losses))
    assert report.exit_code == 0 and len(report.ran) == 2 and read(store.root, top) == "ab"
    assert capsys.readouterr().err.count("node n2 was lost; it runs again") == losses


def test_a_step_that_is_lost_again_and_again_fails_with_its_descendants(store):
    base, other = Write(text="a"), Write(text="other")
    top = Write(text="b", needs=(base,))
    report = run_steps([top, other], store, jobs=1, open_executor=lambda _: Losing(store, base, MOST_LOSSES + 1))
    assert "may be what takes the nodes down" in report.failed[base.key].reason
    assert set(report.failed) == {base.key, top.key} and report.exit_code == 1 and store.is_done(other)


def test_a_step_that_can_never_start_fails_with_the_reason(store):
    class Hopeless(Losing):
        def start(self, ready):
            return super().start([step for step in ready if step.key != self.victim.key])

        def hopeless(self, step):
            return "no node has 8 GPUs" if step.key == self.victim.key else None

    never, other = Write(text="a"), Write(text="other")
    top = Write(text="b", needs=(never,))
    report = run_steps([top, other], store, jobs=1, open_executor=lambda _: Hopeless(store, never, 0))
    assert set(report.failed) == {never.key, top.key} and report.exit_code == 2 and store.is_done(other)


# ----------------------------------------------------------------------------------------------- a store of many nodes


def test_a_result_that_shows_late_is_waited_for(store):
    step = Write(text="a")
    with pytest.raises(ArtifactError, match="still does not see it in the store"):
        store.await_visible([step], seconds=0.1)
    run_steps([step], store, jobs=1)
    store.await_visible([step], seconds=0.0)


def test_the_identity_of_a_store_stays(store, tmp_path):
    assert store.identity() == Store(store.root).identity() != Store(tmp_path / "other").identity()


def test_nothing_in_the_store_compares_times(store, monkeypatch):
    """Work of a process whose clock is far behind is work done, whatever the files' times."""
    step = Write(text="a")
    monkeypatch.setattr(time, "time", lambda: 1.0)
    assert isinstance(attempt(Assignment(step), store, lambda *_, **__: None), Done)
    monkeypatch.undo()
    assert Store(store.root).is_whole(step)
    again = attempt(Assignment(Write(text="b", needs=(step,))), Store(store.root), lambda *_, **__: None)
    assert isinstance(again, Done) and again.ran


def test_the_manifest_says_where_a_step_ran(store):
    step = Write(text="a")
    attempt(Assignment(step, ("3", "4"), 2), store, lambda *_, **__: None)
    placement = store.read_manifest(step.id)["placement"]
    assert placement["gpus"] == ["3", "4"] and placement["processes"] == 2 and placement["node"]


# ------------------------------------------------------------------------------------------------- what is refused


def test_without_ray_the_way_to_get_it_is_told(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PrerequisiteError, match=r"pip install .*\[ray\]"):
        require_ray()


@pytest.mark.parametrize("address", ["10.0.0.1", "host:", ":6379", "ray://host:10001", "host:99999", "host:port"])
def test_an_address_of_another_form_is_refused(address):
    with pytest.raises(InputError, match="neither auto nor host:port"):
        check_form(address)


def test_an_address_where_nothing_listens_is_told_in_seconds():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
    began = time.monotonic()
    with pytest.raises(PrerequisiteError, match=f"nothing answers at --address {address}"):
        check_address(address)
    with pytest.raises(PrerequisiteError, match=r"nothing answers at --address no\.such\.host"):
        check_address("no.such.host.invalid:6379")
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(("options", "words"), [
    ({"address": "host:6379"}, "add --executor ray"),
    ({"train_processes": 0}, "--train-processes is 0"),
    ({"executor": "ray", "jobs": 2}, "--jobs is for --executor local"),
])
def test_options_that_do_not_go_together_are_refused(options, words):
    from replication.running import prepare
    from replication.table1 import TABLE

    with pytest.raises(InputError, match=words):
        prepare((TABLE,), Options(**options))


def test_code_and_packages_of_nodes_are_compared_by_name():
    here = code_identity()
    assert here == code_identity() and {"sources", "torch", "wmss-replication"} <= set(here)
    assert "+" not in here["torch"], "builds of one version compute with the same code"
    assert differences(here, dict(here)) == []
    there = here | {"torch": "1.0"}
    del there["trl"]
    assert differences(here, there) == [f"torch: 1.0 (here: {here['torch']})", f"trl: absent (here: {here['trl']})"]


def test_a_failed_step_is_the_same_message_whoever_runs_it(store):
    from fake_steps import Break

    found = attempt(Assignment(Break(how="input")), store, lambda *_, **__: None)
    assert found == Failed(Break(how="input").key, "the input is wrong: 7", 2, None)
    assert local(store, 4)([Write(text="a")]).width == 1


def test_without_ray_the_command_ends_at_once_with_exit_code_2(tmp_path):
    program = ("import importlib.util as util, sys; find = util.find_spec; "
               "util.find_spec = lambda name, *more: None if name == 'ray' else find(name, *more); "
               "from replication.cli import main; from replication.table1 import TABLE; main(TABLE)")
    done = subprocess.run([sys.executable, "-c", program, "--executor", "ray", "--store", str(tmp_path / "store")],
                          cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "not installed" in done.stderr and ".[ray]" in done.stderr


def test_what_is_finished_asks_for_no_cluster(store):
    step = Write(text="a")
    run_steps([step], store, jobs=1)

    def refuse(steps):
        raise AssertionError("there is nothing to run")

    assert run_steps([step], store, jobs=1, open_executor=refuse).done_before == 1


@pytest.mark.parametrize(("answers", "ends"), [("never", True), ("always", False), ("in between", False)])
def test_a_worker_that_is_cut_off_ends_itself(monkeypatch, answers, ends):
    """Ray stands in: what matters is when the process is ended."""
    from replication.executors import ray_node

    asked, ended = [], threading.Event()

    class RayError(Exception):
        pass

    def get(answer, timeout):
        asked.append(time.monotonic())
        if answers == "never" or (answers == "in between" and len(asked) % 3):
            raise RayError

    stand_in = types.SimpleNamespace(get=get, exceptions=types.SimpleNamespace(RayError=RayError))
    monkeypatch.setitem(sys.modules, "ray", stand_in)
    monkeypatch.setattr(ray_node, "ASKED_EVERY_SECONDS", 0.05)
    monkeypatch.setattr(ray_node, "SILENCE_SECONDS", 0.6)
    monkeypatch.setattr(ray_node.os, "_exit", lambda code: ended.set())
    box = types.SimpleNamespace(answer=types.SimpleNamespace(remote=lambda: None))
    with ray_node._ending_in_silence(box):
        assert ended.wait(1.5) == ends
    assert asked


def test_a_node_is_asked_for_store_data_packages_and_the_right_to_write(store, tmp_path):
    from replication.executors.ray_node import look

    identity = store.identity()
    with store.exclusively(".nodes"):
        assert look(store.root, identity, [str(tmp_path)], ["json"])["wrong"] == []
    wrong = look(store.root, identity, [str(tmp_path / "data")], ["no_such_package"])["wrong"]
    assert "does not see" in wrong[0] and "lacks the package no_such_package" in wrong[1] and len(wrong) == 2
    assert "another store" in look(store.root, "0" * 32, [], [])["wrong"][0]
    assert "does not see the store" in look(tmp_path / "nowhere", identity, [], [])["wrong"][0]


def test_locks_that_do_not_exclude_are_noticed(store):
    """The driver holds the lock while it asks: a node that can take it shares the folder, not the locks."""
    from replication.executors.ray_node import look

    identity = store.identity()
    with store.exclusively(".nodes"):
        assert look(store.root, identity, [], [])["locks"]
    assert not look(store.root, identity, [], [])["locks"]
