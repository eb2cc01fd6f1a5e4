"""The program in a model's text: the first code block after the reasoning.

One pass over the lines, no regular expression and no parser: linear in the text whatever is in it, so that it needs no
process of its own. What comes out is text of unknown worth; only the code grader looks at it as a program.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_PYTHON = frozenset({"", "python", "python3", "py", "py3"})
_STARTS = ("def ", "class ", "import ", "from ", "@", "async def ")


@dataclass(frozen=True, slots=True)
class Program:
    """A program and the rule that found it: block, open_block (cut off before its end), or whole_text."""

    code: str
    rule: str


def extract_program(text: str, entry_point: str | None = None) -> Program | None:
    """Return the program in a text, or None.

    The last closed reasoning block and all before it are dropped; a reasoning block that is never closed holds no
    answer. Among the Python blocks the first that defines the entry point is taken, else the first, and only then a
    block of another label. Without any block the text counts if it begins like a program.
    """
    answer = text.rpartition("</think>")[2]
    if "<think>" in answer:
        answer = answer.partition("<think>")[0]
    blocks = list(_blocks(answer))
    python = [block for block in blocks if block[0] in _PYTHON] or blocks
    if python:
        chosen = next((block for block in python if entry_point and defines(block[1], entry_point)), python[0])
        return Program(chosen[1], "block" if chosen[2] else "open_block") if chosen[1].strip() else None
    lines = answer.strip("\n")
    if lines.lstrip().startswith(_STARTS) or (entry_point and defines(lines, entry_point)):
        return Program(lines, "whole_text")
    return None


def complete_program(prompt: str, completion: str, entry_point: str) -> str:
    """Return prompt and completion as one program; a completion that defines the function itself stands alone.

    The prompt's lines before the function (imports, helpers) are kept in front of it either way.
    """
    if not defines(completion, entry_point):
        return prompt + completion
    head = []
    for line in prompt.split("\n"):
        if line.startswith((f"def {entry_point}(", f"def {entry_point} (")):
            break
        head.append(line)
    else:
        return completion  # a task in words, as in MBPP+
    return "\n".join(head) + "\n" + completion


def defines(code: str, name: str) -> bool:
    """Whether some line of the code defines a function or class of that name."""
    heads = tuple(f"{word} {name}{after}" for word in ("def", "class", "async def") for after in ("(", ":", " ", "["))
    return any(line.lstrip().startswith(heads) for line in code.split("\n"))


def _blocks(text: str) -> Iterator[tuple[str, str, bool]]:
    """Yield label, content and whether it is closed, of each fenced block."""
    fence, label, indent, lines = "", "", 0, list[str]()
    for line in text.split("\n"):
        bare = line.strip()
        if not fence:
            if bare.startswith(("```", "~~~")):
                run = len(bare) - len(bare.lstrip(bare[0]))
                fence, indent = bare[0] * run, len(line) - len(line.lstrip())
                label, lines = bare[run:].strip().lower().partition(" ")[0].strip("{}."), []
        elif bare.startswith(fence) and not bare.strip(fence[0]):
            yield label, "\n".join(lines) + "\n", True
            fence = ""
        else:
            lines.append(line[min(indent, len(line) - len(line.lstrip())):])
    if fence:
        yield label, "\n".join(lines), False
