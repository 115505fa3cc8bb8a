"""Rows of each set's own form, as problems and conversations."""

import base64
import json
import os
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest

from haloforge.data.adapters import Adapted, LeftOut
from haloforge.data.sft import conversation
from haloforge.data.showing import with_names_shown
from haloforge.errors import InputError
from haloforge.schema import Problem
from tests.unit import set_rows as rows
from tests.unit.suite_rows import lcb_functional, livecodebench, mbpp

BESIDE = Path(__file__).parents[3] / "shared" / "data"
DATA = Path(os.environ.get("HALOFORGE_TEST_DATA", BESIDE))


def adapted(name: str, row: dict[str, Any], language: str | None = None) -> Adapted:
    return rows.entry(name).adapt(row, "rows.jsonl, line 1", language)


def problem(name: str, row: dict[str, Any], language: str | None = None) -> Problem:
    found = adapted(name, row, language).problem
    assert isinstance(found, dict), found
    return Problem.model_validate(found)


def reason(found: Any) -> str:
    assert isinstance(found, LeftOut), found
    return found.reason


def answer(name: str, row: dict[str, Any]) -> str:
    found = adapted(name, row).conversation
    assert isinstance(found, list), found
    return found[-1]["content"]


def judge(test_code: str | None, candidate: Any) -> None:
    """Runs `check(candidate)` of tests that are ours."""
    space: dict[str, Any] = {}
    exec(str(test_code), space)
    space["check"](candidate)


@pytest.mark.parametrize(("name", "row"), rows.OF_EACH)
def test_every_row_gives_what_its_set_is_used_for(name: str, row: dict[str, Any]) -> None:
    entry, found = rows.entry(name), adapted(name, row)
    if "problems" in entry.uses or "benchmark" in entry.uses:
        asked = problem(name, row)
        assert asked.license == entry.licence
        assert asked.source == (entry.origin.hub or entry.name)
        untested = name == "starter" or name.startswith("codeforces")  # the rows given here
        assert asked.judge != "compile" or untested
        assert asked.group or name == "starter"
    if "sft" in entry.uses:
        assert conversation({"messages": found.conversation}, "row") == found.conversation


@pytest.mark.parametrize(("name", "row"), rows.OF_EACH)
def test_a_field_too_many_or_too_few_is_named(name: str, row: dict[str, Any]) -> None:
    entry = rows.entry(name)
    lacking = next(
        column
        for column in row
        if column in entry.fields.values()
        or column in ("prompt", "task_id", "description", "question", "question_content")
    )
    with pytest.raises(InputError) as error:
        adapted(name, {key: value for key, value in row.items() if key != lacking})
    assert f"rows.jsonl, line 1: field '{lacking}'" in str(error.value)
    assert "\n" not in str(error.value)
    if entry.fields:  # of a map, only what it names is looked at
        assert adapted(name, {**row, "surprise": 1}) == adapted(name, row)
        return
    with pytest.raises(InputError, match=r"rows\.jsonl, line 1: field 'surprise' is unknown"):
        adapted(name, {**row, "surprise": 1})


def test_a_row_with_a_field_of_another_kind_is_left_out() -> None:
    uneven = {"input": ["1"], "output": []}
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("mbpp", {**mbpp(601), "test_list": "assert f()"}, "test_list"),
        ("codeforces_cpp", {**rows.COTS, "description": 5}, "description"),
        ("codeforces_cpp", {**rows.COTS, "examples": [{"input": "1"}]}, "examples"),
        ("codeforces", {**rows.CODEFORCES, "time_limit": "fast"}, "time_limit"),
        ("code_contests", {**rows.CODE_CONTESTS, "solutions": {"language": [1]}}, "solutions"),
        ("code_contests", {**rows.CODE_CONTESTS, "public_tests": uneven}, "public_tests"),
        ("apps", {**rows.APPS, "input_output": "{"}, "input_output"),
    ]
    for name, row, column in cases:
        assert reason(adapted(name, row).problem).startswith(f"field '{column}': expected")


def test_an_mbpp_prompt_shows_one_test_and_more_where_that_hides_a_name() -> None:
    full = problem("mbpp", mbpp(601))
    assert "assert times(1) == 2" in str(full.prompt)
    assert "assert times(2) == 4" not in str(full.prompt)
    assert (full.judge, full.entry_point, full.problem_id) == ("function", "times", "mbpp/601")
    assert full.reference == {"python": "def times(n):\n    return 2 * n".replace("    ", "  ")}
    sanitized = problem("mbpp", rows.MBPP_SANITIZED)
    assert "import math\nassert double(3) == 6\nassert double(Point())" in str(sanitized.prompt)
    solved = problem("mbpp", rows.MBPP_SOLVED)
    assert solved.entry_point == "pairs"  # not the helper that the row names
    assert "== zero" in str(solved.prompt)
    setup = {**mbpp(601), "test_setup_code": "root = Node(1)", "test_list": ["assert h(root)"]}
    assert "root = Node(1)\nassert h(root)" in str(problem("mbpp", setup).prompt)


def test_an_mbpp_row_says_of_which_split_it_is() -> None:
    splits = {task: adapted("mbpp", mbpp(task)).split for task in (2, 11, 510, 511, 600, 601, 974)}
    assert list(splits.values()) == [
        *("prompt", "test", "test", "validation", "validation", "train", "train")
    ]
    assert {*splits.values()} == {*rows.entry("mbpp").splits}


def test_tests_of_evalplus_need_no_numpy() -> None:
    plus = problem("mbpp_plus", rows.MBPP_PLUS_HUB)
    assert plus.test_code is not None and "import numpy" not in plus.test_code
    exec(plus.test_code, {"double": lambda n: 2 * n + 1e-9 * isinstance(n, float)})
    with pytest.raises(AssertionError):
        exec(plus.test_code, {"double": lambda n: 3 * n})
    judge(problem("humaneval_plus", rows.HUMANEVAL_PLUS_HUB).test_code, lambda n: 2 * n)
    more = {**rows.MBPP_PLUS_HUB, "test": "import numpy as np\nassert np.sum(double([1])) == 2"}
    assert reason(adapted("mbpp_plus", more).problem) == "its tests need NumPy"
    assert answer("humaneval_plus", rows.HUMANEVAL_PLUS_HUB).endswith("return 2 * n\n```")


def test_livecodebench_reads_hidden_tests_and_unpickles_nothing(tmp_path: Path) -> None:
    asked = problem("livecodebench", livecodebench("2024-05-01"))
    assert [test.stdin for test in asked.tests] == ["1\n", "5"]
    assert asked.judge == "stdio"
    called = problem("livecodebench", lcb_functional())
    assert (called.judge, called.entry_point) == ("function", "Solution")
    assert "def join(self, a" in called.turns()[-1]["content"]

    class Attack:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "made"),)

    packed = base64.b64encode(zlib.compress(pickle.dumps(Attack()))).decode()
    refused = adapted("livecodebench", livecodebench("2024-05-01", private_test_cases=packed))
    assert "a pickle of more than text" in reason(refused.problem)
    assert not (tmp_path / "made").exists()
    hidden = {**lcb_functional(), "starter_code": "class Solution:\n    pass"}
    assert "hides 'join'" in reason(adapted("livecodebench", hidden).problem)
    assert refused.split == "test"


def test_an_answer_of_codeforces_is_its_code_without_the_reasoning() -> None:
    found = problem("codeforces_cpp", rows.COTS)
    assert str(found.prompt).endswith("Answer with one C++ program in a ```cpp block.")
    assert "Example 1\n\nInput:\n1" in str(found.prompt)
    assert (found.problem_id, found.group) == ("codeforces/12/B", "codeforces/11/D")
    assert [test.stdin for test in found.tests] == ["1\n", "3\n"]
    assert (found.limits.cpu_s, found.limits.wall_s, found.limits.memory_mb) == (2, 5, 256)
    assert found.difficulty == "B"
    code = answer("codeforces_cpp", rows.COTS)
    assert code.startswith("```cpp\n#include") and "wrong" not in code
    whole = rows.entry("codeforces_cpp").model_copy(update={"options": {"answer": "whole"}})
    turns = whole.adapt(rows.COTS, "row").conversation
    assert isinstance(turns, list) and turns[-1]["content"] == rows.COTS["generation"]


def test_why_a_row_of_codeforces_is_left_out() -> None:
    for change, without_problem, without_answer in (
        ({"interaction_format": "Ask."}, "it is interactive", None),
        ({"description": None}, "it has no statement", None),
        ({"finish_reason": "length"}, None, "its answer was cut off"),
        ({"generation": "I cannot."}, None, "its answer holds no cpp code"),
    ):
        found = adapted("codeforces_cpp", {**rows.COTS, **change})
        for part, why in ((found.problem, without_problem), (found.conversation, without_answer)):
            assert isinstance(part, LeftOut) == bool(why)
            assert not why or why in reason(part)
    unfit: list[tuple[dict[str, Any], str]] = [
        ({"input_mode": "file"}, "it reads and writes files"),
        ({"official_tests_complete": False}, "its official tests are not complete"),
        ({"official_tests": []}, "it has no tests"),
    ]
    for change, why in unfit:
        assert why in reason(adapted("codeforces", {**rows.CODEFORCES, **change}).problem)


def test_a_problem_of_codeforces_is_asked_in_the_language_that_one_wants() -> None:
    rust = problem("codeforces_rust", rows.CODEFORCES)
    assert (rust.language, rust.difficulty, rust.tags) == ("rust", "800", ["math"])
    assert "```rust" in str(rust.prompt)
    assert (rust.comparison, len(rust.tests)) == ("float", 2)
    assert problem("codeforces", rows.CODEFORCES, "go").language == "go"
    with pytest.raises(InputError, match="codeforces: no answers in language 'cobol'"):
        adapted("codeforces", rows.CODEFORCES, "cobol")
    with pytest.raises(InputError, match="mbpp: no answers in language 'cpp'; known: python"):
        adapted("mbpp", mbpp(601), "cpp")


def test_a_checker_of_codeforces_becomes_one_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (
        "import sys\nread, right, printed = [open(name).read() for name in sys.argv[1:]]\n"
        "if __name__ == '__main__':\n    print(int(read + right == printed))\n    sys.exit(0)\n"
    )
    found = problem("codeforces", {**rows.CODEFORCES, "generated_checker": source})
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {}
    exec(str(found.checker), space)
    assert space["check"]("1", "12", "2") is True
    assert space["check"]("1", "13", "2") is False


def test_code_contests_joins_its_columns() -> None:
    found = problem("code_contests", rows.CODE_CONTESTS)
    assert [test.stdin for test in found.tests] == ["1\n", "5\n"]
    assert found.reference == {"cpp": "a\nb", "python": "c"}
    assert (found.group, found.difficulty) == ("codeforces/12/B", "1100")
    assert found.tags == ["codeforces", "math"]
    assert (found.limits.cpu_s, found.limits.memory_mb) == (1.5, 244)
    assert answer("code_contests", rows.CODE_CONTESTS) == "```cpp\na\nb\n```"
    unrated = {**rows.CODE_CONTESTS, "cf_rating": 0}
    assert problem("code_contests", unrated).difficulty == "B"
    easy = {**unrated, "difficulty": 1, "time_limit": None, "source": 3, "cf_contest_id": 0}
    assert problem("code_contests", easy).difficulty == "easy"
    assert problem("code_contests", easy).group == "hackerearth/12_B. Twice"
    java = adapted("code_contests", rows.CODE_CONTESTS, "java")
    assert reason(java.conversation) == "it has no solution in java"
    files = adapted("code_contests", {**rows.CODE_CONTESTS, "input_file": "in.txt"})
    assert "files" in reason(files.problem)


def test_apps_is_judged_by_what_is_printed_or_by_calls() -> None:
    printed = problem("apps", rows.APPS)
    assert [(test.stdin, test.stdout) for test in printed.tests] == [("1\n", "2\n"), ("4\n", "8")]
    assert printed.reference == {"python": "n = int(input())\nprint(2 * n)\n"}
    called = problem("apps", rows.APPS_CALLED)
    assert (called.judge, called.entry_point) == ("function", "swap")
    assert "Write the function `swap`." in str(called.prompt)

    def swap(value: Any) -> Any:
        if isinstance(value, dict):
            return {held: key for key, held in value.items()}
        return tuple(reversed(value))

    judge(called.test_code, swap)
    with pytest.raises(AssertionError):
        judge(called.test_code, list)
    starter = "class Solution:\n    def swap(self, pair):\n"
    method = problem("apps", {**rows.APPS_CALLED, "starter_code": starter})
    assert method.entry_point == "Solution" and starter.strip() in str(method.prompt)
    judge(method.test_code, type("Solution", (), {"swap": staticmethod(swap)}))
    assert reason(adapted("apps", {**rows.APPS, "input_output": ""}).problem) == "it has no tests"
    unsolved = adapted("apps", {**rows.APPS, "solutions": ""})
    assert reason(unsolved.conversation) == "it has no solution"


def test_instructions_are_taken_by_their_score() -> None:
    assert answer("open_code_instruct", rows.OPEN_CODE) == "```python\nf = 1\n```"
    assert answer("self_oss_instruct", rows.SELF_OSS) == rows.SELF_OSS["response"]
    worse = {**rows.OPEN_CODE, "average_test_score": "0.9"}
    assert reason(adapted("open_code_instruct", worse).conversation) == "its score is below 1"
    empty = {**rows.SELF_OSS, "response": " "}
    assert "is empty" in reason(adapted("self_oss_instruct", empty).conversation)


def test_a_prompt_is_given_what_it_hides() -> None:
    tests = "def test_it():\n    assert g(f(1)) == 2"
    shown = "\n\nYour code should pass these tests:\n\nassert g(f(1)) == 2"
    hiding = ("Write f and g.", "Write `f`.", "Take `a`, f it, g it, return `b`.", "f: g")
    for prompt in (*hiding, "f or g", "Print 'f' or 'g'."):
        assert asked_with(prompt, tests) == prompt + shown
    showing = ("Write `f` and g(x).", "def f and class g", "Pass this:\nassert f + g == 2")
    for prompt in (
        *showing,
        "from solution import f, g",
        ">>> map(f, g)",
        "An f function, a g class",
    ):
        assert asked_with(prompt, tests) == prompt
    checked = "def check(candidate):\n    assert candidate(1) == 2"
    told = asked_with("Double.", checked, entry_point="h")
    assert told == "Double.\n\nYour code must define `h`."


def test_a_word_of_english_is_no_name_that_is_shown() -> None:
    for word in ("add", "sort", "count"):
        told = asked_with(f"Write a function to {word} two numbers.", f"assert {word}(1, 2) == 3")
        assert told.endswith(f"\n\nassert {word}(1, 2) == 3")
    assert asked_with("Compute max_sum.", "assert max_sum([1]) == 1") == "Compute max_sum."


def test_a_test_file_s_imports_are_shown() -> None:
    for tests in (
        "from solution import secret\n\ndef test_it():\n    assert secret() == 1",
        "import main\n\ndef test_it():\n    assert main.secret() == 1",
    ):
        told = asked_with("Return 1.", tests, judge="pytest")
        assert "secret()" in told
    module = (
        "import main\n\ndef test_it():\n    assert main.__doc__ and main.sys.stdin and main.add"
    )
    assert asked_with("x", module, judge="pytest").endswith("must define `add`.")
    assert asked_with("Write `add`.", module, judge="pytest") == "Write `add`."
    own = "import pytest\nfrom solution import secret\n\ndef helper(): ..."
    assert asked_with("Write `secret`.", own, judge="pytest") == "Write `secret`."


def test_the_last_turn_shows_what_no_turn_does() -> None:
    turns = [{"role": "user", "content": "Hi."}, {"role": "user", "content": "Return 1."}]
    fields = {"messages": turns, "test_code": "assert secret() == 1"}
    first, last = with_names_shown(fields)["messages"]
    assert first == turns[0] and last["content"].endswith("\n\nassert secret() == 1")
    said = [{"role": "user", "content": "Write secret()."}, turns[1]]
    assert with_names_shown({**fields, "messages": said})["messages"] == said


def asked_with(prompt: str, test_code: str, **fields: str) -> str:
    return str(with_names_shown({"prompt": prompt, "test_code": test_code, **fields})["prompt"])


def test_no_prompt_of_mbpp_hides_a_name_that_its_tests_call() -> None:
    path = DATA / "mbpp_train.jsonl"
    if not path.is_file():
        pytest.skip(f"{path} is not here (HALOFORGE_TEST_DATA names its folder)")
    found = [problem("mbpp", json.loads(line)) for line in path.read_text("utf-8").splitlines()]
    assert len(found) == len({one.problem_id for one in found}) == 374
    for one in found:
        assert f"{one.entry_point}(" in str(one.prompt)
        assert f"{one.entry_point}(" in str(one.test_code)


def test_the_sample_of_codeforces_is_read_whole() -> None:
    path = DATA / "codeforces_cpp.jsonl"
    if not path.is_file():
        pytest.skip(f"{path} is not here (HALOFORGE_TEST_DATA names its folder)")
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert len({problem("codeforces_cpp", line).problem_id for line in lines}) == 78
    assert all(answer("codeforces_cpp", line).startswith("```cpp\n") for line in lines)
