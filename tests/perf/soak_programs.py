"""What the soak judges: answers of every kind, with the outcome that each must have."""

from typing import Any, NamedTuple

from haloforge.schema import Outcome, Problem

LITTER = "haloforge-soak-litter"
"""The name of what programs try to leave behind, in each of FOLDERS."""
FOLDERS = ("/tmp", "/var/tmp", "/dev/shm", "/run/lock")

SUM = {
    "judge": "stdio",
    "tests": [{"stdin": "1 2\n", "stdout": "3\n"}, {"stdin": "5 7\n", "stdout": "12\n"}],
}
CPP, PYTHON = {**SUM, "language": "cpp"}, {**SUM, "language": "python"}
ASSERTS = {"judge": "function", "test_code": "assert add(1, 2) == 3\nassert add(5, 7) == 12"}
CHECK = {
    "judge": "function",
    "entry_point": "add",
    "test_code": "def check(candidate):\n    assert candidate(1, 2) == 3",
}
SHORT, SMALL = {"limits": {"wall_s": 0.3}}, {"limits": {"memory_mb": 128}}
ADD = "print(sum(map(int, input().split())))"
LITTERING = f"""
import os, pathlib, threading, time
for folder in {(*FOLDERS, ".")}:
    try:
        pathlib.Path(folder, "{LITTER}").write_text("left")
    except OSError:
        pass
try:
    if os.fork() == 0:
        os.setsid()
        time.sleep(3600)
except OSError:
    pass
threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
{ADD}
"""
BIG_FILE = f"""
import os
try:
    open("big", "wb").write(bytes(1 << 27))
except OSError:  # full, or not allowed
    pass
if os.path.exists("big"):
    os.remove("big")
{ADD}
"""
CPP_ADD = """
#include <{}>
int main() {{
    int a, b;
    std::cin >> a >> b;
    std::cout << {} << "\\n";
}}
"""


class Kind(NamedTuple):
    """Answers that are all alike, `share` of a hundred."""

    share: int
    outcome: Outcome
    problem: dict[str, Any]
    code: str


WRONG, CRASH = Outcome.WRONG_ANSWER, Outcome.RUNTIME_ERROR
BROKEN, PASSED = Outcome.COMPILE_ERROR, Outcome.PASSED
KINDS = {
    "right Python": Kind(14, PASSED, PYTHON, ADD),
    "wrong Python": Kind(10, WRONG, PYTHON, "print(input())"),
    "no Python": Kind(4, BROKEN, PYTHON, "print(("),
    "an exception": Kind(4, CRASH, PYTHON, "print(1 / 0)"),
    "an abort": Kind(4, CRASH, PYTHON, "import os\nos.abort()"),
    "litter": Kind(6, PASSED, PYTHON, LITTERING),
    "endless": Kind(3, Outcome.TIMEOUT, PYTHON | SHORT, "while True:\n    pass"),
    "much memory": Kind(
        3,
        Outcome.MEMORY_LIMIT,
        PYTHON | SMALL,
        "kept = []\nwhile True:\n    kept.append(bytearray(1 << 20))",
    ),
    "much output": Kind(3, Outcome.OUTPUT_LIMIT, PYTHON, "while True:\n    print('x' * 65536)"),
    "a big file": Kind(3, PASSED, PYTHON, BIG_FILE),
    "right function": Kind(14, PASSED, ASSERTS, "def add(a, b):\n    return a + b"),
    "wrong function": Kind(8, WRONG, ASSERTS, "def add(a, b):\n    return a"),
    "right candidate": Kind(8, PASSED, CHECK, "def add(a, b):\n    return a + b"),
    "function that exits": Kind(3, CRASH, ASSERTS, "import os\ndef add(a, b):\n    os._exit(0)"),
    "endless function": Kind(
        3, Outcome.TIMEOUT, CHECK | SHORT, "def add(a, b):\n    while True:\n        pass"
    ),
    "right C++": Kind(3, PASSED, CPP, CPP_ADD.format("iostream", "a + b")),
    "C++ with all headers": Kind(2, PASSED, CPP, CPP_ADD.format("bits/stdc++.h", "a + b")),
    "wrong C++": Kind(1, WRONG, CPP, CPP_ADD.format("iostream", "a")),
    "no C++": Kind(2, BROKEN, CPP, CPP_ADD.format("iostream", "c")),
    "C++ that crashes": Kind(2, CRASH, CPP, "int main() { return *(volatile int *)0; }"),
}


def soak_problems() -> dict[str, Problem]:
    """The problem of each kind, by the kind's name."""
    return {
        name: Problem.model_validate({"problem_id": name, "prompt": "?", **kind.problem})
        for name, kind in KINDS.items()
    }
