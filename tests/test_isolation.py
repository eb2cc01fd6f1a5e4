"""Properties that every kind of isolation must have; each kind that works on this machine is held to all of them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from evaluation.isolation import Isolation, Limits, Pool, Sandbox, cgroups, find_isolation, kinds
from evaluation.isolation.view import ENVIRONMENT, START_FOLDER, interpreter_view
from foundation.errors import InputError, PrerequisiteError

SMALL = Limits(memory_mib=256, processes=16, cpu_seconds=3, file_mib=8, scratch_mib=16, output_bytes=1 << 20)


@pytest.fixture(params=["bubblewrap", "namespaces"])
def isolation(request: pytest.FixtureRequest) -> Isolation:
    found = kinds.probe(request.param)
    if isinstance(found, str):
        pytest.skip(f"{request.param}: {found}")
    return found


def start(isolation: Isolation, text: str, limits: Limits = SMALL) -> Sandbox:
    sandbox = Sandbox(isolation, interpreter_view(str(START_FOLDER)), limits).ready()
    sandbox.send(json.dumps(text).encode())
    return sandbox


def run(isolation: Isolation, text: str, limits: Limits = SMALL, seconds: float = 20) -> object:
    with start(isolation, text, limits) as sandbox:
        line = sandbox.receive(time.monotonic() + seconds)
        return None if line is None else json.loads(line)


def alive(marker: str) -> list[int]:
    """Processes whose command line or environment shows the marker, or that hold it as their name."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name = (entry / "comm").read_text().strip()
            except OSError:
                continue
            found += [int(entry.name)] if name == marker else []
    return found


def test_no_file_of_the_machine_can_be_read(isolation: Isolation, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    paths = [str(secret), str(Path(__file__)), "/etc/passwd", "/proc/1/root" + str(secret), "/etc/hostname"]
    code = f"import os\nreport([p for p in {paths!r} if os.path.exists(p)])"
    assert run(isolation, code) == []


def test_only_the_scratch_folder_can_be_written(isolation: Isolation) -> None:
    code = """
import os
done = []
for path in ("/x", "/start/x", "/harness/x", "/usr/lib/x", "/dev/x", "/proc/sys/kernel/core_pattern",
             "/proc/sysrq-trigger", "/proc/self/oom_score_adj", "/etc/x", "/tmp/x"):
    try:
        with open(path, "w") as file:
            file.write("1000" if "oom" in path else "h")
        done.append(path)
    except OSError:
        pass
report(done)
"""
    assert run(isolation, code) == ["/tmp/x"]


def test_no_variable_of_ours_is_inherited(isolation: Isolation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WMSS_SECRET", "token")
    code = "import os\nreport([dict(os.environ), open('/proc/1/environ').read(), open('/proc/1/cmdline').read()])"
    seen = run(isolation, code)
    assert isinstance(seen, list)
    assert set(seen[0]) <= {*ENVIRONMENT, "PWD", "LC_CTYPE"}
    assert "token" not in json.dumps(seen)


def test_there_is_no_network(isolation: Isolation) -> None:
    code = """
import socket
found = [name for _, name in socket.if_nameindex() if name.startswith(("eth", "en", "wl", "docker", "veth"))]
for target in (("1.1.1.1", 53), ("127.0.0.1", 22)):
    with socket.socket() as one:
        one.settimeout(1)
        found += [target] if one.connect_ex(target) == 0 else []
report(found)
"""
    assert run(isolation, code) == []


def test_no_privilege_is_left_and_none_can_be_gained(isolation: Isolation) -> None:
    code = """
import ctypes
libc = ctypes.CDLL(None)
with open("/proc/self/status") as file:
    status = dict(line.split(":", 1) for line in file)
report({"caps": [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
        "no_new": status["NoNewPrivs"].strip(), "filter": status["Seccomp"].strip(),
        "calls": [libc.unshare(0x10000000), libc.unshare(0x20000), libc.mount(b"none", b"/tmp", b"tmpfs", 0, None),
                  libc.ptrace(16, 1, 0, 0), libc.chroot(b"/tmp")]})
"""
    seen = run(isolation, code)
    assert isinstance(seen, dict)
    assert seen["caps"] == [0] * 5 and seen["no_new"] == "1" and seen["calls"] == [-1] * 5
    assert seen["filter"] == ("2" if "seccomp" not in isolation.missing else "0")


def test_only_its_own_processes_exist_for_it(isolation: Isolation) -> None:
    seen = run(isolation, "import os\nreport([p for p in os.listdir('/proc') if p.isdigit()])")
    assert isinstance(seen, list)
    assert len(seen) <= 3


def test_signals_reach_nobody_else_and_not_the_first_process(isolation: Isolation) -> None:
    code = """
import os, signal
outcome = []
for pid in (1, -1, os.getppid()):
    try:
        os.kill(pid, signal.SIGKILL)
        outcome.append(pid == 1 or os.path.exists("/proc/1"))
    except OSError:
        outcome.append(True)
report(outcome)
"""
    assert run(isolation, code) == [True, True, True]


def test_memory_of_one_process_is_bounded(isolation: Isolation) -> None:
    code = "try:\n    x = bytearray(400 << 20)\n    report('had it')\nexcept MemoryError:\n    report('refused')"
    assert run(isolation, code) == "refused"


def test_memory_of_the_whole_tree_is_bounded(isolation: Isolation) -> None:
    code = """
import os, time
for _ in range(6):
    if os.fork() == 0:
        x = bytearray(b"x") * (120 << 20)
        time.sleep(60)
        os._exit(0)
os.wait()
report("one ended")
time.sleep(60)
"""
    with start(isolation, code) as sandbox:
        line = sandbox.receive(time.monotonic() + 30)
        sandbox.kill()
        assert sandbox.excess == "memory"
        assert line in (None, b'"one ended"')


def test_the_tree_is_watched_where_there_are_no_control_groups(isolation: Isolation,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.isolation.sandbox.make_group", lambda limits: None)
    code = """
import os, time
for _ in range(6):
    if os.fork() == 0:
        x = bytearray(b"x") * (120 << 20)
        time.sleep(60)
time.sleep(60)
"""
    with start(isolation, code) as sandbox:
        assert sandbox.receive(time.monotonic() + 30) is None
        assert sandbox.excess == "memory"


def test_processes_are_bounded(isolation: Isolation) -> None:
    code = """
import os, time
made = 0
try:
    while made < 200:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        made += 1
except OSError:
    pass
report(made)
time.sleep(60)
"""
    with start(isolation, code) as sandbox:
        line = sandbox.receive(time.monotonic() + 20)
        assert sandbox.excess == "processes" or (line is not None and json.loads(line) <= SMALL.processes)


def test_processor_time_of_the_tree_is_bounded(isolation: Isolation) -> None:
    code = "import os\nos.fork()\nwhile True:\n    pass"
    with start(isolation, code, Limits(cpu_seconds=1)) as sandbox:
        started = time.monotonic()
        assert sandbox.receive(started + 30) is None
        assert sandbox.ended and time.monotonic() - started < 15


def test_files_and_scratch_are_bounded(isolation: Isolation) -> None:
    code = """
sizes = []
for number in range(4):
    size = 0
    try:
        with open(f"/tmp/{number}", "wb", buffering=0) as file:
            while size < 64 << 20:
                size += file.write(b"x" * (1 << 20))
    except OSError:
        pass
    sizes.append(size >> 20)
report(sizes)
"""
    sizes = run(isolation, code)
    assert isinstance(sizes, list)
    assert max(sizes) <= SMALL.file_mib and sum(sizes) <= SMALL.scratch_mib


def test_output_is_bounded(isolation: Isolation) -> None:
    with start(isolation, "import os\nwhile True:\n    os.write(1, b'x' * 65536)") as sandbox:
        assert sandbox.receive(time.monotonic() + 20) is None
        assert sandbox.excess == "output"


def test_nothing_is_kept_from_one_to_the_next(isolation: Isolation) -> None:
    assert run(isolation, "open('/tmp/left', 'w').write('x')\nreport(1)") == 1
    assert run(isolation, "import os\nreport(os.listdir('/tmp'))") == []


def test_killing_is_prompt_and_leaves_nobody(isolation: Isolation) -> None:
    code = """
import ctypes, os, signal, time
ctypes.CDLL(None).prctl(15, b"wmss-left")
for number in range(1, 32):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        os.fork()
        time.sleep(1000)
report(1)
while True:
    pass
"""
    with start(isolation, code) as sandbox:
        assert sandbox.receive(time.monotonic() + 20) == b"1"
        assert alive("wmss-left")
        started = time.monotonic()
        sandbox.kill()
        assert time.monotonic() - started < 5
    assert alive("wmss-left") == []


def test_the_end_of_the_program_is_the_end_of_its_children(isolation: Isolation) -> None:
    code = """
import ctypes, os, time
ctypes.CDLL(None).prctl(15, b"wmss-orphan")
if os.fork() == 0:
    os.setsid()
    time.sleep(1000)
os._exit(3)
"""
    with start(isolation, code) as sandbox:
        assert sandbox.receive(time.monotonic() + 20) is None
        assert sandbox.ended
        assert sandbox.kill() == 3
    # the kernel ends what is left of a process namespace with its first process, but need not have finished by now
    deadline = time.monotonic() + 5
    while alive("wmss-orphan") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert alive("wmss-orphan") == []


def test_it_dies_with_its_owner(isolation: Isolation) -> None:
    reading, writing = os.pipe()
    owner = os.fork()
    if owner == 0:
        start(isolation, "import ctypes, time\nctypes.CDLL(None).prctl(15, b'wmss-owned')\nreport(1)\ntime.sleep(1000)"
              ).receive(time.monotonic() + 20)
        os.write(writing, b"x")
        os._exit(0)
    assert os.read(reading, 1) == b"x"
    os.waitpid(owner, 0)
    os.close(reading)
    os.close(writing)
    deadline = time.monotonic() + 10
    while alive("wmss-owned") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive("wmss-owned") == []


def test_groups_are_removed(isolation: Isolation) -> None:
    if cgroups._parents() is None:
        pytest.skip("no control groups can be made here")
    run(isolation, "report(1)")
    cgroups._remove_last()
    left = [path for parent in set((cgroups._parents() or {}).values())
            for path in parent.glob(f"graded-{os.getpid()}-*")]
    assert left == []


def test_a_pool_hands_out_fresh_processes(isolation: Isolation) -> None:
    with Pool(isolation, interpreter_view(str(START_FOLDER)), SMALL, harness="execute") as pool:
        for number in range(3):
            with pool.take() as sandbox:
                text = f"open('/tmp/{number}', 'x')\nimport os\nreport(len(os.listdir('/tmp')))"
                sandbox.send(json.dumps(text).encode())
                assert sandbox.receive(time.monotonic() + 20) == b"1"


def test_without_any_kind_it_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(kinds, "probe", lambda name: "not installed")
    with pytest.raises(PrerequisiteError, match="--unsafe-code-execution"):
        find_isolation()
    unsafe = find_isolation(unsafe=True)
    assert not unsafe.safe and "WITHOUT ISOLATION" in capsys.readouterr().err
    with pytest.raises(InputError, match="choose one of"):
        find_isolation("docker")


def test_a_kind_that_does_not_protect_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "_EXPECTED", kinds._EXPECTED | {"scratch": False})
    found = [kinds.probe.__wrapped__(name) for name in ("bubblewrap", "namespaces")]
    assert all(isinstance(reason, str) for reason in found)
