"""What becomes of requests when engines die: toy engines, real Ray actors that are restarted."""

from collections.abc import Iterator

import pytest
import ray
from ray.actor import ActorHandle

from haloforge.errors import InfraError
from haloforge.rollout.dispatch import Dispatch
from haloforge.rollout.engine import Prompt
from haloforge.rollout.settings import Sampling
from tests.sleeping_engine import DEADLY, MortalEngine, pool_of

SAMPLING = Sampling(temperature=0.0, top_p=1.0, max_tokens=8, stop_at_fence=False)


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def engine(max_restarts: int, **kwargs: bool) -> ActorHandle:
    options = {"num_cpus": 0, "max_concurrency": 100, "max_restarts": max_restarts}
    return ray.remote(MortalEngine).options(**options).remote(**kwargs)


def dispatched(engines: list[ActorHandle], prompts: list[int], timeout_s: float = 60) -> list[int]:
    """The numbers of the requests that were answered, in that order, four at a time."""

    def prompt(number: int) -> Prompt:
        return Prompt([prompts[number], number])

    dispatch = Dispatch[int](engines, pool_of(engines).policy, SAMPLING, timeout_s, prompt)
    groups = dispatch.answers(range(len(prompts)), 4)
    return [number for group in groups for number, _ in group]


def test_what_a_dead_engine_had_under_way_comes_again_and_nothing_else() -> None:
    only = engine(1)
    answered = dispatched([only], [10, 10, 10, 300, DEADLY, 300, 10, 10])
    assert sorted(answered) == list(range(8))
    again = set(ray.get(only.asked.remote()))
    assert {3, 4} <= again
    assert not {0, 1, 2} & again, "an answer that had come was asked for again"
    assert pool_of([only]).restarts() == 1


def test_the_others_go_on_without_one_that_is_lost() -> None:
    lost, other = engine(0, frail=True), engine(0)
    prompts = [50] * 40
    first = dispatched([lost, other], prompts[:4])
    assert len(first) == 4
    lost.generate.remote(Prompt([DEADLY]), SAMPLING, None)
    assert sorted(dispatched([lost, other], prompts)) == list(range(40))


def test_with_none_left_it_fails() -> None:
    with pytest.raises(InfraError, match=r"no engine is left, rollout.max_restarts are used up"):
        dispatched([engine(1, frail=True), engine(0, frail=True)], [10, DEADLY, DEADLY, 10])


def test_with_none_back_in_time_it_fails() -> None:
    with pytest.raises(InfraError, match=r"no engine came back within 5 s"):
        dispatched([engine(1, hidden=True)], [10, DEADLY, 10], 5)


def test_requests_of_one_prompt_go_to_one_engine() -> None:
    """Which computes it once; both engines have work all the same."""
    engines = [engine(0), engine(0)]
    shared = [Prompt([20, number]) for number in range(4)]
    policy = pool_of(engines).policy
    dispatch = Dispatch[int](engines, policy, SAMPLING, 60, lambda number: shared[number // 8])
    answered = [number for group in dispatch.answers(range(32), 16) for number, _ in group]
    assert sorted(answered) == list(range(32))
    asked = [set(ray.get(each.asked.remote())) for each in engines]
    assert all(asked) and not asked[0] & asked[1], "a prompt was computed by two engines"


def test_dispatches_that_begin_elsewhere_use_all_engines_alike() -> None:
    """None knows of the others' requests, and has fewer under way than there are engines."""
    engines = [engine(0) for _ in range(6)]
    policy = pool_of(engines).policy
    for first in range(6):
        dispatch = Dispatch[int](
            engines, policy, SAMPLING, 60, lambda number: Prompt([20, number]), first
        )
        assert sum(len(group) for group in dispatch.answers(range(2), 2)) == 2
    assert [len(ray.get(each.asked.remote())) for each in engines] == [2] * 6
