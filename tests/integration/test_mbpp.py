"""The function judge on a real set: MBPP's own solutions against MBPP's own tests."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from haloforge.schema import Problem
from haloforge.verify.settings import VerifySettings
from haloforge.verify.verifier import Verifier

BESIDE = Path(__file__).parents[3] / "shared" / "data"
ROWS = Path(os.environ.get("HALOFORGE_TEST_DATA", BESIDE)) / "mbpp_train.jsonl"
WRONG = "927"  # the one whose solution fails its own tests
SAMPLE = 15  # every so many of them is judged where time is short


def wrong_ones(rows: list[dict[str, Any]]) -> dict[str, str]:
    """The task and outcome of each solution that fails its tests."""
    problems = {
        str(row["task_id"]): Problem(
            problem_id=str(row["task_id"]),
            prompt=row["prompt"],
            judge="function",
            test_code=row["tests"],
            entry_point=row["entry_point"],
        )
        for row in rows
    }
    verifier = Verifier(VerifySettings(cache=False), problems)
    found = {}
    for row in rows:
        task = str(row["task_id"])
        completion = f"```python\n{row['solution']}\n```"
        verdict = verifier.verify({"sample_id": task, "problem_id": task, "completion": completion})
        if verdict["outcome"] != "passed":
            found[task] = f"{verdict['outcome']}: {verdict['diagnostics']}"
        else:
            assert verdict["ran"]
            assert verdict["tests_passed"] == verdict["tests_total"] == 1
    return found


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    if not ROWS.is_file():
        pytest.skip(f"{ROWS} is not here (HALOFORGE_TEST_DATA names its folder)")
    return [json.loads(line) for line in ROWS.read_text("utf-8").splitlines()]


def test_some_solutions_pass_their_tests(rows: list[dict[str, Any]]) -> None:
    some = [row for row in rows[::SAMPLE] if str(row["task_id"]) != WRONG]
    assert len(some) >= 24
    assert wrong_ones(some) == {}


@pytest.mark.slow
def test_all_solutions_but_one_pass_their_tests(rows: list[dict[str, Any]]) -> None:
    assert len(rows) == 374
    found = wrong_ones(rows)
    assert list(found) == [WRONG], found
