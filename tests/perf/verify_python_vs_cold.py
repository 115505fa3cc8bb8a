"""Tests/s/core of Python function tests over a new `python3` for each test, on one core.

Ours is the verifier as a fleet's actor has it, its cache off: a fresh box for a solution, another
for its tests. The reference has no sandbox: each test, an assert, is a program of its own behind
the solution. `python -m tests.perf.verify_python_vs_cold [PROBLEMS]`, by default all there are.
"""

import ast
import subprocess
import sys
from typing import Any

from haloforge.schema import Problem
from haloforge.verify.settings import VerifySettings
from haloforge.verify.toolchains import box_python
from haloforge.verify.verifier import Verifier
from tests.perf.measuring import in_turn, rows, spread, tell, use_one_core

BLOCK = 20
WRONG = 927  # the one of MBPP whose solution fails its own tests
# For machines without MBPP: as short as its problems are, three asserts each.
INSTEAD = {
    "def square(n):\n    return n * n": """
assert square(3) == 9
assert square(-2) == 4
assert square(0) == 0""",
    "def prime(n):\n    return n > 1 and all(n % i for i in range(2, int(n**0.5) + 1))": """
assert prime(13)
assert not prime(91)
assert not prime(1)""",
    "from collections import Counter\ndef counts(words):\n    return dict(Counter(words))": """
assert counts('aab') == {'a': 2, 'b': 1}
assert counts([]) == {}
assert counts([1, 1]) == {1: 2}""",
    "import re\ndef numbers(text):\n    return [int(n) for n in re.findall('[0-9]+', text)]": """
assert numbers('a1b22') == [1, 22]
assert numbers('') == []
assert numbers('7 8') == [7, 8]""",
}
REPEATS = 60


def main(problems: int | None = None) -> None:
    """All problems on both sides, in turn; prints the entry."""
    use_one_core()
    mbpp = [from_mbpp(row) for row in rows("mbpp_train.jsonl") if row["task_id"] != WRONG]
    corpus = spread(mbpp or [problem(*pair) for pair in INSTEAD.items()] * REPEATS, problems)
    verifier = Verifier(VerifySettings(cache=False), {each.problem_id: each for each in corpus})

    def ours(problem: Problem) -> None:
        completion = f"```python\n{problem.reference['python']}\n```"
        sample = {"sample_id": "s", "problem_id": problem.problem_id, "completion": completion}
        verdict = verifier.verify(sample)
        assert verdict["outcome"] == "passed", verdict

    def cold(problem: Problem) -> None:
        # Written by people, for a published set or for this file: no sandbox is needed.
        for test in asserts(problem):
            program = f"{problem.reference['python']}\n{test}"
            command = [box_python(), "-c", program]
            subprocess.run(command, check=True, capture_output=True, timeout=5)

    tests = sum(len(asserts(problem)) for problem in corpus)
    note = (
        f"{len(corpus)} {'MBPP solutions' if mbpp else 'short functions (MBPP is not here)'} with "
        f"{tests} asserts, one core, no cache, tier {verifier.sandbox.tier}"
    )
    tell(in_turn(corpus, BLOCK, ours, cold), "tests/s/core", note, tests / len(corpus))


def from_mbpp(row: dict[str, Any]) -> Problem:
    """A row's problem, with each assert of its `test_solution` as a test."""
    found = [node for node in ast.walk(ast.parse(row["tests"])) if isinstance(node, ast.Assert)]
    # Solutions have the line ends of another system.
    return problem(row["solution"].replace("\r", ""), "\n".join(map(ast.unparse, found)))


def problem(code: str, test_code: str) -> Problem:
    """A problem in the style of MBPP, known by its solution."""
    return Problem(
        problem_id=code,
        prompt="?",
        judge="function",
        test_code=test_code.strip(),
        reference={"python": code},
    )


def asserts(problem: Problem) -> list[str]:
    """Its tests, one a line."""
    return (problem.test_code or "").splitlines()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
