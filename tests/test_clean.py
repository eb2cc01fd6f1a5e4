"""Freeing disk space: only what the named tables no longer need, and only in a folder that is a store."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from foundation.errors import ArtifactError, InputError
from replication import all_tables
from replication.all_tables import plan_all
from replication.catalogue import tables
from replication.clean import Clean, clean
from replication.cli import Options
from replication.status import Options as StatusOptions
from replication.status import status
from replication.steps import closure
from replication.store import SCHEMA, Store

WEIGHTS = "checkpoint/model.safetensors"
KINDS = ("pretrain", "train", "train-pairs")


def steps_of(model, **more):
    prepared, _ = plan_all(Options(model=(model,), plan=True, **more))
    return closure([step for one in prepared for step in one.run.targets])


def finish(store, steps):
    """Have steps stand in the store as finished, those that train with weights of 8 bytes."""
    for step in steps:
        files = {WEIGHTS: {"sha256": "0" * 64, "bytes": 8}} if step.kind in KINDS else {}
        for name in files:
            (store.folder(step) / name).parent.mkdir(parents=True, exist_ok=True)
            (store.folder(step) / name).write_bytes(b"weights.")
        store.folder(step).mkdir(exist_ok=True)
        manifest = {"schema": SCHEMA, "id": step.id, "key": step.key, "label": step.label, "seconds": 1.0,
                    "files": files}
        (store.folder(step) / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


@pytest.fixture(scope="module", autouse=True)
def few_tables():
    """Two tables in place of all: one of the model named, one of the Gemma-style model that belongs to it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(all_tables, "tables", lambda: [table for table in tables() if table.name in ("table2", "table4")])
        yield


@pytest.fixture(scope="module")
def planned(few_tables):
    return {"tiny": steps_of("tiny"), "tiny, seed 1": steps_of("tiny", seed=1), "tiny-gemma": steps_of("tiny-gemma")}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def holding(store):
    return {path.parents[1].name for path in store.root.glob(f"*/{WEIGHTS}")}


def ids(steps):
    return {step.id for step in steps if step.kind in KINDS}


def only_in(first, second):
    there = {step.key for step in second}
    return [step for step in first if step.key not in there]


def test_what_finished_tables_hold_is_freed_and_other_seeds_are_left_alone(store, planned, capsys):
    other = [step for step in only_in(planned["tiny, seed 1"], planned["tiny"]) if step.kind in KINDS]
    finish(store, [*planned["tiny"], *other])
    assert clean(Clean(store=store.root, keep_tables=True)) == 0
    assert holding(store) == ids(other) != set()
    said = capsys.readouterr().out
    assert f"in {len(ids(planned['tiny']))} steps" in said
    assert f"{len(other)} steps that are behind no table of tiny at these settings" in said and "--others" in said
    assert clean(Clean(store=store.root, keep_tables=True, seed=1)) == 0  # its tables are unfinished: they need them
    assert {step.id for step in other if step.kind == "train"} & holding(store)
    clean(Clean(store=store.root, keep_tables=True, others=True))
    assert holding(store) == set() and "left alone" not in capsys.readouterr().out.splitlines()[-1]


def test_a_table_of_another_model_that_was_begun_keeps_what_it_starts_from(store, planned):
    """Table 4 of tiny runs on tiny-gemma, whose own tables start from the same checkpoints."""
    shared = ids(planned["tiny"]) & ids(planned["tiny-gemma"])
    finish(store, planned["tiny"])
    own = next(step for step in only_in(planned["tiny-gemma"], planned["tiny"]) if step.kind == "grade")
    finish(store, [own])
    clean(Clean(store=store.root, keep_tables=True))
    assert holding(store) and holding(store) <= shared
    (store.folder(own) / "manifest.json").unlink()
    store.folder(own).rmdir()
    clean(Clean(store=store.root, keep_tables=True))
    assert holding(store) == set()  # nobody began them


def test_unfinished_tables_keep_what_they_start_from(store, planned):
    finish(store, [step for step in planned["tiny"] if step.kind not in ("grade", "generate")])
    clean(Clean(store=store.root, keep_tables=True))
    assert {step.parents["checkpoint"].id for step in planned["tiny"] if step.kind == "generate"} & ids(
        planned["tiny"]) <= holding(store)


@pytest.mark.parametrize("options", [
    {"everything": True, "keep_tables": True}, {}, {"everything": True, "others": True}, {"others": True},
])
def test_two_ways_at_once_or_none_are_refused(store, options):
    with pytest.raises(InputError):
        clean(Clean(store=store.root, **options))
    assert store.root.is_dir()


@pytest.mark.parametrize("way", [{"everything": True}, {"keep_tables": True}])
def test_a_folder_that_is_no_store_is_left_alone(tmp_path, way):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="no store"):
        clean(Clean(store=tmp_path, **way))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_make_clean_removes_the_store_of_the_environment_and_nothing_else(store, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for folder, code in ((other, 2), (store.root, 0), (tmp_path / "none", 0)):
        done = subprocess.run(["make", "-s", "clean"], cwd=ROOT, capture_output=True, text=True,
                              env=os.environ | {"WMSS_STORE": str(folder)})
        assert done.returncode == code, done.stderr
    assert other.is_dir() and not store.root.exists()


@pytest.mark.parametrize("command", [["status"], ["status", "--verify"], ["clean", "--keep-tables"]])
def test_a_store_of_another_version_ends_with_a_message(store, planned, command):
    finish(store, planned["tiny"][:1])
    path = store.folder(planned["tiny"][0]) / "manifest.json"
    path.write_text(json.dumps({"schema": 99, "what": "a later suite"}))  # whose manifests may have any other keys
    done = subprocess.run([sys.executable, "-m", f"replication.{command[0]}", *command[1:], "--store", str(store.root)],
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "another version" in done.stderr and "99" in done.stderr
    assert path.is_file()  # nor is it moved aside as damaged


@pytest.mark.parametrize("text", ["[]", "null", "{", "{}", '{"schema": 1}', '{"schema": 1, "files": {}}'])
def test_status_passes_over_a_manifest_that_is_damaged(store, planned, text, capsys):
    finish(store, planned["tiny"][:2])
    (store.folder(planned["tiny"][0]) / "manifest.json").write_text(text)
    assert status(StatusOptions(store=store.root)) == 0 and "1 steps done" in capsys.readouterr().out


def test_manifests_of_another_version_are_refused_by_whoever_reads_them(store, planned):
    finish(store, planned["tiny"][:1])
    path = store.folder(planned["tiny"][0]) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 99}))
    with pytest.raises(ArtifactError, match="another version"):
        list(store.manifests())
