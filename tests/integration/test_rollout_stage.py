"""The rollout stage on real Ray Data: finished samples are not held up, lost ones come again.

A sleeping actor stands for the engine: what is tested is the way through Ray Data.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import psutil
import pytest
import ray
from ray.data import DataContext
from ray.exceptions import WorkerCrashedError

from haloforge.groups import samples_in, samples_of
from haloforge.rollout.engine import Prompt
from haloforge.rollout.pool import EnginePool
from haloforge.rollout.requests import Requests
from haloforge.rollout.settings import Sampling
from haloforge.rollout.stage import rollout_stage
from haloforge.schema import sample_id
from tests.processes import family, living
from tests.sleeping_engine import HELD_BACK, SleepingEngine, pool_of

SAMPLING = Sampling(temperature=0.0, top_p=1.0, max_tokens=8, stop_at_fence=False)


@pytest.fixture(scope="module")
def pool() -> Iterator[EnginePool]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    engines = [
        ray.remote(SleepingEngine).options(num_cpus=0, max_concurrency=100).remote()
        for _ in range(2)
    ]
    yield pool_of(engines)
    ray.shutdown()


def drawn(
    pool: EnginePool, sleeps: list[int], numbers: Sequence[int] | None = None, samples: int = 1
) -> Iterator[dict[str, Any]]:
    """The samples of problems 0, 1 and so on, each of which makes an engine sleep so long."""
    names = [f"p{number}" for number in range(len(sleeps))]
    requests = Requests("run", 1, names, samples, [Prompt([sleep]) for sleep in sleeps])
    asked = np.arange(len(requests)) if numbers is None else np.array(numbers)
    return samples_in(rollout_stage(asked, pool, ray.put(requests), SAMPLING))


@pytest.mark.timeout(180)
def test_a_slow_answer_holds_nothing_up(pool: EnginePool) -> None:
    sleeps = [HELD_BACK] + [20] * 60
    came: list[str] = []
    for row in drawn(pool, sleeps):
        came.append(row["problem_id"])
        assert row["completion"] == f"slept {sleeps[int(came[-1][1:])]}"
        if len(came) == 60:  # held up, the fast ones would wait for this for ever
            ray.get([engine.release.remote() for engine in pool.engines])
    assert len(set(came)) == len(came) == len(sleeps)
    assert came[-1] == "p0"


def test_samples_know_their_request(pool: EnginePool) -> None:
    rows = list(drawn(pool, [5, 6, 7], [1, 2, 5, 6, 8], samples=3))
    found = {(row["problem_id"], row["index"]): row for row in rows}
    assert found.keys() == {("p0", 1), ("p0", 2), ("p1", 2), ("p2", 0), ("p2", 2)}
    for (problem, index), row in found.items():
        assert row["sample_id"] == sample_id("run", 1, problem, index)
        assert row["completion"] == f"slept {5 + int(problem[1:])}"


def test_other_streams_of_this_process_keep_their_blocks(pool: EnginePool) -> None:
    usual = DataContext.get_current().copy()
    assert usual.target_max_block_size != 1, "set by none before"
    assert len(list(drawn(pool, [10, 10]))) == 2
    now = DataContext.get_current()
    assert now.target_max_block_size == usual.target_max_block_size
    ahead = "_max_num_blocks_in_streaming_gen_buffer"
    assert getattr(now, ahead) == getattr(usual, ahead)


def test_fast_answers_travel_together(pool: EnginePool) -> None:
    """Or the driver would be busy with blocks: a hundred a second are its limit."""
    requests = Requests("run", 1, ["p"], 400, [Prompt([1])])
    stage = rollout_stage(np.arange(400), pool, ray.put(requests), SAMPLING)
    blocks = [block for bundle in stage.iter_internal_ref_bundles() for block in bundle.blocks]
    assert sum(len(samples_of(ray.get(block.ref))) for block in blocks) == 400
    assert len(blocks) < 100


def test_a_killed_proxy_ends_the_stage_and_asks_for_nothing_again(pool: EnginePool) -> None:
    came: set[int] = set()

    def take() -> None:
        for row in drawn(pool, [200] * 120):
            came.add(int(row["problem_id"][1:]))
            if len(came) == 10:
                kill_a_proxy()

    with pytest.raises(WorkerCrashedError):
        take()
    assert 10 <= len(came) < 120
    left = sorted(set(range(120)) - came)
    rest = [int(row["problem_id"][1:]) for row in drawn(pool, [200] * 120, left)]
    assert sorted(rest) == left


def kill_a_proxy() -> int:
    running = living(family(psutil.Process().pid))
    proxies = [p for p in running if "MapBatches(rollout)" in " ".join(p.cmdline())]
    proxies[0].kill()
    return proxies[0].pid
