"""The text of SSB's hinted prompts (A-53): one right and one wrong attempt, then the problem.

Only the math hint is public, in SSB's own repository; these are our words for the same content, with each domain's
answer convention. The problem stands last, as it does in every other prompt. `{question}`, `{right}` and `{wrong}` are
filled in.
"""

from __future__ import annotations

HINT_TEMPLATES: dict[str, str] = {
    "math": (
        "A correct solution:\n{right}\n\nAn incorrect solution:\n{wrong}\n\nSolve the problem step by step, in your "
        "own words, and enclose the final answer in \\boxed{{}}.\n\n{question}"
    ),
    "code": (
        "A correct program:\n{right}\n\nAn incorrect program:\n{wrong}\n\nSolve the task step by step, in your own "
        "words, and give clean, correct Python code.\n\n{question}"
    ),
    "logic": (
        "A correct solution:\n{right}\n\nAn incorrect solution:\n{wrong}\n\nSolve the problem step by step, in your "
        "own words, and end with the letter of the right option.\n\n{question}"
    ),
}
