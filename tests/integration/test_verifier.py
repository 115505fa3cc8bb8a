"""The verifier end to end: real compilers, real boxes, honest and hostile answers."""

import os
import subprocess
from typing import Any

import pyarrow as pa
import pytest

from haloforge.errors import InfraError, InputError, ResourceError
from haloforge.schema import VERDICT_SCHEMA, Limits, Problem, Test
from haloforge.verify import toolchains
from haloforge.verify.references import check_references
from haloforge.verify.sandbox import Sandbox
from haloforge.verify.settings import VerifySettings
from haloforge.verify.verifier import Verifier

ADD = [Test(stdin="1 2\n", stdout="3\n"), Test(stdin="40 2\n", stdout="42\n")]
CPP = "#include <iostream>\nint main() { long a, b; std::cin >> a >> b; std::cout << a + b; }\n"
C = """#include <stdio.h>
int main(void) { long a, b; if (scanf("%ld %ld", &a, &b) != 2) return 1; printf("%ld\\n", a + b); }
"""
PYTHON = "print(sum(map(int, input().split())))\n"
PROBLEMS = {
    problem.problem_id: problem
    for problem in [
        Problem(problem_id="add", prompt="Add two numbers.", judge="stdio", tests=ADD),
        Problem(problem_id="builds", prompt="Write anything in C++.", language="cpp"),
        Problem(problem_id="any", prompt="Write anything."),
    ]
}
SETTINGS = VerifySettings(run_wall_s=2, cache=False)


def verifier_in(
    box: Sandbox, problems: dict[str, Problem] = PROBLEMS, settings: VerifySettings = SETTINGS
) -> Verifier:
    verifier = Verifier(settings, problems)
    verifier.sandbox.close()
    verifier.sandbox = box
    return verifier


@pytest.fixture
def verifier(box: Sandbox) -> Verifier:
    return verifier_in(box)


def judge(verifier: Verifier, problem: str, completion: str) -> dict[str, Any]:
    verdict = verifier.verify(
        {"sample_id": "s", "problem_id": problem, "completion": completion, "cycle": 0}
    )
    pa.Table.from_pylist([verdict], schema=VERDICT_SCHEMA)  # every verdict fits its schema
    assert set(verdict) == set(VERDICT_SCHEMA.names)
    return verdict


def cpp(body: str, head: str = "#include <iostream>\n") -> str:
    return f"```cpp\n{head}{body}\n```"


def py(code: str) -> str:
    return f"```python\n{code}\n```"


# name: (answer, outcome, reward, tests passed)
ANSWERS = {
    "right in C++": (f"```cpp\n{CPP}```", "passed", 1.0, 2),
    "right in C": (f"```c\n{C}```", "passed", 1.0, 2),
    "right in Python": (f"```python\n{PYTHON}```", "passed", 1.0, 2),
    "right with a warning": (
        cpp("int main() { int n; long a, b; std::cin >> a >> b; std::cout << a + b; }"),
        "passed",
        1.0,
        2,
    ),
    "right, and verbose on standard error": (
        py(f"import sys\nprint('x' * 500_000, file=sys.stderr)\n{PYTHON}"),
        "passed",
        1.0,
        2,
    ),
    "right on one test": (cpp("int main() { std::cout << 3; }"), "wrong_answer", 0.7, 1),
    "wrong": (py("print(input())"), "wrong_answer", 0.7, 0),
    "silent": (cpp("int main() {}"), "wrong_answer", 0.5, 0),
    "silent with a status of 0": (py("import os\nos._exit(0)"), "wrong_answer", 0.5, 0),
    "crash": (
        cpp("#include <cstdlib>\nint main() { std::cout << 3 << std::endl; std::abort(); }"),
        "runtime_error",
        0.5,
        0,
    ),
    "crash with a warning": (
        cpp("int main() { int unused; volatile int *p = nullptr; *p = 1; }"),
        "runtime_error",
        0.3,
        0,
    ),
    "right but with a status": (py(f"{PYTHON}\nraise SystemExit(3)"), "runtime_error", 0.5, 0),
    "exception": (py("print(1 / 0)"), "runtime_error", 0.5, 0),
    "endless": (py("while True:\n    pass"), "timeout", 0.5, 0),
    "sleeper": (py("import time\nprint(3, flush=True)\ntime.sleep(99)"), "timeout", 0.5, 0),
    "endless output": (py("while True:\n    print(3)"), "output_limit", 0.5, 0),
    "too much memory": (py("x = bytearray(1 << 30)"), "memory_limit", 0.5, 0),
    "too much in a file": (
        py("open('x', 'wb').write(bytes(1 << 28))"),
        ("output_limit", "runtime_error"),  # where a run may write nothing at all
        0.5,
        0,
    ),
    "does not compile": (cpp("int main() { return x; }"), "compile_error", 0.0, 0),
    "does not link": (cpp("int f(); int main() { return f(); }"), "compile_error", 0.0, 0),
    "does not parse": (py("print((input())"), "compile_error", 0.0, 0),
    "null byte": (py("print(1)\0"), "compile_error", 0.0, 0),
    "prose": ("I would add the two numbers.", "no_code", 0.0, 0),
    "empty": ("", "no_code", 0.0, 0),
    "unknown language": ("```haskell\nmain = interact id\n```", "no_code", 0.0, 0),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_outcome(name: str, verifier: Verifier) -> None:
    answer, outcome, reward, passed = ANSWERS[name]
    verdict = judge(verifier, "add", answer)
    outcomes = (outcome,) if isinstance(outcome, str) else outcome
    assert verdict["outcome"] in outcomes, verdict["diagnostics"]
    assert (verdict["reward"], verdict["tests_passed"]) == (reward, passed), verdict["diagnostics"]
    assert verdict["tests_total"] == 2
    assert verdict["compiled"] is (outcome not in ("compile_error", "no_code"))
    assert verdict["ran"] is (reward >= 0.7)
    assert len(verdict["diagnostics"].encode()) <= 4096


@pytest.mark.parametrize(
    ("answer", "outcome", "reward"),
    [
        (f"```cpp\n{CPP}```", "compiled", 0.5),
        (cpp("int main() { int unused; }"), "compiled_with_warnings", 0.3),
        (cpp("int main() { int unused; }", '# 1 "x.h" 3\n'), "compiled_with_warnings", 0.3),
        (
            cpp("int main() { int unused; }", '#pragma GCC diagnostic ignored "-Wall"\n'),
            "compiled_with_warnings",
            0.3,
        ),
        (cpp("int main() { oops }"), "compile_error", 0.0),
    ],
)
def test_compile_judge(verifier: Verifier, answer: str, outcome: str, reward: float) -> None:
    verdict = judge(verifier, "builds", answer)
    assert (verdict["outcome"], verdict["reward"]) == (outcome, reward), verdict["diagnostics"]
    assert verdict["tests_total"] == verdict["run_ms"] == 0


def test_python_warnings_count(verifier: Verifier) -> None:
    assert judge(verifier, "any", py("import sys\nprint(1 is 1)"))["reward"] == 0.3
    assert judge(verifier, "any", py("import sys\nprint(1 == 1)"))["reward"] == 0.5


def test_expected_output_is_nowhere_in_the_box(box: Sandbox) -> None:
    secret = f"expected-{os.getpid()}-token"
    problems = {
        "guess": Problem(
            problem_id="guess", prompt="?", judge="stdio", tests=[Test(stdin="go\n", stdout=secret)]
        )
    }
    search = """
import os, re
def look(data):
    found = re.search(rb"expected-[0-9]+-token", data)
    if found:
        print(found.group().decode())
        raise SystemExit
look(repr(dict(os.environ)).encode())
for root in ("/proc", "/box", "/tmp", "/run", "/dev/shm"):
    for folder, _, files in os.walk(root):
        for name in files:
            if folder.count("/") < 4 and (root != "/proc" or name in ("cmdline", "environ")):
                try:
                    look(open(f"{folder}/{name}", "rb").read(1 << 20))
                except OSError:
                    pass
print("nothing")
"""
    outside = subprocess.run(
        [toolchains.box_python(), "-I", "-c", search],
        env={"LEAK": secret},
        capture_output=True,
        text=True,
    )
    assert outside.stdout.strip() == secret, "the search itself is broken"
    verdict = judge(verifier_in(box, problems), "guess", py(search))
    assert verdict["outcome"] == "wrong_answer"
    assert "nothing" in verdict["diagnostics"]


def test_limits_of_a_problem_win(verifier: Verifier) -> None:
    slow = py(f"import time\ntime.sleep(1)\n{PYTHON}")
    assert judge(verifier, "add", slow)["outcome"] == "passed"
    quick = PROBLEMS["add"].model_copy(update={"limits": Limits(wall_s=0.5)})
    verdict = judge(Verifier(SETTINGS, {"add": quick}), "add", slow)
    assert verdict["outcome"] == "timeout"
    assert verdict["run_ms"] < 1500  # the second test is not tried


def test_verifier_setting_wins_over_the_tag() -> None:
    gcc = Verifier(VerifySettings(verifier="gcc", cache=False), PROBLEMS)
    assert judge(gcc, "add", f"```python\n{PYTHON}```")["outcome"] == "no_code"
    assert judge(gcc, "add", f"```c\n{C}```")["toolchain"].startswith("gcc ")


def test_our_failure_is_tried_again_and_never_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    verifier = Verifier(SETTINGS, PROBLEMS)
    real, calls = verifier.sandbox.run, list[int]()

    def failing(times: int) -> Any:
        def run(*args: Any) -> Any:
            calls.append(1)
            if len(calls) <= times:
                raise InfraError("the box failed: no space left on device")
            return real(*args)

        return run

    monkeypatch.setattr(verifier.sandbox, "run", failing(1))
    assert judge(verifier, "add", f"```cpp\n{CPP}```")["outcome"] == "passed"
    calls.clear()
    monkeypatch.setattr(verifier.sandbox, "run", failing(9))
    verdict = judge(verifier, "add", f"```cpp\n{CPP}```")
    assert verdict["outcome"] == "infra_error"
    assert "no space left" in verdict["diagnostics"]
    assert verdict["compiled"] is verdict["ran"] is False
    assert len(calls) == 2


def test_bad_input_and_missing_compilers_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cobol = Problem(problem_id="old", prompt="?", language="cobol")
    with pytest.raises(InputError, match="problem old: no toolchain for language 'cobol'"):
        Verifier(SETTINGS, {"old": cobol})
    with pytest.raises(InputError, match="problem 'nowhere' is not in the set"):
        judge(Verifier(SETTINGS, PROBLEMS), "nowhere", "")
    monkeypatch.setattr(toolchains, "COMPILER_PATH", "/nonexistent")
    with pytest.raises(ResourceError, match=r"apt-get install g\+\+"):
        Verifier(VerifySettings(verifier="gcc", cache=False), PROBLEMS)


def test_references_prove_the_judge() -> None:
    sound = Problem(
        problem_id="sound",
        prompt="?",
        language="cpp",
        judge="stdio",
        tests=ADD,
        reference={"cpp": CPP, "c": C, "python": PYTHON},
    )
    broken = sound.model_copy(
        update={"problem_id": "broken", "reference": {"python": "print(1)\n"}}
    )
    found = [
        (problem, language, str(verdict.outcome))
        for problem, language, verdict in check_references([sound, broken], SETTINGS)
    ]
    assert found == [
        ("sound", "cpp", "passed"),
        ("sound", "c", "passed"),
        ("sound", "python", "passed"),
        ("broken", "python", "wrong_answer"),
    ]
