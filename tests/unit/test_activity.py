"""What engines, verifiers and trainers do over time, from facts made by hand."""

from typing import Any

import pytest

from haloforge.observe import activity as module
from haloforge.observe.activity import Activity


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now + 1e9


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def engine(pid: int, request_s: float, finished: int, in_flight: int = 0) -> dict[str, Any]:
    return {
        "pid": pid,
        "request_s": request_s,
        "finished": finished,
        "in_flight": in_flight,
        "capacity": 64,
    }


def verifier(actor: str, process: int, busy_s: float, hits: int = 0) -> dict[str, Any]:
    return {"actor": actor, "process": process, "busy_s": busy_s, "cache_hits": hits}


def row(activity: Activity) -> dict[str, Any]:
    return activity.take()[1]


def test_an_interval_says_what_came_in_it_alone(clock: Clock) -> None:
    activity = Activity()
    activity.judged("passed", 1.0, 10)
    activity.judged("infra_error", 0.0, 5)
    clock.now += 10
    now, told = activity.take()
    assert told == {
        "at": 1e9 + 1010,
        "seconds": 10.0,
        "engines": {},
        "verifiers": None,
        "trainers": None,
        "samples": 1,
        "tokens": 10,
        "cached": 0,
        "outcomes": {"passed": 1, "infra_error": 1},
        "restarts": {},
    }
    assert now.rewards == {1.0: 1}, "a failure of ours has no reward"
    clock.now += 4
    told = row(activity)
    assert (told["seconds"], told["samples"], told["outcomes"]) == (4.0, 0, {})


def test_an_engine_s_mean_is_over_the_time_between_two_looks(clock: Clock) -> None:
    activity = Activity()
    activity.generated({"engine-0": engine(1, 500.0, 7, 3)})  # before it was watched
    assert row(activity)["engines"]["engine-0"]["in_flight"] == 0.0
    clock.now += 10
    activity.generated({"engine-0": engine(1, 820.0, 9, 40)})
    assert row(activity)["engines"] == {
        "engine-0": {"in_flight": 32.0, "capacity": 64, "requests": 40}
    }
    clock.now += 10
    assert row(activity)["engines"] == {}, "it did not answer"
    clock.now += 10
    activity.generated({"engine-0": engine(1, 1020.0, 9)})
    assert row(activity)["engines"]["engine-0"]["in_flight"] == 10.0


def test_an_engine_that_began_anew_counts_from_nothing(clock: Clock) -> None:
    activity = Activity()
    activity.verified(verifier("a", 1, 0.0))
    activity.generated({"engine-0": engine(1, 500.0, 100)})
    clock.now += 10
    activity.generated({"engine-0": engine(2, 50.0, 4)})
    told = row(activity)
    assert told["engines"]["engine-0"]["in_flight"] == 5.0
    assert told["verifiers"]["queued"] == 4


def test_an_engine_of_another_kind_is_left_out() -> None:
    activity = Activity()
    activity.generated({"engine-0": {"policy": "", "first_token_at": None}})
    assert row(activity)["engines"] == {}


def test_what_is_drawn_and_not_judged_waits(clock: Clock) -> None:
    activity = Activity()
    activity.begin()
    activity.generated({"engine-0": engine(1, 0.0, 100)})
    activity.verified(verifier("a", 1, 0.0))
    activity.generated({"engine-0": engine(1, 0.0, 130)})
    for _ in range(10):
        activity.judged("passed", 1.0, 1)
    assert row(activity)["verifiers"]["queued"] == 20
    for _ in range(25):  # 5 of which the engine has not said yet that it finished them
        activity.judged("passed", 1.0, 1)
    assert row(activity)["verifiers"]["queued"] == 0
    activity.generated({"engine-0": engine(1, 0.0, 137)})
    assert row(activity)["verifiers"]["queued"] == 2
    activity.begin()
    assert row(activity)["verifiers"] is None


def test_a_verifier_s_groups_come_in_any_order(clock: Clock) -> None:
    activity = Activity()
    for each in (("a", 1, 3.0, 5), ("b", 9, 1.0, 0), ("a", 1, 1.0, 2), ("a", 1, 4.0, 6)):
        activity.verified(verifier(*each))
    clock.now += 10
    found = row(activity)
    assert found["verifiers"] == {"actors": 2, "busy": 0.5, "queued": 0}
    assert (found["cached"], found["restarts"]) == (6, {})


def test_a_verifier_that_began_anew_is_one_restart_whatever_comes_late(clock: Clock) -> None:
    activity = Activity()
    for each in (("a", 1, 3.0, 5), ("a", 2, 1.0, 1), ("a", 1, 4.0, 5), ("a", 2, 2.0, 3)):
        activity.verified(verifier(*each))
    clock.now += 10
    found = row(activity)
    assert found["restarts"] == {"verifier": 1}
    assert (found["verifiers"]["actors"], found["verifiers"]["busy"]) == (1, 0.6)
    assert found["cached"] == 8


def test_a_group_that_took_long_is_told_whole_when_it_has_ended(clock: Clock) -> None:
    activity = Activity()
    activity.verified(verifier("a", 1, 60.0))  # a group that took long
    clock.now += 10
    assert row(activity)["verifiers"]["busy"] == 6


def test_restarts_are_of_the_interval(clock: Clock) -> None:
    activity = Activity()
    activity.restarted("engine", 2)
    activity.restarted("trainer", 1)
    assert row(activity)["restarts"] == {"engine": 2, "trainer": 1}
    assert row(activity)["restarts"] == {}


def test_trainers_are_busy_as_long_as_their_steps(clock: Clock) -> None:
    activity = Activity()
    activity.begin()
    clock.now += 4
    activity.trained(2.0, 2)
    clock.now += 6
    activity.trained(6.0, 2)
    assert row(activity)["trainers"] == {"workers": 2, "busy": 0.8}


def test_steps_of_an_earlier_sitting_took_none_of_this_time(clock: Clock) -> None:
    activity = Activity()
    activity.begin()
    clock.now += 1
    for _ in range(100):
        activity.trained(5.0, 1)
    clock.now += 9
    assert row(activity)["trainers"]["busy"] <= 0.1


def test_a_step_longer_than_an_interval_is_in_all_that_it_spans(clock: Clock) -> None:
    activity = Activity()
    activity.begin()
    clock.now += 30
    activity.trained(30.0, 1)
    activity.take()
    told = []
    for _ in range(6):
        clock.now += 10
        told.append(row(activity)["trainers"]["busy"])
        if len(told) == 3:
            activity.trained(30.0, 1)
    assert told == [1, 1, 1, 1, 1, 1]
    clock.now += 10
    assert row(activity)["trainers"]["busy"] == 0.0, "it is longer under way than the one before"
