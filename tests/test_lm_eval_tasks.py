"""The harness's road and the suite's own give the same prompts and the same scores on the same generations."""

from __future__ import annotations

import json

import pytest
from conftest import ROOT

from evaluation.benchmarks import BENCHMARKS, load_benchmark
from evaluation.commands import grade_samples
from evaluation.graders.math import MathGrader

TASKS = ROOT / "evaluation" / "lm_eval_tasks"
NAMES = [name for name, entry in BENCHMARKS.items() if entry.domain != "code"]
MEANT = ("gsm8k", "aqua", "math500", "reclor")


def answer(problem, position):
    """Right, wrong, unreadable and hedged answers in turn."""
    right = f"<think>Hm.</think>\n<answer>\\boxed{{{problem.gold}}}</answer>"
    wrong = "<answer>\\boxed{123456}</answer>" if problem.answer_type != "choice" else "The answer is (A) or (B)."
    return (right, wrong, "I do not know", f"So \\boxed{{{problem.gold}}}.")[position % 4]


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_without_code_has_its_task_file(name):
    text = (TASKS / f"wmss_{name}.yaml").read_text()
    assert f"task: wmss_{name}\n" in text and f"benchmark: {name}\n" in text
    assert f"max_gen_toks: {BENCHMARKS[name].max_new_tokens}\n" in text
    assert len(list(TASKS.glob("*.yaml"))) == len(NAMES)


@pytest.fixture(scope="module")
def evaluated(data_root, tmp_path_factory):
    """Run the harness with a model that answers from a table; return its results and the texts."""
    lm_eval = pytest.importorskip("lm_eval", reason="needs the extra `lm-eval` (pip install -e '.[lm-eval]')")
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    texts = {}
    for name in MEANT:
        for position, problem in enumerate(load_benchmark(BENCHMARKS[name], data_root)[:40]):
            texts[problem.question] = (problem, answer(problem, position))

    class Table(LM):
        tokenizer_name = "none"

        def __init__(self):
            super().__init__()
            self.prompts, self.settings = [], []

        def apply_chat_template(self, chat_history, add_generation_prompt=True):
            return json.dumps(chat_history)

        def chat_template(self, chat_template=False):
            return "json"

        def generate_until(self, requests, disable_tqdm=False):
            self.prompts += [json.loads(request.args[0]) for request in requests]
            self.settings += [request.args[1] for request in requests]
            return [texts[json.loads(request.args[0])[-1]["content"]][1] for request in requests]

        def loglikelihood(self, requests, disable_tqdm=False):
            raise NotImplementedError

        loglikelihood_rolling = loglikelihood

    model = Table()
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata={"data_root": str(data_root)})
    results = lm_eval.simple_evaluate(model, tasks=[f"wmss_{name}" for name in MEANT], task_manager=manager, limit=40,
                                      apply_chat_template=True, log_samples=True, bootstrap_iters=0)
    return results, texts, model


@pytest.mark.parametrize("name", MEANT)
def test_both_roads_give_the_same_score(evaluated, name):
    results, texts, _ = evaluated
    chosen = [pair for pair in texts.values() if pair[0].id.startswith(f"{name}-")]
    with MathGrader() as grader:
        outcomes = [grader.grade(*pair).outcome for pair in chosen]
    found = results["results"][f"wmss_{name}"]
    assert found["acc,none"] == outcomes.count("correct") / 40 and 0.4 < found["acc,none"] < 0.6
    assert found["no_answer,none"] == outcomes.count("no_answer") / 40 > 0


def test_the_model_sees_the_suite_s_prompts_and_budgets(evaluated):
    _, texts, model = evaluated
    for messages, settings in zip(model.prompts, model.settings, strict=True):
        problem = texts[messages[-1]["content"]][0]
        entry = BENCHMARKS[problem.id.rpartition("-")[0]]
        assert messages == [{"role": "system", "content": entry.system_prompt("tags")},
                            {"role": "user", "content": problem.question}]
        assert settings["max_gen_toks"] == entry.max_new_tokens and settings["until"] == []
        assert not settings["do_sample"]


def test_logged_samples_come_back_through_grade_samples(evaluated, data_root, tmp_path, capsys):
    results, *_ = evaluated
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps(row, default=str) + "\n" for row in results["samples"]["wmss_gsm8k"]))
    grade_samples.main(["--benchmark", "gsm8k", "--samples", str(path), "--data-root", str(data_root)])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["outcome"] for line in lines[40:]] == ["missing"] * 1279
    assert sum(line["correct"] for line in lines) / 40 == results["results"]["wmss_gsm8k"]["acc,none"]
