"""The logic pool (App. E.3): LogiQA 2.0 and ReClor merged, the evaluation splits held out, answers distilled, checked.

1. Merge: LogiQA 2.0 (MRC: train, dev, test) and ReClor (train, val). The LogiQA 2.0 test split (1,572) and the ReClor
   val split (500) are held out. The paper has about 17,205 items and 15,133 candidates.
2. Distil: Qwen3-32B in thinking mode answers each candidate, through a generation backend.
3. Keep: the answers whose option is the gold one, in the format of training. The paper keeps 14,882.

Which file is which split is told by its name (train, dev, test, val) and by its rows' fields.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.backends.interface import Backend, Prompt, Request, Sampling
from evaluation.benchmarks.logic import parse_logic_row
from evaluation.graders.math import MathGrader
from evaluation.problem import Problem
from foundation.errors import GenerationError, InputError
from foundation.files import canonical_json, read_jsonl, sha256_file
from foundation.prompts import PromptFormat
from foundation.records import Malformed, read_records
from replication.corpora.report import SourceReport
from replication.data.pool import MALFORMED, Example, PoolReport, normalised_question, stop_if_malformed

HELD_OUT = {("logiqa2", "test"): 1572, ("reclor", "val"): 500}
"""The evaluation splits with their sizes (E.3)."""
CANDIDATES = 15_133
INSTRUCTION = "Choose the correct option. End your response with 'The answer is (X).', where X is its letter."
"""Put below each question; the paper does not print its prompt."""
CUT_OFF, NO_ANSWER, DIFFERS, NO_THOUGHT = ("answer was cut off", "no option named", "another option than the gold one",
                                           "no think block")
IN_TEST_SET = "question stands in a test set"
_SPLIT = re.compile(r"(train|dev|test|val)(?![a-z])")
_THOUGHT = re.compile(r"\s*(?:<think>)?(.*?)</think>(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """How candidates are answered. The paper names the model and the mode; the numbers are its model card's."""

    max_new_tokens: int = 32_768
    max_prompt_tokens: int = 4096
    temperature: float = 0.6
    top_p: float = 0.95
    top_k: int = 20
    seed: int = 0

    def request(self) -> Request:
        """Return the request; without a system message, the template's default is the thinking mode."""
        return Request(prompt=PromptFormat(style="tags", system=None, terminator="<|im_end|>"),
                       sampling=Sampling(temperature=self.temperature, top_p=self.top_p, top_k=self.top_k),
                       max_new_tokens=self.max_new_tokens, max_prompt_tokens=self.max_prompt_tokens, batch_size=8,
                       compute_dtype="bfloat16", seed=self.seed)


def merge(paths: Sequence[Path], held_out: Mapping[str, str] | None = None
          ) -> tuple[list[Problem], list[SourceReport]]:
    """Return the candidates, ids `<data set>-<split>-<position>`, and the account of each file.

    Args:
        paths: files of LogiQA 2.0 and ReClor, named for their splits.
        held_out: normalised questions that are left out beyond the paper's splits, with their test set's title.

    Raises:
        InputError: a file that is no split of either, is given twice, has over 1 % malformed rows, or an evaluation
            split that is not of the paper's size.
    """
    candidates: list[Problem] = []
    reports: list[SourceReport] = []
    seen: set[tuple[str, str]] = set()
    for path in paths:
        if not path.is_file():
            raise InputError(f"source file {path} does not exist")
        split, problems, report = _read_split(path, held_out or {})
        if split in seen:
            raise InputError(f"{path} is a second file of the {split[1]} split of {split[0]}; name each split once")
        seen.add(split)
        candidates += problems
        reports.append(SourceReport(name="/".join(path.parts[-2:]), sha256=sha256_file(path), pool=report))
    if not reports:
        raise InputError("no source file is named; give --source for each split of LogiQA 2.0 and ReClor")
    return candidates, reports


def _read_split(path: Path, held_out: Mapping[str, str]) -> tuple[tuple[str, str], list[Problem], PoolReport]:
    split = None
    problems: list[Problem] = []
    malformed: list[Malformed] = []
    dropped: Counter[str] = Counter()
    read = 0
    for position, record in enumerate(read_records(path)):
        read += 1
        if isinstance(record, Malformed):
            malformed.append(record)
            continue
        try:
            parsed = parse_logic_row(record.row)
        except ValueError as error:
            malformed.append(Malformed(str(path), record.line, str(error)))
            continue
        split = split or _split(path, record.row)
        title = held_out.get(normalised_question(parsed.question)) if split not in HELD_OUT else None
        if split in HELD_OUT:
            dropped[f"held out: {split[0]} {split[1]}"] += 1
        elif title is not None:
            dropped[f"{IN_TEST_SET} ({title})"] += 1
        else:
            problems.append(Problem(id=f"{split[0]}-{split[1]}-{position}", question=parsed.question, gold=parsed.gold,
                                    answer_type="choice", options=parsed.options, cluster=parsed.cluster))
    stop_if_malformed(malformed, read)
    if split is None:
        raise InputError(f"{path} holds no questions; fetch it again")
    if split in HELD_OUT and read != HELD_OUT[split]:
        raise InputError(f"{path} holds {read} questions, the {split[1]} split of {split[0]} has {HELD_OUT[split]}; "
                         "fetch it again")
    if malformed:
        dropped[MALFORMED] = len(malformed)
    return split, problems, PoolReport(read=read, kept=len(problems), dropped=dict(dropped),
                                       malformed=tuple(malformed))


def _split(path: Path, row: Mapping[str, Any]) -> tuple[str, str]:
    match = _SPLIT.search(path.name.lower())
    if match is None:
        raise InputError(f"{path.name} does not say which split it is; name the file train, dev, test or val")
    return ("logiqa2" if "text" in row else "reclor"), match[1]


def distil(candidates: Sequence[Problem], checkpoint: Path, records: Path, backend: Backend, teacher: Teacher, *,
           on_progress: Callable[[float], None] = lambda fraction: None) -> None:
    """Have the teacher answer every candidate; `records` goes on where it stood.

    Raises:
        InputError, PrerequisiteError, GenerationError: as the backend does (`evaluation.backends.interface`).
    """
    prompts = [Prompt(candidate.id, f"{candidate.question}\n\n{INSTRUCTION}") for candidate in candidates]
    backend(checkpoint, prompts, teacher.request(), records, key=_key(candidates, checkpoint, teacher),
            on_progress=on_progress)


def _key(candidates: Sequence[Problem], checkpoint: Path, teacher: Teacher) -> str:
    import hashlib
    from dataclasses import asdict

    identity = {"candidates": [candidate.id for candidate in candidates], "teacher": asdict(teacher),
                "checkpoint": checkpoint.name, "instruction": INSTRUCTION}
    return hashlib.sha256(canonical_json(identity).encode()).hexdigest()


def keep_verified(candidates: Sequence[Problem], records: Path) -> tuple[list[Example], Counter[str]]:
    """Return the examples whose answer is the gold option, in the candidates' order, and the others' reasons.

    Raises:
        GenerationError: a candidate has no answer.
    """
    answers = {row["id"]: row for row in read_jsonl(records) if "id" in row}
    examples: list[Example] = []
    dropped: Counter[str] = Counter()
    with MathGrader() as grader:
        for candidate in candidates:
            if candidate.id not in answers:
                raise GenerationError(f"{records} has no answer to {candidate.id}; run the same command again")
            reason, thought = _verdict(grader, candidate, answers[candidate.id])
            if reason is None:
                examples.append(_example(candidate, thought))
            else:
                dropped[reason] += 1
    return examples, dropped


def _verdict(grader: MathGrader, candidate: Problem, answer: Mapping[str, Any]) -> tuple[str | None, str]:
    if answer["finish_reason"] == "length":
        return CUT_OFF, ""
    match = _THOUGHT.fullmatch(answer["text"])
    if match is None or not match[1].strip():
        return NO_THOUGHT, ""
    verdict = grader.grade(candidate, match[2])
    if verdict.correct:
        return None, match[1].strip()
    return (NO_ANSWER if verdict.outcome == "no_answer" else DIFFERS), ""


def _example(candidate: Problem, thought: str) -> Example:
    """The teacher's reasoning, then the answer in the form that the logic prompt asks for (E.4)."""
    completion = f"<think>\n{thought}\n</think>\n<answer>The answer is ({candidate.gold}).</answer>"
    return Example(id=candidate.id, question=candidate.question, completion=completion, gold=candidate.gold,
                   source=candidate.id.partition("-")[0], answer_type="choice", options=candidate.options)
