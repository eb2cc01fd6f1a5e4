"""A method of one's own: what is accepted, and what is refused with the line to fix."""

from __future__ import annotations

import ast
import re

import pytest
from conftest import ROOT
from own_method_tools import ACCEPTED, EXAMPLE, PLAIN, whole

from baselines import METHODS
from baselines.method_registry import load
from foundation.errors import InputError

# --------------------------------------------------------------------------------------------------------- accepted

@pytest.mark.parametrize("name", ACCEPTED)
def test_every_kind_of_method_is_accepted(write, name):
    plan = whole(write(ACCEPTED[name])[0])
    assert plan.trainings[-1].method == "mine" and plan.trainings[-1].method_source


BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/new-method.md").read_text(encoding="utf-8"), re.DOTALL)
DOCUMENTED = [(block, name) for block in BLOCKS for name in re.findall(r"^class (\w+)", block, re.MULTILINE)]


@pytest.mark.parametrize(("block", "name"), DOCUMENTED, ids=[name for _, name in DOCUMENTED])
def test_what_the_documentation_shows_works(write, block, name):
    assert len(DOCUMENTED) == 5
    assert whole(write(block)[0].replace(":Mine", f":{name}")).trainings


def test_the_documentation_shows_the_example_as_it_is():
    def code(text):
        """Return a program without its docstrings."""
        tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
                del node.body[0]
        return ast.unparse(tree)

    assert code(BLOCKS[0]) == code(EXAMPLE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", METHODS)
def test_the_suites_own_methods_pass_the_trial(name):
    from baselines.trial import try_out

    chosen = METHODS[name]
    try_out(chosen())

    class Detached(chosen):
        title = "Detached"

        def loss(self, batch, strong, other=None):
            return super().loss(batch, strong, other).detach()

        def pair_loss(self, pairs):
            return super().pair_loss(pairs).detach()

    with pytest.raises(InputError, match="gradient"):
        try_out(Detached())


def test_the_example_is_short_and_its_loss_is_the_formula():
    import torch

    from baselines.trial import _example

    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 40
    method = load(f"{EXAMPLE}:LabelSmoothing")(epsilon=0.2)
    batch, strong, _ = _example(1, other=False, stored=False)
    logs_NV = strong.logits_NV().log_softmax(dim=-1)
    expected = -(0.8 * logs_NV[range(6), batch.labels_N] + 0.2 * logs_NV.mean(dim=-1)).sum()
    loss = method.loss(batch, strong, None)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    ours, theirs = (torch.autograd.grad(value, strong.hidden_ND)[0] for value in (loss, expected))
    assert torch.allclose(ours, theirs, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------- refused

REFUSED = {
    "syntax": ("x = = 1  # HERE", ["SyntaxError"]),
    "import": ("import nowhere_at_all  # HERE", ["No module named 'nowhere_at_all'", "must import"]),
    "exit": ("import sys\nsys.exit(3)  # HERE", ["SystemExit"]),
    "no class": ("class Other(SFT):\n    title = 'Other'\n", ["no class 'Mine'", "methods in it: Other"]),
    "no method": ("class Mine:  # HERE\n    title = 'Mine'\n", ["is not a method", "class Mine(Method)"]),
    "no class at all": ("Mine = 3\n", ["is not a method"]),
    "the suite's": ("Mine = SFT\n", ["imported there", "subclass"]),
    "no title": ("class Mine(Method):  # HERE\n    pass\n", ['add `title = "..."`']),
    "no letters": ("class Mine(Method):  # HERE\n    title = '???'\n", ["'???'", "letter"]),
    "unprintable": ("class Mine(Method):  # HERE\n    title = 'a | b'\n", ["does not fit a table"]),
    "inherited title": ("class Mine(SFT):  # HERE\n    pass\n", ["'sft'", "title is inherited", "another `title"]),
    "a variant's name": ("class Mine(SFT):  # HERE\n    title = 'WMSS frozen'\n", ["'wmss-frozen'", "'wmss'"]),
    "a row's heading": ("class Mine(SFT):  # HERE\n    title = 'Base (M0)'\n", ["'base (m0)'", "taken"]),
    "a section": ("class Mine(WMSS):  # HERE\n    title = 'Mine'\n    sections = {'train': ('joint',)}\n",
                  ["'train'", "taken"]),
    "a section of nothing": ("class Mine(WMSS):  # HERE\n    title = 'Mine'\n    sections = {'mine-x': ('x',)}\n",
                             ["'x'", "no field", "joint"]),
    "no dataclass": ("class Mine(SFT):  # HERE\n    title = 'Mine'\n    epsilon: float = 0.1\n",
                     ["epsilon", "@dataclass(frozen=True, kw_only=True)"]),
    "no default": ("@dataclass(frozen=True, kw_only=True)  # HERE\nclass Mine(SFT):\n    title = 'Mine'\n    x: int\n",
                   ["cannot be made with its default settings", "'x'"]),
    "scaling": ("x = setting(1, scales_with='lr')  # HERE", ["'lr'", "learning_rate, global_batch"]),
    "not picklable": ("def made():\n    class Mine(SFT):  # HERE\n        title = 'Mine'\n    return Mine\n"
                      "Mine = made()\n", ["cannot be sent to a worker process", "top of its file"]),
    # phases
    "an unknown name": ("class Mine(SFT):\n    title = 'Mine'\n    def phases(self):  # HERE\n"
                        "        yield Train(strong='M3', out='M2')\n",
                        ["method Mine, phase Train", "no checkpoint is called 'M3'", "M0, M1, M1/ck-50"]),
    "data for a model": ("class Mine(SFT):\n    title = 'Mine'\n    def phases(self):  # HERE\n"
                         "        yield Subset(size=5)\n        yield Train(strong='subset', out='M2')\n",
                         ["'subset' (something else is)"]),
    "a model for data": ("class Mine(SFT):\n    title = 'Mine'\n    def phases(self):  # HERE\n"
                         "        yield Train(strong=WARMUP, data=BASE, out='M2')\n",
                         ["no training data is called 'M0'"]),
    "a shared name": ("class Mine(SFT):\n    title = 'Mine'\n    def phases(self):  # HERE\n"
                      "        yield Train(strong=BASE, out=WARMUP)\n", ["out='M1'", "shares"]),
    "two others": ("class Mine(SFT):\n    title = 'Mine'\n    def phases(self):\n"
                   "        yield Train(strong=WARMUP, weak=BASE, reference=BASE, out='M2')  # HERE\n",
                   ["leave one of them out"]),
    "no training": ("class Mine(SFT):\n    title = 'Mine'\n    def phases(self):\n        yield Subset(size=5)\n",
                    ["no Train phase"]),
    "no phases": ("class Mine(SFT):\n    title = 'Mine'\n    def phases(self):  # HERE\n        return []\n",
                  ["declares no phases"]),
    "failing phases": ("class Mine(SFT):\n    title = 'Mine'\n    def phases(self):\n        yield 1 / 0  # HERE\n",
                       ["has phases that fail", "ZeroDivisionError"]),
    "no phase": ("class Mine(SFT):\n    title = 'Mine'\n    def phases(self):\n        yield Train\n",
                 ["is no phase", "Score, Select, Subset"]),
    "no result": ("class Mine(SFT):\n    title = 'Mine'\n    def result(self):  # HERE\n        return 'M9'\n",
                  ["'M9'", "M0, M1"]),
    "no plain settings": ("class Mine(SFT):\n    title = 'Mine'\n    def loss_settings(self):  # HERE\n"
                          "        return {'x': {1, 2}}\n", ["plain values", "set"]),
    "the suite's argument": ("class Mine(SFT):\n    title = 'Mine'\n    def phases(self):  # HERE\n        yield Train("
                             "strong=WARMUP, out='M2', trainer={'learning_rate': 1.0})\n", ["Departures"]),
    "no argument": ("class Mine(SFT):\n    title = 'Mine'\n    def phases(self):  # HERE\n        yield Train("
                    "strong=WARMUP, out='M2', trainer={'lerning_rate': 1.0})\n", ["no argument 'lerning_rate'"]),
}
LOSSES = {  # what follows `return`, and what is said of it
    "3.0": ["returned float", "a scalar"],
    "cross_entropy(strong.logits_NV(), batch.labels_N, reduction='none')": ["shape (6,)", "a scalar"],
    f"{PLAIN} * float('nan')": ["[nan]", "finite"],
    f"{PLAIN}.detach()": ["no gradient", "detached"],
    "(strong.head_VD ** 2).sum()": ["no gradient of loss reaches the hidden states"],
    "cross_entropy(strong.logits_NV(), batch.labels_N)": ["looks like a mean", "return the sum"],
    f"{PLAIN} + torch.rand(())": ["then", "batch.seeds_B"],
    f"{PLAIN} + batch.labels_N.float().mean()": ["without supervised tokens", "finite"],
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_with_the_line_to_fix(write, name):
    body, words = REFUSED[name]
    spec, where = write(body)
    with pytest.raises(InputError) as refusal:
        whole(spec)
    assert [word for word in (where, *words) if word not in str(refusal.value)] == []


@pytest.mark.parametrize("expression", LOSSES)
def test_a_wrong_loss_is_refused_before_anything_trains(write, expression):
    spec, where = write(f"class Mine(Method):\n    title = 'Mine'\n    def loss(self, batch, strong, other):  # HERE\n"
                        f"        return {expression}\n")
    with pytest.raises(InputError) as refusal:
        whole(spec)
    assert [word for word in (where, *LOSSES[expression]) if word not in str(refusal.value)] == []


def test_a_failing_loss_names_the_line_inside_it(write):
    spec, where = write("class Mine(Method):\n    title = 'Mine'\n    def loss(self, batch, strong, other):\n"
                        "        return strong.hidden_ND @ strong.hidden_ND  # HERE\n")
    with pytest.raises(InputError, match=r"has a loss that fails: RuntimeError") as refusal:
        whole(spec)
    assert where in str(refusal.value)


@pytest.mark.parametrize(("body", "words"), [
    ("class Mine(Method):  # HERE\n    title = 'Mine'\n", ["defines no loss", "class ...(SFT)"]),
    (ACCEPTED["a preference"].replace("def pair_loss(self, pairs):", "def pair_loss(self, pairs):  # HERE").replace(
        "rejected_B)", "rejected_B).mean()"), ["shape ()", "one value a pair"]),
    (ACCEPTED["a preference"].replace("class Mine(Method):", "class Mine(Method):  # HERE").replace(
        "def pair_loss", "def other_loss"), ["defines no pair_loss"]),
    (ACCEPTED["a preference"].replace("def phases(self):", "def phases(self):  # HERE").replace(
        "data=", "step_matched=True, data="), ["on pairs does not know step_matched"]),
    (ACCEPTED["a reference"].replace("other):", "other):  # HERE").replace("reference=BASE", "weak=BASE").replace(
        "other.logits_NV()", "other.logits_NV().detach()"), ["reaches the weak branch", "freeze_weak=True"]),
    (ACCEPTED["noise"].replace("seeds_B):", "seeds_B):  # HERE").replace("return embeddings_BSD +", "return"),
     ["no gradient"]),
])
def test_what_else_a_loss_may_lack(write, body, words):
    spec, where = write(body)
    with pytest.raises(InputError) as refusal:
        whole(spec)
    assert [word for word in (where, *words) if word not in str(refusal.value)] == []


@pytest.mark.parametrize(("spec", "words"), [
    ("mine.py", ["neither", "path/to/file.py:ClassName", "none"]),
    ("mine.py:", ["path/to/file.py:ClassName"]),
    ("nowhere/mine.py:Mine", ["there is no file nowhere/mine.py"]),
])
def test_a_wrong_way_to_name_a_method_is_refused(spec, words):
    with pytest.raises(InputError) as refusal:
        load(spec)
    assert [word for word in words if word not in str(refusal.value)] == []
