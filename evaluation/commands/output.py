"""What the grading commands print: one JSON line per item on stdout, the account of all of them on stderr."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any

from evaluation.statistics import wilson

OUTCOMES = ("correct", "wrong", "no_answer", "grader_failure")


def print_line(identity: Any, outcome: str, reason: str, seconds: float, **more: Any) -> None:
    """Print one verdict. ASCII only, so that no lone surrogate of a model's text can stop the output."""
    row = {"id": identity, **more, "outcome": outcome, "correct": outcome == "correct", "reason": reason,
           "seconds": round(seconds, 6)}
    sys.stdout.write(json.dumps(row) + "\n")


def summary(counts: Counter[str]) -> str:
    """Return the account: every item is in the denominator, whatever became of it."""
    n, right = sum(counts.values()), counts["correct"]
    low, high = wilson(right, n)
    known = [*OUTCOMES, *sorted(set(counts) - set(OUTCOMES))]
    listed = ", ".join(f"{counts[name]} {name.replace('_', ' ')}" for name in known)
    return f"{n} items: {listed}; {100 * right / n:.1f} % correct (95 % Wilson {100 * low:.1f} to {100 * high:.1f})"
