"""The subcommands of `python -m evaluation`, one module each; a module is imported only when its command is used."""

from __future__ import annotations

COMMANDS: dict[str, tuple[str, str]] = {
    "list": ("evaluation.commands.list", "the benchmarks: source, count, answer type, token budget, known defects"),
    "fetch": ("evaluation.commands.fetch", "get the benchmarks from the hub and check them against the lock file"),
    "verify": ("evaluation.commands.verify", "load every benchmark of a data root and grade its own gold answers"),
    "grade-math": ("evaluation.commands.grade_math", "grade math and multiple-choice answers of any origin"),
    "grade-code": ("evaluation.commands.grade_code", "grade programs in isolation"),
    "grade-samples": ("evaluation.commands.grade_samples", "grade completions made by evalplus, lm-eval or this suite"),
    "regrade": ("evaluation.commands.regrade", "grade stored records again and show which verdicts moved"),
}
