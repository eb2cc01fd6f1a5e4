"""The two logical reasoning benchmarks of the paper: LogiQA 2.0 (test) and ReClor (validation; its test has no golds).

A problem is a passage, a question about it and four options, answered by a letter. Problems that share a passage are
one cluster for the statistics: their scores are not independent.
"""

from __future__ import annotations

import hashlib
from typing import Any

from evaluation.benchmarks.fields import letter_at, option_texts, text_field
from evaluation.benchmarks.loading import Benchmark, Defect, Parsed
from evaluation.problem import CHOICE_LETTERS


def passage_cluster(passage: str) -> str:
    """Return a name for a passage, equal for texts that differ only in white space or case."""
    return hashlib.sha256(" ".join(passage.split()).lower().encode()).hexdigest()[:16]


def render_problem(passage: str, question: str, options: tuple[str, ...]) -> str:
    """Return passage, question and lettered options, one per line, as the model sees them."""
    lettered = "\n".join(f"({letter}) {text}" for letter, text in zip(CHOICE_LETTERS, options, strict=False))
    return f"{passage}\n\n{question}\n\n{lettered}"


def parse_logic_row(row: dict[str, Any]) -> Parsed:
    """Read a row of LogiQA 2.0 (`text`, `options`, `answer`, `id`) or of ReClor (`context`, `answers`, `label`...)."""
    passage, question = text_field(row, "text", "context"), text_field(row, "question")
    if not passage:
        raise ValueError("the passage is empty")
    options = option_texts(row.get("options", row.get("answers")))
    gold = letter_at(row.get("answer", row.get("label")), options)
    return Parsed(question=render_problem(passage, question, options), gold=gold, options=options,
                  source_id=text_field(row, "id", "id_string"), cluster=passage_cluster(passage))


_BENCHMARKS = (
    Benchmark(
        name="logiqa2", title="LogiQA2", domain="logic", answer_type="choice", expected_count=1572,
        file="logiqa2/test.txt", hub_repo="datatune/LogiQA2.0", hub_files=("MRC/test.txt",), max_new_tokens=4096,
        parse=parse_logic_row, version="LogiQA 2.0 MRC, English, test",
        known_defects=(
            Defect("repeated_id", ("10906", "10948", "10591", "10571"),
                   "two different questions under each of these ids"),
            Defect("repeated_option", ("8200", "8083", "1001", "2380", "2712", "3902", "6580"),
                   "the same text stands under two letters; only the gold letter counts"),
            Defect("repeated_question", (), "14 questions occur twice, and 33 also stand in dev"),
        )),
    Benchmark(
        name="reclor", title="ReClor", domain="logic", answer_type="choice", expected_count=500,
        file="reclor/val.json", hub_repo="metaeval/reclor", hub_files=("val.json",), max_new_tokens=4096,
        parse=parse_logic_row, version="validation (the test set's answers are not public)"),
)
LOGIC_BENCHMARKS: dict[str, Benchmark] = {entry.name: entry for entry in _BENCHMARKS}
