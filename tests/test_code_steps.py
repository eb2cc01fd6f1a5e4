"""The steps that load, grade and verify programs: tasks beside problems, resumption, isolation asked for early."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from evaluation.benchmarks import BENCHMARKS
from evaluation.graders.code import CODE_GRADER_VERSION
from evaluation.graders.math import MathGrader
from evaluation.graders.records import ProgramGrader
from evaluation.isolation import find_isolation, kinds
from foundation.errors import GraderError, InputError, PrerequisiteError
from foundation.files import read_jsonl, write_jsonl
from replication.actions import data, evaluation, rollouts
from replication.isolation import require_isolation, runs_programs
from replication.models import MODELS
from replication.plan import Planner, Request
from replication.results import _unsafe_lines
from replication.rollout_steps import GradeReplies
from replication.scales import SCALES
from replication.source_steps import LoadProblems
from replication.steps import Grade, ancestors
from replication.worker import Job


@pytest.fixture(scope="module")
def isolation():
    try:
        return find_isolation()
    except PrerequisiteError as error:
        pytest.skip(str(error))


def row(number):
    return {"task_id": f"HumanEval/{number}", "prompt": "def f(x):\n", "entry_point": "f", "contract": "", "atol": 0,
            "canonical_solution": f"    return x + {number}\n", "test": "", "base_input": [[1], [2]],
            "plus_input": [[3]]}


@pytest.fixture
def problems(tmp_path, monkeypatch):
    """A LoadProblems step that reads four tasks of ours from a data root."""
    monkeypatch.setitem(BENCHMARKS, "humaneval_plus", replace(BENCHMARKS["humaneval_plus"], expected_count=4))
    path = tmp_path / "root" / BENCHMARKS["humaneval_plus"].file
    path.parent.mkdir(parents=True)
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row(number)) + "\n" for number in range(4))
    return LoadProblems(benchmark="humaneval_plus", source="data_root", limit=None, seed=0,
                        data_root=str(tmp_path / "root"))


def job(tmp_path, step, name, **inputs):
    output, scratch = tmp_path / name, tmp_path / f"{name}-scratch"
    output.mkdir(exist_ok=True)
    scratch.mkdir(exist_ok=True)
    return Job(step, inputs, output, scratch, lambda fraction: None)


def loaded(tmp_path, step):
    data.load_problems(job(tmp_path, step, "problems"))
    return tmp_path / "problems"


def grade_job(tmp_path, problems, texts, **settings):
    folder = loaded(tmp_path, problems)
    records = tmp_path / "records"
    records.mkdir(exist_ok=True)
    write_jsonl(records / "records.jsonl", ({"id": f"humaneval_plus-{n}", "text": text, "finish_reason": reason}
                                            for n, (text, reason) in enumerate(texts)))
    step = Grade(records=problems, problems=problems, grader_version=1, benchmark="humaneval_plus", **settings)
    return job(tmp_path, step, "grade", problems=folder, records=records)


def answer(code):
    return f"<think>\nhm\n</think>\n<answer>\n```python\n{code}\n```\n</answer>"


TEXTS = [(answer("def f(x): return x"), "stop"), (answer("def f(x): return x"), "stop"), ("no idea", "stop"),
         ("```python\ndef f(x): return x +", "length")]


def test_tasks_stand_beside_the_problems(tmp_path, problems):
    folder = loaded(tmp_path, problems)
    listed, tasks = (list(read_jsonl(folder / name)) for name in ("problems.jsonl", "tasks.jsonl"))
    assert [p["id"] for p in listed] == [t["id"] for t in tasks]
    assert [t["row"] for t in tasks] == [row(number) for number in range(4)]
    limited = loaded(tmp_path, replace(problems, limit=2))
    kept, tasks = (list(read_jsonl(limited / name)) for name in ("problems.jsonl", "tasks.jsonl"))
    assert [p["id"] for p in kept] == [t["id"] for t in tasks] and len(tasks) == 2
    assert all(task["row"]["task_id"] == problem["source_id"] for task, problem in zip(tasks, kept, strict=True))


def test_another_file_than_the_planned_one_is_refused(tmp_path, problems):
    with pytest.raises(InputError, match="sha256 expected"):
        loaded(tmp_path, replace(problems, sha256="0" * 64))


def test_tasks_whose_packages_are_absent_stop_before_anything_is_trained(tmp_path, problems, monkeypatch):
    monkeypatch.setattr(data, "absent_packages", lambda task: ["no_such_package"])
    with pytest.raises(PrerequisiteError, match=r"no_such_package \(4 tasks\)"):
        loaded(tmp_path, problems)


def test_programs_are_graded_with_the_grader_s_settings_in_the_notes(isolation, tmp_path, problems):
    work = grade_job(tmp_path, problems, TEXTS)
    notes = evaluation.grade(work)
    outcomes = [line["outcome"] for line in read_jsonl(work.output / "verdicts.jsonl")]
    assert outcomes == ["correct", "wrong", "no_answer", "no_answer"]
    assert notes["grader"]["isolation"] == isolation.name and notes["grader"]["unsafe"] is False
    assert (notes["n"], notes["correct"], notes["no_answer"], notes["truncated"]) == (4, 1, 2, 1)
    assert json.loads((work.output / "counts.json").read_text())["grader_failure"] == 0


def test_a_killed_grading_of_programs_runs_only_what_is_left(isolation, tmp_path, problems, monkeypatch):
    work, ran = grade_job(tmp_path, problems, TEXTS), []
    run = ProgramGrader._run
    monkeypatch.setattr(ProgramGrader, "_run", lambda self, one, code: ran.append(code) or run(self, one, code))

    def killed(fraction):
        if fraction >= 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluation.grade(replace(work, on_progress=killed))
    assert len(ran) == 2 and not (work.output / "verdicts.jsonl").exists()
    evaluation.grade(work)
    assert len(ran) == 2 and len(list(read_jsonl(work.output / "verdicts.jsonl"))) == 4


def test_a_killed_grading_of_answers_grades_only_what_is_left(tmp_path, monkeypatch):
    step = LoadProblems(benchmark="gsm8k", source="synthetic", limit=6, seed=0)
    folder = loaded(tmp_path, step)
    listed = list(read_jsonl(folder / "problems.jsonl"))
    (tmp_path / "records").mkdir()
    write_jsonl(tmp_path / "records/records.jsonl", ({"id": p["id"], "finish_reason": "stop",
                                                      "text": f"{p['id']}: \\boxed{{{p['gold']}}}"} for p in listed))
    graded, grade = [], MathGrader.grade
    monkeypatch.setattr(MathGrader, "grade", lambda self, problem, *rest: graded.append(problem.id) or grade(
        self, problem, *rest))
    work = job(tmp_path, Grade(records=step, problems=step, grader_version=1), "grade", problems=folder,
               records=tmp_path / "records")

    def killed(fraction):
        if fraction >= 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluation.grade(replace(work, on_progress=killed))
    assert evaluation.grade(work)["correct"] == 6
    assert graded == [p["id"] for p in listed]


def test_a_task_that_cannot_be_graded_scores_nothing(isolation, tmp_path, problems):
    work = grade_job(tmp_path, problems, TEXTS)
    tasks = list(read_jsonl(tmp_path / "problems/tasks.jsonl"))
    tasks[1]["row"]["canonical_solution"] = "    return 1 / 0\n"
    write_jsonl(tmp_path / "problems/tasks.jsonl", tasks)
    with pytest.raises(GraderError, match=r"failed on 1 of 4 answers \(first: humaneval_plus-1: .*ZeroDivision"):
        evaluation.grade(work)


# ---------------------------------------------------------------------------------------------------------- rollouts


def replies_job(tmp_path, pool, replies):
    for name, rows in (("pool", pool), ("replies", replies)):
        (tmp_path / name).mkdir()
        write_jsonl(tmp_path / name / f"{name}.jsonl", rows)
    step = SimpleNamespace(unsafe_code_execution=False, threads=2)
    return job(tmp_path, step, "grades", pool=tmp_path / "pool", replies=tmp_path / "replies")


def example(number, **changes):
    return {"id": f"e{number}", "question": "q", "completion": "c", "gold": "g", "source": "s", "answer_type": "code",
            "options": [], "style": "humaneval_plus", "row": row(number)} | changes


def test_replies_with_programs_are_run_against_their_example_s_tests(isolation, tmp_path):
    script = {"question_id": "s", "public_test_cases": json.dumps([{"input": "2\n", "output": "4\n",
                                                                    "testtype": "stdin"}]), "metadata": "{}"}
    pool = [example(0), example(1), example(2, style="livecodebench", row=script)]
    replies = [{"id": f"e{n}", "sample": k, "text": text, "finish_reason": "stop"} for n, k, text in [
        (0, 0, answer("def f(x): return x")), (0, 1, answer("def f(x): return 7")), (1, 0, "no idea"),
        (2, 0, answer("print(int(input()) * 2)"))]]
    work = replies_job(tmp_path, pool, replies)
    notes = rollouts.grade_replies(work)
    found = list(read_jsonl(work.output / "verdicts.jsonl"))
    assert [(v["id"], v["sample"], v["outcome"]) for v in found] == [
        ("e0", 0, "correct"), ("e0", 1, "wrong"), ("e1", 0, "no_answer"), ("e2", 0, "correct")]
    assert notes["prompts_solved"] == 2 and notes["grader"]["isolation"] == isolation.name


def test_a_code_pool_without_tests_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"1 of 2 pool examples have no tests \(first: e1\)"):
        rollouts.grade_replies(replies_job(tmp_path, [example(0), example(1, row=None)], []))


# ----------------------------------------------------------------------------------------------- isolation and plan


def test_isolation_is_asked_for_only_where_programs_are_run(problems, monkeypatch, capsys):
    monkeypatch.setattr(kinds, "probe", lambda name: "not installed")
    code = Grade(records=problems, problems=problems, grader_version=1)
    math = LoadProblems(benchmark="gsm8k", source="synthetic", limit=1, seed=0)
    require_isolation([problems, math, Grade(records=math, problems=math, grader_version=1)], unsafe=False)
    with pytest.raises(PrerequisiteError, match="--unsafe-code-execution"):
        require_isolation([problems, code], unsafe=False)
    require_isolation([code], unsafe=True)
    assert "WITHOUT ISOLATION" in capsys.readouterr().err


def test_the_waiver_is_no_identity_and_reaches_the_steps():
    scale = SCALES["tiny"]

    def planner(**changes):
        return Planner(Request(model=MODELS["tiny"], scale=scale, configuration=scale.configuration, data_root=None,
                               limit_train=None, limit_eval=None, seed=0, **changes), domain="code")

    one, other = planner().grade("dpo", "humaneval_plus"), planner(unsafe_code_execution=True).grade(
        "dpo", "humaneval_plus")
    assert one.key == other.key and not one.unsafe_code_execution and other.unsafe_code_execution
    assert runs_programs(one) and one.grader_version == CODE_GRADER_VERSION
    (grades,) = [step for step in ancestors(other) if isinstance(step, GradeReplies)]
    assert grades.unsafe_code_execution and runs_programs(grades)


def test_a_result_says_that_programs_ran_without_isolation():
    safe, unsafe, math = ({"notes": {"grader": grader}} for grader in ({"unsafe": False}, {"unsafe": True}, {"x": 1}))
    assert _unsafe_lines([safe, math, {"notes": {}}]) == []
    (line,) = _unsafe_lines([safe, unsafe, unsafe])
    assert "GRADED WITHOUT ISOLATION" in line and "in 2 grading steps" in line
