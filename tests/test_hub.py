"""Downloads from the hub: pinned, resumed, checked, and every refusal with what to do, against a server over HTTP."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest
from fake_hub import FakeHub
from family_models import published
from hub_server import COMMIT, SIGNATURE, HubServer
from safetensors.torch import load_file

from evaluation.benchmarks import BENCHMARKS
from evaluation.benchmarks.fetching import fetch_files
from foundation.errors import InputError, PrerequisiteError, StorageError
from foundation.hub import fetch

ROOT = Path(__file__).parents[1]
OTHER = "b" * 40
PIECE = 10 * 2**20
"""What the client writes at a time: it resumes at a multiple of it."""
BIG = hashlib.sha256(b"seed").digest() * 20_000  # 640 kB
FETCH = """
import sys
from pathlib import Path
from unittest import mock
from foundation.exits import exit_with_message
from foundation.hub import fetch

def run():
    told = []
    for name in sys.argv[3:]:
        print(fetch("o/r", name, repo_type=sys.argv[2], lock=Path(sys.argv[1]), on_progress=told.append))
    print(told)
    return 0

exit_with_message(run)
"""


@pytest.fixture
def hub():
    server = HubServer()
    yield server
    server.close()


class Machine:
    """A user's machine: a cache, a lock file, perhaps a token."""

    def __init__(self, folder, hub):
        self.folder, self.lock, self.home = folder, folder / "lock.json", folder / "hf"
        self.lock.write_text('{"files": {}, "hub": {}}')
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | {
            "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(self.home), "PYTHONPATH": str(ROOT),
            "HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

    def command(self, *names, repo_type="model"):
        return [sys.executable, "-c", FETCH, str(self.lock), repo_type, *names]

    def fetch(self, *names, repo_type="model", **environment):
        return self.run(self.command(*names, repo_type=repo_type), **environment)

    def run(self, command, **environment):
        return subprocess.run(command, env=self.environment | environment, cwd=self.folder, capture_output=True,
                              text=True, timeout=60)

    def refused(self, *names, repo_type="model", code=2, **environment):
        """Fetch what must not be given; return the message."""
        done = self.fetch(*names, repo_type=repo_type, **environment)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr and done.stderr.count("error: ") == 1
        return done.stderr

    def entry(self):
        return json.loads(self.lock.read_text())["hub"].get("o/r")

    def pin(self, revision=COMMIT, **files):
        self.lock.write_text(json.dumps(
            {"files": {}, "hub": {"o/r": {"type": "model", "revision": revision, "files": files}}}))

    def contents(self):
        """Every file of the cache that is not the client's bookkeeping."""
        return [path for path in self.home.rglob("*") if path.is_file() and ".locks" not in path.parts
                and path.name != "CACHEDIR.TAG" and "refs" not in path.parts]


@pytest.fixture
def machine(tmp_path, hub):
    return Machine(tmp_path, hub)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("repo_type", ["model", "dataset"])
def test_the_first_fetch_pins_and_the_next_needs_no_network(hub, machine, repo_type):
    repository = hub.add("o/r", repo_type, files={"config.json": b"{}"}, large={"sub/w.bin": BIG})
    done = machine.fetch("config.json", "sub/w.bin", repo_type=repo_type)
    assert done.returncode == 0, done.stderr
    small, large, told = done.stdout.splitlines()
    assert Path(small).read_bytes() == b"{}" and Path(large).read_bytes() == BIG
    assert machine.entry() == {"type": repo_type, "revision": COMMIT,
                               "files": {"config.json": sha256(b"{}"), "sub/w.bin": sha256(BIG)}}
    told = json.loads(told)
    assert told.count(1.0) == 2 and all(0 <= fraction <= 1 for fraction in told)
    repository.commit = OTHER
    hub.close()
    again = machine.fetch("config.json", "sub/w.bin", repo_type=repo_type)
    assert again.stdout.splitlines()[:2] == [small, large]


def test_a_file_added_later_comes_from_the_pinned_commit(hub, machine):
    hub.add("o/r", files={"a": b"1", "b": b"2"})
    machine.pin(a=sha256(b"1"))
    assert machine.fetch("b").returncode == 0
    assert {one.path.split("/resolve/")[1] for one in hub.seen if "/resolve/" in one.path} == {f"{COMMIT}/b"}
    assert machine.entry()["files"] == {"a": sha256(b"1"), "b": sha256(b"2")}


def test_a_revision_is_pinned_before_anything_is_fetched(hub, machine):
    repository = hub.add("o/r", files={"a": b"1"})
    script = ("import sys\nfrom pathlib import Path\nfrom foundation.exits import exit_with_message\n"
              "from foundation.hub import pinned_revision\n"
              "exit_with_message(lambda: print(pinned_revision(sys.argv[2], 'model', Path(sys.argv[1]))) or 0)")
    command = [sys.executable, "-c", script, str(machine.lock)]
    assert machine.run([*command, "o/r"]).stdout.strip() == COMMIT
    repository.commit = OTHER
    assert machine.run([*command, "o/r"]).stdout.strip() == COMMIT
    done = machine.run([*command, "o/none"])
    assert done.returncode == 2 and "cannot fetch the newest commit of the hub model o/none" in done.stderr


def test_a_connection_that_is_cut_goes_on_where_it_broke(hub, machine):
    huge = BIG * 40
    hub.add("o/r", large={"w.bin": huge})
    hub.cuts = [("fin", 15 * 10**6), ("fin", 100)]
    done = machine.fetch("w.bin")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.splitlines()[0]).read_bytes() == huge
    ranges = [one.range for one in hub.seen if one.where == "storage" and one.method == "GET"]
    assert ranges == [None, f"bytes={PIECE}-", f"bytes={PIECE}-"]


def test_a_connection_that_is_reset_is_tried_again(hub, machine):
    hub.add("o/r", large={"w.bin": BIG})
    hub.cuts = [("rst", 200_000), ("rst", 0)]
    done = machine.fetch("w.bin")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.splitlines()[0]).read_bytes() == BIG


def test_a_connection_that_never_holds_ends_in_an_error_and_nothing_half_written(hub, machine):
    hub.add("o/r", large={"w.bin": BIG})
    hub.cuts = [("rst", 1000)] * 50
    assert "cannot fetch w.bin of the hub model o/r" in machine.refused("w.bin")
    assert machine.contents() == [] and machine.entry() is None


@pytest.mark.parametrize("where", ["files", "large"])
def test_other_bytes_than_the_recorded_ones_are_refused_and_removed(hub, machine, where):
    good, bad = b"x" * 100, b"y" * 100
    repository = hub.add("o/r", **{where: {"w.bin": good}})
    machine.pin(**{"w.bin": sha256(good)})
    hub.served["w.bin"] = bad
    before = machine.lock.read_bytes()
    said = machine.refused("w.bin")
    for part in ("w.bin", "o/r", f"expected {sha256(good)}", f"found {sha256(bad)}", "100 bytes",
                 "rerun to fetch it again", f"set its entry in {machine.lock} to null"):
        assert part in said
    assert machine.contents() == [] and machine.lock.read_bytes() == before
    hub.served.clear()
    assert machine.fetch("w.bin").returncode == 0
    assert repository.commit == COMMIT


def test_a_cached_file_that_rotted_is_found_and_fetched_anew(hub, machine):
    hub.add("o/r", files={"a": b"good"})
    path = Path(machine.fetch("a").stdout.splitlines()[0])
    path.resolve().write_bytes(b"evil")
    assert f"expected {sha256(b'good')}" in machine.refused("a")
    assert not path.exists() and not path.is_symlink()
    assert Path(machine.fetch("a").stdout.splitlines()[0]).read_bytes() == b"good"


def test_the_first_fetch_records_no_hash_that_the_hub_does_not_announce(hub, machine):
    hub.add("o/r", large={"w.bin": BIG})
    hub.served["w.bin"] = BIG[::-1]
    said = machine.refused("w.bin")
    assert f"expected {sha256(BIG)} (the hub announces)" in said and f"found {sha256(BIG[::-1])}" in said
    assert machine.entry() is None and machine.contents() == []


def test_a_gated_repository_without_a_token_says_how_to_get_access(hub, machine):
    hub.add("o/r", files={"config.json": b"{}"}, members={"hf_member"})
    said = machine.refused("config.json")
    for part in ("it is gated", "no token was found", f"log in at {hub.endpoint}/o/r", "accept the terms",
                 "set HF_TOKEN", "hf auth login"):
        assert part in said
    assert machine.entry() is None


def test_a_token_opens_a_gated_repository_and_is_written_nowhere(hub, machine):
    hub.add("o/r", files={"config.json": b"{}"}, large={"w.bin": BIG}, members={"hf_member"})
    done = machine.fetch("config.json", "w.bin", HF_TOKEN="hf_member", HF_DEBUG="1")
    assert done.returncode == 0, done.stderr
    assert {one.token for one in hub.seen if "o/r" in one.path} == {"hf_member"}
    assert {one.token for one in hub.seen if one.where == "storage"} == {None}
    written = [path.read_bytes() for path in machine.folder.rglob("*") if path.is_file()]
    assert not any(b"hf_member" in content for content in (*written, done.stdout.encode()))


@pytest.mark.parametrize(("token", "says"), [("hf_stranger", "has no access to it"),
                                             ("hf_expired", "does not accept the token")])
def test_a_token_without_access_is_told_from_a_bad_one_and_never_shown(hub, machine, token, says):
    hub.add("o/r", files={"config.json": b"{}"}, members={"hf_member"})
    said = machine.refused("config.json", HF_TOKEN=token)
    assert says in said and "HF_TOKEN" in said and token not in said


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_out_of_order_is_said_without_what_it_repeats(hub, machine, status):
    hub.status = status
    said = machine.refused("config.json", HF_TOKEN="hf_member")
    assert "busy or out of order" in said and str(status) in said and "hf_member" not in said


def test_a_signed_address_is_not_shown(hub, machine):
    repository = hub.add("o/r", large={"w.bin": BIG})
    hub.back.shutdown()
    hub.back.server_close()
    said = machine.refused("w.bin")
    assert SIGNATURE not in said and "cannot fetch w.bin" in said
    assert repository.large


def test_a_revoked_revision_says_what_is_pinned_and_how_to_move_on(hub, machine):
    hub.add("o/r", files={"config.json": b"{}"})
    machine.pin(OTHER, **{"config.json": sha256(b"{}")})
    before = machine.lock.read_bytes()
    said = machine.refused("config.json")
    for part in (f"{machine.lock} pins revision {OTHER}", "no longer has", "HF_HOME",
                 'set "revision" and all files of o/r there to null'):
        assert part in said
    assert machine.lock.read_bytes() == before
    machine.pin(None, **{"config.json": None})
    assert machine.fetch("config.json").returncode == 0 and machine.entry()["revision"] == COMMIT


def test_a_revoked_revision_that_is_in_the_cache_still_serves(hub, machine):
    repository = hub.add("o/r", files={"config.json": b"{}"})
    assert machine.fetch("config.json").returncode == 0
    repository.commit = OTHER
    assert machine.fetch("config.json").returncode == 0


@pytest.mark.parametrize(("token", "files", "says"), [
    ("", None, "there is no such repository"),
    ("hf_member", None, "there is no such repository"),
    ("", {"other": b""}, "has no such file at commit"),
])
def test_what_is_not_there_is_named(hub, machine, token, files, says):
    if files is not None:
        hub.add("o/r", files=files)
    environment = {"HF_TOKEN": token} if token else {}
    said = machine.refused("config.json", **environment)
    assert says in said and "config.json" in said and "o/r" in said


@pytest.mark.parametrize(("repo_type", "advice"), [("dataset", "--data-root"), ("model", "HF_HOME")])
def test_a_server_that_does_not_answer_is_said_at_once(hub, machine, repo_type, advice):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.monotonic()
    said = machine.refused("f", repo_type=repo_type, HF_ENDPOINT=f"http://127.0.0.1:{port}")
    assert f"http://127.0.0.1:{port}" in said and advice in said
    assert time.monotonic() - started < 10


def _can_mount():
    return shutil.which("unshare") and subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True).returncode == 0


@pytest.mark.skipif(not _can_mount(), reason="no mount in a namespace of its own here")
@pytest.mark.parametrize(("options", "says"), [("size=256k", "no space left while writing"),
                                               ("size=256k,ro", "Read-only file system")])
def test_a_full_or_read_only_cache_is_named_and_nothing_is_recorded(hub, machine, options, says):
    hub.add("o/r", large={"w.bin": BIG})
    machine.home.mkdir()
    fetch = shlex.join(machine.command("w.bin"))
    inside = (f"mount -t tmpfs -o {options} tmpfs {machine.home} && {{ {fetch}; code=$?; "
              f"find {machine.home} -type f -size +0 -path '*blobs*'; exit $code; }}")
    done = machine.run(["unshare", "-rm", "sh", "-c", inside])
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert says in done.stderr and "HF_HOME" in done.stderr and str(machine.home) in done.stderr
    assert done.stdout == ""  # no part of the file is left
    assert machine.entry() is None


@pytest.mark.parametrize(("says", "error", "match"), [
    ("Data processing error: I/O error: No space left on device (os error 28)", StorageError, "no space left.*HF_HOME"),
    ("CAS service error: connection reset by peer", PrerequisiteError, "cannot fetch w.bin .*CAS service error")])
def test_what_the_storage_library_says_is_told_like_the_rest(tmp_path, monkeypatch, says, error, match):
    client = FakeHub(tmp_path / "cache", monkeypatch)
    client.download.side_effect = RuntimeError(says)
    lock = tmp_path / "lock.json"
    lock.write_text('{"files": {}, "hub": {}}')
    with pytest.raises(error, match=match):
        fetch("o/r", "w.bin", repo_type="model", lock=lock)


def test_a_killed_fetch_leaves_nothing_that_is_read_and_is_repeated(hub, machine):
    hub.add("o/r", large={"w.bin": BIG, "v.bin": BIG[::-1]})
    assert machine.fetch("v.bin").returncode == 0
    hub.cuts = [("stall", 300_000)]
    running = subprocess.Popen(machine.command("v.bin", "w.bin"), env=machine.environment, stdout=subprocess.DEVNULL)
    blobs = machine.home / "hub" / "models--o--r" / "blobs"
    deadline = time.monotonic() + 30
    while not list(blobs.glob("*.incomplete")):
        assert time.monotonic() < deadline and running.poll() is None
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    hub.going.set()
    assert not list(machine.home.rglob("w.bin")) and "w.bin" not in machine.entry()["files"]
    (part,) = blobs.glob("*.incomplete")
    before = len(hub.seen)
    done = machine.fetch("v.bin", "w.bin")
    assert done.returncode == 0 and Path(done.stdout.splitlines()[1]).read_bytes() == BIG
    assert not any("v.bin" in one.path for one in hub.seen[before:])  # what was finished is not fetched again
    assert part.exists()  # another download might still write it
    os.utime(part, (time.time() - 7200,) * 2)
    hub.repositories["models", "o/r"].files["u"] = b""
    assert machine.fetch("u").returncode == 0 and not part.exists()


def test_a_model_comes_whole_from_the_hub(hub, machine, tmp_path):
    source = published("qwen3-4b", tmp_path / "up")
    files = {path.name: path.read_bytes() for path in source.iterdir()}
    shards = {name: content for name, content in files.items() if "-of-" in name}
    small = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json")
    assert len(shards) > 1
    hub.add("o/r", large=shards, files={name: files[name] for name in small})
    script = ("import sys, json\nfrom dataclasses import replace\nfrom pathlib import Path\n"
              "from replication.actions.published import from_hub\nfrom replication.models import model_named\n"
              "told, model = [], replace(model_named('qwen3-4b'), source='hub:o/r')\n"
              "print(json.dumps(from_hub(model, 'x', Path(sys.argv[2]), Path(sys.argv[1]), "
              "on_progress=told.append)))\n"
              "print(told)")
    done = machine.run([sys.executable, "-c", script, str(machine.lock), str(tmp_path / "out")])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[0])["revision"] == COMMIT
    told = json.loads(done.stdout.splitlines()[1])
    assert told == sorted(told) and told[-1] == 1.0 and len(told) >= len(shards)
    ours = load_file(tmp_path / "out" / "model.safetensors")
    theirs = {name: weight for shard in shards for name, weight in load_file(source / shard).items()}
    assert set(ours) == set(theirs) and all(ours[name].equal(theirs[name]) for name in ours)
    assert machine.entry()["files"] == {name: sha256(files[name]) for name in (*small, *shards)}


def test_one_refusal_does_not_stop_the_other_benchmarks_but_a_dead_server_does(hub, machine):
    rows = [json.dumps({"question": f"q{n}", "answer": str(n)}) for n in range(30)]
    entry = BENCHMARKS["aime2025"]
    hub.add(entry.hub_repo, "dataset", files=dict(zip(entry.hub_files, ("\n".join(rows[:15]).encode(),
                                                                        "\n".join(rows[15:]).encode()), strict=True)))
    command = [sys.executable, "-m", "evaluation", "fetch", "--lock", str(machine.lock)]
    done = machine.run(command)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"{entry.title:<10} 30 problems" in done.stdout
    assert done.stderr.count("there is no such repository") >= 5
    assert "MAWPS      has no known hub copy" in done.stdout
    hub.close()
    machine.lock.write_text('{"files": {}, "hub": {}}')
    done = machine.run(command)
    assert done.returncode == 2 and done.stderr.count("FAILED") == 1


def test_a_step_fetches_its_own_commit_whatever_the_lock_file_of_the_machine_holds(tmp_path, monkeypatch):
    """As on a second node, whose checkout is as it was shipped, or cannot be written."""
    client, lock, meant = FakeHub(tmp_path / "cache", monkeypatch), tmp_path / "lock.json", "c" * 40
    client.files["a"] = b"1"
    lock.write_text('{"files": {}, "hub": {}}')
    assert client.commit != meant  # the newest
    with monkeypatch.context() as patched:
        refuse = mock.Mock(side_effect=StorageError("read-only"))
        patched.setattr("foundation.hub.record_hub_file", refuse)
        path = fetch("o/r", "a", repo_type="model", lock=lock, revision=meant)
    assert meant in path.parts and refuse.call_args.kwargs["revision"] == meant
    fetch("o/r", "a", repo_type="model", lock=lock, revision=meant)
    assert json.loads(lock.read_text())["hub"]["o/r"]["revision"] == meant
    with pytest.raises(InputError, match=f"records commit {meant} of o/r, the step is of commit {COMMIT}"):
        fetch("o/r", "a", repo_type="model", lock=lock, revision=COMMIT)
    entry = BENCHMARKS["math500"]
    client.files[entry.hub_files[0]] = b"{}"
    (path,) = fetch_files(entry, lock, revision="d" * 40)
    assert "d" * 40 in path.parts
