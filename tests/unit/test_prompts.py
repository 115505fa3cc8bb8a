"""`data prompts`: the problem that a row asks, and which row of a prompt is taken."""

from typing import Any

import numpy as np
import pytest

from haloforge.data.keys import digest64
from haloforge.data.problems import fixed_subset, parse_problem
from haloforge.data.prompts import asked_row, first_of_each
from haloforge.errors import InputError

USER = {"role": "user", "content": "Print 1."}
ANSWER = {"role": "assistant", "content": "print(1)"}
TESTS = [{"stdin": "", "stdout": "1\n"}]


def test_an_sft_row_asks_its_prompt_and_keeps_how_it_is_judged() -> None:
    text = "<|im_start|>user\nPrint 1.<|im_end|>\n<|im_start|>assistant\nprint(1)<|im_end|>"
    kept = {"tests": TESTS, "language": "python", "difficulty": "easy", "group": "g"}
    assert (
        asked_row({"text": text, "score": 3, **kept}, "f, line 1") == {"prompt": "Print 1."} | kept
    )
    turns = [{"role": "system", "content": "Be brief."}, USER, ANSWER]
    asked = asked_row({"messages": turns, "prompt": "as others have it"}, "f, line 1")
    assert asked == {"prompt": "Print 1.", "system": "Be brief."}
    assert parse_problem(asked, "f, line 1").turns() == turns[:2]


def test_a_conversation_stays_one_and_a_problem_as_it_is() -> None:
    longer = [USER, ANSWER, {"role": "user", "content": "Print 2."}]
    assert asked_row({"messages": [*longer, ANSWER]}, "f, line 1") == {"messages": longer}
    problem: dict[str, Any] = {"prefix": "def f():", "test_code": "assert f()", "entry_point": "f"}
    assert asked_row(problem, "f, line 1") is problem
    with pytest.raises(InputError, match="line 1: no turn is the user's"):
        asked_row({"messages": [ANSWER]}, "f, line 1")


def test_of_a_prompt_the_first_row_with_tests_is_taken() -> None:
    prompt = np.array([7, 7, 3, 7, 3], np.uint64)
    tested = np.array([False, True, False, True, False])
    assert sorted(first_of_each(prompt, tested).tolist()) == [1, 2]


def test_digests_sort_as_those_of_a_fixed_subset() -> None:
    ids = [f"problem {number}" for number in range(50)]
    few = fixed_subset(ids, 9, str)
    assert sorted(few) == sorted(sorted(ids, key=digest64)[:9])
