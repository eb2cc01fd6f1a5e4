r"""The plain endings of an integer answer, found without the general rules: a box, an answer block, `#### 42`.

Each function gives what `extraction.extract` gives, or None where anything else in the text could matter. Most answers
of the integer benchmarks end here.
"""

from __future__ import annotations

import re

from evaluation.graders.extraction import MAX_TEXT, Extraction

_BOX = "\\boxed{"
_TAG = re.compile(r"</?(?:think|thinking|thought|reasoning|answer)>", re.IGNORECASE)
_OPEN, _CLOSE = "<answer>", "</answer>"


def plain_integer(text: str, *, truncated: bool) -> Extraction | None:
    """Return the final answer of a text that ends plainly in an integer, and the rule that would find it."""
    if len(text) > MAX_TEXT:
        return None
    if "<" in text:
        if text.rstrip().endswith(_CLOSE):
            return _in_block(text)
        outside = _after_thinking(text)
        if outside is None:
            return None
        text = outside
    inner = _only_box(text)
    if inner is not None:
        return Extraction(inner, "box")
    return None if truncated else _after_hashes(text)


def _after_thinking(text: str) -> str | None:
    """Return what follows a thinking block with which the text begins, all of a text without tags, else None."""
    tags = list(_TAG.finditer(text))
    if not tags:
        return text
    last = tags[-1]
    opened = len(tags) == 2 and tags[0][0].lower() == "<think>" and not text[:tags[0].start()].strip(" \t\n")
    return text[last.end():] if last[0].lower() == "</think>" and (opened or len(tags) == 1) else None


def _digits(text: str) -> bool:
    digits = text[1:] if text[:1] == "-" else text
    return 0 < len(digits) <= 18 and digits.isascii() and digits.isdigit()


def _only_box(text: str) -> str | None:
    start = text.find(_BOX)
    end = text.find("}", start)
    if start < 0 or end < 0 or text.count("\\boxed") != 1 or "\\fbox" in text:
        return None
    inner = text[start + len(_BOX):end]
    return inner if _digits(inner) else None


def _in_block(text: str) -> Extraction | None:
    """Read a closed last answer block: a number, or one box with a number and nothing else."""
    start = text.rfind(_OPEN)
    if start < 0:
        return None
    block = text[start + len(_OPEN):text.rstrip().rfind(_CLOSE)].strip()
    if _digits(block):
        return Extraction(block, "answer_tag")
    if block.startswith(_BOX) and block.endswith("}") and _digits(block[7:-1]):
        return Extraction(block[7:-1], "answer_tag+box")
    return None


def _after_hashes(text: str) -> Extraction | None:
    start = text.rfind("####")
    if start < 0 or "boxed" in text or "fbox" in text or text[text.rfind("\n", 0, start) + 1:start].strip(" \t"):
        return None
    content = text[start + 4:].rstrip().lstrip(" \t")
    return Extraction(content, "hashes") if _digits(content) else None
