"""What `data generate` keeps, by real compilers: an exercise of each topic, and tests that test
nothing. No Ray: the verifier is in this process."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pytest
import yaml

from haloforge.data.generate.answers import Answer, Answers
from haloforge.data.generate.keeping import Kept, Wanted, keep
from haloforge.data.generate.probes import Judge, Told, probes
from haloforge.data.generate.slots import Slot
from haloforge.data.generate.topic import Topic, find_topic
from haloforge.data.problems import LANGUAGES, parse_problem, read_problems
from haloforge.data.sft import read_sft
from haloforge.data.validate.references import _fault, _samples
from haloforge.errors import ResourceError
from haloforge.schema import Problem
from haloforge.verify.settings import VerifySettings
from haloforge.verify.verifier import Verifier, require_toolchains
from tests.unit.test_generate_topics import OWN

ANSWERS = Path(__file__).with_name("generated")
"""An answer for each topic, as an LLM may give it; the first line names its category and level."""


@contextmanager
def in_this_process() -> Iterator[Judge]:
    def judge(files: Sequence[str], counts: npt.NDArray[Any], told: Told) -> int:
        verifier = Verifier(VerifySettings(verifier="auto", cache=False), {})
        for sample in _samples(files, counts > 0, own=False):
            if (fault := _fault(sample, verifier.verify(sample))) is not None:
                told(fault[0], sample["index"], fault[1])
        return int(counts.sum())

    yield judge


def kept_of(folder: Path, topic: Topic, text: Callable[[Slot], str], count: int) -> Kept:
    wanted = Wanted(topic, "m", "-", 0, count, "sft", 0.8)
    folder.mkdir(exist_ok=True)
    with Answers(folder) as answers:
        for slot in wanted.slots():
            answers.commit(Answer(slot.request, text(slot), "stop", 1, 2))
        return keep(wanted, answers, folder / "out.jsonl", in_this_process)


def reasons(folder: Path) -> list[tuple[str, str]]:
    lines = (folder / "out.rejected.jsonl").read_text().splitlines()
    found = [json.loads(line)["reasons"][0] for line in lines]
    return [(each["fault"], each["why"]) for each in found]


@pytest.mark.parametrize(
    "name", ["rust_async", "go_concurrency", "cpp_algorithms", "python_testing"]
)
def test_a_good_answer_of_each_topic_is_kept(tmp_path: Path, name: str) -> None:
    topic = find_topic(name)
    row = {"prompt": "-", "language": topic.language}
    try:
        require_toolchains("auto", [parse_problem(row, "-")])
    except ResourceError as error:
        pytest.skip(str(error))
    head, _, text = (ANSWERS / f"{name}.md").read_text().partition("\n")
    cells = len(topic.categories) * len(topic.levels)

    def answer(slot: Slot) -> str:
        return text if f"{slot.category} {slot.level}" == head else ""

    kept = kept_of(tmp_path, topic, answer, cells)
    assert kept.rows == 1, [each for each in reasons(tmp_path) if each[0] != "empty"]
    assert kept.left_out == {"empty": cells - 1}
    [problem] = read_problems(str(tmp_path / "out.jsonl"))
    [turns] = read_sft(str(tmp_path / "out.jsonl"))
    assert problem.judge == topic.judge and problem.tags == [name, head.split()[0]]
    assert turns[:-1] == problem.turns() and turns[-1]["role"] == "assistant"
    asked = "\n".join(turn["content"] for turn in problem.turns())
    hidden = [problem.test_code or "", *(test.stdin for test in problem.tests[1:])]
    assert not any(each.strip() and each in asked for each in hidden)
    assert "main" in turns[-1]["content"] or "def shorten" in turns[-1]["content"]


def stdio(code: str, outputs: Sequence[str]) -> str:
    tests = [{"stdin": f"{n}\n", "stdout": out} for n, out in enumerate(outputs)]
    return f"# Problem\nIt.\n# Tests\n{json.dumps(tests)}\n# Solution\n```python\n{code}\n```\n"


def checks(code: str, tests: str) -> str:
    return (
        f"# Problem\nWrite `f(x)` and `g(x)`.\n# Tests\n```python\n{tests}\n```\n"
        f"# Solution\n```python\n{code}\n```\n"
    )


F = "def f(x):\n    return x + 1\n"
EVEN = "def f(x):\n    return x % 2 == 0\n"


@pytest.mark.parametrize(
    ("judge", "text", "why"),
    [
        ("stdio", stdio("print(int(input()) + 1)", "1234"), None),
        ("stdio", stdio("print(int(input()) // 4)", "0000"), "prints what the first one expects"),
        ("stdio", stdio("print(int(input()))", "0123"), "prints what it reads"),
        ("stdio", stdio("input()", ["", "\n", " ", ""]), "prints what the first one expects"),
        ("function", checks(F, "".join(f"assert f({n}) == {n + 1}\n" for n in range(4))), None),
        ("function", checks(F, "assert f(1)\n" * 4), "functions that return True"),
        ("function", checks(EVEN, "assert f(2)\nassert f(4)\nassert f(6)\nassert not f(1)"), None),
        ("function", checks(EVEN, "assert not f(1)\n" * 4), "functions that return None"),
        ("function", checks(F, "assert f(7) == 8\n" * 4), "functions that return 8"),
        ("function", checks(F, "f(1)\n" + "assert 1 < 2\n" * 4), "functions that return None"),
        ("function", checks("f = lambda x: x + 1", "assert f(7) == 8\n" * 4), "that return 8"),
    ],
)
def test_tests_that_need_no_solution_are_worthless(
    tmp_path: Path, judge: str, text: str, why: str | None
) -> None:
    topic = Topic.model_validate({**OWN, "judge": judge})
    kept = kept_of(tmp_path, topic, lambda _: text, 1)
    assert kept.rows == (why is None), reasons(tmp_path)
    if why is not None:
        [(fault, told)] = reasons(tmp_path)
        assert fault == "trivial" and why in told


def test_a_class_with_nothing_in_its_methods_is_a_probe_too(tmp_path: Path) -> None:
    solution = (
        "class Stack:\n    def __init__(self):\n        self.items = []\n"
        "    def push(self, x):\n        self.items.append(x)\n"
        "    def pop(self):\n        return self.items.pop()\n"
    )
    head = "from solution import Stack\n\ndef test_it():\n    s = Stack()\n    s.push(1)\n"
    worthless = head + "    assert isinstance(s, Stack)\n" * 4
    good = head + "    s.push(2)\n" + "".join(f"    assert s.pop() == {n}\n" for n in (2, 1))
    topic = Topic.model_validate({**OWN, "judge": "pytest", "tests": 2})
    texts = [
        checks(solution, tests).replace("`f(x)` and `g(x)`", "a class `Stack`")
        for tests in (worthless, good)
    ]
    answers = iter(texts)
    kept = kept_of(tmp_path, topic, lambda _: next(answers), 2)
    assert kept.rows == 1
    assert reasons(tmp_path) == [("trivial", "its tests are passed by functions that return None")]


PROGRAMS = {
    "cpp": (
        "#include <cassert>\n#include <iostream>\nint f(int x) { return x + 1; }",
        "int main() { assert(f(1) == 2); }",
        "int main() { assert(2 == 2); }",
    ),
    "rust": (
        "fn f(x: i32) -> i32 { x + 1 }",
        "fn main() { assert_eq!(f(1), 2); }",
        "fn main() { assert_eq!(2, 2); }",
    ),
    "go": (
        'package main\nimport (\n"fmt"\n"testing"\n)\nfunc f(x int) int { return x + 1 }',
        'func TestF(t *testing.T) { if f(1) != 2 { t.Fatal("f") } }',
        'func TestF(t *testing.T) { if 1 == 2 { t.Fatal("f") } }',
    ),
    "javascript": (
        "const assert = require('node:assert');\nfunction f(x) { return x + 1; }",
        "assert.equal(f(1), 2);",
        "assert.equal(2, 2);",
    ),
}
"""By language: a solution, tests, and tests that test nothing."""


@pytest.mark.parametrize("language", PROGRAMS)
def test_a_program_with_its_tests_appended_is_probed(tmp_path: Path, language: str) -> None:
    topic = Topic.model_validate({**OWN, "language": language, "judge": "program"})
    fence = LANGUAGES[language].fence
    code, *both = PROGRAMS[language]
    texts = iter(
        f"# Problem\nWrite `f(x)`.\n# Tests\n```{fence}\n{tests}\n```\n"
        f"# Solution\n```{fence}\n{code}\n```\n"
        for tests in both
    )
    kept = kept_of(tmp_path, topic, lambda _: next(texts), 2)
    assert (kept.rows, kept.left_out) == (1, {"trivial": 1}), reasons(tmp_path)
    [problem] = read_problems(str(tmp_path / "out.jsonl"))
    assert problem.test_code is not None and problem.test_code.strip() == both[0]


def test_probes_differ_and_no_constant_is_tried_twice() -> None:
    fields = {"prompt": "-", "test_code": "assert f(1) == None\n", "reference": {"python": F}}
    found = list(probes(Problem.model_validate({"problem_id": "p", "judge": "function", **fields})))
    assert [what for what, _, _ in found][1:] == [
        f"functions that return {value}" for value in ("None", "True", "False")
    ]
    assert len({code for _, _, code in found}) == len(found)


def test_the_spec_of_a_user_is_read_and_judged_as_a_bundled_one(tmp_path: Path) -> None:
    spec = {
        **OWN,
        "forbidden": [{"pattern": r"\bsum\s*\(", "says": "no sum"}],
        "levels": {"easy": "-"},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(spec))
    topic = find_topic(str(tmp_path / "mine.yaml"))
    texts = iter(
        [
            stdio("print(sum([int(input()), 1]))", "1234"),
            stdio("print(int(input()) + 1)  # sum(", "1234"),
        ]
    )
    kept = kept_of(tmp_path / "run", topic, lambda _: next(texts), 2)
    assert kept.rows == 1
    assert reasons(tmp_path / "run") == [("pattern", "forbidden and there: no sum")]
