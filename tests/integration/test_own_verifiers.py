"""Verifiers of one's own before the real sandbox: what they say counts, what they run is boxed."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from haloforge.schema import Problem
from haloforge.verify.own_sources import find_own
from haloforge.verify.sandbox import Sandbox
from haloforge.verify.settings import VerifySettings
from haloforge.verify.verifier import Verifier

PROBLEM = Problem(problem_id="p", prompt="Print 42.")
RUNS = """
from haloforge.verify.own import BoxedRunner, Judgement, Outcome, Problem

class Prints42:
    def judge(self, code: str, problem: Problem, sandbox: BoxedRunner) -> Judgement:
        result = sandbox.run(["/usr/bin/python3", "-I", "answer.py"], {"answer.py": code.encode()})
        if result.timed_out:
            return Judgement(Outcome.TIMEOUT, compiled=True)
        right = result.clean and result.stdout == b"42\\n"
        return Judgement(Outcome.PASSED if right else Outcome.WRONG_ANSWER)
"""
CHECK = """#!/bin/sh
case "$(python3 -I "$1")" in
  42) exit 0 ;;
  43) exit 1 ;;
  44) exit 2 ;;
  45) exit 77 ;;
  46) exit 127 ;;
  47) kill -9 $$ ;;
  48) sleep 60 ;;
  49) yes ;;
  50) python3 -Ic 'bytes(1 << 33)' ;;
esac
"""


def own(path: Path, text: str, cls: str = "Prints42") -> str:
    path.write_text(text)
    find_own.cache_clear()
    return f"{path}:{cls}"


def command(path: Path) -> str:
    path.write_text(CHECK)
    return f"cmd:{path} {{file}}"


def judge(verifier: Verifier, code: str, fence: str = "python") -> dict[str, Any]:
    completion = f"```{fence}\n{code}\n```"
    return verifier.verify({"sample_id": "s", "problem_id": "p", "completion": completion})


def make(verifier: str, problem: Problem = PROBLEM, **settings: Any) -> Verifier:
    chosen = {"cache": False, "run_wall_s": 2, "compile_wall_s": 2, **settings}
    return Verifier(VerifySettings(verifier=verifier, **chosen), {"p": problem})


def test_a_class_judges(tmp_path: Path) -> None:
    verifier = make(own(tmp_path / "own.py", RUNS))
    right, wrong = judge(verifier, "print(42)"), judge(verifier, "print(41)")
    assert (right["outcome"], right["reward"], right["ran"]) == ("passed", 1.0, True)
    assert (wrong["outcome"], wrong["reward"]) == ("wrong_answer", 0.5)
    assert right["toolchain"].startswith("own.py:Prints42 ")
    assert right["sandbox_tier"] == "bubblewrap"
    assert right["run_ms"] > 0
    assert judge(verifier, "while True: pass")["outcome"] == "timeout"


@pytest.mark.parametrize(
    ("outcome", "reward"),
    [("COMPILED", 0.5), ("COMPILED_WITH_WARNINGS", 0.3), ("RUNTIME_ERROR", 0.0)],
)
def test_what_is_said_to_compile_has_its_reward(
    tmp_path: Path, outcome: str, reward: float
) -> None:
    text = f"""
from haloforge.verify.own import Judgement, Outcome

class Says:
    def judge(self, code, problem, sandbox):
        return Judgement(Outcome.{outcome})
"""
    verdict = judge(make(own(tmp_path / "own.py", text, "Says")), "x")
    assert verdict["reward"] == reward
    assert verdict["compiled"] == (reward > 0)


@pytest.mark.parametrize("kind", ["class", "command"])
def test_what_it_runs_is_boxed(tmp_path: Path, kind: str) -> None:
    """The answer writes a file of the host, as it does where there is no box."""
    marker = tmp_path / "marker"
    tmp_path.chmod(0o777)
    attack = f"""print(42)
try:
    open({str(marker)!r}, "w").write("x")
except OSError:
    pass
"""
    subprocess.run([sys.executable, "-c", attack], check=True)
    assert marker.exists()
    marker.unlink()
    name = own(tmp_path / "own.py", RUNS) if kind == "class" else command(tmp_path / "check.sh")
    verifier = make(name)
    assert judge(verifier, attack)["outcome"] == "passed"  # it ran to its end
    assert not marker.exists()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise KeyError('lost')", "KeyError: 'lost'"),
        ("return True", "returned True, not a Judgement"),
        ("return Judgement('fine')", "not a Judgement"),
    ],
)
def test_its_own_failure_is_no_wrong_answer(tmp_path: Path, body: str, told: str) -> None:
    calls = tmp_path / "calls"
    text = f"""
from haloforge.verify.own import Judgement

class Broken:
    def judge(self, code, problem, sandbox):
        open({str(calls)!r}, "a").write("x")
        {body}
"""
    verdict = judge(make(own(tmp_path / "own.py", text, "Broken")), "print(42)")
    assert verdict["outcome"] == "infra_error"
    assert told in verdict["diagnostics"]
    assert "own.py:Broken" in verdict["diagnostics"]
    assert calls.read_text() == "xx"  # tried once more


@pytest.mark.parametrize(
    ("printed", "outcome", "reward"),
    [
        (42, "passed", 1.0),
        (43, "wrong_answer", 0.5),
        (44, "compile_error", 0.0),
        (45, "runtime_error", 0.0),
        (46, "infra_error", 0.0),
        (47, "runtime_error", 0.0),
        (48, "timeout", 0.0),
        (49, "output_limit", 0.0),
        (50, "memory_limit", 0.0),
    ],
)
def test_a_commands_status_is_the_verdict(
    tmp_path: Path, printed: int, outcome: str, reward: float
) -> None:
    verifier = make(command(tmp_path / "check.sh"), run_wall_s=1, compile_wall_s=1)
    verdict = judge(verifier, f"print({printed})")
    assert (verdict["outcome"], verdict["reward"]) == (outcome, reward)
    assert verdict["sandbox_tier"] == "bubblewrap"


def test_a_command_that_cannot_be_run_is_our_failure(tmp_path: Path) -> None:
    script = tmp_path / "check.sh"
    script.write_text("#!/no/such/interpreter\n")
    verdict = judge(make(f"cmd:{script} {{file}}"), "print(42)")
    assert verdict["outcome"] == "infra_error"
    assert "check.sh" in verdict["diagnostics"]


def test_languages_without_a_toolchain_can_be_judged(tmp_path: Path) -> None:
    text = RUNS.replace('"/usr/bin/python3", "-I"', '"/bin/cat"').replace("42\\n", "SELECT 42;\\n")
    verifier = make(
        own(tmp_path / "own.py", text),
        PROBLEM.model_copy(update={"language": "sql"}),
    )
    assert judge(verifier, "SELECT 42;", fence="sql")["outcome"] == "passed"
    assert judge(verifier, "SELECT 41;", fence="sql")["outcome"] == "wrong_answer"
    prose = {"sample_id": "s", "problem_id": "p", "completion": "I cannot."}
    assert verifier.verify(prose)["outcome"] == "no_code"


def test_the_cache_tells_verifiers_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HALOFORGE_CACHE", str(tmp_path / "cache"))
    boxes: list[int] = []
    run = Sandbox.run

    def counting(*args: Any, **kwargs: Any) -> Any:
        boxes.append(1)
        return run(*args, **kwargs)

    def judged(name: str, problem: Problem = PROBLEM, code: str = "print(42)") -> tuple[str, int]:
        verifier = make(name, problem, cache=True)
        monkeypatch.setattr(Sandbox, "run", counting)
        boxes.clear()
        outcome = judge(verifier, code)["outcome"]
        monkeypatch.setattr(Sandbox, "run", run)
        return outcome, len(boxes)

    name = own(tmp_path / "own.py", RUNS)
    assert judged(name) == ("passed", 1)
    assert judged(name) == ("passed", 0)
    assert judged(name, PROBLEM.model_copy(update={"tags": ["other"]})) == ("passed", 1)
    stricter = own(tmp_path / "own.py", RUNS.replace('b"42', 'b"43'))
    assert judged(stricter) == ("wrong_answer", 1)
    assert judged(own(tmp_path / "own.py", RUNS)) == ("passed", 0)
    for _ in range(2):  # what a deadline decided is not kept
        assert judged(name, code="import time; time.sleep(9)") == ("timeout", 1)
