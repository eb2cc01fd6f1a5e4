r"""Where math-verify would find the answer of a reply, told without its regular expressions where that is certain.

With boxes first and the first match only, math-verify takes the match that ends last: either from the first `\boxed{`
to the text's last `}`, of which it then reads the last box, or a formula between dollars or brackets that holds a box.
Its expressions walk over the whole reply; yet what lies before `<answer>` cannot matter where

- the answer block holds exactly one box, with its closing brace;
- no formula can reach over `<answer>`: formulas between `$...$`, `\(...\)` and `[...]` never cross a line end, one in
  `\[...\]` crosses no `\]`, one in `$$...$$` no `$$`;
- the last box before it is 70 characters away or more, so that the two are not read as one answer;
- no "%" or "percent" follows the box, and no "I hope" is in the block: they have a meaning of their own there.

Whichever match wins then, its one box is this one. In all other cases the answer is None: ask math-verify.
"""

from __future__ import annotations

_ANSWER = "<answer>"
_COMMAND = "\\boxed{"
_APART = 70
_PERCENT = ("%", "ercent", "pct", "Pct")


def lone_box(text: str) -> str | None:
    r"""Return the answer's box with its command (`\boxed{...}`), or None where only math-verify can tell."""
    cut = text.rfind(_ANSWER)
    if cut < 1 or text[cut - 1] != "\n":
        return None
    start = text.find(_COMMAND, cut)
    if start < 0 or text.count("\\boxed", cut) != 1 or text.find("\\fbox", cut) >= 0:
        return None
    end = _closing_brace(text, start + len(_COMMAND))
    if end is None or not text[start + len(_COMMAND):end].strip():
        return None
    if any(text.find(word, end) >= 0 for word in _PERCENT) or text.find("I hope", cut) >= 0:
        return None
    if not _separate(text, cut, start):
        return None
    return text[start:end + 1]


def _separate(text: str, cut: int, start: int) -> bool:
    opening = text.rfind("\\[", 0, cut)
    if opening >= 0 and text.rfind("\\]", 0, cut) < opening:
        return False
    if text.find("$$", start) >= 0 and text.find("$$", 0, cut) >= 0:
        return False
    before = max(text.rfind("\\boxed", 0, cut), text.rfind("\\fbox", 0, cut))
    if before < 0:
        return True
    if not text.startswith(_COMMAND, before):
        return False
    end = _closing_brace(text, before + len(_COMMAND))
    return end is not None and end < cut and start - end > _APART


def _closing_brace(text: str, begin: int) -> int | None:
    depth = 1
    for place in range(begin, len(text)):
        if text[place] == "{":
            depth += 1
        elif text[place] == "}":
            depth -= 1
            if depth == 0:
                return place
    return None
