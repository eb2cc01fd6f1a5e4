"""The lock file: measured hashes only, never overwritten, and a file that differs is named with both hashes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest
from fake_hub import COMMIT

from evaluation.benchmarks import BENCHMARKS
from foundation import locks
from foundation.errors import InputError, PrerequisiteError, StorageError
from foundation.files import sha256_file
from foundation.locks import LOCK_PATH, check_data_file, expected_sha256, hub_entry, record_hub_file
from replication.data.real import SOURCES

SHARED = Path(os.environ.get("WMSS_SHARED", Path(__file__).parents[1].parent / "shared"))
DATA_ROOT = SHARED / "datasets"
needs_data = pytest.mark.skipif(not DATA_ROOT.is_dir(), reason=f"no data sets at {DATA_ROOT} (set WMSS_SHARED)")
OTHER = "b" * 40


@pytest.fixture
def lock(tmp_path):
    path = tmp_path / "locks" / "lock.json"
    path.parent.mkdir()
    path.write_text('{"schema": 1, "files": {"a/b.txt": null}, "hub": {}}')
    return path


def test_committed_lock_names_every_file_in_use_and_holds_only_hashes_or_null():
    content = json.loads(LOCK_PATH.read_text())
    used = {entry.file for entry in BENCHMARKS.values()} | {source.file for source in SOURCES.values()}
    assert set(content["files"]) == used
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in content["files"].values())
    for entry in BENCHMARKS.values():
        assert entry.hub_repo is None or set(entry.hub_files) <= set(content["hub"][entry.hub_repo]["files"])
    for entry in content["hub"].values():
        assert entry["type"] in ("dataset", "model")
        assert entry["revision"] is None or re.fullmatch("[0-9a-f]{40}", entry["revision"])
        assert all(value is None or re.fullmatch("[0-9a-f]{64}", value) for value in entry["files"].values())


@needs_data
def test_committed_hashes_are_those_of_the_files():
    manifest = {row["path"]: row["sha256"] for row in json.loads((DATA_ROOT / "MANIFEST.json").read_text())}
    for file, recorded in json.loads(LOCK_PATH.read_text())["files"].items():
        assert recorded == manifest[file] == sha256_file(check_data_file(DATA_ROOT, file))


def test_data_file_is_checked_once_a_hash_is_recorded(tmp_path, lock):
    with pytest.raises(PrerequisiteError, match=r"a/b\.txt is missing.*--data-root DIR or WMSS_DATA_ROOT"):
        check_data_file(tmp_path, "a/b.txt", lock)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b.txt").write_text("one")
    assert check_data_file(tmp_path, "a/b.txt", lock) == tmp_path / "a/b.txt"
    good, bad = hashlib.sha256(b"one").hexdigest(), "0" * 64
    for recorded in (good, bad):
        lock.write_text(json.dumps({"files": {"a/b.txt": recorded}, "hub": {}}))
        assert expected_sha256("a/b.txt", lock) == recorded
        if recorded == good:
            check_data_file(tmp_path, "a/b.txt", lock)
        else:
            with pytest.raises(InputError, match=rf"a/b\.txt.*expected {bad}, found {good}.*Restore the file.*null"):
                check_data_file(tmp_path, "a/b.txt", lock)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": 1, "hub": {}}'])
def test_unusable_lock_file_is_named(lock, text):
    lock.write_text(text)
    with pytest.raises(InputError, match=r"lock file .*lock\.json"):
        expected_sha256("a", lock)


def test_recorded_values_are_never_overwritten(lock):
    def record(name: str, commit: str, digest: str) -> None:
        record_hub_file("o/r", name, repo_type="dataset", revision=commit, sha256=digest, lock=lock)

    record("f", COMMIT, "1" * 64)
    before = lock.read_bytes()
    record("f", COMMIT, "1" * 64)
    for commit, digest in ((COMMIT, "2" * 64), (OTHER, "1" * 64)):
        with pytest.raises(InputError, match="o/r has the"):
            record("f", commit, digest)
    assert lock.read_bytes() == before
    record("g", COMMIT, "3" * 64)
    entry = hub_entry("o/r", lock)
    assert entry and entry.revision == COMMIT and entry.files == {"f": "1" * 64, "g": "3" * 64}
    assert hub_entry("o/unknown", lock) is None


def test_no_record_is_lost_between_writers(lock):
    def record(number: int) -> None:
        record_hub_file("o/r", f"f{number}", repo_type="model", revision=COMMIT, sha256=f"{number:064d}", lock=lock)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(record, range(24)))
    entry = hub_entry("o/r", lock)
    assert entry and len(entry.files) == 24


def test_full_disk_leaves_the_lock_as_it_was(lock, monkeypatch):
    before = lock.read_bytes()
    monkeypatch.setattr(os, "replace", mock.Mock(side_effect=OSError(errno.ENOSPC, "full")))
    with pytest.raises(StorageError, match="no space"):
        record_hub_file("o/r", "f", repo_type="model", revision=COMMIT, sha256="1" * 64, lock=lock)
    assert lock.read_bytes() == before and list(lock.parent.iterdir()) == [lock]


def test_nothing_heavy_is_imported_before_it_is_needed():
    code = ("import sys, foundation.hub, evaluation.benchmarks.fetching, replication.data.real\n"
            "import replication.data.am_corpus\n"
            "print([m for m in ('huggingface_hub', 'datasets', 'pandas', 'pyarrow', 'torch') if m in sys.modules])")
    root = Path(locks.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


RECORD = f"""
from foundation.locks import LOCK_PATH, expected_sha256, record_hub_revision
assert expected_sha256("mawps/wmss/test.json"), "read from the shipped lock file until there is a copy"
record_hub_revision("o/r", repo_type="model", revision="{COMMIT}")
print(LOCK_PATH)
"""


def test_another_lock_file_begins_as_a_copy_of_the_shipped_one_which_stays_as_it_is(tmp_path):
    before, other = LOCK_PATH.read_bytes(), tmp_path / "new" / "lock.json"
    done = subprocess.run([sys.executable, "-c", RECORD], env=os.environ | {"WMSS_LOCK": str(other)}, text=True,
                          cwd=Path(__file__).parents[1], capture_output=True)
    assert done.returncode == 0, done.stderr
    content = json.loads(other.read_text())
    assert content["files"] == json.loads(before)["files"] and content["hub"]["o/r"]["revision"] == COMMIT
    assert LOCK_PATH.read_bytes() == before


def test_a_lock_file_that_cannot_be_written_is_told_with_the_way_out(lock, monkeypatch):
    monkeypatch.setattr(os, "replace", mock.Mock(side_effect=OSError(errno.EROFS, "read-only")))
    with pytest.raises(StorageError, match=r"cannot write .*WMSS_LOCK names a lock file elsewhere"):
        record_hub_file("o/r", "f", repo_type="model", revision=COMMIT, sha256="1" * 64, lock=lock)
