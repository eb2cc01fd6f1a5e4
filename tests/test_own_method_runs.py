"""A method of one's own in a run: its settings, its source on the way to workers, packages, and a whole comparison."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
from conftest import ROOT
from own_method_tools import ACCEPTED, EXAMPLE, HEAD, PLAIN, planner, python, whole
from test_table1 import SHORT

from baselines import METHODS
from baselines.interface import loss_identity
from baselines.method_registry import load, methods_at_hand, registry_name, with_methods
from baselines.user_methods import Handle, source_sha256
from baselines.wmss import WMSS
from foundation.errors import InputError
from replication.compare import TABLE
from replication.comparisons import comparisons
from replication.measures import Reading
from replication.plan import Planners
from replication.rows import resolve
from replication.scales import SCALES
from replication.tables import TableRun

# --------------------------------------------------------------------------------------------------------- settings

SMOOTHING = f"{EXAMPLE}:LabelSmoothing"


def test_settings_come_from_the_command_line_and_from_brackets():
    registry, own = methods_at_hand(METHODS, [SMOOTHING], [])
    assert own == ["label-smoothing"]
    plans = planner(registry, "label-smoothing.epsilon=0.2")
    assert plans.row("label-smoothing").method.epsilon == 0.2
    changed = plans.row("label-smoothing[label-smoothing.epsilon=0.3]")
    assert changed.method.epsilon == 0.3 and changed.title == "Label smoothing (label-smoothing.epsilon=0.3)"
    assert plans.final(changed.key).key != plans.final("label-smoothing").key
    for wrong, words in (("label-smoothing.epsilon=2", "in [0, 1)"), ("label-smoothing.epsilom=0", "has: epsilon")):
        with pytest.raises(InputError) as refusal:
            planner(registry, wrong)
        assert words in str(refusal.value)


def test_the_trial_uses_the_settings_of_the_row(write):
    body = ("@dataclass(frozen=True, kw_only=True)\nclass Mine(SFT):\n    title = 'Mine'\n    scale: float = 1.0\n"
            f"    def loss(self, batch, strong, other):\n        return {PLAIN} * self.scale\n")
    whole(write(body)[0])
    with pytest.raises(InputError, match="nothing would be learned"):
        whole(write(body)[0], "mine.scale=0")


def test_a_check_of_the_users_own_is_a_refusal(write):
    spec, _ = write("@dataclass(frozen=True, kw_only=True)\nclass Mine(SFT):\n    title = 'Mine'\n    x: int = 1\n"
                    "    def __post_init__(self):\n        assert self.x > 0, 'x is positive'\n")
    with pytest.raises(InputError, match=r"mine.x = 0 is refused by Mine: x is positive"):
        whole(spec, "mine.x=0")


def test_a_setting_that_an_inherited_method_does_not_know_tells_trainings_apart(write):
    """SFT says that its loss depends on no setting: a subclass's new one must still be part of the identity."""
    spec, _ = write("@dataclass(frozen=True, kw_only=True)\nclass Mine(SFT):\n    title = 'Mine'\n"
                    f"    scale: float = 1.0\n    def loss(self, batch, strong, other):\n"
                    f"        return {PLAIN} * self.scale\n")
    assert loss_identity(load(spec)(scale=2.0)) == {"scale": 2.0}
    assert len({whole(spec, f"mine.scale={scale}").result().key for scale in (1, 2)}) == 2


def test_what_belongs_to_a_method_is_not_inherited(write):
    mine = load(write(ACCEPTED["a subclass of WMSS"])[0])
    assert mine.variants == {} and set(mine.sections) == {"mine-joint"} and WMSS.variants
    row = resolve("mine[mine-joint.mix_weight=0.3]", with_methods(METHODS, [mine]), ["wdjt.mix_weight=0.1"],
                  SCALES["tiny"], silent_base=False)
    assert row.method.joint.mix_weight == 0.3


def test_variants_of_ones_own_are_rows(write):
    spec, _ = write(ACCEPTED["only data"] + "    variants = {'few': Variant('Mine (few)', {'mine.size': '1000'})}\n")
    plan = whole(spec, row="mine-few")
    assert plan.row.title == "Mine (few)" and plan.method.size == round(1000 * SCALES["tiny"].ratios()["pool"])


def test_one_method_given_twice_is_one_row(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec, _ = write(ACCEPTED["only a loss"])
    assert methods_at_hand(METHODS, [spec, spec, "mine.py:Mine"], [])[1] == ["mine"]
    other, _ = write(ACCEPTED["only a loss"], "other.py")
    with pytest.raises(InputError, match=r"other.py:\d+: Mine claims the name 'mine', which is taken by Mine \(mine"):
        methods_at_hand(METHODS, [spec, other], [])


# --------------------------------------------------------------------------------------------------- source, workers

NESTED = """
@dataclass(frozen=True)
class Part:
    weight: float = 1.0

@dataclass(frozen=True, kw_only=True)
class Mine(Method):
    title = "Mine"
    part: Part = field(default_factory=Part)
    sections = {"mine-part": ("part",)}
    def loss(self, batch, strong, other):
        return self.part.weight * strong.logits_NV().sum()
"""


def test_a_worker_gets_the_source_that_was_hashed(write, tmp_path):
    """Edited, moved or removed while the run goes on, and another working directory: the run keeps what it began."""
    method = load(write(NESTED)[0])
    packed = pickle.dumps(Handle(method(part=sys.modules[method.__module__].Part(weight=3.0))))
    (tmp_path / "packed").write_bytes(packed)
    (tmp_path / "mine.py").write_text("raise RuntimeError", encoding="utf-8")
    (tmp_path / "elsewhere").mkdir()
    done = python("-c", "import pickle, sys; handle = pickle.load(open('../packed', 'rb')); "
                        "print('torch' in sys.modules, handle.method.part.weight, 'torch' in sys.modules); "
                        "from baselines.user_methods import source_sha256 as s; print(s(type(handle.method)))",
                  cwd=tmp_path / "elsewhere")
    assert done.stdout.split() == ["False", "3.0", "True", source_sha256(method)], done.stderr
    assert pickle.loads(pickle.dumps(pickle.loads(packed))).method.part.weight == 3.0  # it may travel on


def test_another_source_is_another_training(write):
    keys = {whole(write(ACCEPTED["only a loss"] + comment)[0]).result().key for comment in ("", "# changed\n", "")}
    assert len(keys) == 2  # also within one second and at one size, where a bytecode cache would be stale


def test_a_loss_that_fails_in_training_is_blamed_on_its_line(write):
    from baselines.trial import _example

    spec, where = write("""
class Mine(Method):
    title = "Mine"
    def loss(self, batch, strong, other):
        from baselines.chunked import chunked_loss
        def chunk(logits_CV, rows):
            assert len(batch.labels_N) <= 12, "too many"  # HERE
            return cross_entropy(logits_CV, batch.labels_N[rows], reduction="sum")
        return chunked_loss(strong, chunk)
""")
    handle = Handle(whole(spec).method)
    batch, strong, _ = _example(3, other=False, stored=False)
    with pytest.raises(AssertionError) as error:
        handle.method.loss(batch, strong, None)
    assert handle.fault(error.value) == f"{where}: Mine: AssertionError: too many"
    assert Handle(METHODS["sft"]()).fault(error.value) is None and handle.fault(ValueError("ours")) is None


# ----------------------------------------------------------------------------------------------- installed packages


@pytest.fixture
def package(tmp_path):
    """Install tiny packages by hand into a folder, as `pip install --target` leaves them; return the folder."""

    def _install(name, code, points):
        site = tmp_path / "site"
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").write_text("", encoding="utf-8")
        (site / name / "methods.py").write_text(HEAD + code, encoding="utf-8")
        info = site / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
        lines = "".join(f"{point} = {name}.methods:{cls}\n" for point, cls in points.items())
        (info / "entry_points.txt").write_text(f"[wmss_replication.methods]\n{lines}", encoding="utf-8")
        return site

    return _install


def plan_of(site, tmp_path, *arguments):
    return python("-m", "replication.table1", "--plan", "--benchmarks", "gsm8k", "--store", tmp_path / "store",
                  *arguments, PYTHONPATH=str(site))


def test_an_installed_method_is_a_row_by_its_name(package, tmp_path):
    package("broken_package", "import nowhere_at_all\n", {"other": "Other"})
    site = package("some_package", NESTED, {"mine": "Mine"})
    for arguments in (["--methods", "sft", "--method", "mine", "--set", "mine-part.weight=2"],
                      ["--methods", "mine[mine-part.weight=2]"]):
        done = plan_of(site, tmp_path, *arguments)
        assert done.returncode == 0 and "train Mine" in done.stdout, done.stderr
    done = plan_of(site, tmp_path, "--methods", "sft")  # nobody is disturbed by the broken one
    assert done.returncode == 0, done.stderr
    for name, words in (("other", ["other = broken_package.methods:Other", "nowhere_at_all", "uninstall"]),
                        ("nobody", ["'nobody'", "offered: mine, other"])):
        done = plan_of(site, tmp_path, "--method", name)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert [word for word in words if word not in done.stderr] == []


def test_a_worker_refuses_a_package_that_has_changed(package, tmp_path):
    site = package("another_package", NESTED, {"mine": "Mine"})
    program = ("import pickle; from baselines.user_methods import Handle; from another_package.methods import Mine; "
               "open('packed', 'wb').write(pickle.dumps(Handle(Mine())))")
    assert python("-c", program, cwd=tmp_path, PYTHONPATH=str(site)).returncode == 0
    load_it = "import pickle; print(pickle.load(open('packed', 'rb')).method.title)"
    assert python("-c", load_it, cwd=tmp_path, PYTHONPATH=str(site)).stdout == "Mine\n"
    (site / "another_package/__init__.py").write_text("# any file of it\n", encoding="utf-8")
    assert "has changed since this run began" in python("-c", load_it, cwd=tmp_path, PYTHONPATH=str(site)).stderr


# ------------------------------------------------------------------------------------------------------ comparisons


def test_a_row_is_tested_against_each_anchor_and_anchors_not_against_each_other():
    registry, own = methods_at_hand(METHODS, [SMOOTHING], [])
    run = TableRun.plan(replace(TABLE, rows=(*TABLE.rows, *own)), Planners(planner(registry).request))
    answers = {"sft": (True, False, False), "wmss": (True, True, False), own[0]: (True, True, True)}
    found = comparisons(run, {i: Reading(value=0.0, scores=(answers[cell.key[0]],)) for i, cell in enumerate(run.cells)
                              if cell.key is not None and cell.key[0] in answers})
    assert {(c["row"], c["against"]) for c in found} == {("Label smoothing", "SFT"), ("Label smoothing", "WMSS")}
    assert len(found) == 2 * (len(TABLE.groups[0].columns) + 1)
    average = {c["against"]: c["difference"] for c in found if c["column"] == TABLE.groups[0].average}
    assert average == {"SFT": pytest.approx(200 / 3), "WMSS": pytest.approx(100 / 3)}
    assert all(c["p_holm"] >= c["p"] for c in found)


def compare(folder, *arguments, cwd=ROOT):
    return python("-m", "replication.compare", "--store", folder / "store", "--results", folder / "results", *SHORT,
                  *arguments, cwd=cwd)


FAILING = """
class Mine(Method):
    title = "Mine"
    def loss(self, batch, strong, other):
        assert len(batch.labels_N) < 100, "too many"  # HERE
        return strong.logits_NV().sum()
"""


def test_compare_end_to_end(tmp_path, write):
    """From nothing to result files, from another working directory; then with another setting, and one that fails."""
    done = compare(tmp_path, "--method", "label_smoothing.py:LabelSmoothing", "--jobs", "2", cwd=EXAMPLE.parent)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "results/tiny/compare.json").read_text(encoding="utf-8"))
    assert {(c["row"], c["against"], c["column"]) for c in content["comparisons"]} == {
        ("Label smoothing", against, column) for against in ("SFT", "WMSS") for column in ("GSM8K", "AQuA")}
    assert all(f"Label smoothing - {against}, GSM8K: " in done.stdout for against in ("SFT", "WMSS"))
    source = {"row": "Label smoothing", "class": "LabelSmoothing", "file": "label_smoothing.py",
              "sha256": source_sha256(load(SMOOTHING))}
    assert content["provenance"]["own_methods"] == [source]
    budget = {b["row"]: b for b in content["budget"]}
    assert budget["Label smoothing"]["updates"] == budget["SFT"]["updates"] == 2
    assert budget["Label smoothing"]["settings"] == {"epsilon": 0.1} and not budget["Label smoothing"]["departures"]
    assert str(tmp_path) not in json.dumps(content["notes"]) and any("sha256" in note for note in content["notes"])
    again = compare(tmp_path, "--method", SMOOTHING)
    assert again.returncode == 0 and "0 steps run" in again.stdout
    plan = compare(tmp_path, "--method", SMOOTHING, "--set", "label-smoothing.epsilon=0.2", "--plan")
    assert "5 to run" in plan.stdout, plan.stdout  # its training, and two benchmarks generated and graded
    spec, where = write(FAILING)
    failed = compare(tmp_path, "--methods", "sft", "--method", spec)
    assert failed.returncode == 2 and "Traceback" not in failed.stderr
    assert f"{where}: Mine: AssertionError: too many" in failed.stderr
    cells = json.loads((tmp_path / "results/tiny/compare.json").read_text(encoding="utf-8"))["cells"]
    status = {c["row"]: (c["status"], c["reason"]) for c in cells if c["column"] == "GSM8K"}
    assert status["SFT"][0] == "measured" and status["Mine"][0] == "failed" and where in status["Mine"][1]


@pytest.mark.parametrize(("arguments", "words"), [
    ([], ["nothing to compare", "--method path/to/file.py:ClassName"]),
    (["--method", "examples/label_smoothing.py:Smooth"], ["no class 'Smooth'", "LabelSmoothing"]),
    (["--method", SMOOTHING, "--set", "label-smoothing.epsilon=1"], ["epsilon is 1.0", "[0, 1)"]),
])
def test_compare_refuses_with_exit_code_2(tmp_path, arguments, words):
    done = compare(tmp_path, *arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert [word for word in words if word not in done.stderr] == []
    assert not (tmp_path / "results").exists()


def test_make_compare_asks_for_the_method():
    done = subprocess.run(["make", "compare"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "make compare METHOD=path/to/file.py:ClassName" in done.stderr


def test_names_follow_from_titles():
    assert registry_name(load(SMOOTHING)) == "label-smoothing"
