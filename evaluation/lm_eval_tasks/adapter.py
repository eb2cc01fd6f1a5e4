r"""What the task files call: problems, prompts and verdicts of this suite, in the harness's terms.

    WMSS_DATA_ROOT=DIR lm_eval --model hf --model_args pretrained=... --apply_chat_template \
        --include_path evaluation/lm_eval_tasks --tasks wmss_gsm8k

Without WMSS_DATA_ROOT (or `--metadata '{"data_root": "DIR"}'`) the data come from the hub. WMSS_PROMPT_STYLE=tag_free,
or the same as metadata `style`, takes Gemma's prompts. One difference remains: the harness does not say whether a text
was cut off at its token limit, so a cut text is graded by what stands in it.
"""

from __future__ import annotations

import atexit
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from evaluation.benchmarks import benchmark
from evaluation.benchmarks.fetching import benchmark_problems
from evaluation.graders.math import MathGrader
from evaluation.problem import Problem
from foundation.errors import GraderError, InputError
from foundation.prompts import SYSTEM_PROMPTS, Style

_FIELDS = ("id", "question", "gold", "answer_type", "options")


def load(**settings: Any) -> dict[str, Any]:
    """Return the harness's dataset of one benchmark: a `test` split with a row per problem and its system prompt.

    Args:
        settings: `benchmark` from the task file; `data_root` and `style` from `--metadata`, else from the environment.

    Raises:
        InputError: the style is unknown, or the data are not the benchmark.
        PrerequisiteError: the data are not there.
    """
    import datasets

    entry = benchmark(settings["benchmark"])
    root = settings.get("data_root") or os.environ.get("WMSS_DATA_ROOT")
    system = entry.system_prompt(_style(settings.get("style") or os.environ.get("WMSS_PROMPT_STYLE") or "tags"))
    problems = benchmark_problems(entry, Path(root) if root else None)
    rows = [{name: problem.to_row()[name] for name in _FIELDS} | {"system": system} for problem in problems]
    return {"test": datasets.Dataset.from_list(rows)}


def _style(name: str) -> Style:
    for style in SYSTEM_PROMPTS:
        if style == name:
            return style
    raise InputError(f"prompt style {name!r} is unknown; choose one of: {', '.join(SYSTEM_PROMPTS)}")


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Return the metrics of one answer.

    Raises:
        GraderError: the grader came to no end, twice: nothing is scored 0 for that.
    """
    problem = Problem.from_row({name: doc[name] for name in _FIELDS})
    verdict = _grader().grade(problem, results[0])
    if verdict.outcome == "grader_failure":
        raise GraderError(f"the grader failed on {problem.id}: {verdict.reason}")
    return {"acc": float(verdict.correct), "no_answer": float(verdict.outcome == "no_answer")}


@lru_cache(maxsize=1)
def _grader() -> MathGrader:
    grader = MathGrader()
    atexit.register(grader.__exit__, None, None, None)
    return grader
