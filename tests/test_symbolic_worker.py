import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from evaluation.graders.worker import SymbolicWorker

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def worker():
    with SymbolicWorker() as one:
        yield one


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def gone_within(pid, seconds=5.0):
    end = time.monotonic() + seconds
    while alive(pid):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_it_starts_only_when_asked():
    with SymbolicWorker() as idle:
        assert not idle.started


@pytest.mark.parametrize(("gold", "answer", "status"), [
    (r"\sqrt{3+2\sqrt{2}}", r"1+\sqrt{2}", "equal"), (r"\sqrt{2}", r"\sqrt{2}+10^{-60}", "different"),
    ("x", r"\sqrt{x^{2}}", "different"), (r"\cot x", r"\frac{\cos x}{\sin x}", "equal"), ("i^2", "-1", "equal"),
    ("x+1", "X+1", "different"), (r"\frac{", "1", "unparsed_gold"), ("1", r"\frac{", "unparsed_answer"),
    ("0.1+0.2", "0.3", "equal"), ("EQ y = 2x", "EQ 4x-2y = 0", "equal"), ("EQ y = 2x", "EQ y = 3x", "different"),
    ("f(x)", "f(x)", "equal"), ("f(x)", "f(y)", "different"),
])
def test_comparison(worker, gold, answer, status):
    assert worker.compare(gold, answer).status == status


HOSTILE = ["9^{9^{9^{9}}}", "(10000!)!", "99999999!", r"\binom{10^{9}}{10^{8}}", "((10^{9999})^{9999})^{9999}",
           "(" * 60 + "x" + ")" * 60, "9" * 4000, r"\sin(10^{10^{8}})", "x^{y^{z^{x^{y^{z}}}}}",
           r"\sqrt{" * 64 + "2" + "}" * 64,
           r"\frac{1}{" * 50 + "x" + "}" * 50, "+".join(f"x_{{{i}}}^{{{i}}}" for i in range(150))]


@pytest.mark.parametrize("answer", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_expression_costs_little_and_the_next_is_answered(worker, answer):
    worker.parse("1")
    worker.limit_seconds = 0.15
    started = time.process_time(), time.monotonic()
    result = worker.compare(r"\sqrt{2}", answer)
    assert result.status != "equal"
    worker.limit_seconds = 0.4
    assert time.monotonic() - started[1] < 10  # 0.15 s and 0.3 s of processor time; the rest is other processes' load
    assert time.process_time() - started[0] < 0.5
    assert worker.compare(r"\sqrt{8}", r"2\sqrt{2}").status == "equal"


def test_a_late_answer_is_tried_twice_reported_and_not_remembered():
    with SymbolicWorker(limit_seconds=0.05) as one:
        result = one.compare("x", "(" * 60 + "x" + ")" * 60)
        assert (result.status, result.stage) == ("timeout", "answer")
        assert one.restarts == 2
        assert not one._known
        one.limit_seconds = 5.0
        assert one.compare("2", r"\sqrt{4}").status == "equal"


def test_the_memory_limit_holds():
    with SymbolicWorker(memory_limit_mib=96, limit_seconds=3.0) as one:
        assert one.compare("1", "2^{300000000}-3").status == "memory"
        assert one.compare("2", r"\sqrt{4}").status == "equal"


def test_a_killed_server_and_a_killed_process_are_replaced():
    with SymbolicWorker() as one:
        assert one.parse("x").status == "parsed"
        os.kill(one._server, signal.SIGKILL)
        assert one.compare("2", r"\sqrt{4}").status == "equal"
        one._process.kill()
        one._process.wait()
        assert one.compare("3", r"\sqrt{9}").status == "equal"


def test_it_works_from_a_thread_and_leaves_no_process_behind():
    found = []

    def run():
        with SymbolicWorker() as one:
            found.append(one.compare("2", r"\sqrt{4}").status)
            found.extend((one._process.pid, one._server))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found[0] == "equal"
    assert gone_within(found[1]) and gone_within(found[2])


@pytest.mark.skipif(sys.platform != "linux", reason="a process dies with its parent by a Linux call")
def test_it_dies_with_its_parent():
    program = ("from evaluation.graders.worker import SymbolicWorker\n"
               "w = SymbolicWorker(); w.parse('x')\n"
               "print(w._process.pid, w._server, flush=True)\n"
               "import time; time.sleep(60)\n")
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert all(alive(pid) for pid in pids)
    parent.kill()
    parent.wait()
    assert all(gone_within(pid) for pid in pids)
