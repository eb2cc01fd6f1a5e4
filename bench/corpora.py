"""The math filter on generated records of the AM corpus' format: counts, time and memory (`make bench-corpora`).

Generates `--records` records (default 100,000) with known fates, filters them with `--workers` processes (default 2),
checks every count, and prints the highest memory of all processes together (proportional set size, sampled every 0.1
s). The baseline is math-verify alone, one record at a time, in one process, as the paper's code does it; it is measured
on the first `--baseline` records (default 1,000) and SCALED to all: the line says so.

The mix of answers is ours: three in five are integers, the rest fractions, decimals, expressions, intervals and units,
and about ten thousand different ones. On a machine with other work the wall seconds mean little, so the processor
seconds are printed beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foundation.errors import SuiteError
from foundation.seeds import stream
from replication.corpora import math_rules
from replication.corpora.batches import NO_TEXT
from replication.data.pool import MALFORMED

MEMORY_TARGET_MIB, SPEED_TARGET = 2048, 5.0
_SENTENCES = (
    "Okay, let me work through this step by step.", "So \\(a_{%d} = %d\\) follows from the recurrence.",
    "Wait, maybe I should check the case \\(n = %d\\), where the sum is %d.", "Hmm, that does not look right.",
    "By the binomial theorem, \\[\\binom{%d}{2} = \\frac{%d}{2}\\] which is what we need.",
    "Let me verify [this] with $x = %d$ and $y = %d$.", "Therefore the expression {%d, %d} is consistent.")
_SHAPES = ("\\boxed{%s}", "\\(\\boxed{%s}\\)", "\\[\n\\boxed{%s}\n\\]", "$\\boxed{%s}$", "$$\n\\boxed{%s}\n$$",
           "**Final Answer:** \\(\\boxed{%s}\\).", "The result is \\[ x = \\boxed{%s} \\]")


def generate(count: int, seed: int = 0) -> Iterator[tuple[str, str | None]]:
    """Yield lines of the corpus, each with the reason it is to be dropped for, None if it is to be kept."""
    draw = stream("bench-corpora", seed)
    for number in range(count):
        fate = draw.random()
        if fate < 0.002:
            yield '{"messages": [{"role": "user", "conte', MALFORMED
            continue
        gold, same, other = _answer(draw, number)
        reason, answer, reference = None, same, gold
        if fate < 0.10:
            reason, answer = math_rules.DIFFERS, other
        elif fate < 0.20:
            reason, reference = math_rules.NO_REFERENCE, None
        elif fate < 0.23:
            reason, reference = math_rules.UNPARSED_REFERENCE, "See the explanation above"
        reply = f"<think>{_reasoning(draw, answer)}\n</think>\n<answer>\n{_solution(draw, answer)}\n</answer>"
        if 0.23 <= fate < 0.27:
            reason, reply = math_rules.FORMAT, reply.replace("\\boxed", "\\mathbf")
        elif 0.27 <= fate < 0.275:
            reason, reply = NO_TEXT, " "
        yield json.dumps(record(f"Problem {number}: find x.", reply, reference), ensure_ascii=False), reason


def record(question: str, reply: str, reference: str | None, *, source: str = "OpenR1",
           tests: Any = None) -> dict[str, Any]:
    """Return one record of the corpus' form."""
    about = {"source": source, "reference_answer": reference, "test_case": tests, "think_content": None,
             "answer_content": None}
    said = {"source": source, "reference_answer": None, "test_case": None,
            "think_content": reply.partition("<think>")[2].partition("</think>")[0],
            "answer_content": reply.partition("<answer>")[2].partition("</answer>")[0]}
    return {"messages": [{"role": "user", "content": question, "info": about},
                         {"role": "assistant", "content": reply, "info": said}]}


def _answer(draw: Any, number: int) -> tuple[str, str, str]:
    """Return a reference, an answer that equals it, and one that does not."""
    a, b = (int(value) for value in draw.integers(2, 60, size=2))
    kind = draw.random()
    if kind < 0.6:
        value = int(draw.integers(-200, 5000))
        return str(value), str(value), str(value + 1)
    if kind < 0.75:
        return f"$\\frac{{{a}}}{{{b}}}$", f"\\frac{{{a}}}{{{b}}}", f"\\frac{{{a + 1}}}{{{b}}}"
    if kind < 0.82:
        return f"{a}.{b}", f"{a}.{b}", f"{a + 1}.{b}"
    if kind < 0.90:
        return f"$x^2+{a}x$", f"{a}x + x^2", f"x^2+{a}x+1"
    if kind < 0.95:
        return f"${a}\\sqrt{{{b}}}$", f"{a} \\sqrt{{{b}}}", f"{a + 1}\\sqrt{{{b}}}"
    return f"$({a}, {a + b}]$", f"({a}, {a + b}]", f"({a}, {a + b + 1}]"


def _reasoning(draw: Any, answer: str) -> str:
    lines = []
    for pick in draw.integers(0, len(_SENTENCES), size=int(draw.integers(20, 120))):
        sentence = _SENTENCES[pick]
        lines.append(sentence % tuple(draw.integers(1, 900, size=2)) if "%d" in sentence else sentence)
    closing = f"\n\n**Final Answer**\n\\boxed{{{answer}}}\n" if draw.random() < 0.6 else ""
    return "\n".join(lines) + closing


def _solution(draw: Any, answer: str) -> str:
    steps = "To solve this, we use the identity and simplify:\n\n1. \\(u = v + 1\\)\n2. \\[ u^2 = 4 \\]\n\n"
    return steps + _SHAPES[int(draw.integers(len(_SHAPES)))] % answer


def write(path: Path, count: int, seed: int = 0) -> Counter[str]:
    """Write a corpus; return how many records are to be dropped for each reason ("kept" for those that are not)."""
    fates: Counter[str] = Counter()
    with path.open("w", encoding="utf-8") as file:
        for line, reason in generate(count, seed):
            file.write(line + "\n")
            fates[reason or "kept"] += 1
    return fates


def baseline_seconds(path: Path, count: int) -> tuple[float, float]:
    """Return the wall and processor seconds that math-verify alone takes for so many records, one at a time."""
    from foundation.records import Malformed
    from replication.data.am_corpus import read_am_corpus

    rules = math_rules.MathRules(fast=False)
    for record_read in read_am_corpus(path):  # imports, caches of regular expressions
        if not isinstance(record_read, Malformed) and rules.reason(record_read) is None:
            break
    started, busy = time.perf_counter(), time.process_time()
    for _, item in zip(range(count), read_am_corpus(path), strict=False):
        if not isinstance(item, Malformed):
            rules.reason(item)
    return time.perf_counter() - started, time.process_time() - busy


class Memory(threading.Thread):
    """Samples the memory of this process and its descendants."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.highest_mib = 0.0
        self.ended = threading.Event()

    def run(self) -> None:
        """Sample until `ended` is set."""
        while not self.ended.wait(0.1):
            self.highest_mib = max(self.highest_mib, sum(map(_pss_kib, _family(os.getpid()))) / 1024)


def _family(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [member for child in task.read_text().split() for member in _family(int(child))]
        except OSError:
            continue
    return found


def _pss_kib(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except (OSError, IndexError):
        pass
    return 0


def _processor_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.corpora", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--baseline", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            return measure(Path(folder), options)
        except SuiteError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code


def measure(folder: Path, options: argparse.Namespace) -> int:
    from replication.corpora.building import Corpus, build

    source = folder / "am_generated.jsonl"
    fates = write(source, options.records)
    print(f"generated {options.records:,} records, {source.stat().st_size / 2**20:,.0f} MiB", flush=True)
    memory = Memory()
    memory.start()
    started, busy = time.perf_counter(), _processor_seconds()
    report = build(Corpus(kind="math", sources=(source,)), folder / "out", workers=options.workers)
    seconds, busy = time.perf_counter() - started, _processor_seconds() - busy
    memory.ended.set()
    found = Counter(report["pool"]["dropped"]) + Counter(kept=report["pool"]["kept"])
    sample = min(options.baseline, options.records)
    alone, alone_busy = baseline_seconds(source, sample)
    scaled = alone * options.records / sample
    for name in sorted({*found, *fates}):
        print(f"  {name:<55}{found[name]:>9,} expected {fates[name]:>9,}")
    print(f"filter, {options.workers} workers: {seconds:.1f} s ({busy:.0f} processor seconds); "
          f"highest memory {memory.highest_mib:.0f} MiB (aim <= {MEMORY_TARGET_MIB})")
    print(f"math-verify alone, one at a time: {alone:.2f} s ({alone_busy:.2f} processor seconds) for {sample:,} "
          f"records, scaled to {options.records:,}: {scaled:.0f} s; {scaled / seconds:.1f} times the filter's "
          f"(aim >= {SPEED_TARGET:g})")
    ideal = alone_busy * options.records / sample / (busy / options.workers)
    print(f"by processor seconds, as on an idle machine: {ideal:.1f} times")
    right = found == fates
    print("counts as expected" if right else "COUNTS DIFFER")
    return 0 if right and memory.highest_mib <= MEMORY_TARGET_MIB and scaled >= SPEED_TARGET * seconds else 1


if __name__ == "__main__":
    sys.exit(main())
