"""Deleting a method touches its file, its registry line, its tests and the tables naming it, and nothing else."""

from __future__ import annotations

import ast
import re

import pytest
from conftest import ROOT

from baselines import METHODS

# SFT is the anchor: its first epoch is the warm-up that the plan builds for everybody
DELETABLE = [name for name in METHODS if name != "sft"]
TABLES = re.compile(r"table\d+|figure\d+|compare|ambiguities|theory|diagnostics|judgement")


def _modules():
    for package in ("baselines", "evaluation", "foundation", "replication"):
        yield from (ROOT / package).rglob("*.py")


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("name", DELETABLE)
def test_only_the_registry_imports_a_method(name):
    module = METHODS[name].__module__
    importing = {str(path.relative_to(ROOT)) for path in _modules() if module in _imports(path)}
    assert importing == {"baselines/__init__.py"}


@pytest.mark.parametrize("name", DELETABLE)
def test_no_code_outside_tables_names_a_method_as_a_value(name):
    """A string literal equal to the method's registry name would break when the method goes."""
    naming = set()
    for path in _modules():
        if TABLES.fullmatch(path.stem) or path.name == "__init__.py" or path.parent.name == "audit" or path.stem.startswith("paper"):
            continue
        literals = {node.value for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                    if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        if literals & {name, METHODS[name].title} and path.stem != METHODS[name].__module__.rpartition(".")[2]:
            naming.add(str(path.relative_to(ROOT)))
    assert naming == set()


@pytest.mark.parametrize("name", DELETABLE)
def test_the_rest_still_plans_without_it(name):
    from replication.models import MODELS
    from replication.plan import Planner, Request
    from replication.scales import SCALES

    left = {key: method for key, method in METHODS.items() if key != name}
    plan = Planner(Request(model=MODELS["tiny"], scale=SCALES["tiny"], configuration=SCALES["tiny"].configuration,
                           data_root=None, limit_train=None, limit_eval=None, seed=0, registry=left))
    assert all(plan.final(row) for row in left)


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_file_is_short(name):
    import inspect

    assert len(inspect.getsource(inspect.getmodule(METHODS[name])).splitlines()) <= 250
