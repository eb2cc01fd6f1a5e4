"""Steps on a Ray cluster of two real nodes: the same results as here, nodes that vanish or are not fit, orphans."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT

pytest.importorskip("ray", reason="needs ray: make test-scale installs it")
import ray_nodes
from fake_steps import Break, ShowDevices, Write, read
from ray_nodes import kill, lives, until

from foundation.errors import PrerequisiteError
from replication.executors.ray_cluster import RayExecutor, on_cluster
from replication.executors.ray_connection import connect
from replication.needs import Needs
from replication.run import run_steps
from replication.store import Store

pytestmark = pytest.mark.scale
apart = pytest.mark.skipif(not ray_nodes.can_unshare(), reason="needs leave to make namespaces and mounts")


@pytest.fixture
def nodes():
    made = ray_nodes.Nodes()
    yield made
    made.close()


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def on(nodes, store, steps):
    return run_steps(steps, store, jobs=1, open_executor=on_cluster(store, nodes.address))


def lines(path):
    return path.read_text().split() if path.exists() else []


# ----------------------------------------------------------------------------------------------------- lost nodes


@pytest.mark.parametrize("workers", [True, False], ids=["node", "raylet"])
def test_steps_of_a_node_that_vanishes_run_elsewhere_and_nothing_is_lost(nodes, store, tmp_path, workers, capfd):
    """With the raylet alone killed, its worker would live on: it must die, or it would publish beside the second."""
    raylet, log = nodes.add(), tmp_path / "log"
    base = Write(text="a", log=str(log))
    # long enough for a busy machine to kill in time
    tops = [Write(text=f"b{i}", needs=(base,), seconds=9.0, log=str(log)) for i in range(3)]
    started = []

    def vanish():
        until(lambda: len(lines(log)) >= 3)  # one runs on each node
        started.extend(kill(raylet.pid, workers=workers))

    threading.Thread(target=vanish, daemon=True).start()
    report = on(nodes, store, tops)
    assert report.exit_code == 0 and {step.key for step in report.ran} == {step.key for step in [base, *tops]}
    assert [read(store.root, top) for top in tops] == ["ab0", "ab1", "ab2"]
    again = sorted(lines(log))
    assert len(again) == 5 and len(set(again)) == 4, "one step ran twice, the others once"
    assert started and not any(map(lives, started))
    assert "was lost" in capfd.readouterr().err


def test_what_fails_by_itself_is_told_and_not_tried_again(nodes, store, tmp_path):
    nodes.add()
    log = tmp_path / "log"
    died, wrong, other = Break(how="die"), Break(how="input"), Write(text="other", log=str(log))
    child = Write(text="child", needs=(died,))
    report = on(nodes, store, [child, wrong, other])
    assert "died (out of memory?)" in report.failed[died.key].reason and report.failed[died.key].exit_code == 1
    assert "the input is wrong: 7" in report.failed[wrong.key].reason and report.failed[wrong.key].exit_code == 2
    assert died.id in report.failed[child.key].reason
    assert lines(log) == ["other"] and store.is_done(other) and not store.folder(died).exists()


DRIVER = """
import sys
from pathlib import Path
from fake_steps import Write
from replication.executors.ray_cluster import on_cluster
from replication.run import run_steps
from replication.store import Store
store = Store(Path(sys.argv[2]))
steps = [Write(text=text, seconds=3.0, log=sys.argv[3]) for text in "ab"]
run_steps(steps, store, jobs=1, open_executor=on_cluster(store, sys.argv[1]))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_ends_takes_its_steps_with_it(nodes, store, tmp_path, how):
    nodes.add()
    log = tmp_path / "log"
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, nodes.address, str(store.root), str(log)], cwd=ROOT,
                              env=os.environ | ray_nodes.ENVIRONMENT, stderr=subprocess.DEVNULL)
    until(lambda: len(lines(log)) == 2)
    driver.send_signal(how)
    driver.wait(30)
    time.sleep(4)  # longer than the steps: orphans would have published by now
    steps = [Write(text=text, seconds=3.0) for text in "ab"]
    assert not any(store.folder(step).exists() for step in steps)
    assert on(nodes, store, steps).exit_code == 0 and [read(store.root, step) for step in steps] == ["a", "b"]


# ----------------------------------------------------------------------------------------------------------- GPUs


def test_on_a_node_with_gpus_each_step_sees_its_own_and_light_ones_none(nodes, store, tmp_path):
    """The training is the most urgent, so the one-GPU steps wait; a worker is not used again with other devices."""
    nodes.add(num_gpus=2, num_cpus=4)
    log = tmp_path / "log"
    training = ShowDevices(text="training", gpus=2, seconds=1.0, hint_seconds=9.0, log=str(log))
    one = [ShowDevices(text=f"one{i}", gpus=1, seconds=1.0, log=str(log)) for i in range(3)]
    light = ShowDevices(text="light", needs=(training,), log=str(log))
    report = run_steps([training, *one, light], store, jobs=1, open_executor=lambda steps: RayExecutor(
        store, steps, nodes.address,
        needs=lambda step: Needs(gpus=step.gpus, memory_gib=0.5, processes=max(1, step.gpus))))
    assert report.exit_code == 0, report.failed
    computed = [(e["text"], e["process"]) for e in map(json.loads, log.read_text().splitlines()) if e["given"]]
    assert len({process for _, process in computed}) == len({text for text, _ in computed}) == 4
    held, process = {}, {}
    for event in map(json.loads, log.read_text().splitlines()):
        assert event["seen"] == ",".join(event["given"])
        assert process.setdefault(event["process"], event["given"]) == event["given"]
        if event["event"] == "begin":
            assert not set(event["given"]) & {gpu for gpus in held.values() for gpu in gpus}
            held[event["text"]] = event["given"]
        else:
            sizes = {"training": 2, "light": 0}
            assert len(held.pop(event["text"])) == sizes.get(event["text"], 1)


# ---------------------------------------------------------------------------------------------------- unfit nodes


@apart
@pytest.mark.parametrize(("before", "words"), [
    ("mount -t tmpfs tmpfs {store}", "node node2 does not see the store {store}"),
    ("mount -t tmpfs tmpfs {store} && echo other > {store}/.identity", "node node2 has another store under {store}"),
    ("mount --bind {store} {store} && mount -o remount,ro,bind {store}", "node node2: cannot write {store}"),
], ids=["unseen", "another", "read-only"])
def test_a_node_that_cannot_use_the_store_is_named_before_anything_runs(nodes, store, before, words):
    store.identity()
    nodes.add_apart("node2", before.format(store=store.root))
    step = Write(text="a")
    with pytest.raises(PrerequisiteError, match=words.format(store=store.root)):
        on(nodes, store, [step])
    assert not store.folder(step).exists() and not store.failures()


@apart
def test_a_node_with_other_code_is_named(nodes, store, tmp_path):
    changed = tmp_path / "foundation"
    shutil.copytree(ROOT / "foundation", changed, ignore=shutil.ignore_patterns("__pycache__"))
    with (changed / "seeds.py").open("a") as file:
        file.write("# changed\n")
    nodes.add_apart("node2", f"mount --bind {changed} {ROOT / 'foundation'}")
    with pytest.raises(PrerequisiteError, match=r"node node2 has other code or packages: sources: \w+ \(here: \w+\)"):
        on(nodes, store, [Write(text="a")])


@apart
def test_clocks_may_differ(nodes, store, tmp_path, capfd):
    """A node that lives a day ago: its results are used here and those of here there, and a second run only reads."""
    (tmp_path / "day").mkdir()
    (tmp_path / "day/sitecustomize.py").write_text(
        "import time\nreal, real_ns = time.time, time.time_ns\n"
        "time.time = lambda: real() - 86400\ntime.time_ns = lambda: real_ns() - 86400 * 10**9\n")
    nodes.add_apart("yesterday", PYTHONPATH=f"{tmp_path / 'day'}{os.pathsep}{ray_nodes.ENVIRONMENT['PYTHONPATH']}")
    log = tmp_path / "log"
    step: Write | None = None
    steps = []
    for i in range(2):
        pair = [Write(text=f"{i}{side}", needs=() if step is None else (step,), seconds=1.0, log=str(log))
                for side in "xy"]
        steps, step = [*steps, *pair], pair[1 - i]
    assert on(nodes, store, steps).exit_code == 0
    assert {store.read_manifest(s.id)["placement"]["node"] for s in steps} >= {"yesterday"}
    for path in store.root.rglob("*"):
        os.utime(path, (1, 1))
    second = run_steps(steps, Store(store.root), jobs=1)
    assert not second.ran and len(lines(log)) == 4
    assert "the clock of node yesterday differs by at least 86" in capfd.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_store_is_said_and_loses_nothing(nodes, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        nodes.add()
        store = Store(small)
        kept = Write(text="kept")
        big = Write(text="x" * 400_000, needs=(kept,))  # after it: side by side both would meet the full disk
        report = on(nodes, store, [big])
        assert report.exit_code == 2 and "no space left" in report.failed[big.key].reason
        assert store.is_done(kept) and not store.folder(big).exists()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)


def test_a_step_that_no_node_can_hold_is_refused_with_what_the_nodes_have(nodes, store):
    with pytest.raises(PrerequisiteError, match=r"write needs 0 GPUs, 3 cores .* on one node; .*: 0 GPUs, 1 cores"):
        on(nodes, store, [Write(text="a", threads=3)])


def test_what_answers_but_is_no_ray_is_told_in_half_a_minute(tmp_path):
    server = subprocess.Popen([sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"], cwd=tmp_path,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        port = server.stdout.readline().split(" port ")[1].split()[0]
        began = time.monotonic()
        with pytest.raises(PrerequisiteError, match=f"no Ray cluster answered at --address 127.0.0.1:{port}"):
            connect(f"127.0.0.1:{port}", {})
        assert time.monotonic() - began < 30
    finally:
        server.kill()


# -------------------------------------------------------------------------------------------------------- Table 1

# A model trained for a few updates solves nothing, so SSB, which needs right rollouts, has no row here.
TABLE1 = ["--methods", "sft,undial,neftune,spin,wmss", "--benchmarks", "gsm8k,aqua,humaneval_plus",
          "--limit-train", "96", "--limit-eval", "8", "--set", "pretrain.updates=30", "--set", "eval.max_new_tokens=48"]


def table1(folder, *more):
    return [sys.executable, "-m", "replication.table1", "--store", str(folder / "store"), "--results",
            str(folder / "results"), *TABLE1, *more]


def content(folder):
    read = json.loads((folder / "results/tiny/table1.json").read_text(encoding="utf-8"))
    return {name: value for name, value in read.items() if name != "provenance"}


def files(folder):
    manifests = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("store/*/manifest.json")]
    return {manifest["id"]: manifest["files"] for manifest in manifests}


def test_table_1_is_the_same_through_two_nodes_of_which_one_is_killed(nodes, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    done = subprocess.run(table1(here, "--jobs", "2"), cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    raylet = nodes.add()
    with (tmp_path / "log").open("w") as log:
        driver = subprocess.Popen(table1(there, "--executor", "ray", "--address", nodes.address), cwd=ROOT, stderr=log,
                                  stdout=log, env=os.environ | ray_nodes.ENVIRONMENT)
        words = tmp_path / "log"
        until(lambda: words.read_text().count("] train ") >= 2 and any(
            "ray::train" in " ".join(child.cmdline()) for child in raylet.children()), seconds=600)
        kill(raylet.pid)
        assert driver.wait(900) == 0, words.read_text()
    assert "LOST" in words.read_text()
    assert content(there) == content(here)
    assert files(there) == files(here), "weights, answers and verdicts, byte by byte"
    measured = [cell for cell in content(there)["cells"] if cell["status"] == "measured"]
    assert len(measured) == 7 * 3 and not any(cell["status"] == "failed" for cell in content(there)["cells"])
