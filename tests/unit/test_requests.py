"""Requests are numbers: what each asks for, and which have been answered."""

import numpy as np

from haloforge.rollout.engine import Prompt
from haloforge.rollout.requests import Done, Requests
from haloforge.schema import sample_id

ASKED = Requests("run", 3, ["a", "b"], 4, [Prompt([1]), Prompt([2])])


def test_a_number_is_a_sample_of_a_problem() -> None:
    assert len(ASKED) == 8
    assert ASKED.sample(5) == {
        "sample_id": sample_id("run", 3, "b", 1),
        "problem_id": "b",
        "cycle": 3,
        "index": 1,
    }
    assert [ASKED.prompt(number).token_ids[0] for number in range(8)] == [1] * 4 + [2] * 4
    assert len({ASKED.sample(number)["sample_id"] for number in range(8)}) == 8


def test_each_request_is_answered_once() -> None:
    done = Done(ASKED)
    assert done.add("b", 1) and done.add("a", 0)
    assert not done.add("b", 1), "twice"
    assert not done.add("c", 0) and not done.add("a", 4), "nobody asked for it"
    assert done.count == 2
    assert np.array_equal(done.left(8), [1, 2, 3, 4, 6, 7])
    assert np.array_equal(done.left(2), [1, 2])
