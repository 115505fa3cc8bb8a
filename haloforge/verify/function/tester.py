"""Runs in the tests' box, with the arguments JUDGE, ENTRY_POINT and CPU_S; the tests are tests.py.

Reports on what was its standard output, as lines of JSON: `{"total": n}`, `{"compiled": true or
false, "diagnostics": [...], "compile_ms": ...}`, `{"used": true}` once the solution may have had a
say in what the tests do, `{"test": name, "outcome": ..., "reason": ...}` for each test, and last
`{"end": true, "answered": ..., "alive": ...}`, or `{"broken": reason}` where the tests are wrong.
What the tests print goes to standard error.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import json
import os
import resource
import symtable
import sys
import traceback
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from haloforge.verify.function.proxies import (
    CandidateLost,
    Client,
    Solution,
    UnsupportedError,
    was_told,
)

TESTS = "tests.py"
REQUESTS, REPLIES = 3, 4
REASON = 500  # characters
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class BrokenTestsError(Exception):
    """The tests are at fault, not the solution."""


class Tester:
    """One solution under test, and the report of it."""

    def __init__(self, source: str, entry_point: str) -> None:
        self.source = source
        self.entry_point = entry_point
        self.result = os.dup(1)
        os.dup2(2, 1)
        self.client = Client(
            REPLIES, REQUESTS, lambda text: sys.stdout.write(text), lambda: self.tell(used=True)
        )
        self.names = free_names(source, entry_point)
        self.modules = {"solution", "main"}
        self.missing: set[str] = set()

    def tell(self, **fields: Any) -> None:
        os.write(self.result, json.dumps(fields).encode() + b"\n")

    def start(self) -> bool:
        """Waits until the solution is compiled and imported; False where that failed."""
        try:
            _, failure, warnings, ms = self.client.receive()
            told = warnings if failure is None else [failure, *warnings]
            self.tell(compiled=failure is None, diagnostics=told, compile_ms=ms)
            if failure is not None:
                return False
            self.client.answer()
        except BaseException as error:  # no test has run yet
            self.record_own("import", error)
            return False
        for name in self.modules:
            sys.modules[name] = Solution(name, self.client, self.names)
        return True

    def record(self, name: str, error: BaseException | None) -> None:
        """Tells how a test ended. Raises BrokenTestsError where its own code is at fault."""
        if self.client.lost:
            self.record_own(name, self.client.lost)
        elif error is None:
            self.tell(test=name, outcome="passed", reason="")
        else:
            self.tell(test=name, outcome=self.blame(error), reason=reason_of(error))

    def record_own(self, name: str, error: BaseException) -> None:
        """Tells of a failure that can only be the solution's."""
        outcome = self.client.lost.outcome if self.client.lost else outcome_of(error)
        self.tell(test=name, outcome=outcome, reason=reason_of(error))

    def blame(self, error: BaseException) -> str:
        """The outcome that an exception in a test means.

        Once the solution has told anything, a wrong answer may be behind every failure: then it
        counts against the solution, which could else have its failures left out.
        """
        if was_told(error):
            return outcome_of(error)
        if isinstance(error, ImportError) and error.name in self.modules:
            return "runtime_error"
        if isinstance(error, (ImportError, UnsupportedError)):
            raise BrokenTestsError(reason_of(error))
        if isinstance(error, NameError) and any(f"'{n}'" in str(error) for n in self.missing):
            return "runtime_error"
        if self.client.used or isinstance(error, AssertionError):
            return "wrong_answer"
        raise BrokenTestsError(reason_of(error))

    def end(self) -> None:
        if not self.client.lost:
            try:
                self.client.ask("bool", self.client.solution)
            except BaseException as error:
                self.record_own("end", error)
        self.tell(end=True, answered=self.client.answered, alive=self.client.lost is None)

    def run_functions(self) -> None:
        """Asserts, `check(candidate)` and `test_*` functions, in one namespace."""
        tree = ast.parse(self.source, TESTS)
        asserts = [node for node in tree.body if isinstance(node, ast.Assert)]
        defined = [node.name for node in tree.body if isinstance(node, FUNCTIONS)]
        functions = [name for name in defined if name == "test" or name.startswith("test_")]
        check = bool(self.entry_point) and "check" in defined
        total = len(asserts) + len(functions) + check
        self.tell(total=max(total, 1))
        if not self.start():
            return
        module = ModuleType("tests")
        sys.modules["tests"] = module
        self.fill(vars(module), tree)
        for node, code in statements(tree):
            is_test = isinstance(node, ast.Assert)
            error = attempt(exec, code, vars(module))
            if is_test or error is not None:
                self.record(f"line {node.lineno}", error)
            if self.client.lost or (error is not None and not is_test):
                return  # what follows may need what was to be set up here
        if total == 0:
            self.record("tests", None)
        for name in [*(["check"] if check else []), *functions]:
            given = [vars(module).get(self.entry_point)] if name == "check" else []
            if self.entry_point in self.missing and given:
                reason = f"the solution defines no '{self.entry_point}'"
                self.tell(test=name, outcome="runtime_error", reason=reason)
                continue
            self.record(name, attempt(getattr(module, name), *given))
            if self.client.lost:
                return

    def fill(self, namespace: dict[str, Any], tree: ast.Module) -> None:
        """Gives `namespace` what the tests do not define: the solution's, but for modules.

        A test that compares with `math.isclose` must not ask the solution's `math`.
        """
        dotted = {
            node.value.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        }
        for name in self.names:
            if name in dotted and name != self.entry_point and importable(name):
                namespace[name] = importlib.import_module(name)
                continue
            try:
                namespace[name] = getattr(self.client.solution, name)
            except Exception:  # whatever the solution makes of a look-up
                self.missing.add(name)


def free_names(source: str, entry_point: str) -> list[str]:
    """Names that the test code uses without defining them; builtins are never the solution's."""
    top = symtable.symtable(source, TESTS, "exec")
    used: set[str] = set()
    tables = [top]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        symbols = [s for s in table.get_symbols() if table is top or s.is_global()]
        used |= {symbol.get_name() for symbol in symbols if symbol.is_referenced()}
    own = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    return sorted((used - own - set(dir(builtins))) | ({entry_point} - {""}))


def statements(tree: ast.Module) -> Iterator[tuple[ast.stmt, Any]]:
    """Each statement with its code, which obeys the file's `from __future__` imports."""
    futures: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            futures.append(node)
        part = ast.Module([*futures, node], [])
        yield node, compile(part, TESTS, "exec", dont_inherit=True)


def attempt(action: Any, *operands: Any) -> BaseException | None:
    """What `action` raised, whatever that is."""
    try:
        action(*operands)
    except BaseException as error:
        return error
    return None


def outcome_of(error: BaseException) -> str:
    """What an exception of the solution's own means."""
    return "memory_limit" if isinstance(error, MemoryError) else "runtime_error"


def importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # loaded, but from no file
        return False


def reason_of(error: BaseException) -> str:
    """The exception, with the line of the tests that it came to."""
    lines = [
        f" (line {frame.lineno}: {frame.line})"
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.endswith(TESTS)
    ]
    try:
        text = str(error)
    except Exception:
        text = "..."
    return f"{type(error).__name__}: {text}".rstrip(": ")[:REASON] + "".join(lines[-1:])[:REASON]


def main() -> None:
    judge, entry_point, cpu_s = sys.argv[1:]
    # Waiting is bounded by the solution's deadline, and what its answers make of the tests by this.
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s), int(cpu_s) + 1))
    with open(TESTS, encoding="utf-8") as file:
        tester = Tester(file.read(), entry_point)
    try:
        if judge == "pytest":
            tester.modules |= {entry_point} - {""}
            if tester.start():
                sys.path.insert(0, "")
                importlib.import_module("pytest_tests").run(tester)
        else:
            tester.run_functions()
        tester.end()
    except CandidateLost as error:
        tester.record_own("look-up", error)
        tester.end()
    except BrokenTestsError as error:
        tester.tell(broken=str(error))
    os._exit(0)
