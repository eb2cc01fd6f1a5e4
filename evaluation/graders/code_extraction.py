"""The program in a model's text: the first code block after the reasoning, in the answer block where there is one.

A few passes over the lines and no parser: linear in the text whatever is in it, so that it needs no process of its
own. What comes out is text of unknown worth; only the code grader looks at it as a program.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from evaluation.graders.extraction import answer_block

_PYTHON = frozenset({"", "python", "python3", "py", "py3"})
_STARTS = ("def ", "class ", "import ", "from ", "@", "async def ")


Form = Literal["text", "solution", "completion"]
"""What a sample's text is: a model's answer, a whole program, or the continuation of a prompt that is one."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program and the rule that found it.

    block, open_block (cut off before its end), whole_text, answer_tag (the answer block holds nothing else), or as_is
    (a sample that is a program by its form).
    """

    code: str
    rule: str

    @property
    def complete(self) -> bool:
        """Whether the text shows where the program ends."""
        return self.rule in ("block", "answer_tag", "as_is")


def extract_program(text: str, entry_point: str | None = None) -> Program | None:
    """Return the program in a text, or None.

    The last closed reasoning block and all before it are dropped; a reasoning block that is never closed holds no
    answer. Where there is an `<answer>` block, the last one is looked at first, then the whole text. Among the Python
    code blocks the first that defines the entry point is taken, else the first, and only then a block of another
    label. Without any code block a closed answer block counts as it is, other text if it begins like a program.
    """
    answer = text.rpartition("</think>")[2]
    if "<think>" in answer:
        answer = answer.partition("<think>")[0]
    tagged = answer_block(answer)
    if tagged is not None:
        content, closed = tagged
        found = _in_blocks(content, entry_point)
        if found is None and closed and "```" not in content:
            return Program(content, "answer_tag")
        found = found or _bare(content, entry_point)
        if found is not None:
            return found
    return _in_blocks(answer, entry_point) or _bare(answer, entry_point)


def _in_blocks(text: str, entry_point: str | None) -> Program | None:
    blocks = [block for block in _blocks(text) if block[1].strip()]
    chosen = [block for block in blocks if block[0] in _PYTHON] or blocks
    if not chosen:
        return None
    found = next((block for block in chosen if entry_point and defines(block[1], entry_point)), chosen[0])
    return Program(found[1], "block" if found[2] else "open_block")


def _bare(text: str, entry_point: str | None) -> Program | None:
    lines = text.strip("\n")
    if lines.lstrip().startswith(_STARTS) or (entry_point and defines(lines, entry_point)):
        return Program(lines, "whole_text")
    return None


def program_of(form: Form, text: str, prompt: str = "", entry_point: str | None = None) -> Program | None:
    """Return the program that a sample of a form stands for, or None where its text holds none."""
    if form == "text":
        return extract_program(text, entry_point)
    code = complete_program(prompt, text, entry_point) if form == "completion" and entry_point else text
    return Program(code, "as_is") if text.strip() else None


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
