"""MBPP (Austin et al. 2021), its sanitized part, and MBPP+ (Liu et al. 2023).

Shapes: `google-research-datasets/mbpp` on the hub, configs `full` and `sanitized` (dataset card at
revision 4bb6404); `evalplus/mbppplus` (dataset card at revision 17b81cd) and the JSON lines that
EvalPlus releases, as `haloforge/data/suites/evalplus.py` reads them; and rows of `task_id`,
`prompt`, `tests`, `entry_point`, `test_count` and `solution`.

`challenge_test_list` is not used: the authors keep it apart from the tests that judge a task.
"""

import ast
from typing import Any

from haloforge.data.adapters.adapter import (
    Adapted,
    Adapter,
    LeftOut,
    Options,
    fenced,
    shape,
    turns,
    unix,
)
from haloforge.data.adapters.fields import text, texts, wrong
from haloforge.data.adapters.numpy_free import without_numpy
from haloforge.data.rows import Row
from haloforge.data.showing import asserts_of, names_called, shown_asserts
from haloforge.data.suites.evalplus import mbpp_plus
from haloforge.data.suites.mbpp import TASK, TEST_IDS
from haloforge.data.suites.style import INSTRUCT

FULL = shape("task_id text code test_list", "test_setup_code challenge_test_list")
PROMPT = shape("task_id prompt code test_list", "test_setup_code challenge_test_list")
SANITIZED = shape("task_id prompt code test_list test_imports", "source_file")
PLUS = shape("task_id prompt code test_list test_imports test", "source_file")
SOLVED = shape("task_id prompt tests solution", "entry_point test_count")
RELEASE = shape(
    "task_id prompt entry_point canonical_solution base_input plus_input atol",
    "contract assertion",
)
SPLITS = {
    "prompt": range(1, 11),
    "test": TEST_IDS,
    "validation": range(511, 601),
    "train": range(601, 975),
}
"""The tasks of each split (section 2.1 of the paper, and the authors' README)."""


def adapt(row: Row, options: Options) -> Adapted:
    """The task, its own tests, and as many of them in its prompt as show all that they call."""
    if "base_input" in row:
        return _release(row)
    code = unix(text(row, "solution" if "solution" in row else "code"))
    question = text(row, "text" if "text" in row else "prompt")
    setup = [text(row, "test_setup_code"), *texts(row, "test_imports")]
    before = [unix(part) for part in setup if part.strip()]
    try:
        asserts = texts(row, "test_list") if "test_list" in row else asserts_of(text(row, "tests"))
        test_code = _test_code(row, before, asserts)
        names = names_called(test_code, None)
        entry_point = _called(asserts, names)
    except (SyntaxError, ValueError) as error:
        return Adapted(LeftOut(str(error)), LeftOut(str(error)), _split(row))
    shown = [*before, *shown_asserts(asserts, names)]
    problem: dict[str, Any] = {
        "prompt": TASK.format(text=question.strip(), tests="\n".join(shown)),
        "judge": "function",
        "test_code": test_code,
        "entry_point": entry_point,
        "reference": {"python": code},
    }
    return _adapted(row, problem, turns(problem["prompt"], fenced(code, "python")))


def _test_code(row: Row, before: list[str], asserts: list[str]) -> str:
    if "tests" in row:
        return text(row, "tests")
    if "test" in row:
        return without_numpy(text(row, "test"))
    return "\n".join([*before, *asserts])


def _called(asserts: list[str], names: list[str]) -> str | None:
    """The outermost function of the answer's in the first assert that calls one.

    Some rows name another: the first function of their solution, which may be a helper.
    """
    for source in asserts:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                name = node.func.id
                if name in names:
                    return name
    return None


def _release(row: Row) -> Adapted:
    [found] = mbpp_plus([row], INSTRUCT)
    problem = found.model_dump(exclude_defaults=True, exclude={"problem_id"})
    answer = f"{found.answer_start}{found.reference['python'].strip()}\n```"
    return _adapted(row, problem, turns(found.prompt or "", answer))


def _adapted(row: Row, problem: dict[str, Any], conversation: Any) -> Adapted:
    name = f"mbpp/{_task(row)}"
    return Adapted({"problem_id": name, "group": name, **problem}, conversation, _split(row))


def _task(row: Row) -> int:
    """The number of the task, which EvalPlus writes as `Mbpp/2`."""
    try:
        return int(str(row["task_id"]).rpartition("/")[2])
    except ValueError:
        raise wrong(row, "task_id", "a number") from None


def _split(row: Row) -> str | None:
    task = _task(row)
    return next((name for name, tasks in SPLITS.items() if task in tasks), None)


MBPP = Adapter(Options, (FULL, PROMPT, SANITIZED, PLUS, SOLVED, RELEASE), adapt)
