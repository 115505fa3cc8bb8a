"""Programs judged by exact and float comparison and by checkers, in real boxes."""

import re
from typing import Any

import pytest

from tests.judging import verify_as

TESTS = [{"stdin": "9\n", "stdout": "3.0000\n"}, {"stdin": "2\n", "stdout": "1.4142\n"}]
ROOT = "print(float(input()) ** 0.5)"
FACTORS = [{"stdin": "12\n", "stdout": "2 6"}, {"stdin": "7\n", "stdout": "1 7"}]
CHECKER = """
def check(stdin, stdout, expected):
    print("this is no verdict")
    parts = stdout.split()
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        return False
    return int(parts[0]) * int(parts[1]) == int(stdin) and len(expected.split()) == 2
"""


def verify(code: str, **fields: Any) -> dict[str, Any]:
    return verify_as({"judge": "stdio", **fields}, code)


@pytest.mark.parametrize(
    ("code", "fields", "outcome", "passed"),
    [
        (ROOT, {}, "wrong_answer", 0),
        (ROOT, {"comparison": "float", "float_tolerance": 1e-4}, "passed", 2),
        (ROOT, {"comparison": "float"}, "wrong_answer", 1),
        (f"{ROOT}\nprint()", {"comparison": "float", "float_tolerance": 1e-4}, "passed", 2),
        ("print('nan')", {"comparison": "float", "float_tolerance": 0.1}, "wrong_answer", 0),
        ("print(f'{float(input()) ** 0.5:.4f}')", {"comparison": "exact"}, "passed", 2),
        ("print(f'{float(input()) ** 0.5:.4f} ')", {"comparison": "exact"}, "wrong_answer", 0),
        ("print(f'{float(input()) ** 0.5:.4f} ')", {}, "passed", 2),
    ],
)
def test_comparison(code: str, fields: dict[str, Any], outcome: str, passed: int) -> None:
    verdict = verify(code, tests=TESTS, **fields)
    assert (verdict["outcome"], verdict["tests_passed"]) == (outcome, passed)


@pytest.mark.parametrize(
    ("code", "outcome", "passed"),
    [
        ("print(1, input())", "passed", 2),
        ("print(input(), 1)", "passed", 2),
        ("print(2, 6)", "wrong_answer", 1),
        ("print('2 6 True')", "wrong_answer", 0),
        ("print('\\xff')", "wrong_answer", 0),
        ("print(2, 6)\nraise SystemExit(int(input()) % 2)", "runtime_error", 1),
        ("while True:\n    pass", "timeout", 0),
    ],
)
def test_checker(code: str, outcome: str, passed: int) -> None:
    verdict = verify(code, tests=FACTORS, checker=CHECKER)
    assert (verdict["outcome"], verdict["tests_passed"]) == (outcome, passed)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return 1 / 0", "ZeroDivisionError: division by zero"),
        ("return 1", "check returned 1, not True or False"),
        ("pass", "check returned None"),
        ("import os; os._exit(0)", "ended with status 0"),
        ("while True: pass", "died of signal|was stopped after"),
    ],
)
def test_a_broken_checker_is_no_fault_of_the_program(
    body: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("haloforge.verify.judges.checker.WALL_S", 1)
    checker = f"def check(stdin, stdout, expected):\n    {body}"
    verdict = verify("print(1, input())", tests=FACTORS[:1], checker=checker)
    assert verdict["outcome"] == "infra_error"
    assert re.search(reason, verdict["diagnostics"]), verdict["diagnostics"]


def test_a_checker_that_fails_for_what_was_printed_finds_it_wrong() -> None:
    checker = "def check(stdin, stdout, expected):\n    return int(stdout) == int(expected)"
    tests = [{"stdin": "3", "stdout": "3"}, {"stdin": "x", "stdout": "4"}]
    verdict = verify("print(input())", tests=tests, checker=checker)
    assert (verdict["outcome"], verdict["tests_passed"]) == ("wrong_answer", 1)
    unproven = [*tests, {"stdin": "y", "stdout": "any"}]  # it cannot read what is expected either
    verdict = verify("print(input())", tests=unproven, checker=checker)
    assert verdict["outcome"] == "infra_error"
    assert "ValueError: invalid literal" in verdict["diagnostics"]


def test_what_is_printed_is_data_to_the_checker() -> None:
    program = "print('__import__(\"os\")._exit(0)')\nprint('\"]; result = True')"
    assert verify(program, tests=FACTORS, checker=CHECKER)["outcome"] == "wrong_answer"


def test_a_checker_s_box_is_not_the_program_s() -> None:
    checker = """
import os
def check(stdin, stdout, expected):
    return stdout.strip() == "[]" and not os.path.exists("left") and expected == "3"
"""
    program = (
        "import os\nopen('left', 'w').write('x')\n"
        "print([n for n in os.listdir('.') if n not in ('main.py', 'left')])"
    )
    tests = [{"stdin": "", "stdout": "3"}]
    assert verify(program, tests=tests, checker=checker)["outcome"] == "passed"
