"""An LLM's answer as a problem, or why it is none."""

import json
from typing import Any

import pytest

from haloforge.data.generate.answers import Answer
from haloforge.data.generate.reading import Rejected, read_answer
from haloforge.data.generate.slots import Slot
from haloforge.data.generate.topic import Topic
from haloforge.schema import Problem
from tests.unit.test_generate_topics import OWN

SLOT = Slot("r1", "ints", "easy", 0, None)
TESTS = [{"stdin": f"{n}\n", "stdout": f"{n * n}\n"} for n in range(4)]
CODE = "print(int(input()) ** 2)"
WHOLE = f"""Here it is.

# Problem

Read a number, print its square.

```text
# Solution
```

## **Tests:**
```json
{json.dumps(TESTS)}
```

# Solution
```python
# Tests
{CODE}
```
I hope this helps!
"""
PYTEST = "import pytest\nfrom solution import Stack\n\ndef test_a():\n" + "".join(
    f"    assert Stack({n}).size == {n}\n" for n in range(3)
)


def read(text: str, finish: str = "stop", **change: Any) -> Problem | Rejected:
    topic = Topic.model_validate({**OWN, **change})
    return read_answer(Answer("r1", text, finish, 1, 2), SLOT, topic, "m")


def sections(problem: str, tests: str, solution: str) -> str:
    return f"# Problem\n{problem}\n# Tests\n{tests}\n# Solution\n{solution}\n"


def test_an_example_that_is_a_test_is_no_secret() -> None:
    shown = WHOLE.replace("square.\n", "square.\n\nReads:\n2\nPrints:\n4\n")
    assert isinstance(read(shown), Problem)


def test_a_problem_that_shows_its_test_file_tells_it() -> None:
    code = "```python\nclass Stack:\n    def __init__(self, n): self.size = n\n```"
    judge: dict[str, Any] = {"judge": "pytest", "tests": 3}
    asked = "Write a class `Stack(n)` with `size`."
    good = read(sections(asked, f"```python\n{PYTEST}```", code), **judge)
    assert isinstance(good, Problem) and "assert" not in str(good.turns())
    told = read(sections(f"{asked}\n{PYTEST}", f"```python\n{PYTEST}```", code), **judge)
    assert told == Rejected("told", "its problem tells the tests")


def test_sections_are_read_as_a_problem_with_its_reference() -> None:
    found = read(WHOLE)
    assert isinstance(found, Problem)
    assert found.prompt is not None
    assert found.prompt.startswith("Read a number, print its square.\n\n```text\n# Solution\n```")
    assert found.prompt.endswith("Answer with one Python program in a ```python block.")
    assert [test.model_dump() for test in found.tests] == TESTS
    assert found.reference == {"python": f"# Tests\n{CODE}\n"}
    assert (found.problem_id, found.judge, found.language) == ("r1", "stdio", "python")
    assert (found.difficulty, found.tags) == ("easy", ["sums", "ints"])
    assert found.source == "sums, written by m"


@pytest.mark.parametrize("fence", ["", "```json\n"])
def test_an_answer_that_is_json_is_read_too(fence: str) -> None:
    told = {"Problem": "Square it.", "tests": TESTS, "solution": f"```python\n{CODE}\n```"}
    found = read(f"<think>Hm. # Problem</think>{fence}{json.dumps(told)}\n{fence and '```'}")
    assert isinstance(found, Problem) and found.reference == {"python": f"{CODE}\n"}
    assert len(found.tests) == 4


def test_a_module_with_a_pytest_file_is_read() -> None:
    text = sections("Write a class.", f"```python\n{PYTEST}```", "```python\nclass Stack: ...\n```")
    found = read(text, judge="pytest", tests=3)
    assert isinstance(found, Problem) and found.judge == "pytest"
    assert found.test_code == PYTEST
    assert found.prompt is not None and "Stack" in found.prompt  # what tests call is shown
    with_raises = PYTEST + "    with pytest.raises(ValueError):\n        Stack(-1)\n"
    assert isinstance(read(text.replace(PYTEST, with_raises), judge="pytest", tests=4), Problem)
    assert read(text, judge="pytest", tests=4) == (
        "few_tests",
        "it has 3 checks; expected 4",
    )


@pytest.mark.parametrize(
    ("text", "kind", "why"),
    [
        ("", "empty", "it is empty"),
        ("<think>I will never end", "empty", "it is empty"),
        ("I cannot help with that.", "incomplete", "it has no section 'problem'"),
        (WHOLE.partition("# Solution\n```python")[0], "incomplete", "no section 'solution'"),
        ('{"problem": "Add", "tests": [{"std', "json", "it is half a JSON text"),
        ('```json\n{"problem": "Add", "tests": [', "json", "it is half a JSON text"),
        ("{'problem': 1}", "json", "it is not valid JSON"),
        ("{" * 100_000, "json", "it is not valid JSON"),
        ('{"problem": 3, "tests": [1], "solution": "x"}', "incomplete", "'problem' is no text"),
        (WHOLE.replace("}]", ""), "json", "its list of tests is half a JSON text"),
        (WHOLE.replace('"stdout"', '"prints"'), "malformed", "field 'tests': expected tests"),
        (WHOLE.replace('"1\\n", "stdout"', '"0\\n", "stdout"'), "malformed", "two of its tests"),
        (
            WHOLE.replace(CODE, "STOP RUN.").replace("```python", "```cobol"),
            "no_code",
            "holds no code in python",
        ),
        (WHOLE.replace("square.", f"square. {CODE}"), "told", "its problem tells the solution"),
        (
            WHOLE.replace("square.\n", f"square.\n{json.dumps(TESTS)}\n0\n0\n1\n1\n2\n4\n3\n 9\n"),
            "told",
            "its problem tells every test",
        ),
        (WHOLE.replace("square.", "<|im_start|>"), "malformed", "ChatML's own marks"),
        (
            json.dumps({"problem": "\ud800", "tests": TESTS, "solution": CODE}),
            "malformed",
            "half a surrogate pair",
        ),
        (
            json.dumps({"problem": "x", "tests": TESTS, "solution": "'\ud800'"}),
            "malformed",
            "half a surrogate pair",
        ),
    ],
)
def test_what_is_not_whole_is_rejected_with_its_reason(text: str, kind: str, why: str) -> None:
    found = read(text)
    assert isinstance(found, Rejected), found
    assert found.kind == kind and why in found.why


def test_an_answer_that_was_cut_off_is_rejected_whatever_it_holds() -> None:
    assert read(WHOLE, finish="length") == ("cut_off", "it was cut off after 2 tokens")


def test_tests_that_repeat_count_once() -> None:
    same = json.dumps([TESTS[0]] * 4)
    found = read(WHOLE.replace(json.dumps(TESTS), same))
    assert found == ("few_tests", "it has 1 different tests; expected 4")


def test_patterns_are_checked_on_the_solution_s_code() -> None:
    rule = {"pattern": r"\bsum\(", "says": "sum is called"}
    assert read(WHOLE, required=[rule]) == ("pattern", "required and not there: sum is called")
    commented = WHOLE.replace(CODE, f"# sum(\n{CODE}")
    assert isinstance(read(commented, required=[rule]), Rejected)
    assert isinstance(read(commented, forbidden=[rule]), Problem)
    used = WHOLE.replace(CODE, "print(sum([int(input()) ** 2]))")
    assert isinstance(read(used, required=[rule]), Problem)
    assert read(used, forbidden=[rule]) == ("pattern", "forbidden and there: sum is called")
