"""The test process of split tests: a clean interpreter that runs the tests' text; the program is elsewhere.

First it says which names the tests take from the program and whether they can be split at all; then the program's
side is connected, line by line, by the owner; last comes one verdict, a line that starts with V.
"""

from __future__ import annotations

import ast
import builtins
import io
import symtable
import types
import unittest
from typing import Any

from channel import Channel, describe, last_error  # type: ignore[import-not-found]
from remote import Broken, Link, Remote, Unsplittable  # type: ignore[import-not-found]

# Names by which tests reach into the process they run in: these run together with the program, under other rules.
_SAME_PROCESS = frozenset(
    ["patch", "mock", "Mock", "MagicMock", "stdin", "input", "open", "seed", "tempfile", "shutil", "subprocess",
     "globals", "locals", "inspect", "__main__", "monkeypatch", "capsys", "tmp_path", "os", "pathlib", "Path",
     "modules", "exec", "eval", "threading", "multiprocessing", "importlib"])
_PROGRAM_MODULES = frozenset([
    "solution", "program", "submission", "candidate", "main", "__main__", "your_module", "answer",
    "code_under_test", "user_code"
])


class Counted(ast.NodeTransformer):
    """Counts the checks that are reached: asserts, and handlers that expect an exception."""

    def visit_Assert(self, node: ast.Assert) -> list[ast.stmt]:
        """Count an assert that held."""
        return [node, _count(node)]

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.ExceptHandler:
        """Count an exception that was expected."""
        self.generic_visit(node)
        node.body = [_count(node), *node.body]
        return node


def _count(place: ast.AST) -> ast.stmt:
    call = ast.Expr(ast.Call(ast.Name("__checked__", ast.Load()), [], []))
    return ast.fix_missing_locations(ast.copy_location(call, place))  # type: ignore[type-var]


class Tests:
    """One text of tests: what it needs, and what became of it."""

    def __init__(self, text: str) -> None:
        self.tree = ast.parse(text)
        self.aliases: dict[str, str] = {}
        self.program_modules: list[str] = []
        self.all_names = False
        self.tree.body = [node for node in self.tree.body if not self._takes_from_program(node)]
        self.free = _free_names(text) - set(self.aliases)
        used = {node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name)}
        used |= {node.attr for node in ast.walk(self.tree) if isinstance(node, ast.Attribute)}
        used |= {part for node in ast.walk(self.tree) if isinstance(node, (ast.Import, ast.ImportFrom))
                 for alias in node.names for part in alias.name.split(".")}
        used |= {node.module or "" for node in ast.walk(self.tree) if isinstance(node, ast.ImportFrom)}
        self.blockers = sorted(used & _SAME_PROCESS)

    def _takes_from_program(self, node: ast.stmt) -> bool:
        if isinstance(node, ast.ImportFrom) and node.module in _PROGRAM_MODULES:
            self.aliases |= {alias.asname or alias.name: alias.name for alias in node.names if alias.name != "*"}
            return True
        if isinstance(node, ast.Import) and all(alias.name in _PROGRAM_MODULES for alias in node.names):
            self.program_modules += [alias.asname or alias.name for alias in node.names]
            return True
        return False

    def needed(self) -> list[str] | None:
        """The names to take from the program; None for all of them."""
        return None if self.program_modules else sorted(self.free | set(self.aliases.values()))

    def namespace(self, loaded: dict[str, Any], functions: list[str], classes: list[str], entry: str | None,
                  link: Link) -> dict[str, Any]:
        """The names of the tests' module before it runs."""
        own = {name: link.decode(data) for name, data in loaded.items()}
        defined = [name for name in self.free if name in own and not hasattr(builtins, name)]
        space: dict[str, Any] = {"__name__": "tests", "__builtins__": builtins}
        for name in self.free & set(own):
            # A program must not replace what the tests rely on: a built-in name is the program's only where it is
            # the function under test.
            if not hasattr(builtins, name) or name == entry or (entry is None and not defined and name in functions):
                space[name] = own[name]
        space |= {alias: own[name] for alias, name in self.aliases.items() if name in own}
        for name in self.program_modules:
            space[name] = types.SimpleNamespace(**own)
        subject = entry or next(iter(reversed([*classes, *functions])), None)
        space["__subject__"] = own.get(subject or "")
        if "candidate" in self.free and "candidate" not in space and space["__subject__"] is not None:
            space["candidate"] = space["__subject__"]
        return space


def _free_names(text: str) -> set[str]:
    """Names that some scope of the text reads from the module and the module itself does not assign."""
    table = symtable.symtable(text, "tests", "exec")
    own = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    found, waiting = set(), [table]
    while waiting:
        scope = waiting.pop()
        waiting += scope.get_children()
        found |= {symbol.get_name() for symbol in scope.get_symbols()
                  if symbol.is_referenced() and (symbol.is_global() or scope is table)}
    return found - own


class Runner:
    """Runs the text and everything in it that is a test."""

    def __init__(self, tests: Tests, space: dict[str, Any]) -> None:
        self.tests, self.space = tests, space
        self.checks = 0
        space["__checked__"] = self._checked

    def _checked(self) -> None:
        self.checks += 1

    def run(self) -> str | None:
        """Run all; return why the tests failed, or None. Raises what the tests raise."""
        unittest.main = lambda *arguments, **named: None  # type: ignore[assignment,misc]
        tree = ast.fix_missing_locations(Counted().visit(self.tests.tree))
        exec(compile(tree, "<tests>", "exec"), self.space)
        called = {node.func.id for statement in self.tests.tree.body if not isinstance(
            statement, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)) for node in ast.walk(statement)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
        for name, value in list(self.space.items()):
            if isinstance(value, types.FunctionType) and name not in called:
                self._run_function(name, value)
        self.checks += sum(1 for node in ast.walk(tree) if isinstance(node, ast.Call) and not isinstance(
            node.func, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")).startswith("assert_"))
        return self._run_classes()

    def _run_function(self, name: str, function: types.FunctionType) -> None:
        arguments = function.__code__.co_argcount - len(function.__defaults__ or ())
        if name == "check" and arguments == 1:
            if self.space["__subject__"] is None:
                raise NameError("the program does not define the function under test")
            function(self.space["__subject__"])
        elif name.startswith("test") and arguments == 0:
            function()

    def _run_classes(self) -> str | None:
        classes = [value for value in self.space.values() if isinstance(value, type)
                   and issubclass(value, unittest.TestCase) and value.__module__ == "tests"]
        if not classes:
            return None
        suite = unittest.TestSuite(map(unittest.defaultTestLoader.loadTestsFromTestCase, dict.fromkeys(classes)))
        result = unittest.TextTestRunner(stream=io.StringIO()).run(suite)
        self.checks += result.testsRun - len(result.skipped)
        bad = result.failures + result.errors
        if bad:
            return last_error(str(bad[0][1]))
        if result.skipped or result.expectedFailures or result.unexpectedSuccesses:
            return "a test was skipped or is marked as an expected failure"
        return None


def _verdict(runner: Runner) -> dict[str, Any]:
    try:
        failure = runner.run()
    except (Unsplittable, Broken):
        raise
    except AssertionError as error:
        return {"outcome": "wrong", "reason": _short(error) or "an assertion does not hold"}
    except BaseException as error:
        name, text = describe(error)
        outcome = "memory" if name == "MemoryError" else "exception"
        return {"outcome": outcome, "reason": f"{name}: {text}"}
    if failure is not None:
        return {"outcome": "wrong", "reason": failure}
    if runner.checks == 0:
        return {"outcome": "wrong", "reason": "no check was reached"}
    return {"outcome": "pass", "reason": f"{runner.checks} checks", "checks": runner.checks}


def _short(error: BaseException) -> str:
    return describe(error)[1].partition("\n")[0]


def run(request: dict[str, Any], channel: Channel) -> None:
    """Say what is needed, wait for the program, run the tests, give the verdict."""
    try:
        tests = Tests(request["tests"])
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        channel.write({"bad": ": ".join(describe(error))})
        return
    channel.write({"names": tests.needed(), "blockers": tests.blockers})
    loaded = channel.read()
    link = Link(channel)
    try:
        space = tests.namespace(loaded["loaded"], loaded["functions"], loaded["classes"], request["entry"], link)
        verdict = _verdict(Runner(tests, space))
        if verdict["outcome"] == "pass" and not link.requests and not _reads_data(tests, space):
            verdict = {"outcome": "wrong", "reason": "the tests never used the program"}
    except Broken:
        verdict = {"outcome": "crash", "reason": "the program's process sent something else than results"}
    except Unsplittable as error:
        verdict = {"unsplittable": str(error)}
    if Unsplittable.reason is not None:
        verdict = {"unsplittable": Unsplittable.reason}
    channel.write(verdict, b"V")


def _reads_data(tests: Tests, space: dict[str, Any]) -> bool:
    """Whether the tests look at a plain variable of the program's."""
    return any(not isinstance(space[name], (Remote, type, types.ModuleType)) for name in tests.free if name in space)
