r"""Multiple choice: the letter a model states, or the option whose value it boxes.

A letter counts when it is stated as the answer (boxed, in the answer block, after "answer is", or alone on the last
line), never when it merely occurs in prose. Two letters are wrong; "not B" is not B. A boxed value stands for the
option it equals. If it equals several, they must be one and the same option printed twice (same value, same unit): the
answer then counts as gold when gold is among them, because nothing in the question tells them apart; if they differ in
their units, the value is ambiguous and wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from evaluation.graders.comparison import Compare, Decision, compare_expressions
from evaluation.graders.extraction import MAX_PHRASES, Extraction, answer_block, answer_phrase, last_box, visible
from evaluation.graders.latex import MAX_CHARACTERS, compact, normalise, oversize
from evaluation.graders.numbers import parse_quantity
from evaluation.problem import CHOICE_LETTERS

_FULL = re.compile(
    r"(?:(?:option|choice|answer)\b\s*(?:is\b)?\s*:?\s*)?[\s*\"'`]*(?:\(\s*([A-Ja-j])\s*\)|\[\s*([A-Ja-j])\s*\]|([A-Ja-j])\s*[).:]"
    r"|([A-Ja-j])(?![\w'^_+*/=<>-]))[\s*\"'`]*(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_OTHER_LETTER = re.compile(r"(?:\b(?:or|and)\b|[,/&;+]|^)\s*(?:(?:option|choice)\s*)?\(?([A-J])\)?(?![\w'])")
_REJECTED = re.compile(r"(?:[,;]?\s*(?:but\s+)?not|rather than|instead of)\s+(?:option\s+|choice\s+)?\(?[A-J]\)?"
                       r"(?![\w'])", re.IGNORECASE)
_PHRASES = re.compile(
    r"(?:\banswers?\b(?:\s+(?:choice|option|letter))?(?:[ \t]+(?:to|for|of)\b[^.\n:]{0,80}?)?"
    r"|\b(?:correct|right|best)\s+(?:option|choice)|\b(?:option|choice)\s+that\s+[^.\n]{1,60}?)"
    r"[\s*_]*(?:\b(?:is|would be|must be|should be)\b(?:\s*:)?|=|:)[\s*_]*(?:(?:option|choice|letter)\s+)?",
    re.IGNORECASE)
_IS_CORRECT = re.compile(
    r"(?:\b(?:option|choice|answer)\s+\(?([A-J])\)?|\(([A-J])\))\s+(?:is|must be)\s+(?:the\s+)?"
    r"(?:correct|right|best|answer)\b", re.IGNORECASE)
_REASON = re.compile(r"[,;]?\s+(?:because|since|whereas|while|as|which)\b.*", re.IGNORECASE | re.DOTALL)
_NEGATIVE = re.compile(r"\s*(?:not|never|n't|neither|wrong|incorrect|unlikely)\b", re.IGNORECASE)
_ALONE = re.compile(
    r"(?:(?:so|thus|hence|therefore|final answer|answer|option|choice)\b[\s,:]*)?[\s*\"'`$]*"
    r"(?:\(([A-Ja-j])\)|\[([A-Ja-j])\]|([A-J])|([a-j])[).])[.)]?[\s*\"'`$.]*", re.IGNORECASE)
_LISTED = re.compile(r"[\s*]*(?:\(([A-J])\)|([A-J])[).:])[\s*]+\S.*")
_MAX_LINE = 300  # a longer line is prose
_WORDLIKE = frozenset("AI")  # letters that are also English words
_AFTER_WORD = re.compile(r"(?:[.,;:)\]!?\"'*`$]|$|(?:because|since|as|which|with)\b|\()", re.IGNORECASE)
_OPTION_TEXT = re.compile(r"[\s*(\[]*([A-J])[\s*]*[).:\]][\s*]*(\S.*)$", re.DOTALL)
_UNIT_NOISE = re.compile(r"\\text\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Stated:
    """What an answer names: one letter, several (a hedge), or a value."""

    letters: tuple[str, ...]
    value: str = ""


def extract_choice(text: str, *, truncated: bool = False) -> Extraction | None:
    """Return the answer statement of a multiple-choice text: it may name a letter or a value."""
    shown = visible(text)
    block = answer_block(shown.text)
    prefix, body = "", shown.text
    if block is not None and (block[1] or not truncated):
        prefix, body = "answer_tag+", block[0]
    box = last_box(body)
    if box is not None:
        return Extraction(box, prefix + "box")
    if block is not None and prefix and ("\n" not in body):
        phrase = _last_phrase(body)
        return Extraction(phrase, "answer_tag+phrase") if phrase else Extraction(body, "answer_tag")
    if truncated or shown.unclosed:
        return None
    phrase = _last_phrase(body)
    if phrase is not None:
        return Extraction(phrase, prefix + "phrase")
    line = _last_line(body)
    if line is not None:
        return Extraction(line, prefix + "line")
    return Extraction(body, "answer_tag") if prefix else None


def _last_phrase(text: str) -> str | None:
    """Return the last statement that names a letter; failing that, the value after the last "answer is"."""
    found: list[tuple[int, str]] = [(match.start(), (match[1] or match[2]).upper())
                                    for match in _IS_CORRECT.finditer(text)]
    for match in list(_PHRASES.finditer(text))[-MAX_PHRASES:]:
        rest = text[match.end():match.end() + 300]
        if _NEGATIVE.match(rest):
            continue
        sentence = re.split(r"\n|(?<=[a-z)\]])[.!?](?:\s|$)", rest, maxsplit=1)[0].replace("$", "").strip()
        if read_statement(sentence, prose=True).letters:
            found.append((match.start(), _REJECTED.sub("", sentence)))
    if found:
        return max(found)[1]
    return answer_phrase(text)


def _last_line(text: str) -> str | None:
    """Return a last line that is a letter and nothing else, or the text's only line of the form "B) 27 dollars"."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines or len(lines[-1]) > _MAX_LINE:
        return None
    lines = [line for line in lines if len(line) <= _MAX_LINE]
    alone = [match for line in lines if (match := _ALONE.fullmatch(line))]
    if _ALONE.fullmatch(lines[-1]):
        letters = sorted({next(group for group in match.groups() if group).upper() for match in alone})
        return " or ".join(letters)  # a letter on each of several lines is a hedge
    listed = [line for line in lines if _LISTED.fullmatch(line)]
    return lines[-1] if len(listed) == 1 and listed[0] == lines[-1] else None


def read_statement(answer: str, *, prose: bool = False) -> Stated:
    """Return the letters an answer statement names, and the value written beside or instead of them."""
    text = _UNIT_NOISE.sub(r"\1", normalise(answer)).strip()
    text = _REJECTED.sub("", text).strip()
    if prose:
        text = _REASON.sub("", text)  # letters in the reason are not stated
        text = re.sub(r"^(?:option|choice|letter)\s+", "", text, flags=re.IGNORECASE)
    compacted = re.sub(r"[\s(),/&;.]|\b(?:or|and)\b", "", text)
    if len(compacted) >= 2 and compacted.isupper() and set(compacted) <= set("ABCDE") and not prose:
        return Stated(tuple(sorted(set(compacted))))
    match = _FULL.fullmatch(text)
    if match is None:
        return Stated((), text)
    bare = match[4]
    letter = next(group for group in match.groups()[:4] if group)
    rest = match["rest"].strip()
    article = prose and bare and bare.upper() in _WORDLIKE and not _AFTER_WORD.match(rest)
    if article or (bare and bare.islower() and rest):  # the "A" of a sentence, or a variable
        return Stated((), text)
    others = {other.upper() for other in _OTHER_LETTER.findall(rest)} if rest else set()
    return Stated(tuple(sorted({letter.upper()} | others)), "" if prose else rest)


def compare_choice(gold: str, options: tuple[str, ...], extraction: Extraction, symbolic: Compare) -> Decision:
    """Compare an answer statement with the gold letter."""
    if len(extraction.answer) > MAX_CHARACTERS:
        return Decision(False, f"answer longer than {MAX_CHARACTERS} characters")
    stated = (_letter_with_its_option(extraction.answer, options)
              or read_statement(extraction.answer, prose=extraction.rule.endswith("phrase")))
    if len(stated.letters) > 1:
        return Decision(False, f"several letters: {', '.join(stated.letters)}")
    if stated.letters:
        return _one_letter(gold, options, stated, symbolic)
    if not options:
        return Decision(False, "no letter stated")
    matches = _matching(stated.value, options, symbolic)
    if not matches:
        return Decision(False, "the value is none of the options")
    if len({_option_key(options[index]) for index in matches}) > 1:
        return Decision(False, "the value fits several different options")
    letters = [CHOICE_LETTERS[index] for index in matches]
    return Decision(gold in letters, f"the value of option {' and '.join(letters)}")


def _letter_with_its_option(answer: str, options: tuple[str, ...]) -> Stated | None:
    """Read "D. A and B" as D when that is what option D says: letters inside the option's text are not stated."""
    match = _OPTION_TEXT.match(answer)
    if match is None or CHOICE_LETTERS.index(match[1]) >= len(options):
        return None
    same = compact(normalise(match[2])).lower() == compact(normalise(options[CHOICE_LETTERS.index(match[1])])).lower()
    return Stated((match[1],)) if same and match[2].strip() else None


def _one_letter(gold: str, options: tuple[str, ...], stated: Stated, symbolic: Compare) -> Decision:
    letter = stated.letters[0]
    index = CHOICE_LETTERS.index(letter)
    if options and index >= len(options):
        return Decision(False, f"there is no option {letter}")
    if letter == gold and stated.value and options:
        matches = _matching(stated.value, options, symbolic)
        if matches and index not in matches:  # "(B) 28" where 28 is option D: two answers in one
            return Decision(False, f"letter {letter} beside the value of another option")
    return Decision(letter == gold, f"letter {letter}")


def _matching(value: str, options: tuple[str, ...], symbolic: Compare) -> list[int]:
    value = normalise(value)
    if not value or oversize(value) is not None:
        return []
    written = [compact(normalise(option)).lower() for option in options]
    if compact(value).lower() in written:  # "62, 34" is that option, not the option "34, 62"
        return [index for index, option in enumerate(written) if option == compact(value).lower()]
    return [index for index, option in enumerate(options) if _same_value(value, normalise(option), symbolic)]


def _option_key(option: str) -> tuple[str, str]:
    text = normalise(option)
    quantity = parse_quantity(text, loose_units=True)
    if quantity is None:
        return compact(text).lower(), ""
    words = re.sub(r"[\d.,/\s]+", " ", text).strip().lower()
    return str(quantity.value), quantity.unit or words


def _same_value(value: str, option: str, symbolic: Compare) -> bool:
    one, other = parse_quantity(value, loose_units=True), parse_quantity(option, loose_units=True)
    if one is not None and other is not None:
        return one.value == other.value and not (one.unit and other.unit and one.unit != other.unit)
    if one is not None or not re.search(r"[\d\\+*/^=<>-]", option):
        return False  # words such as "None of these" only as text
    decision = compare_expressions(option, value, symbolic)
    return decision.same is True
