"""What was judged is not run again, unless it may end otherwise."""

from pathlib import Path
from typing import Any

import pytest

from haloforge.schema import Limits, Outcome, Problem, Test
from haloforge.verify.cache import JudgementCache, content_key
from haloforge.verify.judges import Judgement
from haloforge.verify.sandbox import Sandbox
from haloforge.verify.settings import VerifySettings
from haloforge.verify.verifier import Verifier

ADD = Problem(
    problem_id="add", prompt="x", judge="stdio", tests=[Test(stdin="1 2\n", stdout="3\n")]
)
RIGHT = "```python\nprint(sum(map(int, input().split())))\n```"


class Counted:
    """A verifier of `problem` that counts the boxes it makes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, problem: Problem, **settings: Any) -> None:
        self.verifier = Verifier(VerifySettings(**settings), {"add": problem})
        self.boxes = 0
        start = Sandbox.start

        def counting(sandbox: Sandbox, *args: Any, **kwargs: Any) -> Any:
            self.boxes += 1
            return start(sandbox, *args, **kwargs)

        monkeypatch.setattr(Sandbox, "start", counting)

    def judge(self, completion: str) -> dict[str, Any]:
        row = {"sample_id": "s", "problem_id": "add", "completion": completion}
        return self.verifier.verify(row)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HALOFORGE_CACHE", str(tmp_path))
    return tmp_path


def test_the_same_program_is_judged_once_over_verifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Counted(monkeypatch, ADD)
    verdict = first.judge(RIGHT)
    assert verdict["outcome"] == Outcome.PASSED
    assert first.boxes == 2  # compilation and test
    again = Counted(monkeypatch, ADD)
    assert again.judge(f"Here it is:\n{RIGHT}") == verdict
    assert again.boxes == 0


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        ({"tests": [Test(stdin="1 2\n", stdout="4\n")]}, {}),
        ({"tests": [Test(stdin="2 2\n", stdout="3\n")]}, {}),
        ({"judge": "compile"}, {}),
        ({"comparison": "exact"}, {}),
        ({"comparison": "float", "float_tolerance": 0.1}, {}),
        ({"checker": "def check(*run):\n    return True"}, {}),
        ({"judge": "function", "test_code": "assert True"}, {}),
        ({"judge": "function", "test_code": "assert True", "entry_point": "f"}, {}),
        ({"limits": Limits(memory_mb=400)}, {}),
        ({}, {"run_memory_mb": 300}),
        ({}, {"cache": False}),
    ],
)
def test_other_tests_limits_or_judges_are_judged_apart(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], settings: dict[str, Any]
) -> None:
    Counted(monkeypatch, ADD).judge(RIGHT)
    other = Counted(monkeypatch, ADD.model_copy(update=change), **settings)
    other.judge(RIGHT)
    assert other.boxes > 0


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("while True: pass", Outcome.TIMEOUT),
        ("import time; time.sleep(0.6); print(3)", Outcome.PASSED),  # near its deadline
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", Outcome.RUNTIME_ERROR),
        ("raise OSError('Cannot allocate memory')", Outcome.MEMORY_LIMIT),
    ],
)
def test_what_may_end_otherwise_is_judged_anew(
    monkeypatch: pytest.MonkeyPatch, code: str, outcome: Outcome
) -> None:
    counted = Counted(monkeypatch, ADD, run_wall_s=1)
    for boxes in (2, 4):
        assert counted.judge(f"```python\n{code}\n```")["outcome"] == outcome
        assert counted.boxes == boxes


def test_without_boxes_nothing_is_kept(folder: Path) -> None:
    """A program could write to the file that later programs are judged by."""
    with pytest.warns(UserWarning, match="unsafe_no_sandbox"):
        verifier = Verifier(VerifySettings(unsafe_no_sandbox=True), {"add": ADD})
    assert verifier.cache is None
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "judgement",
    [
        Judgement(Outcome.INFRA_ERROR),
        Judgement(Outcome.TIMEOUT, lasting=False),
        Judgement(Outcome.COMPILE_ERROR, lasting=False),
    ],
)
def test_what_may_end_otherwise_is_not_kept(folder: Path, judgement: Judgement) -> None:
    cache = JudgementCache(folder)
    cache.put("key", judgement)
    assert cache.get("key") is None


def test_the_newest_are_kept(folder: Path) -> None:
    cache = JudgementCache(folder)
    kept = Judgement(Outcome.PASSED, compiled=True, ran=True, tests_passed=3, diagnostics="é\n")
    for number in range(10):
        cache.put(str(number), kept)
    shorter = JudgementCache(folder, rows=4)
    assert [number for number in range(10) if shorter.get(str(number)) == kept] == [6, 7, 8, 9]


def test_a_broken_file_is_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = JudgementCache(folder).path
    for file in folder.iterdir():  # its log too, which would mend it
        file.unlink()
    path.write_bytes(b"no database" * 1000)
    with pytest.warns(UserWarning, match="judging without a cache"):
        counted = Counted(monkeypatch, ADD)
    assert counted.judge(RIGHT)["outcome"] == Outcome.PASSED
    assert path.read_bytes().startswith(b"no database")


def test_keys_tell_parts_apart() -> None:
    assert content_key("ab", "c") != content_key("a", "bc")
    assert content_key("a", ["b"]) != content_key("a", "b")
