"""Function tests and pytest files in real boxes: right, wrong and crashing solutions."""

import textwrap
from typing import Any

import pytest

from haloforge.schema import Limits, Problem
from haloforge.verify.settings import VerifySettings
from haloforge.verify.verifier import Verifier
from tests.judging import verify

HUMANEVAL = """
METADATA = {'author': 'nobody'}

def check(candidate):
    assert candidate(1, 2) == 3
    assert candidate(40, 2) == 42
"""
MBPP = "assert add(1, 2) == 3\nassert add(40, 2) == 42\n"
FUNCTIONS = """
def test_solution():
    assert add(1, 2) == 3

def test_more():
    assert add(40, 2) == 42
"""
PYTEST = """
import pytest
from solution import add

@pytest.fixture
def two():
    return 2

@pytest.mark.parametrize("one, total", [(1, 3), (40, 42)])
def test_add(one, total, two):
    assert add(one, two) == pytest.approx(total)

def test_types():
    with pytest.raises(TypeError, match="unsupported operand"):
        add(1, None)
"""
RIGHT = "def add(a, b):\n    return a + b\n"


STYLES: dict[
    str, tuple[dict[str, Any], int, int]
] = {  # fields, number of tests, and how many an `add` of 3 passes
    "HumanEval": ({"test_code": HUMANEVAL, "entry_point": "add"}, 1, 0),
    "MBPP": ({"test_code": MBPP}, 2, 1),
    "test functions": ({"test_code": FUNCTIONS}, 2, 1),
    "a script": ({"test_code": "for a, b in [(1, 3), (40, 42)]:\n    assert add(a, 2) == b"}, 1, 0),
    "pytest": ({"judge": "pytest", "test_code": PYTEST}, 3, 1),
}
SOLUTIONS = {  # code, outcome, reward
    "right": (RIGHT, "passed", 1.0),
    "right, and verbose": (f"{RIGHT}\nprint('x' * 5000)", "passed", 1.0),
    "wrong": ("def add(a, b):\n    return 3 if b else a", "wrong_answer", 0.7),
    "no number": ("def add(a, b):\n    return None", "wrong_answer", 0.7),
    "raises": ("def add(a, b):\n    return [a][b]", "runtime_error", 0.5),
    "takes too much memory": ("def add(a, b):\n    bytearray(1 << 40)", "memory_limit", 0.5),
    "takes too much at import": (f"{RIGHT}\nx = bytearray(1 << 40)", "memory_limit", 0.5),
    "fails its own assertion": ("def add(a, b):\n    assert False", "runtime_error", 0.5),
    "fails at import": (f"{RIGHT}\n1 / 0", "runtime_error", 0.5),
    "exits at import": (f"{RIGHT}\nraise SystemExit(0)", "runtime_error", 0.5),
    "another name": ("def plus(a, b):\n    return a + b", "runtime_error", 0.5),
    "dies": ("import os\ndef add(a, b):\n    os.abort()", "runtime_error", 0.5),
    "endless": ("def add(a, b):\n    while True:\n        pass", "timeout", 0.5),
    "endless at import": ("while True:\n    pass", "timeout", 0.5),
    "sleeps": ("import time\ndef add(a, b):\n    time.sleep(99)", "timeout", 0.5),
    "prints for ever": ("def add(a, b):\n    while True:\n        print(a)", "output_limit", 0.5),
    "does not parse": ("def add(a, b)\n    return a", "compile_error", 0.0),
}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", SOLUTIONS)
def test_outcome(style: str, name: str) -> None:
    fields, total, passed_wrong = STYLES[style]
    code, outcome, reward = SOLUTIONS[name]
    if name in ("endless", "sleeps", "endless at import") and style != "MBPP":
        fields = {**fields, "limits": Limits(wall_s=1)}
    verdict = verify(code, **fields)
    assert (verdict["outcome"], verdict["reward"]) == (outcome, reward), verdict["diagnostics"]
    assert verdict["ran"] is (reward >= 0.7)
    if outcome == "passed":
        assert verdict["tests_passed"] == verdict["tests_total"] == total
        assert verdict["diagnostics"] == ""
    elif name == "wrong":
        assert (verdict["tests_passed"], verdict["tests_total"]) == (passed_wrong, total)
    else:
        assert verdict["diagnostics"]


IN_PYTEST = "import pytest\nfrom solution import f\n"
NO_PASS_IN_PYTEST = {
    "skipped": """
def test_a():
    assert f()
def test_b():
    if f():
        pytest.skip("done")
""",
    "expected to fail": """
def test_a():
    assert f()
@pytest.mark.xfail
def test_b():
    assert not f()
""",
    "passes, and was to fail": """
@pytest.mark.xfail(strict=True)
def test_b():
    assert f()
""",
    "tear-down": """
@pytest.fixture
def x():
    yield f
    assert not f()
def test_b(x):
    assert x()
""",
}


@pytest.mark.parametrize("name", NO_PASS_IN_PYTEST)
def test_only_passed_tests_pass(name: str) -> None:
    verdict = verify("def f():\n    return 1", IN_PYTEST + NO_PASS_IN_PYTEST[name], "pytest")
    assert verdict["outcome"] == "wrong_answer", verdict["diagnostics"]
    assert verdict["tests_passed"] == verdict["tests_total"] - 1


BROKEN = {  # test code, part of the reason
    "a missing module": ("import numpy_of_nowhere\nassert add(1, 2) == 3", "numpy_of_nowhere"),
    "no use of the solution": ("assert 1 + 2 == 3", "none uses the solution"),
    "its own error": ("{}['k']\nassert add(1, 2) == 3", "KeyError"),
    "an argument of no plain data": (
        "import threading\nassert add(threading.Lock(), 2) == 3",
        "cannot be passed to the solution",
    ),
    "endless": ("while True:\n    pass", "died of signal 24"),
    "its own end": ("import os\nos._exit(0)", "ended with status 0"),
}


@pytest.mark.parametrize("judge", ["function", "pytest"])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_tests_are_no_fault_of_the_solution(name: str, judge: str) -> None:
    test_code, reason = BROKEN[name]
    if judge == "pytest":
        body = textwrap.indent(test_code, "    ")
        test_code = f"from solution import add\ndef test_all():\n{body}"
    verdict = verify(RIGHT, test_code, judge, limits=Limits(wall_s=1))
    assert verdict["outcome"] == "infra_error"
    assert reason in verdict["diagnostics"]


def test_a_file_without_tests_is_broken() -> None:
    verdict = verify(RIGHT, "from solution import add", "pytest")
    assert verdict["outcome"] == "infra_error"
    assert "no tests collected" in verdict["diagnostics"]


def test_once_it_has_answered_a_solution_cannot_blame_the_tests() -> None:
    for code, test_code in (
        ("def f():\n    return 'x'", "assert 1 / f() == 1"),
        ("def f():\n    return 10 ** 9", "assert len('ab' * f() * f()) == 4"),
        ("def f():\n    return range(10 ** 18)", "assert sum(f()) == 4"),
        ("def f():\n    return {}", "d = {'a': f()}\nassert d['a']['b'] == 1"),
    ):
        verdict = verify(code, test_code=test_code, limits=Limits(wall_s=1))
        assert verdict["outcome"] in ("wrong_answer", "timeout"), verdict["diagnostics"]
        assert verdict["reward"] < 1


EACH = """
def each(xs, f):
    for x in xs:
        {call}
"""
SWALLOWED = """
        try:
            f(x)
        except Exception:
            pass
"""


@pytest.mark.parametrize("call", ["f(x)", SWALLOWED.strip()])
def test_a_failed_assertion_in_a_call_back_is_not_swallowed(call: str) -> None:
    test_code = "def visit(x):\n    assert x < 3\ndef test_all():\n    each([1, 2, 3], visit)\n"
    assert verify(EACH.format(call=call), test_code=test_code)["outcome"] == "wrong_answer"


def test_the_solution_is_imported_once() -> None:
    code = "import random\nTOKEN = random.random()\ndef f():\n    return TOKEN"
    test_code = "def test_a():\n    assert f() == TOKEN\ndef test_b():\n    assert f() == TOKEN"
    assert verify(code, test_code=test_code)["outcome"] == "passed"


def test_without_a_sandbox_the_tests_run_too() -> None:
    problem = Problem(problem_id="p", prompt="?", judge="function", test_code=MBPP)
    with pytest.warns(UserWarning, match="unsafe_no_sandbox"):
        verifier = Verifier(VerifySettings(unsafe_no_sandbox=True), {"p": problem})
    for code, outcome in ((RIGHT, "passed"), ("def add(a, b):\n    return a", "wrong_answer")):
        sample = {"sample_id": "s", "problem_id": "p", "completion": f"```python\n{code}\n```"}
        assert verifier.verify(sample)["outcome"] == outcome
