r"""Finds the final answer in a model's full text, and says by which rule.

Order of the rules: text outside thinking blocks; inside the last `<answer>` block when there is one; the last balanced
`\boxed`/`\fbox`; `#### x`; the last "answer is / answer:" phrase; the last display formula; a formula that is the whole
text or its end; the last number that is no part of a formula.
Every pattern is linear in the text: a model's output may be long and hostile.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_TEXT = 400_000  # characters looked at, from the end: where the final answer stands
MAX_PHRASES = 64  # "answer is" phrases looked at, from the end
MAX_STATEMENT = 1000  # characters of one such phrase

_THINK = re.compile(r"<(/?)(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_GAP = " " * 64
_LONG_GAP = re.compile(r"[ \t]{64,}")
_ANSWER_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s+([^\s{}$\\.,;]+)")
# Between two boxes that are one statement ("\boxed{14} or \boxed{15}") stands nothing but a joiner.
_JOINER = re.compile(
    r"(?:[\s$.,;:*&()\[\]\\!/-]|\\[a-zA-Z]+\s?\{\s?(?:or|and)\s?\}|\\(?:quad|qquad|text|boldsymbol)(?![a-zA-Z])"
    r"|\b(?:or|and|and/or|maybe|perhaps|possibly)\b)*", re.IGNORECASE)
_ALTERNATIVE = re.compile(r"\bor\b", re.IGNORECASE)
_HASHES = re.compile(r"^[ \t]*####[ \t]*([^#\n][^\n]*)$", re.MULTILINE)
_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}")
_PHRASE = re.compile(
    r"\banswers?\b(?:[ \t]+(?:to|for|of)\b[^.\n:]{0,80}?)?[ \t*_]*(?:\b(?:is|are)\b(?:[ \t]*:)?|=|:)[\s*_]*",
    re.IGNORECASE)
_NEGATION = re.compile(r"(?:not|never|n't|neither|wrong|incorrect)\b", re.IGNORECASE)
_CLAUSE = re.compile(r"[,;]?\s(?:because|since|which|where|so|not|rather than|as)\b.*$|\s\([^()]*[a-z]{3}[^()]*\)\s*$",
                     re.IGNORECASE)
_OPENED = re.compile(r"\\(?:boxed|fbox)\s*\{?")  # a box that never closes
_SENTENCE_END = re.compile(r"[.!?](?=\s|\*|$)|\n")
_NUMBER = re.compile(r"(?<![\w.])-?\$?\d[\d,]*(?:\.\d+)?(?:/\d[\d,]*)?|(?<![\w.])-?\$?\.\d+")
# One of several numbers on offer: "14 or 15", "1, 2, 3, 4".
_HEDGE = re.compile(r"(-?\$?\d[\d,.]*)\$?\s*(?:or|and/or|or maybe|or possibly|(?<=\d, )\d[\d.]*,)\s*(?:\\?\$)?$",
                    re.IGNORECASE)
_NOT = re.compile(r"\b(?:not|n't)\s*\$?$", re.IGNORECASE)
# Numbers that are an argument of a command (but for fonts), an exponent or an index.
_IN_FORMULA = re.compile(r"(?:[\^_]\s*\{?|\\(?!text|math|bold|emph|underline|boxed|fbox)[a-zA-Z]+\s*\{|\}\s*\{)\s*\$?$")
_INLINE = re.compile(r"(?<![\\$])\$([^$]{1,500})\$[\s.*]*$")
_NOT_PLAIN = re.compile(r"[\\^_/(\[{]|,\s")
_MAX_FORMULA = 500
_DISPLAY_BEGIN = re.compile(r"\\begin\{(?:align|aligned|equation|gather)\*?\}|\\end\{[a-z]+\*?\}")


@dataclass(frozen=True, slots=True)
class Extraction:
    """An answer found in a text, and the rule that found it."""

    answer: str
    rule: str


@dataclass(frozen=True, slots=True)
class Visible:
    """The text outside thinking blocks. `unclosed` marks a block that never ended: only explicit answers count."""

    text: str
    unclosed: bool


def visible(text: str) -> Visible:
    """Drop thinking blocks; a closing tag without an opening one ends a block that began with the text."""
    text = text[-MAX_TEXT:]
    if "<" not in text and _GAP not in text:
        return Visible(text, False)
    if _GAP in text:  # endless blanks would make the patterns below slow
        text = _LONG_GAP.sub(" ", text)
    kept: list[str] = []
    position, inside = 0, False
    for tag in _THINK.finditer(text):
        if tag[1]:
            if not inside:
                kept.clear()
            inside = False
            position = tag.end()
        elif not inside:
            kept.append(text[position:tag.start()])
            inside = True
            position = tag.end()
    return Visible("".join(kept) + text[position:], inside)


def answer_block(text: str) -> tuple[str, bool] | None:
    """Return the last non-empty `<answer>` block and whether it was closed; None when there is none."""
    found: tuple[str, bool] | None = None
    start: int | None = None
    if "<" not in text:
        return None
    for tag in _ANSWER_TAG.finditer(text):
        if not tag[1]:
            start = tag.end()
        elif start is not None:
            if text[start:tag.start()].strip():
                found = text[start:tag.start()].strip(), True
            start = None
    if start is not None and text[start:].strip():  # a stop string cuts the closing tag off
        found = text[start:].strip(), False
    return found


def _boxes(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, content) of every closed box, in the order of their closing braces."""
    stack: list[tuple[int, int] | None] = []
    for match in _BRACES.finditer(text):
        token = match[0]
        if token == "{":
            stack.append(None)
        elif token == "}":
            opened = stack.pop() if stack else None
            if opened is not None:
                yield opened[0], match.end(), text[opened[1]:match.start()]
        elif token.endswith("{") and token != "\\{":
            stack.append((match.start(), match.end()))
    for match in _BARE_BOX.finditer(text):
        yield match.start(), match.end(), match[1]


def last_box(text: str) -> str | None:
    r"""Return the content of the last complete box; boxes joined by nothing but "or", "and", commas count as one.

    So `\boxed{14} or \boxed{15}` is the hedge "14 or 15", while a box that later words correct is forgotten.
    """
    if "\\boxed" not in text and "\\fbox" not in text:
        return None
    outer: list[tuple[int, int, str]] = []
    for start, end, content in sorted(_boxes(text), key=lambda box: box[1]):
        while outer and outer[-1][0] >= start:  # nested in this one
            outer.pop()
        outer.append((start, end, content))
    if not outer:
        return None
    parts, joiner = [outer[-1][2].strip()], ", "
    for earlier, later in zip(outer[-2::-1], outer[:0:-1], strict=True):
        between = text[earlier[1]:later[0]]
        if len(between) > 60 or not _JOINER.fullmatch(between):
            break
        if _ALTERNATIVE.search(between):
            joiner = " or "
        if earlier[2].strip() not in parts:
            parts.append(earlier[2].strip())
    return _unbox(joiner.join(reversed(parts)))


def _unbox(content: str) -> str:
    return re.sub(r"\\(?:boxed|fbox)\s*(?=\{)", "", content) if "box" in content else content


def hash_line(text: str) -> str | None:
    """Return what the last `#### x` line holds, unless it reads like a heading."""
    if "####" not in text:
        return None
    for match in reversed(list(_HASHES.finditer(text))):
        content = match[1].strip().strip("*").strip()
        if content and len(_WORD.findall(content)) <= 2 and not re.match(r"(?:step\b|\d+[.)]\s+\D)", content, re.I):
            return content
    return None


def answer_phrase(text: str, *, numeric: bool = False) -> str | None:
    """Return what follows the last "answer is / answer:"; with `numeric`, the last one that names a digit."""
    begin = text.lower().find("answer") if text.isascii() else 0  # elsewhere other letters fold to these
    if begin < 0:
        return None
    for match in list(_PHRASE.finditer(text, begin))[:-MAX_PHRASES - 1:-1]:
        rest = text[match.end():match.end() + MAX_STATEMENT]
        if _NEGATION.match(rest):
            continue
        content = _phrase_content(rest)
        if content and (not numeric or any(char.isdigit() for char in content)):
            return content
    return None


def _phrase_content(rest: str) -> str:
    for opener, closer in (("$$", "$$"), ("\\[", "\\]")):
        if rest.startswith(opener) and (close := rest.find(closer, 2)) > 0:
            return rest[2:close].strip()
    end = _SENTENCE_END.search(rest)
    content = _OPENED.sub("", rest[:end.start()] if end else rest)
    return _CLAUSE.sub("", content).replace("**", "").replace("$", "").strip(" \t*_`\"'")


def display_formula(text: str) -> str | None:
    r"""Return the last line of the last `$$...$$` or `\[...\]`."""
    found: tuple[int, str] | None = None
    dollars = [match.start() for match in re.finditer(r"\$\$", text)]
    if len(dollars) >= 2:
        start, end = dollars[len(dollars) // 2 * 2 - 2], dollars[len(dollars) // 2 * 2 - 1]
        found = end, text[start + 2:end]
    close = text.rfind("\\]")
    start = text.rfind("\\[", 0, close) if close > 0 else -1
    if start >= 0 and (found is None or close > found[0]):
        found = close, text[start + 2:close]
    if found is None:
        return None
    body = found[1]
    if "\\begin" in body and "matrix" not in body:
        lines = [line for line in _DISPLAY_BEGIN.sub("", body).replace("&", "").split("\\\\") if line.strip()]
        body = lines[-1] if lines else ""
    return body.strip() or None


def last_number(text: str) -> str | None:
    """Return the last number of a text; a number offered as one of two ("14 or 15") comes back as that hedge."""
    for window in (text[-4000:], text):
        matches = list(_NUMBER.finditer(window))
        while matches and _NOT.search(window, max(0, matches[-1].start() - 20), matches[-1].start()):
            matches.pop()
        if matches and (matches[-1].start() > 0 or window is text):
            last = matches[-1]
            if _IN_FORMULA.search(window, max(0, last.start() - 40), last.start()):
                return None
            hedge = _HEDGE.search(window, max(0, last.start() - 60), last.start())
            number = last[0].rstrip(",")
            return f"{hedge[1]} or {number}" if hedge else number
    return None


def closing_formula(text: str, *, numeric: bool = False) -> str | None:
    """Return the formula that a text consists of, or that its last line ends with between dollar signs.

    With `numeric`, a plain number is left to `last_number`, which knows about hedges in the words around it.
    """
    whole = text.strip()
    content = whole.strip("$* ").rstrip(".").removeprefix("=").strip()
    if "\n" in whole or len(whole) > _MAX_FORMULA or "$" in content.replace("\\$", "") or _WORD.search(content):
        line = whole.rpartition("\n")[2]
        inline = _INLINE.search(line, max(0, len(line) - _MAX_FORMULA - 10))
        if inline is None or line.replace("\\$", "").count("$") % 2:
            return None
        content = inline[1].strip()
    return content if content and not (numeric and not _NOT_PLAIN.search(content)) else None


def extract(text: str, *, truncated: bool = False, numeric: bool = False) -> Extraction | None:
    """Return the final answer, or None when the text has none.

    Args:
        text: the model's full text.
        truncated: the model was cut off: only a box or a closed answer block counts, nothing is guessed.
        numeric: the answer is known to be a number.
    """
    shown = visible(text)
    block = answer_block(shown.text)
    if block is not None and (block[1] or not truncated):
        return _inside_block(block[0], numeric)
    box = last_box(shown.text)
    if box is not None:
        return Extraction(box, "box")
    if truncated or shown.unclosed:
        return None
    return _unmarked(shown.text, numeric)


def _inside_block(block: str, numeric: bool) -> Extraction:
    box = last_box(block)
    if box is not None:
        return Extraction(box, "answer_tag+box")
    if "\n" not in block and len(_WORD.findall(block)) <= 4 and not _PHRASE.search(block):
        return Extraction(block, "answer_tag")
    inner = _unmarked(block, numeric)
    return Extraction(inner.answer, f"answer_tag+{inner.rule}") if inner else Extraction(block, "answer_tag")


def _unmarked(text: str, numeric: bool) -> Extraction | None:
    if answer := hash_line(text):
        return Extraction(answer, "hashes")
    if answer := answer_phrase(text, numeric=numeric):
        return Extraction(answer, "phrase")
    if answer := display_formula(text):
        return Extraction(answer, "display")
    if answer := closing_formula(text, numeric=numeric):
        return Extraction(answer, "formula")
    answer = last_number(text)
    return Extraction(answer, "number") if answer else None
