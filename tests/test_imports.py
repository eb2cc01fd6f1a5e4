"""Imports point one way, and nothing heavy is loaded before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
from conftest import ROOT

ALLOWED = {
    "foundation": {"foundation"},
    "baselines": {"baselines", "foundation"},
    "evaluation": {"evaluation", "foundation"},
    "replication": {"replication", "baselines", "evaluation", "foundation"},
}
OURS = set(ALLOWED)
HEAVY = ("torch", "transformers", "trl", "datasets", "pandas", "sympy", "math_verify", "vllm", "huggingface_hub",
         "matplotlib", "jinja2", "ray")


def _imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_point_one_way(package):
    wrong = [f"{path.relative_to(ROOT)}: {name}"
             for path in (ROOT / package).rglob("*.py") for name in _imported(path)
             if name.split(".")[0] in OURS - ALLOWED[package]]
    assert wrong == []


def test_every_module_says_what_it_is():
    silent = [str(path.relative_to(ROOT)) for package in OURS for path in (ROOT / package).rglob("*.py")
              if not (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").strip(". ")]
    assert silent == []


@pytest.mark.parametrize("module", ["replication.table1", "replication.compare", "replication.run",
                                    "replication.results", "replication.plan", "replication.explain",
                                    "replication.paper", "replication.audit.__main__", "replication.audit",
                                    "replication.judgement", "replication.diagnostics",
                                    "replication.diagnostic_steps", "replication.page.__main__",
                                    "replication.executors.ray_cluster",
                                    "replication.figures", "replication.corpora.__main__", "baselines.__main__"])
def test_the_command_line_loads_nothing_heavy(module):
    program = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_only_workers_import_actions():
    importing = [path.name for path in (ROOT / "replication").glob("*.py")
                 for name in _imported(path) if name.startswith("replication.actions")]
    assert importing == []
