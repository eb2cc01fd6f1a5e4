"""The corpora: who is kept and who is dropped for what reason; a pool's bytes do not depend on how it was built.

Verdicts are compared with math-verify alone, the program of the paper's code.
"""

from __future__ import annotations

import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from conftest import ROOT

from bench.corpora import generate, record
from bench.corpora import write as write_corpus
from foundation.errors import ArtifactError, GenerationError, InputError, PrerequisiteError, StorageError
from replication.corpora import code_rules, journal, math_rules
from replication.corpora.batches import Batch, judge, read_batches
from replication.corpora.boxes import lone_box
from replication.corpora.building import Corpus, build
from replication.corpora.code_rules import CodeRules, unit_tests
from replication.corpora.math_rules import MathRules, well_formed
from replication.corpora.processes import MathProcesses
from replication.corpora.report import as_text, printed_count
from replication.data.am_corpus import AmRecord

THINK = "<think>Let me \\(a+b\\) see [here].\n"
REGEX = re.compile(r"^<think>.*?</think>\s*<answer>.*?\\boxed\{.*?\}.*?</answer>$", re.DOTALL)


def am(reply: str, gold: str | None) -> AmRecord:
    return AmRecord(line=1, question="q", response=reply, think=None, answer=None, source="s", reference_answer=gold,
                    test_case=None)


def replies(count: int, seed: int):
    """Replies with boxes of all sorts in formulas of all sorts, whole and broken, and references beside them."""
    draw = random.Random(seed)
    contents = ["5", "-12", "\\frac{1}{2}", "\\frac{2}{4}", "x^2+1", "3.5", "1,234", "10\\text{ cm}", "25\\%",
                "\\{1,2\\}", "(1,2]", "B", "x=3", "5 ", "0"]
    forms = ["%s", "\\(%s\\)", "$%s$", "\\[\n%s\n\\]", "$$\n%s\n$$", "$x$ and $%s$", "$\\boxed{7}$ and $%s$",
             "\\(%s\\)\\%%", "\\boxed{3}, %s", "final answer is $%s$. I hope so", "[ %s ] ok", "\\[ %s", "%s}",
             "\\(%s\\) and \\(3\\)"]
    before = ["", "", "\\boxed{9}", "\\[ open", "$$", "$$a$$", "\\(\\boxed{5}\\) and ", "So 5.\n\\boxed{4} or"]
    for _ in range(count):
        box = f"\\boxed{{{draw.choice(contents)}}}"
        text = (THINK + "x" * draw.choice([0, 20, 80]) + draw.choice(before) + "\n</think>" +
                draw.choice(["\n<answer>\n", "\n<answer>\n", "<answer>", "\n <answer>"]) +
                draw.choice(["", "So \\(y\\) is "]) + draw.choice(forms) % box + draw.choice(["", ".", " for $z$"]) +
                "\n</answer>")
        if draw.random() < 0.1:
            text = text.replace(draw.choice(["</think>", "\\boxed", "<answer>", "}"]), "", 1)
        yield text, draw.choice([*contents, "\\frac12", "$\\frac{1}{2}$", "0.5", "$5$", "1 + x^2"])


def test_verdicts_are_those_of_math_verify_alone():
    fast, alone = MathRules(), MathRules(fast=False)
    seen = Counter()
    for text, gold in replies(150, seed=3):
        assert well_formed(text) == bool(REGEX.match(text)), text
        expected = alone.reason(am(text, gold))
        assert fast.reason(am(text, gold)) == expected, (gold, text)
        seen[expected, lone_box(text) is not None] += 1
    assert seen[None, True] and seen[math_rules.DIFFERS, True] and seen[None, False] and seen[math_rules.FORMAT, False]


@pytest.mark.parametrize(("gold", "answer", "same"), [
    ("7", "7", True), ("7", "-7", False), ("$12$", "12", True), ("\\frac{1}{2}", "\\frac{2}{4}", True),
    ("$\\frac{1}{2}$", "\\frac{1}{3}", False), ("2", "\\frac{4}{2}", True), ("3.50", "3.50", True),
    ("999999999", "999999998", False), ("\\frac{999999}{999998}", "1", False)])
def test_plain_numbers_without_math_verify(gold, answer, same):
    reply = f"{THINK}</think>\n<answer>\n\\(\\boxed{{{answer}}}\\)\n</answer>"
    assert math_rules._same_number(gold, answer) is same
    assert (MathRules(fast=False).reason(am(reply, gold)) is None) is same


@pytest.mark.parametrize("gold", ["5.0", "$5", "05", "1e3", "\\frac{1}{0}", "\\frac{01}{2}", "5%", "1 000", "x"])
def test_what_is_not_plain_is_left_to_math_verify(gold):
    assert math_rules._same_number(gold, "5") is None


def test_a_record_without_end_is_dropped_alone(monkeypatch):
    rows = [record("q", f"{THINK}</think>\n<answer>\n\\boxed{{{box}}}\n</answer>", "5")
            for box in ("5", "9^{9^{9^{9}}}+1", "5")]
    batch = Batch("am.jsonl", tuple((i, json.dumps(row).encode()) for i, row in enumerate(rows)))
    asked = []

    def ask(self, given):
        asked.append(len(given.lines))
        if any(b"9^{9^" in line for _, line in given.lines):
            raise EOFError  # what the end of the process looks like from here
        return judge(given, MathRules())
    monkeypatch.setattr(MathProcesses, "_ask", ask)
    result = MathProcesses()(batch)
    assert (result.read, len(result.kept), dict(result.dropped)) == (3, 2, {math_rules.LATE: 1})
    assert asked == [3, 1, 1, 1, 1]  # the one that ended its process was tried once more


def test_limit_of_processor_time(monkeypatch):
    monkeypatch.setattr(math_rules, "LIMIT_SECONDS", 0.05)
    rules = MathRules()
    monkeypatch.setattr(type(rules._math), "parse_box", lambda self, box: [None for _ in iter(int, 1)])
    reply = f"{THINK}</think>\n<answer>\n\\boxed{{x+1}}\n</answer>"
    assert rules.reason(am(reply, "5")) == math_rules.LATE


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two generated sources, what is to become of their records, and the pool that a run without trouble makes."""
    folder = tmp_path_factory.mktemp("corpus")
    fates = write_corpus(folder / "a.jsonl", 1100, seed=1) + write_corpus(folder / "b.jsonl", 130, seed=2)
    sources = (folder / "a.jsonl", folder / "b.jsonl")
    report = build(Corpus(kind="math", sources=sources), folder / "out", workers=2)
    return sources, fates, folder / "out", report


def test_counts_are_those_generated(corpus):
    _, fates, out, report = corpus
    assert Counter(report["pool"]["dropped"]) + Counter(kept=report["pool"]["kept"]) == fates
    rows = [json.loads(line) for line in (out / "pool.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"am-math-{i}" for i in range(fates["kept"])]
    assert all(row["completion"].startswith("<think>") and row["answer_type"] == "expression" for row in rows)
    assert report["table12"] == {"printed": 111_657, "kept": fates["kept"], "equal": False,
                                 "difference": fates["kept"] - 111_657}
    assert f"{fates['kept']:,} of 1,230 records kept" in as_text(report) and not (out / "work").exists()


def test_printed_counts():
    assert [printed_count(kind) for kind in ("math", "code", "logic")] == [111_657, 19_457, 14_882]


def same_files(one, other):
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in ("pool.jsonl", "report.json"))


def test_killed_at_any_point_and_run_again_gives_the_same_bytes(corpus, tmp_path):
    sources, _, whole, _ = corpus
    command = [sys.executable, "-m", "replication.corpora", "math", "--out", str(tmp_path / "out"), "--workers", "1",
               *(word for path in sources for word in ("--source", str(path)))]
    work, codes = tmp_path / "out" / "work", []
    for size in (300, 600):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while process.poll() is None and _size(work / "0000.journal") < size and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        codes.append(process.wait())
    assert codes[0] == -signal.SIGKILL
    if codes[1]:  # else this process was too slow to catch it, and it is whole
        # What a kill or a power cut may leave behind: half a line, and rows that no line of the journal vouches for.
        with (work / "0000.journal").open("ab") as file:
            file.write(b'{"read": 64, "kept')
        with (work / "0000.rows").open("ab") as file:
            file.write(b'{"question": "half')
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert same_files(tmp_path / "out", whole)


def _size(path):
    return path.stat().st_size if path.exists() else 0


def test_a_finished_pool_stays_and_a_damaged_or_other_one_is_refused(corpus, tmp_path):
    sources, _, whole, report = corpus
    assert build(Corpus(kind="math", sources=sources), whole) == report
    with pytest.raises(InputError, match="another request"):
        build(Corpus(kind="math", sources=sources, limit=5), whole)
    build(Corpus(kind="math", sources=sources[1:], limit=20), tmp_path, workers=1)
    with (tmp_path / "pool.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(ArtifactError, match="build again"):
        build(Corpus(kind="math", sources=sources[1:], limit=20), tmp_path)


def test_limit_counts_over_all_sources(corpus, tmp_path):
    report = build(Corpus(kind="math", sources=corpus[0][::-1], limit=140), tmp_path, workers=1)
    assert [source["read"] for source in report["sources"]] == [130, 10]


@pytest.fixture(scope="module")
def small(corpus, tmp_path_factory):
    """The second source alone, and its pool."""
    folder = tmp_path_factory.mktemp("small")
    build(Corpus(kind="math", sources=corpus[0][1:]), folder, workers=1)
    return corpus[0][1:], folder


def test_full_disk_loses_nothing(small, tmp_path, monkeypatch):
    sources, whole = small
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with monkeypatch.context() as patched:
        patched.setattr(journal.os, "fsync", full)
        with pytest.raises(StorageError, match="free some space"):
            build(Corpus(kind="math", sources=sources), tmp_path, workers=1)
    build(Corpus(kind="math", sources=sources), tmp_path, workers=2)
    assert same_files(tmp_path, whole)


def test_read_only_store(corpus, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    monkeypatch.setattr("replication.corpora.building.Path.mkdir", refuse)
    with pytest.raises(StorageError, match="name a folder you may write to"):
        build(Corpus(kind="math", sources=corpus[0]), tmp_path / "out")


@pytest.mark.parametrize(("change", "message"), [
    (lambda row: {"conversation": row["messages"]}, "no list of messages"),
    (lambda row: {"messages": [message | {"info": {"answer": "5"}} for message in row["messages"]]},
     "reference_answer"),
    (lambda row: {"messages": [row["messages"][0], row["messages"][1] | {"content": "It is 5."}]}, "think block"),
])
def test_changed_format_stops_and_says_where(tmp_path, change, message):
    row = change(record("q", f"{THINK}</think>\n<answer>\\boxed{{5}}</answer>", "5"))
    path = tmp_path / "am.jsonl"
    path.write_text((json.dumps(row) + "\n") * 150)
    with pytest.raises(InputError, match=message) as error:
        build(Corpus(kind="math", sources=(path,)), tmp_path / "out", workers=1)
    assert "am.jsonl" in str(error.value)


def test_bad_requests(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "file").touch()
    for out in (tmp_path / "out", tmp_path / "file"):
        with pytest.raises(InputError, match=r"no records|not a folder"):
            build(Corpus(kind="math", sources=(tmp_path / "empty.jsonl",)), out, workers=1)
    for wrong in ({"sources": ()}, {"sources": (tmp_path / "none",)}, {"sources": (tmp_path / "file",) * 2},
                  {"sources": (tmp_path / "file",), "limit": 0}):
        with pytest.raises(InputError):
            Corpus(kind="math", **wrong)


def test_compressed_sources_and_cut_off_ones(corpus, tmp_path):
    zstandard = pytest.importorskip("zstandard", reason="zstandard is not installed")
    plain = corpus[0][1].read_bytes()
    path = tmp_path / "b.jsonl.zst"
    half = len(plain) // 2
    path.write_bytes(zstandard.compress(plain[:half]) + zstandard.compress(plain[half:]))
    lines = [line for batch in read_batches(corpus[0][1], records=64) for line in batch.lines]
    assert [line for batch in read_batches(path, records=7) for line in batch.lines] == lines
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="cut-off"):
        list(read_batches(path, records=64))


def test_a_line_without_end_takes_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("replication.corpora.batches.LONGEST_LINE", 1000)
    path = tmp_path / "am.jsonl"
    path.write_text("x" * 5000 + "\n\n{}\n")
    (batch,) = read_batches(path, records=64)
    assert batch.lines == ((1, None), (3, b"{}\n"))


def test_generated_records_are_the_same_for_a_seed():
    assert list(generate(20, seed=4)) == list(generate(20, seed=4)) != list(generate(20, seed=5))


# ------------------------------------------------------------------------------------------------------------- code

ANSWER = THINK + "</think>\n<answer>\nHere:\n```python\n%s\n```\n</answer>"
DOUBLE = "def double(x):\n    return 2 * x"


@pytest.mark.parametrize(("tests", "kind"), [
    ({"test_code": "from solution import double\n\ndef test_it():\n    assert double(2) == 4",
      "test_entry_point": "double"}, "AssertTask"),
    (["assert double(1) == 2", "assert double(2) == 4"], "AssertTask"), ("assert double(1) == 2", "AssertTask"),
    ({"inputs": ["1\n2\n"], "outputs": ["3\n"]}, "OutputTask"),
    ({"inputs": [[1]], "outputs": [2], "fn_name": "double"}, "OutputTask"),
    ({"inputs": []}, "NoneType"), ("nothing", "NoneType"), ({"cases": 1}, "NoneType")])
def test_forms_of_unit_tests(tests, kind):
    assert type(unit_tests(tests if isinstance(tests, str) else json.dumps(tests))).__name__ == kind


def test_code_filter_runs_programs_against_their_own_tests(tmp_path):
    tests = {"test_code": "from solution import double\n\ndef test_it():\n    assert double(2) == 4",
             "test_entry_point": "double"}
    script = {"inputs": ["3\n"], "outputs": ["6\n"]}
    cases = [(DOUBLE, tests, None), (DOUBLE, ["assert double(1) == 2"], None),
             ("def double(x):\n    return x", tests, "a unit test fails"),
             ("print(2 * int(input()))", script, None), ("1 / 0", script, "the program raises"),
             (DOUBLE, None, code_rules.NO_TESTS), (DOUBLE, {"cases": 1}, code_rules.UNKNOWN_TESTS)]
    path = tmp_path / "code.jsonl"
    path.write_text("".join(json.dumps(record("q", ANSWER % code, None, source="KodCode", tests=given)) + "\n"
                            for code, given, _ in cases))
    try:
        report = build(Corpus(kind="code", sources=(path,)), tmp_path / "out", workers=2)
    except PrerequisiteError as error:
        pytest.skip(f"no isolation here: {error}")
    assert report["pool"]["dropped"] == dict(sorted(Counter(reason for *_, reason in cases if reason).items()))
    rows = [json.loads(line) for line in (tmp_path / "out" / "pool.jsonl").read_text().splitlines()]
    assert [row["completion"] for row in rows] == [ANSWER % code for code, _, reason in cases if reason is None]


def test_code_records_need_both_blocks_and_a_program():
    rules = CodeRules.__new__(CodeRules)
    given = AmRecord(line=1, question="q", response="no blocks", think=None, answer=None, source="s",
                     reference_answer=None, test_case='["assert f()"]')
    assert rules.reason(given) == code_rules.FORMAT


# ------------------------------------------------------------------------------------------------- logic and overlap


def logic_files(folder, monkeypatch):
    from replication.corpora import logic

    monkeypatch.setattr(logic, "HELD_OUT", {("logiqa2", "test"): 1, ("reclor", "val"): 1})
    logiqa = {"id": 1, "text": "All cats purr. Tom is a cat.", "question": "What follows?", "answer": 1,
              "options": ["Tom barks.", "Tom purrs.", "Tom sleeps.", "Nothing."]}
    reclor = {"context": "No fish sing.", "question": "So?", "label": 0, "id_string": "train_0",
              "answers": ["Fish are silent.", "Fish sing.", "Birds sing.", "None."]}
    paths = [folder / name for name in ("train.txt", "test.txt", "train.json", "val.json")]
    rows = [[logiqa, logiqa | {"id": 2, "answer": 0}, logiqa | {"id": 3}, logiqa | {"id": 4}], [logiqa],
            [reclor], [reclor]]
    for path, listed in zip(paths, rows, strict=True):
        path.write_text("\n".join(json.dumps(row) for row in listed))
    return paths


def test_logic_pool_holds_out_distils_and_keeps_the_right_answers(tmp_path, monkeypatch):
    from evaluation.backends.interface import BACKENDS
    from replication.corpora.command import build_logic

    def backend(checkpoint, prompts, request, records, *, key, on_progress=lambda fraction: None):
        assert request.sampling.n == 1 and request.max_new_tokens and all("(A)" in p.question for p in prompts)
        texts = ["<think>\nTom purrs.\n</think>\n\nThe answer is (B).", "<think>B?</think>The answer is (B).",
                 "It is B.", "<think>half", "Fish are silent.</think>The answer is (A)."]
        reasons = ["stop", "stop", "stop", "length", "stop"]
        records.write_text(json.dumps({"header": key}) + "\n" + "".join(
            json.dumps({"id": p.id, "sample": 0, "text": text, "finish_reason": reason}) + "\n"
            for p, text, reason in zip(prompts, texts, reasons, strict=True)))
    monkeypatch.setattr("evaluation.backends.interface.BACKENDS", {**BACKENDS, "vllm": backend})
    paths = logic_files(tmp_path, monkeypatch)
    common = {"checkpoint": tmp_path, "backend": "vllm", "seed": 0, "data_root": None, "decontaminate": False}
    report = build_logic(tuple(paths), tmp_path / "out", limit=None, **common)
    assert report is not None and report["pool"]["read"] == 7 and report["pool"]["kept"] == 2
    assert report["pool"]["dropped"] == {"held out: logiqa2 test": 1, "held out: reclor val": 1, "no think block": 1,
                                         "another option than the gold one": 1, "answer was cut off": 1}
    first, last = (json.loads(line) for line in (tmp_path / "out" / "pool.jsonl").read_text().splitlines())
    assert first["completion"] == "<think>\nTom purrs.\n</think>\n<answer>The answer is (B).</answer>"
    assert (first["id"], last["id"], last["gold"]) == ("logiqa2-train-0", "reclor-train-0", "A")


def test_logic_refuses_what_is_missing(tmp_path, monkeypatch):
    from evaluation.problem import Problem
    from replication.corpora import logic

    paths = logic_files(tmp_path, monkeypatch)
    with pytest.raises(InputError, match="second file"):
        logic.merge([paths[0], paths[0]])
    monkeypatch.setattr(logic, "HELD_OUT", {("logiqa2", "test"): 1572})
    with pytest.raises(InputError, match="holds 1 questions"):
        logic.merge([paths[1]])
    (tmp_path / "records.jsonl").write_text('{"header": "k"}\n')
    with pytest.raises(GenerationError, match="no answer to a"):
        logic.keep_verified([Problem(id="a", question="q", gold="A", answer_type="choice")], tmp_path / "records.jsonl")


def test_overlap_counts_equal_questions_and_shared_runs():
    from replication.corpora.overlap import as_markdown, held_out, measure

    long = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    questions = {"A": ["how many apples", long], "B": [long + " fifteen"]}
    pool = ["How many APPLES?", "how many apples", f"Well: {long.title()}.", "twelve thirteen fourteen"]
    a, b = (entry.to_row() for entry in measure(pool, questions))
    assert a == {"benchmark": "A", "problems": 2, "pool_examples_equal": 2, "problems_equal": 1,
                 "pool_examples_sharing_13_words": 1, "problems_sharing_13_words": 1}
    assert (b["pool_examples_equal"], b["pool_examples_sharing_13_words"]) == (0, 1)
    assert "| A | 2 | 2 | 1 | 1 | 1 |" in as_markdown([a, b], 4, ["C"])
    assert held_out(questions)["how many apples"] == "A"


def test_decontamination_is_counted_apart(tmp_path):
    path = tmp_path / "am.jsonl"
    reply = f"{THINK}</think>\n<answer>\n\\boxed{{5}}\n</answer>"
    path.write_text("".join(json.dumps(record(q, reply, "5")) + "\n" for q in ("What is 2+3?", "What is 1+4?")))
    corpus = Corpus(kind="math", sources=(path,), held_out={"what is 2 3": "GSM8K"})
    report = build(corpus, tmp_path / "out", workers=1)
    assert report["pool"]["dropped"] == {"question stands in a test set (GSM8K)": 1}
    assert report["pool"]["checked_against"] == ["GSM8K"]


# ------------------------------------------------------------------------------------------------ a run's own source


def halves(source, folder):
    """Split a source over the two files of the corpus."""
    folder.mkdir()
    lines = source.read_bytes().splitlines(keepends=True)
    for name, part in (("am_0.5M.jsonl", lines[:60]), ("am_0.9M.jsonl", lines[60:])):
        (folder / name).write_bytes(b"".join(part))


def test_a_pool_of_the_paper_is_known_by_its_content(small, tmp_path):
    from replication.corpora.sources import find

    sources, whole = small
    assert find("logic", "logic", tmp_path, hashing=True) is None and find("logic", "logic", None, hashing=True) is None
    assert find("am", "math", tmp_path, hashing=False).root is None  # an empty data root does not hide the hub
    halves(sources[0], tmp_path / "am_deepseek_r1_distilled")
    raw = find("am", "math", tmp_path, hashing=True)
    assert [name for name, _ in raw.identity] == ["am_0.5M.jsonl", "am_0.9M.jsonl"] and raw.whole
    assert raw.root == tmp_path
    assert find("am", "math", tmp_path, hashing=False).identity == ()
    (tmp_path / "am_deepseek_r1_distilled" / "am_0.9M.jsonl").unlink()
    assert find("am", "math", tmp_path, hashing=False).root is None  # a part is not the corpus
    (tmp_path / "corpora").mkdir()
    folder = tmp_path / "corpora" / "math"
    folder.symlink_to(whole)
    report = json.loads((whole / "report.json").read_text())
    built = find("am", "math", tmp_path, hashing=False)
    assert built.identity == (("corpora/math/pool.jsonl", report["pool_sha256"]),) and built.whole
    folder.unlink()
    folder.mkdir()
    (folder / "report.json").write_text(json.dumps(report | {"limit": 50}))
    assert not find("am", "math", tmp_path, hashing=True).whole
    (folder / "report.json").write_text('{"pool_sha256": "x"}')
    with pytest.raises(ArtifactError, match="build the pool again"):
        find("am", "math", tmp_path, hashing=True)


def test_a_table_at_paper_scale_trains_on_the_pool_of_its_data_root(small, tmp_path):
    from test_wmss import planner

    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "math").symlink_to(small[1])
    real = planner(model="qwen3-4b", data_root=tmp_path)
    assert real.pool().sources == ("am",) and real.comparable_with_the_paper
    assert [name for name, _ in real.pool().sha256] == ["corpora/math/pool.jsonl"]
    assert real.pool().data_root == str(tmp_path)


def test_at_paper_scale_a_benchmark_comes_from_the_data_root_where_it_lies_there_else_from_the_hub(data_root, tmp_path):
    from test_wmss import planner

    (tmp_path / "mawps" / "wmss").mkdir(parents=True)
    (tmp_path / "mawps" / "wmss" / "test.json").symlink_to(data_root / "mawps/wmss/test.json")
    chosen = planner(model="qwen3-4b", data_root=tmp_path)
    mawps, gsm8k, pool = chosen.problems("mawps"), chosen.problems("gsm8k"), chosen.pool()
    assert (mawps.source, mawps.data_root) == ("data_root", str(tmp_path)) and mawps.sha256
    assert (gsm8k.repository, gsm8k.data_root) == ("openai/gsm8k", None)
    assert (pool.sources, pool.repository, pool.data_root) == (("am",), "a-m-team/AM-DeepSeek-R1-Distilled-1.4M", None)
    assert chosen.absent("mawps") is None
    elsewhere = planner(model="qwen3-4b")
    assert pool.key == elsewhere.pool().key and gsm8k.key == elsewhere.problems("gsm8k").key
    with pytest.raises(PrerequisiteError, match=r"MAWPS has no data\. Name the folder .*--data-root"):
        elsewhere.problems("mawps")
    with pytest.raises(InputError, match="is not a folder"):
        planner(model="qwen3-4b", data_root=tmp_path / "nowhere").problems("gsm8k")


def test_the_small_pools_are_trained_on_at_paper_scale_only_where_they_were_asked_for(data_root):
    from test_wmss import planner

    asked = planner(model="qwen3-4b", data_root=data_root, pool_files=True)
    assert asked.pool().sources == ("gsm8k", "mawps") and not asked.comparable_with_the_paper
    assert planner(model="qwen3-4b", data_root=data_root).pool().sources == ("am",)


def test_pool_files_is_refused_where_there_is_no_choice():
    from replication.cli import Options
    from replication.running import prepare
    from replication.table2 import TABLE

    with pytest.raises(InputError, match="--pool files is for models of paper scale"):
        prepare((TABLE,), Options(pool="files", data_root=None, plan=True), "tiny")


def test_corpora_as_sources_of_a_run(small, tmp_path):
    from replication.corpora.sources import copy_pool

    sources, whole = small
    folders = [tmp_path / name for name in ("built", "raw", "one", "two", "scratch")]
    for folder in folders:
        folder.mkdir()
    built, raw, one, two, scratch = folders
    (built / "corpora").mkdir()
    (built / "corpora" / "math").symlink_to(whole)
    halves(sources[0], raw / "am_deepseek_r1_distilled")
    notes = copy_pool("am", "math", built, one, scratch, limit=10, seed=0)
    assert notes["examples"] == 10 and notes["report"]["read"] == 130
    copy_pool("am", "math", raw, two, scratch, limit=10, seed=0)
    assert (one / "pool.jsonl").read_bytes() == (two / "pool.jsonl").read_bytes()
    with pytest.raises(PrerequisiteError, match=r"corpora logic --out"):
        copy_pool("logic", "logic", raw, two, scratch, limit=None, seed=0)
    with pytest.raises(InputError, match="has no logic pool"):
        copy_pool("am", "logic", raw, two, scratch, limit=None, seed=0)


def test_samples_of_the_corpus(data_root, tmp_path):
    folder = data_root / "am_deepseek_r1_distilled"
    card = tmp_path / "card.jsonl"
    card.write_text(json.dumps(json.loads((folder / "README.sample.json").read_text())) + "\n")
    sources = (folder / "am_0.9M_sample_1k.head1.jsonl", card)
    report = build(Corpus(kind="math", sources=sources), tmp_path / "out", workers=1)
    # The first has no reference answer, the card's record has no box.
    assert report["pool"]["dropped"] == {math_rules.NO_REFERENCE: 1, math_rules.FORMAT: 1}


def test_what_filters_a_pool_on_the_way_is_in_its_identity_and_nothing_in_that_of_a_finished_one(monkeypatch):
    from replication import source_steps
    from replication.source_steps import BuildPool

    def key(*names, domain="math", sources=("am",)):
        return BuildPool(domain=domain, sources=sources, limit=None, seed=0,
                         sha256=tuple((name, "1") for name in names)).key

    raw, finished = ("am_0.5M.jsonl", "am_0.9M.jsonl"), ("corpora/math/pool.jsonl",)
    before = key(*raw), key("hub:o/r"), key(*finished), key(sources=("synthetic",))
    monkeypatch.setattr(source_steps, "minor_version", lambda name: "99.9")
    after = key(*raw), key("hub:o/r"), key(*finished), key(sources=("synthetic",))
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, False, True, True]


def test_a_pool_is_filtered_with_the_threads_of_its_step(small, tmp_path, monkeypatch):
    from replication.corpora import building
    from replication.corpora.sources import copy_pool

    halves(small[0][0], tmp_path / "am_deepseek_r1_distilled")
    seen = []
    monkeypatch.setattr(building, "build", lambda *a, workers, **k: seen.append(workers) or {
        "pool": {"kept": 0, "read": 0, "dropped": {}}})
    with pytest.raises(InputError, match="no training example"):
        copy_pool("am", "math", tmp_path, tmp_path, tmp_path / "scratch", limit=None, seed=0, workers=5)
    assert seen == [5]
