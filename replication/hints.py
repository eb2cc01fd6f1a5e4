"""The text of SSB's hinted prompts (A-53): the problem, one right and one wrong attempt, and what is asked.

Only the math hint is public, in SSB's own repository; these are our words for the same content, with each domain's
answer convention. `{question}`, `{right}` and `{wrong}` are filled in.
"""

from __future__ import annotations

HINT_TEMPLATES: dict[str, str] = {
    "math": (
        "{question}\n\nA correct solution:\n{right}\n\nAn incorrect solution:\n{wrong}\n\nSolve the problem again, "
        "step by step, in your own words, and enclose the final answer in \\boxed{{}}."
    ),
    "code": (
        "{question}\n\nA correct program:\n{right}\n\nAn incorrect program:\n{wrong}\n\nSolve the task again, step "
        "by step, and give clean, correct Python code."
    ),
    "logic": (
        "{question}\n\nA correct solution:\n{right}\n\nAn incorrect solution:\n{wrong}\n\nSolve the problem again, "
        "step by step, in your own words, and end with the letter of the right option."
    ),
}
