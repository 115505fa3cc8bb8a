"""Programs that know nothing of their problem: what passes with one of them tests nothing.

For `stdio` it is a program that prints what the first test expects, whatever it reads (one that
prints nothing passes no more than that), and one that prints what it reads. For Python tests it is
an empty module, and the solution with all its functions made to return one constant. For `program`
it is a solution with nothing in it: functions of other languages are not emptied.
"""

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from haloforge.data.generate.reading import Rejected
from haloforge.data.jsonl import write_jsonl
from haloforge.data.validate.rows import Kind
from haloforge.schema import CODE_JUDGES, UNPARSED, Problem

TRIVIAL = "trivial"
Told = Callable[[Kind, int, str], None]
Judge = Callable[[Sequence[str], npt.NDArray[np.int64], Told], int]
"""`judge_rows` (see validate/references.py) of a session."""
_NOTHING = "a program with nothing in it"
_ECHO = "import sys\nsys.stdout.write(sys.stdin.read())\n"
_EMPTY = {
    "cpp": "#include <cassert>\n#include <iostream>\n",
    "rust": "// nothing\n",
    "go": 'package main\n\nimport (\n\t"fmt"\n\t"testing"\n)\n',
    "javascript": "const assert = require('node:assert');\n",
}
"""A solution with nothing in it but what appended tests need, by language."""


def passed_by_probes(problems: Iterable[Problem], path: Path, judge: Judge) -> dict[str, Rejected]:
    """Those of `problems`, by id, whose tests a probe passes, or whose probes could not be judged;
    the probes are written to `path`."""
    sent: list[tuple[str, str]] = []

    def rows() -> Iterator[dict[str, Any]]:
        for problem in problems:
            for number, (what, language, code) in enumerate(probes(problem)):
                sent.append((problem.problem_id, what))
                yield problem.model_dump(exclude_defaults=True) | {
                    "problem_id": f"{problem.problem_id}/probe{number}",
                    "language": language,
                    "reference": {language: code},
                }

    write_jsonl(path, rows())
    if not sent:
        return {}
    failed: dict[int, tuple[Kind, str]] = {}

    def told(kind: Kind, row: int, why: str) -> None:
        failed[row] = (kind, why)

    judge([str(path)], np.ones(len(sent), np.int64), told)
    unjudged: dict[str, Rejected] = {}
    trivial: dict[str, Rejected] = {}
    for row, (problem_id, what) in enumerate(sent):
        kind, why = failed.get(row, (None, ""))
        if kind is None:
            trivial.setdefault(problem_id, Rejected(TRIVIAL, f"its tests are passed by {what}"))
        elif kind is Kind.UNJUDGED:
            unjudged[problem_id] = Rejected(kind, why)
    return unjudged | trivial


def probes(problem: Problem) -> Iterator[tuple[str, str, str]]:
    """What a probe is in words, its language, and its code."""
    if problem.judge == "stdio":
        # In Python whatever the language is: it is what is printed that is judged.
        printed = problem.tests[0].stdout.encode()
        code = f"import sys\nsys.stdout.buffer.write({printed!r})\n"
        yield "a program that prints what the first one expects", "python", code
        yield "a program that prints what it reads", "python", _ECHO
    elif problem.judge in CODE_JUDGES:
        yield _NOTHING, "python", "# nothing\n"
        solution = problem.reference.get("python", "")
        for value in _constants(problem.test_code or ""):
            if (stub := _stub(solution, value)) is not None:
                yield f"functions that return {ast.unparse(value):.40}", "python", stub
    else:
        language = str(problem.language)
        yield _NOTHING, language, _EMPTY[language]


def _constants(tests: str) -> list[ast.expr]:
    """What a function may return that does nothing: None, a truth value, and the first literal that
    a test compares with. One that all compare with is the first."""
    found: list[ast.expr] = [ast.Constant(value) for value in (None, True, False)]
    for node in ast.walk(ast.parse(tests)):
        if isinstance(node, ast.Assert) and isinstance(node.test, ast.Compare):
            sides = [*node.test.comparators, node.test.left]
            if (literal := next(filter(_is_literal, sides), None)) is not None:
                found.append(literal)
                break
    return [*{ast.unparse(value): value for value in found}.values()]


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except UNPARSED:
        return False
    return True


def _stub(solution: str, value: ast.expr) -> str | None:
    """`solution` with `value` for what each function does; None where it has no function."""
    emptied = _Emptied(value)
    try:
        tree = emptied.visit(ast.parse(solution))
        return ast.unparse(ast.fix_missing_locations(tree)) if emptied.met else None
    except UNPARSED:
        return None


class _Emptied(ast.NodeTransformer):
    def __init__(self, value: ast.expr) -> None:
        self._value = value
        self.met = False

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.body = self._body(node.name)
        return node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AsyncFunctionDef:
        node.body = self._body(node.name)
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.Lambda:
        self.met = True
        node.body = self._value
        return node

    def _body(self, name: str) -> list[ast.stmt]:
        self.met = True
        # A class whose `__init__` returns something could not even be made.
        return [ast.Pass()] if name == "__init__" else [ast.Return(self._value)]
