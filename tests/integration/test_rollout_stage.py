"""The rollout stage on real Ray Data: finished samples are not held up, lost ones come again.

A sleeping actor stands for the engine: what is tested is the way through Ray Data.
"""

from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import ray

from haloforge.rollout.engine import Prompt
from haloforge.rollout.pool import EnginePool
from haloforge.rollout.settings import Sampling
from haloforge.rollout.stage import rollout_stage, rows_of
from tests.processes import family, living
from tests.sleeping_engine import HELD_BACK, SleepingEngine

SAMPLING = Sampling(temperature=0.0, top_p=1.0, max_tokens=8, stop_at_fence=False)


@pytest.fixture(scope="module")
def pool() -> Iterator[EnginePool]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    engines = [
        ray.remote(SleepingEngine).options(num_cpus=0, max_concurrency=100).remote()
        for _ in range(2)
    ]
    yield EnginePool(engines, [{"kind": "sleeping", "pid": 0}] * 2, max_num_seqs=8, seconds=0)
    ray.shutdown()


def requests(sleeps: dict[str, int]) -> list[dict[str, Any]]:
    return [
        {"sample_id": name, "problem_id": name, "cycle": 1, "index": 0} for name in sorted(sleeps)
    ]


@pytest.mark.timeout(180)
def test_a_slow_answer_holds_nothing_up(pool: EnginePool) -> None:
    sleeps = {f"fast {i:02}": 20 for i in range(60)} | {"a slow one": HELD_BACK}
    prompts = ray.put({name: Prompt([sleep]) for name, sleep in sleeps.items()})
    came: list[str] = []
    for row in rows_of(rollout_stage(requests(sleeps), pool, prompts, SAMPLING)):
        assert row["completion"] == f"slept {sleeps[row['sample_id']]}"
        came.append(row["sample_id"])
        if len(came) == 60:  # held up, the fast ones would wait for this for ever
            ray.get([engine.release.remote() for engine in pool.engines])
    assert sorted(came) == sorted(sleeps)
    assert came[-1] == "a slow one"


def test_what_a_killed_proxy_loses_can_be_asked_for_again(pool: EnginePool) -> None:
    sleeps = {f"{i:03}": 200 for i in range(120)}
    prompts = ray.put({name: Prompt([sleep]) for name, sleep in sleeps.items()})
    came: set[str] = set()
    killed = 0
    passes = 0
    while left := {name: sleep for name, sleep in sleeps.items() if name not in came}:
        passes += 1
        assert passes <= 3
        for row in rows_of(rollout_stage(requests(left), pool, prompts, SAMPLING)):
            came.add(row["sample_id"])
            if not killed and len(came) == 10:
                killed = kill_a_proxy()
    assert killed
    assert came == sleeps.keys()


def kill_a_proxy() -> int:
    running = living(family(psutil.Process().pid))
    proxies = [p for p in running if "MapBatches(rollout)" in " ".join(p.cmdline())]
    proxies[0].kill()
    return proxies[0].pid
