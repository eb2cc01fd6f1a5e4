"""Store and runner: atomic, shared, resumable, verified; with real processes and real files."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from fake_steps import Break, Write, read

from foundation.errors import ArtifactError, InputError, StorageError
from replication.all_tables import _say
from replication.run import missing_steps, run_steps
from replication.status import Options, status
from replication.steps import closure, minor_version
from replication.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def _diamond(log=None):
    base = Write(text="a", log=log)
    left, right = Write(text="b", needs=(base,), log=log), Write(text="c", needs=(base,), log=log)
    return base, Write(text="d", needs=(left, right), log=log)


# ----------------------------------------------------------------------------------------------------- identity


def test_the_key_follows_settings_and_parents_and_nothing_else():
    base = Write(text="a")
    assert Write(text="a", log="elsewhere", threads=8, hint_seconds=3.0).key == base.key
    assert Write(text="b").key != base.key
    assert Write(text="a", needs=(base,)).key != base.key
    assert Write(text="x", needs=(base,)).key != Write(text="x", needs=(Write(text="b"),)).key


def test_raising_the_version_changes_the_key(monkeypatch):
    before = Write(text="a").key
    monkeypatch.setattr(Write, "version", 2)
    assert Write(text="a").key != before


def test_library_minor_versions_are_part_of_the_key(monkeypatch):
    monkeypatch.setattr(Write, "libraries", ("torch",))
    keys = []
    for number in ("9.9.1", "9.9.2+cpu", "9.10.0"):
        monkeypatch.setattr("replication.steps.metadata.version", lambda name, number=number: number)
        monkeypatch.setattr("replication.steps.minor_version", minor_version.__wrapped__)  # a process looks it up once
        step = Write(text="a")
        assert step.identity["libraries"] == {"torch": number[:number.rindex(".")]}
        keys.append(step.key)
    assert keys[0] == keys[1] != keys[2]


def test_a_shared_step_appears_once():
    _, top = _diamond()
    assert [step.text for step in closure([top, top])] == ["a", "b", "c", "d"]


# -------------------------------------------------------------------------------------------------------- running


def test_each_step_runs_once_and_a_second_run_only_reads(store, tmp_path):
    log = tmp_path / "log"
    _, top = _diamond(str(log))
    first = run_steps([top], store, jobs=2)
    assert first.exit_code == 0 and len(first.ran) == 4
    assert read(store.root, top) == "abacd"
    second = run_steps([top], store, jobs=2)
    assert (len(second.ran), second.done_before) == (0, 4)
    assert sorted(log.read_text().split()) == ["a", "b", "c", "d"]


def test_what_a_finished_step_came_from_is_not_needed(store):
    base, top = _diamond()
    run_steps([top], store, jobs=1)
    shutil.rmtree(store.folder(base))
    assert missing_steps([top], store) == []


def test_the_manifest_tells_all(store):
    _, top = _diamond()
    run_steps([top], store, jobs=1)
    manifest = store.read_manifest(top.id)
    assert manifest["settings"]["text"] == "d" and manifest["key"] == top.key
    assert list(manifest["parents"]) == ["needs-0", "needs-1"]
    assert set(manifest["files"]) == {"text", "half"} and manifest["seconds"] >= 0
    assert {"commit", "packages", "hardware"} <= set(manifest["provenance"])


@pytest.mark.parametrize(("how", "code", "words"), [
    ("input", 2, "the input is wrong: 7"),
    ("disk", 2, "no space left"),
    ("library disk", 2, "no space left"),
    ("defect", 1, "a defect of ours"),
    ("die", 1, "was killed"),
])
def test_a_failed_step_takes_only_its_descendants_with_it(store, how, code, words):
    bad = Break(how=how)
    child, other = Write(text="child", needs=(bad,)), Write(text="other")
    report = run_steps([child, other], store, jobs=1)
    assert report.exit_code == code
    assert words in report.failed[bad.key].reason and bad.id in report.failed[child.key].reason
    assert store.is_done(other) and not store.is_done(child) and not store.is_done(bad)
    assert not store.folder(bad).exists()


def test_status_tells_what_failed_from_what_was_interrupted(store, capsys):
    failing, killed = Break(how="mistake"), Write(text="half")
    run_steps([failing], store, jobs=1)
    for number in range(10):
        store.building_folder(Write(text=f"half {number}"))
    store.building_folder(killed)
    status(Options(store=store.root))
    said = capsys.readouterr().out
    assert f"failed: {failing.label} ({failing.id})" in said
    (line,) = [line for line in said.splitlines() if line.startswith("interrupted")]
    assert failing.id not in line and line.endswith(" and 3 more")


def test_many_cells_lost_to_one_failure_are_told_in_one_line(capsys):
    cells = [{"status": "failed", "reason": reason} for reason in
             ("no space left", "needs b (train), which failed: needs a (train), which failed: no space left", "other")]
    _say([({"place": "Table 1", "cells": cells}, Path("table1.json"))])
    assert capsys.readouterr().out.splitlines()[1:] == ["  failed (2 cells): no space left", "  failed (1 cell): other"]


def test_two_processes_that_want_one_step_run_it_once(store, tmp_path):
    log = tmp_path / "log"
    step = Write(text="slow", seconds=1.0, log=str(log))
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=run_steps, args=([step], Store(store.root)), kwargs={"jobs": 1}) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert log.read_text().split() == ["slow"]


def test_a_killed_run_leaves_nothing_half_written_and_no_worker(store, tmp_path):
    log = tmp_path / "log"
    program = (f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
               "from pathlib import Path\nfrom fake_steps import Write\nfrom replication.run import run_steps\n"
               "from replication.store import Store\n"
               "if __name__ == '__main__':\n"
               f"    run_steps([Write(text='slow', seconds=3.0, log={str(log)!r})], Store(Path({str(store.root)!r})), "
               "jobs=1)\n")
    script = tmp_path / "run.py"
    script.write_text(program, encoding="utf-8")
    process = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.DEVNULL)
    _wait_for(log.exists)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(4)  # longer than the step: an orphan would have published by now
    step = Write(text="slow", seconds=3.0)
    assert not store.is_done(step) and not store.folder(step).exists()
    rerun = Write(text="slow", seconds=3.0, log=str(log))
    assert run_steps([rerun], store, jobs=1).exit_code == 0
    assert read(store.root, step) == "slow"


def _wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


# ------------------------------------------------------------------------------------------------- damage, limits


def test_a_file_of_another_size_is_named_moved_aside_and_rebuilt(store):
    step = Write(text="hello")
    run_steps([step], store, jobs=1)
    (store.folder(step) / "text").write_text("hello, hello", encoding="utf-8")
    with pytest.raises(ArtifactError, match=rf"{step.id}.*text has 12 bytes instead of 5"):
        Store(store.root).is_done(step)
    assert not store.folder(step).exists() and list((store.root / ".damaged").iterdir())
    assert run_steps([step], store, jobs=1).exit_code == 0 and read(store.root, step) == "hello"


def test_changed_contents_of_equal_size_are_found_when_used(store):
    base = Write(text="hello")
    run_steps([base], store, jobs=1)
    (store.folder(base) / "text").write_text("jello", encoding="utf-8")
    report = run_steps([Write(text="d", needs=(base,))], Store(store.root), jobs=1)
    assert report.exit_code == 2
    assert base.id in next(iter(report.failed.values())).reason
    assert not store.folder(base).exists()


def test_repair_rebuilds_what_is_damaged_at_once(store):
    step = Write(text="hello")
    run_steps([step], store, jobs=1)
    (store.folder(step) / "text").write_text("jello", encoding="utf-8")
    repairing = Store(store.root, repair=True)
    repairing.repair_all([step])
    assert run_steps([step], repairing, jobs=1).exit_code == 0 and read(store.root, step) == "hello"


def test_repair_rebuilds_a_damaged_ancestor_of_a_finished_step(store):
    base, top = _diamond()
    run_steps([top], store, jobs=1)
    (store.folder(base) / "text").write_text("z", encoding="utf-8")
    repairing = Store(store.root, repair=True)
    damaged = repairing.repair_all([top])
    assert [step.id for step in damaged] == [base.id]
    run_steps([*damaged, top], repairing, jobs=1)
    assert read(store.root, base) == "a"


def test_a_folder_without_a_manifest_is_moved_aside_and_rebuilt(store):
    step = Write(text="hello")
    store.folder(step).mkdir()
    (store.folder(step) / "text").write_text("an interrupted copy", encoding="utf-8")
    assert run_steps([step], store, jobs=1).exit_code == 0 and read(store.root, step) == "hello"


@pytest.mark.parametrize("manifest", ["{", "{}", "[]", "null"])
def test_an_unreadable_manifest_is_damage(store, manifest):
    step = Write(text="hello")
    run_steps([step], store, jobs=1)
    (store.folder(step) / "manifest.json").write_text(manifest)
    with pytest.raises(ArtifactError, match="unreadable"):
        Store(store.root).is_done(step)
    assert run_steps([step], store, jobs=1).exit_code == 0


def test_damage_noticed_twice_at_once_is_one_damage(store):
    step = Write(text="hello")
    run_steps([step], store, jobs=1)
    store.move_aside(step)
    store.move_aside(step)  # what a second process does that found the same damage
    assert len(list((store.root / ".damaged").iterdir())) == 1


def test_a_worker_that_died_idle_is_replaced(store, monkeypatch):
    """The second step is ready only after the first; meanwhile its worker is killed."""
    from replication.executors.local import LocalExecutor

    first = Write(text="a")
    second = Write(text="b", needs=(first,))
    original = LocalExecutor._release

    def release_and_kill(self, worker):
        done = worker.step
        original(self, worker)
        if done.key == first.key:
            worker.process.kill()
            worker.process.join()

    monkeypatch.setattr(LocalExecutor, "_release", release_and_kill)
    report = run_steps([second], store, jobs=1)
    assert report.exit_code == 0 and read(store.root, second) == "ab"


def test_a_store_of_another_version_is_refused(store):
    step = Write(text="hello")
    run_steps([step], store, jobs=1)
    path = store.folder(step) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 99}))
    with pytest.raises(ArtifactError, match="another version"):
        Store(store.root).is_done(step)


def test_a_file_is_no_store(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        Store(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_is_said_and_loses_nothing(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        store = Store(small)
        kept = Write(text="kept")
        assert run_steps([kept], store, jobs=1).exit_code == 0
        big = Write(text="x" * 400_000)
        report = run_steps([big], store, jobs=1)
        assert report.exit_code == 2 and "no space left" in report.failed[big.key].reason
        assert store.is_done(kept) and not store.folder(big).exists()
    finally:
        subprocess.run(["umount", str(small)], check=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_store_is_said(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="cannot write"):
        Store(tmp_path / "store")


def test_workers_end_without_a_word_about_what_libraries_left_in_them(tmp_path):
    program = ("import sys; from pathlib import Path; from fake_steps import KeepLock; "
               "from replication.run import run_steps; from replication.store import Store; "
               "sys.exit(len(run_steps([KeepLock()], Store(Path(sys.argv[1])), jobs=1).failed))")
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "store")], cwd=ROOT, capture_output=True,
                          text=True, timeout=120, env=os.environ | {"PYTHONPATH": path})
    assert done.returncode == 0 and "resource_tracker" not in done.stderr, done.stderr


def test_the_lock_file_that_the_first_fetch_writes_is_no_local_change(tmp_path):
    from foundation.files import sha256_file
    from foundation.locks import LOCK_PATH
    from replication.provenance import commit, provenance

    for name in ("foundation/lock.json", "foundation/locks.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("before")
    for words in (["init", "-q"], ["add", "."],
                  ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "all"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    (tmp_path / "foundation/lock.json").write_text("after")
    commit.cache_clear()
    assert commit(tmp_path)["dirty"] is False
    (tmp_path / "foundation/locks.py").write_text("after")
    commit.cache_clear()
    assert commit(tmp_path)["dirty"] is True
    assert provenance()["lock_sha256"] == sha256_file(LOCK_PATH)
