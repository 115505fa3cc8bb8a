"""Suites through the real verifier: the sets' own solutions pass, in every style, and others do
not."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from haloforge.benchmark.problems import problems_to_measure
from haloforge.benchmark.suites import SUITES
from haloforge.config import load_settings
from haloforge.data.problems import answer_start
from haloforge.schema import Problem
from haloforge.verify.settings import VerifySettings
from haloforge.verify.verifier import Verifier
from tests.unit import suite_rows as rows

SETTINGS = VerifySettings(cache=False, run_wall_s=15)
SAMPLE = 20  # every so many problems are judged where time is short


def problems_of(name: str, style: str, folder: Path | None = None) -> list[Problem]:
    chosen = {"prompts": f"suite/{name}", "prompt_style": style}
    flags: dict[str, Any] = {f"benchmark.{key}": value for key, value in chosen.items()}
    flags["benchmark.data_dir"] = str(folder) if folder else None
    return problems_to_measure(load_settings(None, flags)).problems


def verdicts(answers: Iterable[tuple[Problem, str]]) -> list[dict[str, Any]]:
    """Of each text that a model may have written after how its answer begins."""
    answers = list(answers)
    verifier = Verifier(SETTINGS, {problem.problem_id: problem for problem, _ in answers})
    return [
        verifier.verify(
            {
                "sample_id": "s",
                "problem_id": problem.problem_id,
                "completion": answer_start(problem) + written,
            }
        )
        for problem, written in answers
    ]


def outcomes(problem: Problem, *written: str) -> list[str]:
    return [verdict["outcome"] for verdict in verdicts((problem, text) for text in written)]


def own_solution(problem: Problem) -> str:
    """The set's solution as what a model writes: the rest of the prompt, or a block's content."""
    solution = problem.reference["python"]
    return solution.removeprefix(problem.prefix or "") + ("" if problem.prefix else "\n```\n")


def failing(problems: list[Problem]) -> list[str]:
    found = verdicts((problem, own_solution(problem)) for problem in problems)
    return [
        f"{v['problem_id']}: {v['outcome']}: {v['diagnostics']}"
        for v in found
        if v["outcome"] != "passed"
    ]


@pytest.mark.parametrize("style", ["instruct", "base"])
def test_some_solutions_of_humaneval_pass(style: str) -> None:
    assert failing(problems_of("humaneval", style)[::SAMPLE]) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("style", ["instruct", "base"])
def test_all_solutions_of_humaneval_pass(style: str) -> None:
    problems = problems_of("humaneval", style)
    assert len(problems) == 164
    assert failing(problems) == []


def test_a_continuation_is_code_as_it_stands() -> None:
    """No line of it is cut away, and no fence is looked for."""
    problem = problems_of("humaneval", "base")[0]
    right = own_solution(problem)
    fenced = f"```python\n{problem.reference['python']}\n```\n"
    prose = f"{right}\nThat is all.\n"
    assert outcomes(problem, right, "    return None\n", fenced, prose) == [
        "passed",
        "wrong_answer",
        "compile_error",
        "compile_error",
    ]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of rows of our own, which are of no published version."""
    for name in ("humaneval-plus", "mbpp-plus"):
        monkeypatch.setitem(SUITES, name, dataclasses.replace(SUITES[name], sha256=None))
    floats = {
        **rows.HUMANEVAL_PLUS,
        "task_id": "HumanEval/1",
        "canonical_solution": "\n    return n / 3\n",
    }
    rows.write(tmp_path / "HumanEvalPlus.jsonl", rows.HUMANEVAL_PLUS, floats)
    rows.write(tmp_path / "MbppPlus.jsonl", rows.MBPP_PLUS)
    rows.write(tmp_path / "mbpp.jsonl", *[rows.mbpp(n) for n in (2, 3, 4, 11)])
    rows.write(tmp_path / "test.jsonl", rows.livecodebench("2024-05-01"), rows.lcb_functional())
    return tmp_path


@pytest.mark.parametrize("style", ["instruct", "base"])
@pytest.mark.parametrize("name", ["humaneval-plus", "mbpp-plus"])
def test_solutions_of_evalplus_pass(data: Path, name: str, style: str) -> None:
    assert failing(problems_of(name, style, data)) == []


def test_an_answer_is_compared_on_every_input_of_evalplus(data: Path) -> None:
    whole, thirds = problems_of("humaneval-plus", "base", data)
    big = "    return 2 * n if n < 10 else 2.0 * n\n"
    assert outcomes(whole, "    return abs(2 * n)\n", big) == ["wrong_answer", "passed"]
    near, far, text = (f"    return {code}\n" for code in ("n / 3 * (1 + 1e-9)", "n / 3.1", "'1'"))
    assert outcomes(thirds, near, far, text) == ["passed", "wrong_answer", "wrong_answer"]
    # An object that is equal to all, and the end of the program.
    equal = "    class All:\n        __eq__ = lambda *_: True\n    return All()\n"
    assert outcomes(whole, equal, "    import os\n    os._exit(0)\n") == [
        "wrong_answer",
        "runtime_error",
    ]


def test_what_evalplus_accepts_beside_an_equal_answer(data: Path) -> None:
    [shared] = problems_of("mbpp-plus", "base", data)
    as_list = "def similar_elements(a, b):\n    return [x for x in b if x in a]\n"
    of_all = "def similar_elements(a, b):\n    return a + b\n"
    assert outcomes(shared, as_list, of_all) == ["passed", "wrong_answer"]


def test_mbpp(data: Path) -> None:
    [chat], [base] = (problems_of("mbpp", style, data) for style in ("instruct", "base"))
    answer = "def times(n):\n    return 2 * n"
    assert outcomes(base, answer, "def times(n):\n    return n + 1") == ["passed", "wrong_answer"]
    assert outcomes(chat, f"Here it is:\n```python\n{answer}\n```\n") == ["passed"]


def test_livecodebench(data: Path) -> None:
    program, method = problems_of("livecodebench", "instruct", data)
    # With no import of its own: the authors' imports are there.
    right = "```python\nprint(2 * int(stdin.readline()))\n```"
    wrong = "```python\nprint(2)\n```"
    assert outcomes(program, right, wrong) == ["passed", "wrong_answer"]
    head = "class Solution:\n    def join(self, a: List[int], b: str) -> List[int]:\n        "
    tuple_of, fixed = (
        f"```python\n{head}return {code}\n```" for code in ("(b, sum(a))", '["x", 3]')
    )
    assert outcomes(method, tuple_of, fixed) == ["passed", "wrong_answer"]


# What EvalPlus accepts of a function beside an equal answer: its solution, an input, and answers
# that pass and that do not.
ORACLES = [
    ("find_zero", "xs", "return -1.0", [[1, 1]], ["return -1.0", "return -1.00001"], ["return 0"]),
    ("are_equivalent", "a, b", "return True", [1, 2], ["return 'x'"], []),
    ("sum_div", "n", "return n - 1", [9], ["return 8", "return 0"], ["return 9"]),
    ("surface_Area", "b, h", "return 33", [3, 4], ["return 33", "return 35"], ["return 34"]),
    (
        "digit_distance_nums",
        "a, b",
        "return 1",
        [23, 156],
        ["return 1", "return 7"],
        ["return 8"],
    ),
    (
        "check_str",
        "s",
        "import re; return re.match('a', s)",
        ["abc"],
        ["import re; return re.search('b', s)", "return True"],
        ["return None", "return False"],
    ),
    ("Diff", "a, b", "return [1, 2]", [[1], [2]], ["return (2, 1, 1)"], ["return [1]"]),
]


@pytest.mark.parametrize(
    ("name", "parameters", "solution", "given", "right", "wrong"), ORACLES, ids=lambda v: str(v)[:9]
)
def test_the_exceptions_of_evalplus(
    data: Path,
    name: str,
    parameters: str,
    solution: str,
    given: list[Any],
    right: list[str],
    wrong: list[str],
) -> None:
    head = f"def {name}({parameters}):\n    "
    row = {
        **rows.MBPP_PLUS,
        "task_id": "Mbpp/1",
        "entry_point": name,
        "canonical_solution": head + solution,
        "base_input": [given],
        "plus_input": [],
        "atol": 1e-4 if name == "find_zero" else 0,
    }
    rows.write(data / "MbppPlus.jsonl", row)
    [problem] = problems_of("mbpp-plus", "base", data)
    assert outcomes(problem, *(head + body for body in right)) == ["passed"] * len(right)
    assert outcomes(problem, *(head + body for body in wrong)) == ["wrong_answer"] * len(wrong)


@pytest.mark.parametrize(
    ("task", "given", "typed"),
    [
        (116, [[1, 2]], "[(1, 2)]"),
        (63, [[[1, 2], [3]]], "[[(1, 2), (3,)]]"),
        (75, [[[1], [2]], 3], "[[(1,), (2,)], 3]"),
        (106, [[1], [2]], "[[1], (2,)]"),
        (115, [[[1], []]], "[[{1}, {}]]"),
        (124, ["1", "2j"], "[1.0, 2j]"),
        (250, [[1], 2], "[(1,), 2]"),
        (259, [[[1]], [[2]]], "[((1,),), ((2,),)]"),
        (278, [[1, [2]]], "[(1, (2,))]"),
        (307, [[1], 2, 3], "[(1,), 2, 3]"),
        (722, [{"a": [1]}, 2], "[{'a': (1,)}, 2]"),
        (252, ["1j"], "[1j]"),
        (580, [[1, [2, [3]]]], "[(1, (2, (3,)))]"),
        (1, [[1, 2]], "[[1, 2]]"),
    ],
)
def test_inputs_of_mbpp_plus_have_the_types_that_json_has_not(
    data: Path, task: int, given: list[Any], typed: str
) -> None:
    solution = f"def f(*given):\n    assert list(given) == {typed}, given\n    return repr(given)\n"
    row = {
        **rows.MBPP_PLUS,
        "task_id": f"Mbpp/{task}",
        "entry_point": "f",
        "canonical_solution": solution,
        "base_input": [given],
        "plus_input": [],
    }
    rows.write(data / "MbppPlus.jsonl", row)
    [problem] = problems_of("mbpp-plus", "base", data)
    assert outcomes(problem, solution) == ["passed"]
