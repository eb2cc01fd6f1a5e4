"""Benchmarks: all problems or an error; never silently fewer, never a gold that changed its value."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from evaluation.benchmarks import BENCHMARKS, benchmark, load_benchmark, load_files
from evaluation.benchmarks.math import expression_gold, number_gold, parse_aqua, parse_svamp
from evaluation.problem import CHOICE_LETTERS, Problem
from foundation.errors import InputError, PrerequisiteError
from foundation.prompts import TAG_FREE_SYSTEM_PROMPT, TAG_SYSTEM_PROMPT
from foundation.records import Malformed, Record, read_records

SHARED = Path(os.environ.get("WMSS_SHARED", Path(__file__).parents[1].parent / "shared"))
DATA_ROOT = SHARED / "datasets"
needs_data = pytest.mark.skipif(not DATA_ROOT.is_dir(), reason=f"no data sets at {DATA_ROOT} (set WMSS_SHARED)")
GSM8K = BENCHMARKS["gsm8k"]


def gsm8k_file(root: Path, count: int, text: str | None = None) -> Path:
    path = root / GSM8K.file
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.dumps({"question": f"What is {n}+1?", "answer": f"{n}+1={n + 1}\n#### {n + 1}"}) for n in range(count)]
    path.write_text("\n".join(rows) + "\n" if text is None else text)
    return path


def small(count: int = 3):
    return replace(GSM8K, expected_count=count)


def test_keys_are_names_and_titles_are_the_papers_columns():
    assert all(name == entry.name for name, entry in BENCHMARKS.items())
    assert {entry.title for entry in BENCHMARKS.values()} == {
        "AIME2025", "MATH500", "AMC23", "AQuA", "GSM8K", "MAWPS", "SVAMP", "HE+", "MBPP+", "BCB", "LCB", "LogiQA2",
        "ReClor"}


def test_unknown_name_lists_the_valid_ones():
    with pytest.raises(InputError, match=r"'math50' is unknown.*aime2025, math500, .*svamp"):
        benchmark("math50")


@needs_data
@pytest.mark.parametrize("name", BENCHMARKS)
def test_real_files_give_every_problem_with_a_bare_gold(name):
    entry = BENCHMARKS[name]
    problems = load_benchmark(entry, DATA_ROOT)
    assert len(problems) == entry.expected_count
    assert [problem.id for problem in problems] == [f"{name}-{position}" for position in range(len(problems))]
    for problem in problems:
        assert problem.question.strip()
        if entry.domain == "code":
            assert problem.source_id and (problem.gold.strip() or name == "livecodebench")
            continue
        assert problem.gold and "$" not in problem.gold
        if entry.answer_type in ("integer", "number"):
            Fraction(problem.gold)
        if entry.answer_type == "integer":
            assert problem.gold == str(int(problem.gold))
        if entry.answer_type == "choice":
            assert problem.gold in CHOICE_LETTERS[: len(problem.options)]
            assert all(f"({letter}) {text}" in problem.question
                       for letter, text in zip(CHOICE_LETTERS, problem.options, strict=False))


@needs_data
def test_gold_values_equal_the_ones_of_the_papers_copies():
    copy = json.loads((DATA_ROOT / "gsm8k/wmss/test.json").read_text())
    ours = {problem.question: Fraction(problem.gold) for problem in load_benchmark(GSM8K, DATA_ROOT)}
    assert all(ours[row["instruction"].strip()] == Fraction(row["answer"]) for row in copy)
    aqua = json.loads((DATA_ROOT / "aqua/wmss/test.json").read_text())
    letters = {"".join(problem.question.split()): problem.gold
               for problem in load_benchmark(BENCHMARKS["aqua"], DATA_ROOT)}
    matched = [row for row in aqua if "".join(row["instruction"].split()) in letters]
    # The rendered question is the paper's own, up to white space.
    assert len(matched) == len(aqua)
    assert all(letters["".join(row["instruction"].split())] == row["answer"] for row in matched)


@needs_data
def test_svamp_keeps_the_wrong_gold_of_chal_680():
    (problem,) = [item for item in load_benchmark(BENCHMARKS["svamp"], DATA_ROOT)
                  if "Rachel's tree had 4 apples. She picked 2" in item.question]
    assert problem.gold == "1"


@needs_data
def test_svamp_upstream_layout_reads_as_the_papers_copy():
    problems = load_benchmark(BENCHMARKS["svamp"], DATA_ROOT)
    rows = json.loads((DATA_ROOT / "svamp/upstream/SVAMP.json").read_text())
    upstream = {"".join(parse_svamp(row).question.split()): parse_svamp(row).gold for row in rows}
    same = [problem for problem in problems if upstream.get("".join(problem.question.split())) == problem.gold]
    assert len(same) > 980


@pytest.mark.parametrize(("written", "bare"), [
    ("336^\\circ", "336"), ("576.0", "576"), ("2,125", "2125"), ("$5", "5"), ("\\$36", "36"), ("-15.0", "-15"),
    ("1.8333333333333335", "1.8333333333333335"), ("-0.0", "0"), (" 7 ", "7"), ("0.50", "0.50")])
def test_number_gold(written, bare):
    assert number_gold(written) == bare


@pytest.mark.parametrize("written", ["", "abc", "1/2", "1e5", "nan", "12 apples", "٣x"])
def test_number_gold_refuses_what_is_not_a_number(written):
    with pytest.raises(ValueError, match="not a number"):
        number_gold(written)


def test_expression_gold_loses_only_the_currency_sign():
    assert expression_gold("\\$32,\\!348") == "32,\\!348"
    assert expression_gold("\\frac43") == "\\frac43"
    with pytest.raises(ValueError, match="dollar"):
        expression_gold("a $ b")


def test_aqua_options_must_be_lettered_in_order():
    row = {"question": "q", "options": ["A)1", "B) 2"], "correct": "B"}
    assert parse_aqua(row).options == ("1", "2")
    for options in (["A)1", "C)2"], ["1", "2"], ["A)", "B)2"], "A)1", [], ["A)1", 2]):
        with pytest.raises(ValueError, match="option"):
            parse_aqua(row | {"options": options})


def test_missing_file_says_which_its_hash_and_how_to_get_it(tmp_path):
    with pytest.raises(PrerequisiteError, match=r"gsm8k/upstream/test.jsonl.*abc123.*--data-root.*WMSS_DATA_ROOT"):
        load_benchmark(GSM8K, tmp_path, "abc123")
    with pytest.raises(PrerequisiteError, match="no hub copy"):
        load_benchmark(BENCHMARKS["mawps"], tmp_path)


@pytest.mark.parametrize("count", [2, 4])
def test_any_other_count_is_an_error(tmp_path, count):
    gsm8k_file(tmp_path, count)
    with pytest.raises(InputError, match=f"holds {count} problems, expected 3"):
        load_benchmark(small(), tmp_path)


@pytest.mark.parametrize("text", ["", "\n\n", "[]", "[ ]\n"])
def test_empty_benchmark_is_an_error(tmp_path, text):
    gsm8k_file(tmp_path, 0, text)
    with pytest.raises(InputError, match="holds no problems"):
        load_benchmark(small(0), tmp_path)


def test_truncated_json_lines_name_the_line(tmp_path):
    path = gsm8k_file(tmp_path, 3)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(InputError, match=r"test\.jsonl:3: not a JSON line.*truncated"):
        load_benchmark(small(), tmp_path)


def test_truncated_array_names_the_line(tmp_path):
    whole = json.dumps([{"question": f"q{n}", "answer": f"#### {n}"} for n in range(3)], indent=1)
    assert len(load_files(small(), [gsm8k_file(tmp_path, 0, whole)])) == 3
    for cut in range(1, len(whole)):
        path = gsm8k_file(tmp_path, 0, whole[:cut])
        with pytest.raises(InputError, match=r"test\.jsonl:\d+: broken JSON array.*truncated"):
            load_benchmark(small(), tmp_path)
    path.write_text(whole + "]")
    with pytest.raises(InputError, match="after the end"):
        load_benchmark(small(), tmp_path)


def test_other_hash_is_an_error_with_both_hashes(tmp_path):
    gsm8k_file(tmp_path, 3)
    with pytest.raises(InputError, match=r"expected 0{64}, found [0-9a-f]{64}.*Restore.*lock"):
        load_benchmark(small(), tmp_path, "0" * 64)


@pytest.mark.parametrize(("row", "reason"), [
    ('{"question": "q"}', "has no field 'answer'"), ('{"question": "q", "answer": "7"}', "no '####'"),
    ('{"question": "q", "answer": "#### many"}', "not a number"), ('{"question": "", "answer": "#### 7"}', "empty"),
    ('{"question": "q", "answer": "#### 7.5"}', "not an integer"), ('{"question": ["q"], "answer": "#### 7"}', "text"),
    ("[1]", "broken JSON array|expected a JSON object"), ("7", "expected a JSON object"), ("\xff", "not a JSON line")])
def test_bad_row_stops_with_its_line(tmp_path, row, reason):
    path = gsm8k_file(tmp_path, 1)
    path.write_bytes(path.read_bytes() + row.encode("latin-1") + b"\n")
    with pytest.raises(InputError, match=f":2: .*({reason})"):
        load_benchmark(small(2), tmp_path)


def test_an_id_that_occurs_twice_is_an_error(tmp_path):
    entry = replace(BENCHMARKS["math500"], expected_count=2)
    path = tmp_path / "math.jsonl"
    path.write_text('{"problem": "p", "answer": "1", "unique_id": "test/1"}\n' * 2)
    with pytest.raises(InputError, match="'test/1' twice"):
        load_files(entry, [path])


def test_split_and_parquet_hub_copies_read_like_one_file(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"question": f"q{n}", "options": ["A)1", "B)2"], "correct": "A", "rationale": ""} for n in range(4)]
    for part, name in ((rows[:3], "a.parquet"), (rows[3:], "b.parquet")):
        parquet.write_table(pyarrow.Table.from_pylist(part), tmp_path / name)
    entry = replace(BENCHMARKS["aqua"], expected_count=4)
    problems = load_files(entry, [tmp_path / "a.parquet", tmp_path / "b.parquet"])
    assert [problem.id for problem in problems] == [f"aqua-{n}" for n in range(4)]
    (tmp_path / "b.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(InputError, match="parquet"):
        load_files(BENCHMARKS["aqua"], [tmp_path / "b.parquet"])


def test_array_records_carry_their_lines(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('[\n {"a": 1},\n\n {\n "a": 2}, 3]')
    assert [item if isinstance(item, Record) else (item.line, item.reason) for item in read_records(path)] == [
        Record(2, {"a": 1}), Record(4, {"a": 2}), (5, "expected a JSON object, found int")]


def test_hostile_lines_are_values_not_crashes(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n' + '{"a":' * 100_000 + "\n" + '{"a": ' + "9" * 5000 + "}\n")
    found = list(read_records(path))
    assert [type(item) for item in found] == [Record, Malformed, Malformed]


def test_cut_off_gzip_is_an_error(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n' * 1000)[:-12])
    with pytest.raises(InputError, match="cut-off"):
        list(read_records(path))


@needs_data
def test_logic_problems_show_passage_question_and_lettered_options_and_share_clusters():
    clusters = {}
    for name, rows in (("logiqa2", [json.loads(line) for line in (DATA_ROOT / "logiqa2/test.txt").open()]),
                       ("reclor", json.loads((DATA_ROOT / "reclor/val.json").read_text()))):
        problems = load_benchmark(BENCHMARKS[name], DATA_ROOT)
        clusters[name] = len({problem.cluster for problem in problems})
        for problem, row in zip(problems, rows, strict=True):
            options = row.get("options") or row["answers"]
            assert problem.question.startswith(row.get("text", row.get("context")).strip())
            assert row["question"].strip() in problem.question and len(problem.options) == 4
            assert problem.options["ABCD".index(problem.gold)] == options[row.get("answer", row.get("label"))].strip()
            assert problem.question.endswith(f"(D) {problem.options[3]}")
    assert clusters == {"logiqa2": 1547, "reclor": 500}


@needs_data
def test_known_repeated_ids_are_kept_by_position_and_any_other_repeat_is_refused(tmp_path):
    entry = BENCHMARKS["logiqa2"]
    problems = load_benchmark(entry, DATA_ROOT)
    known = next(defect for defect in entry.known_defects if defect.kind == "repeated_id").ids
    counts = {name: [p.id for p in problems if p.source_id == name] for name in known}
    assert all(len(ids) == 2 for ids in counts.values())
    lines = (DATA_ROOT / entry.file).read_text().splitlines()
    lines[7] = lines[6]
    path = tmp_path / "test.txt"
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"LogiQA2: .* twice"):
        load_files(entry, [path])


@needs_data
def test_known_defects_name_rows_that_exist():
    ids = {name: {row.get(key) for row in (record.row for record in read_records(DATA_ROOT / BENCHMARKS[name].file))}
           for name, key in (("logiqa2", "id"), ("mbpp_plus", "task_id"))}
    for name, found in ids.items():
        for defect in BENCHMARKS[name].known_defects:
            assert set(defect.ids) <= set(map(str, found))


@needs_data
def test_both_layouts_of_the_evalplus_sets_give_the_same_questions():
    for name, other in (("humaneval_plus", "humaneval_plus/HumanEvalPlus-OriginFmt.jsonl.gz"),
                        ("mbpp_plus", "mbpp_plus/MbppPlus-OriginFmt.jsonl.gz")):
        ours = {p.source_id: p.question for p in load_benchmark(BENCHMARKS[name], DATA_ROOT)}
        rows = [record.row for record in read_records(DATA_ROOT / other)]
        theirs = {parsed.source_id: parsed.question for parsed in map(BENCHMARKS[name].parse, rows)}
        differing = [i for i in ours if "".join(ours[i].split()) != "".join(theirs[i].split())]
        assert not differing


def test_each_domain_has_its_prompt_in_both_styles():
    prompts = {(style, entry.domain): entry.system_prompt(style)
               for entry in BENCHMARKS.values() for style in ("tags", "tag_free")}
    assert len(set(prompts.values())) == 6
    assert prompts["tags", "math"] == TAG_SYSTEM_PROMPT and prompts["tag_free", "math"] == TAG_FREE_SYSTEM_PROMPT
    for (style, domain), text in prompts.items():
        assert ("<think>" in text and "<answer>" in text) == (style == "tags")
        assert {"math": "\\boxed{}", "code": "Python code", "logic": "The answer is (X)."}[domain] in text


@pytest.mark.parametrize(("name", "row", "reason"), [
    ("reclor", {"answers": ["a", "b"], "label": 2}, "gold index 2"), ("reclor", {"answers": ["a", ""]}, "options"),
    ("reclor", {"label": True}, "gold index True"), ("reclor", {"context": " "}, "passage is empty"),
    ("bigcodebench", {"test": ""}, "no tests"), ("livecodebench", {"public_test_cases": "[]"}, "no tests"),
    ("humaneval_plus", {"base_input": [], "test": None}, "no tests"), ("mbpp_plus", {"entry_point": ""}, "entry_point"),
    ("humaneval_plus", {"prompt": 7}, "'prompt' should be text"),
])
def test_rows_that_cannot_be_used_say_why(name, row, reason):
    good = {"context": "c", "question": "q", "answers": ["a", "b"], "label": 1, "id_string": "i", "prompt": "def f():",
            "canonical_solution": " return 1", "entry_point": "f", "task_id": "t/1", "base_input": [[1]], "test": "x",
            "complete_prompt": "def f():", "instruct_prompt": "Write f.", "question_content": "c", "starter_code": "",
            "question_id": "1", "public_test_cases": "[{}]"}
    BENCHMARKS[name].parse(good)
    with pytest.raises(ValueError, match=reason):
        BENCHMARKS[name].parse(good | row)


@needs_data
def test_problem_rows_survive_the_round_trip_and_mathematics_rows_are_as_before():
    for name in ("reclor", "gsm8k"):
        problem = load_benchmark(BENCHMARKS[name], DATA_ROOT)[0]
        assert Problem.from_row(json.loads(json.dumps(problem.to_row()))) == problem
    assert set(problem.to_row()) == {"id", "question", "gold", "answer_type", "options"}
