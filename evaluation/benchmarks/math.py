"""The seven mathematics benchmarks of the paper (Table 1), and how a row of each of their layouts is read.

Reads the files named below; changes of a gold answer are confined to `number_gold` and `expression_gold`.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from evaluation.benchmarks.fields import text_field
from evaluation.benchmarks.loading import Benchmark, Defect, Parsed
from evaluation.problem import CHOICE_LETTERS

_DECIMAL = re.compile(r"-?\d+(\.\d+)?")
_OPTION = re.compile(r"\s*([A-J])\)\s*(.*)", re.DOTALL)
_SENTENCE_ENDS = (".", "?", "!")
OPTIONS_HEADING = "\nAnswer Choices: "


def number_gold(text: str) -> str:
    r"""Return a numeric gold answer as bare digits.

    Removed are what the files are known to carry around the number: a degree sign (`336^\circ`, AIME2025), a dollar
    sign, thousands commas (`2,125`, GSM8K), and the `.0` of integers stored as floats (`576.0`; MAWPS, SVAMP, AMC23).
    A written decimal keeps its digits: they tell the grader how precise the gold is.

    Raises:
        ValueError: what is left is not a number.
    """
    bare = text.replace("^\\circ", "").replace("\\$", "").replace("$", "").replace(",", "").strip()
    if not _DECIMAL.fullmatch(bare):
        raise ValueError(f"gold answer {text!r} is not a number")
    value = Decimal(bare)
    return str(int(value)) if value == value.to_integral_value() else bare


def expression_gold(text: str) -> str:
    r"""Return a LaTeX gold answer without its currency sign (`\$18.90`, MATH500), which would end math mode.

    Raises:
        ValueError: another dollar sign is inside.
    """
    bare = text.strip().removeprefix("\\$").strip()
    if "$" in bare:
        raise ValueError(f"gold answer {text!r} holds a dollar sign")
    return bare


def parse_number_row(row: dict[str, Any]) -> Parsed:
    """Read a row with a question and a numeric answer (AIME2025, AMC23, MAWPS, in the paper's and in hub layouts)."""
    question = text_field(row, "question", "instruction", "problem")
    return Parsed(question=question, gold=number_gold(text_field(row, "answer")))


def parse_math500(row: dict[str, Any]) -> Parsed:
    """Read a row of MATH500."""
    gold = expression_gold(text_field(row, "answer"))
    return Parsed(question=text_field(row, "problem"), gold=gold, source_id=text_field(row, "unique_id"))


def parse_gsm8k(row: dict[str, Any]) -> Parsed:
    """Read a row of GSM8K, whose gold stands after the last `####` of the worked solution."""
    _, mark, gold = text_field(row, "answer").rpartition("####")
    if not mark:
        raise ValueError("the answer has no '####' line")
    return Parsed(question=text_field(row, "question"), gold=number_gold(gold))


def parse_svamp(row: dict[str, Any]) -> Parsed:
    """Read a row of SVAMP: one text in the paper's copy, body and question apart upstream and on the hub.

    chal-680 ("Rachel's tree had 4 apples...") has the gold 1 where 5 is right. It stays: the paper's scores contain it.
    """
    if "instruction" in row:
        return parse_number_row(row)
    body, question = text_field(row, "Body"), text_field(row, "Question")
    # As in the paper's copy: the body's missing full stop is added.
    joined = f"{body} {question}" if body.endswith(_SENTENCE_ENDS) else f"{body}. {question}"
    return Parsed(question=joined, gold=number_gold(text_field(row, "Answer")), source_id=text_field(row, "ID"))


def parse_aqua(row: dict[str, Any]) -> Parsed:
    """Read a row of AQuA. Its options come as "A)x", 15 of them as "A) x"."""
    listed = row.get("options")
    if not isinstance(listed, list) or not listed:
        raise ValueError("has no list of options")
    options = tuple(_option_text(option, letter) for option, letter in zip(listed, CHOICE_LETTERS, strict=False))
    if len(options) != len(listed):
        raise ValueError(f"has {len(listed)} options, at most {len(CHOICE_LETTERS)} can be lettered")
    question = text_field(row, "question") + OPTIONS_HEADING + render_options(options)
    return Parsed(question=question, gold=text_field(row, "correct"), options=options)


def render_options(options: tuple[str, ...]) -> str:
    """Return the options as one line, "(A) x (B) y", as the paper's copy writes them."""
    return " ".join(f"({letter}) {text}" for letter, text in zip(CHOICE_LETTERS, options, strict=False))


def _option_text(option: Any, letter: str) -> str:
    match = _OPTION.fullmatch(option) if isinstance(option, str) else None
    if match is None or match[1] != letter or not match[2].strip():
        raise ValueError(f"option {option!r} does not read '{letter})text'")
    return match[2].strip()


# Counts: from the paper's code. New tokens: A-91, 8192 for the two competition sets.
_BENCHMARKS = (
    Benchmark(name="aime2025", title="AIME2025", domain="math", answer_type="integer", expected_count=30,
              file="aime2025/wmss/test.json", hub_repo="opencompass/AIME2025",
              hub_files=("aime2025-I.jsonl", "aime2025-II.jsonl"), max_new_tokens=8192, parse=parse_number_row),
    Benchmark(name="math500", title="MATH500", domain="math", answer_type="expression", expected_count=500,
              file="math500/test.jsonl", hub_repo="HuggingFaceH4/MATH-500", hub_files=("test.jsonl",),
              max_new_tokens=4096, parse=parse_math500),
    Benchmark(name="amc23", title="AMC23", domain="math", answer_type="integer", expected_count=40,
              file="amc23/wmss/test.json", hub_repo="math-ai/amc23", hub_files=("test-00000-of-00001.parquet",),
              max_new_tokens=8192, parse=parse_number_row),
    # The upstream file, not the paper's copy: it has the options as a list, so that none is guessed out of a text
    # in which "(B)" may also belong to the question. Same 254 questions and golds, another order.
    Benchmark(name="aqua", title="AQuA", domain="math", answer_type="choice", expected_count=254,
              file="aqua/upstream/test.json", hub_repo="deepmind/aqua_rat",
              hub_files=("raw/test-00000-of-00001.parquet",), max_new_tokens=4096, parse=parse_aqua),
    # Upstream again: the paper's copy is the same problems, shuffled.
    Benchmark(name="gsm8k", title="GSM8K", domain="math", answer_type="integer", expected_count=1319,
              file="gsm8k/upstream/test.jsonl", hub_repo="openai/gsm8k",
              hub_files=("main/test-00000-of-00001.parquet",), max_new_tokens=4096, parse=parse_gsm8k),
    # The paper's own 238 problems; upstream's 2,065 are another set. 38 golds are decimals, hence `number`.
    Benchmark(name="mawps", title="MAWPS", domain="math", answer_type="number", expected_count=238,
              file="mawps/wmss/test.json", hub_repo=None, hub_files=(), max_new_tokens=4096, parse=parse_number_row,
              known_defects=(
                  Defect("wrong_gold", (), "3 golds disagree with their own equation; kept, as in the paper"),
                  Defect("repeated_question", (), "4 questions occur twice, and 26 also stand in train"))),
    # On the hub the 1,000 problems are split into 700 and 300.
    Benchmark(name="svamp", title="SVAMP", domain="math", answer_type="integer", expected_count=1000,
              file="svamp/wmss/test.json", hub_repo="ChilleD/SVAMP", hub_files=("train.json", "test.json"),
              max_new_tokens=4096, parse=parse_svamp,
              known_defects=(Defect("wrong_gold", ("chal-680",), "gold 1 where 5 is right; kept, as in the paper"),)),
)
MATH_BENCHMARKS: dict[str, Benchmark] = {entry.name: entry for entry in _BENCHMARKS}
