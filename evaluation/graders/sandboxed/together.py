"""Program and tests in one process, for tests that cannot be split (mocks, files, standard input): the weaker mode.

What keeps a program from giving itself the verdict: it is reported with a token that this process's main thread holds
in its frame while program and tests run in another thread; ways to other threads' frames and to all objects (audited
by the interpreter) end the process when the program takes them; program text that names such ways is not run; after
every call of the function under test, and at the end, the test machinery and the built-ins must be what they were; an
object of the program's own class must not come back from a function unless the tests name that class; and the number
of tests run must be the number of tests there are. A program that is written against exactly these rules may still get
through: verdicts of this mode are marked.
"""

from __future__ import annotations

import _thread
import ast
import builtins
import functools
import io
import math
import operator
import os
import sys
import threading
import types
import unittest
import unittest.util
from typing import Any

from channel import Channel, describe, last_error  # type: ignore[import-not-found]
from judge import Counted, Tests  # type: ignore[import-not-found]

_FORBIDDEN_NAMES = frozenset(
    ["_getframe", "_current_frames", "gi_frame", "cr_frame", "ag_frame", "f_back", "f_globals", "f_locals",
     "f_builtins", "tb_frame", "tb_next", "__closure__", "__globals__", "__code__", "__subclasses__", "settrace",
     "setprofile", "get_objects", "get_referrers", "get_referents", "addaudithook", "_exit", "atexit", "ctypes",
     "gc", "__builtins__", "builtins", "unittest", "pytest", "testsRun", "wasSuccessful", "TestCase",
     "AssertionError", "__del__", "excepthook", "abort", "kill", "killpg", "_thread", "faulthandler"])
_FORBIDDEN_EVENTS = frozenset(
    ["sys._getframe", "sys._current_frames", "sys._current_exceptions", "gc.get_objects", "gc.get_referrers",
     "gc.get_referents", "sys.settrace", "sys.setprofile", "sys.addaudithook", "object.__getattr__",
     "object.__setattr__", "object.__delattr__", "ctypes.dlopen", "os.kill", "os.killpg", "signal.pthread_kill",
     "os.putenv"])
_GUARDED = [builtins, unittest, unittest.case, unittest.suite, unittest.loader, unittest.result, unittest.runner,
            unittest.util, operator, math]


class Forged(BaseException):
    """The program touched what decides about it; `reason` outlives a bare `except`."""

    reason: str | None = None

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        Forged.reason = Forged.reason or reason


_DEPTH, _ITEMS = 3, 1000  # how far a returned value is looked into
_asking: list[bool] = []  # looking for the caller raises an event itself


def _watch(event: str, arguments: Any) -> None:
    if event not in _FORBIDDEN_EVENTS or _asking:
        return
    _asking.append(True)
    caller = sys._getframe(1).f_code.co_filename
    _asking.clear()
    if caller == "<program>":
        os._exit(86)


def _state() -> dict[tuple[int, str], int]:
    """The identity of everything that the tests' verdict rests on."""
    found = {}
    for place, module in enumerate(_GUARDED):
        for name, value in vars(module).items():
            if name in ("_", "file_spec", "open_spec"):  # filled at first use
                continue
            found[place, name] = id(value)
            if isinstance(value, type) and value.__module__.startswith("unittest"):
                found |= {(place, f"{name}.{key}"): id(part) for key, part in vars(value).items()
                          if not key.startswith(("_abc", "__weakref"))}
    return found


def _guard_mocks(tests: Tests, text: str) -> None:
    """Guard unittest.mock too where the tests can come to use it; importing it costs more than most tests."""
    imported = {alias.name for node in ast.walk(tests.tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tests.tree) if isinstance(node, ast.ImportFrom)}
    if "mock" in text or {name.partition(".")[0] for name in imported} - sys.stdlib_module_names:
        import unittest.mock
        _GUARDED.append(unittest.mock)


def _written_by_program(kind: type) -> bool:
    functions = (part for base in kind.__mro__ for part in vars(base).values() if isinstance(part, types.FunctionType))
    return (any(base.__module__ in ("program", "__main__") for base in kind.__mro__)
            or any(function.__code__.co_filename == "<program>" for function in functions))


class _Judge:
    """Runs program and tests; lives in the second thread."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._request = request
        self._tests = Tests(request["tests"])
        _guard_mocks(self._tests, request["tests"])
        self._state = _state()
        self._named = {node.id for node in ast.walk(self._tests.tree) if isinstance(node, ast.Name)}
        self.checks = 0
        self.verdict: dict[str, Any] = {"outcome": "crash", "reason": "the program ended before the last check"}

    def run(self) -> None:
        """Fill `verdict`."""
        try:
            self.verdict = self._run()
        except AssertionError as error:
            self.verdict = {"outcome": "wrong", "reason": describe(error)[1][:300] or "an assertion does not hold"}
        except Forged as error:
            self.verdict = {"outcome": "wrong", "reason": str(error)}
        except BaseException as error:
            name, text = describe(error)
            self.verdict = {"outcome": "memory" if name == "MemoryError" else "exception", "reason": f"{name}: {text}"}
        if Forged.reason is not None:
            self.verdict = {"outcome": "wrong", "reason": Forged.reason}

    def _run(self) -> dict[str, Any]:
        module = types.ModuleType("__main__")
        space = module.__dict__
        sys.modules["__main__"] = module
        tree = ast.parse(self._request["code"])
        forbidden = sorted(_words(tree) & _FORBIDDEN_NAMES)
        if forbidden:
            raise Forged(f"the program uses {forbidden[0]}, which tests of this kind do not allow")
        space["__name__"] = "program"
        exec(compile(tree, "<program>", "exec"), space)
        space["__name__"] = "__main__"
        self._check("loading the program")
        self._wrap(space)
        test_tree = ast.fix_missing_locations(Counted().visit(self._tests.tree))
        space["__checked__"] = self._checked
        before = set(space)
        exec(compile(test_tree, "<tests>", "exec"), space)
        failure = self._run_tests({name: value for name, value in space.items() if name not in before
                                   or name in self._named})
        self._check("the tests")
        if failure is not None:
            return {"outcome": "wrong", "reason": failure}
        if self.checks == 0:
            return {"outcome": "wrong", "reason": "no check was reached"}
        return {"outcome": "pass", "reason": f"{self.checks} checks", "checks": self.checks}

    def _checked(self) -> None:
        self.checks += 1

    def _check(self, when: str, before: dict[tuple[int, str], int] | None = None) -> None:
        after, expected = _state(), before or self._state
        if after != expected:
            changed = sorted(name for (_, name), number in expected.items() ^ after.items())
            raise Forged(f"{changed[0]} of the test machinery or the built-ins was changed while {when}")

    def _wrap(self, space: dict[str, Any]) -> None:
        """Have every function of the program's that the tests can name looked after."""
        entry = self._request["entry"]
        for name in (self._named | set(self._tests.aliases.values()) | {entry}) & set(space):
            if isinstance(space[name], types.FunctionType):
                if hasattr(builtins, name) and name != entry:
                    del space[name]
                else:
                    space[name] = self._guarded(space[name])
        space |= {alias: space[name] for alias, name in self._tests.aliases.items() if name in space}
        space["__subject__"] = space.get(entry)

    def _guarded(self, function: Any) -> Any:
        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            threads, before = threading.active_count(), _state()  # mocks of the tests may be at work
            try:
                value = function(*arguments, **named)
            except BaseException:
                self._check(f"{function.__name__} ran", before)
                raise
            self._check(f"{function.__name__} ran", before)
            if self._is_suspect(value):
                raise Forged(f"{function.__name__} returned an object of the program's own class")
            if threading.active_count() > threads:
                raise Forged(f"{function.__name__} left a thread running")
            return value
        return call

    def _is_suspect(self, value: Any, depth: int = 0) -> bool:
        """Whether a value is, or visibly holds, an object of a class of the program's that the tests do not name."""
        kind = type(value)
        if _written_by_program(kind) and kind.__name__ not in self._named:
            return True
        if depth < _DEPTH and kind in (list, tuple, set, frozenset, dict):
            items = [*value.keys(), *value.values()] if kind is dict else list(value)
            return any(self._is_suspect(item, depth + 1) for item in items[:_ITEMS])
        return False

    def _run_tests(self, space: dict[str, Any]) -> str | None:
        called = {node.func.id for statement in self._tests.tree.body if isinstance(statement, ast.Expr)
                  for node in ast.walk(statement) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
        for name, value in space.items():
            if isinstance(value, types.FunctionType) and value.__code__.co_filename == "<tests>" and name not in called:
                if name == "check" and value.__code__.co_argcount == 1:
                    value(space.get("__subject__"))
                elif name.startswith("test") and value.__code__.co_argcount == 0:
                    value()
        classes = [value for value in space.values() if isinstance(value, type)
                   and issubclass(value, unittest.TestCase) and value is not unittest.TestCase]
        if not classes:
            return None
        suite = unittest.TestSuite(map(unittest.defaultTestLoader.loadTestsFromTestCase, dict.fromkeys(classes)))
        planned = suite.countTestCases()
        result = unittest.TextTestRunner(stream=io.StringIO()).run(suite)
        self.checks += result.testsRun - len(result.skipped)
        bad = result.failures + result.errors
        if bad:
            return last_error(str(bad[0][1]))
        if result.skipped or result.expectedFailures or result.unexpectedSuccesses or result.testsRun != planned:
            return f"{result.testsRun - len(result.skipped)} of {planned} tests ran"
        return None


def _words(tree: ast.AST) -> set[str]:
    """Every name, attribute, imported module and piece of a string constant of a program."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {part for alias in node.names for part in alias.name.split(".")}
            found |= set((getattr(node, "module", None) or "").split("."))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "_" in node.value:
            found.add(node.value)  # as in getattr(frame, "f_back")
    return found


def run(request: dict[str, Any], channel: Channel) -> None:
    """Give a verdict with the token."""
    token = request.pop("token")
    try:
        judge = _Judge(request)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        channel.write({"bad": ": ".join(describe(error))})
        return
    sys.addaudithook(_watch)
    unittest.main = lambda *arguments, **named: None  # type: ignore[assignment,misc]
    judge._state = _state()
    done = _thread.allocate_lock()
    done.acquire()
    threading.stack_size(64 << 20)
    _thread.start_new_thread(_in_thread, (judge, done))
    done.acquire()
    channel.write(judge.verdict | {"token": token})


def _in_thread(judge: _Judge, done: Any) -> None:
    try:
        judge.run()
    finally:
        done.release()
