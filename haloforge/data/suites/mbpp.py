"""MBPP (Austin et al. 2021): the 500 problems of its test split, asked as its README has it."""

from collections.abc import Iterable, Iterator

from haloforge.data.rows import Row
from haloforge.data.suites.style import INSTRUCT, Style
from haloforge.errors import InputError
from haloforge.schema import Problem

TEST_IDS = range(11, 511)
SHOT_IDS = (2, 3, 4)
"""The problems that base models are shown solved first."""
TASK = (
    "You are an expert Python programmer, and here is your task: {text} "
    "Your code should pass these tests:\n\n{tests}"
)
BEGIN, DONE = "\n[BEGIN]\n", "\n[DONE]"


def mbpp(rows: Iterable[Row], style: Style) -> Iterator[Problem]:
    """The problems of `TEST_IDS`, with the asserts that the prompt shows as their tests.

    Base models get three shots, and answer between `[BEGIN]` and `[DONE]`; chat models the same
    task, without these marks.
    """
    by_id = {row["task_id"]: row for row in rows}
    shots = "" if style == INSTRUCT else _shots(by_id)
    for task_id in TEST_IDS:
        row = by_id.get(task_id)
        if row is None:
            continue
        asked = {"prefix": f"{shots}{_task(row)}{BEGIN}", "answer_start": "", "stop": [DONE]}
        yield Problem.model_validate(
            {
                "problem_id": f"mbpp/{task_id}",
                **({"prompt": _task(row)} if style == INSTRUCT else asked),
                "judge": "function",
                "test_code": "\n".join([row["test_setup_code"], *row["test_list"]]),
                "reference": {"python": row["code"]},
            }
        )


def _shots(by_id: dict[int, Row]) -> str:
    missing = [str(task_id) for task_id in SHOT_IDS if task_id not in by_id]
    if missing:
        raise InputError(f"mbpp: base models are shown task {missing[0]}, which the data lacks")
    rows = [by_id[task_id] for task_id in SHOT_IDS]
    return "".join(f"{_task(row)}{BEGIN}{row['code']}{DONE}\n\n" for row in rows)


def _task(row: Row) -> str:
    return TASK.format(text=row["text"], tests="\n".join(row["test_list"]))
