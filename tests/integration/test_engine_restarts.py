"""Engines killed at work: all answers come, each once, all by the policy that is to be sampled."""

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray

from haloforge.groups import samples_in
from haloforge.model.policy import Policy, resolve_policy
from haloforge.placement import Cluster, place
from haloforge.rollout.engine import Prompt
from haloforge.rollout.merged import prepare
from haloforge.rollout.pool import EnginePool
from haloforge.rollout.requests import Requests
from haloforge.rollout.settings import RolloutSettings, Sampling
from haloforge.rollout.stage import rollout_stage
from tests.adapters import random_adapter

SAMPLING = Sampling(temperature=0.0, top_p=1.0, max_tokens=150, stop_at_fence=False)
# fp32, so that a greedy answer is the same in every batch.
SETTINGS = RolloutSettings(max_model_len=256, max_num_seqs=8, kv_cache_gb=0.1, dtype="float32")
PROMPTS = [Prompt([5 + i, 17, 40 + i, 9]) for i in range(120)]
ASKED = Requests("run", 1, [f"{i:03}" for i in range(len(PROMPTS))], 1, PROMPTS)


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def tuned(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return resolve_policy(
        str(random_adapter(tiny_model, tmp_path_factory.mktemp("adapter") / "tuned", 1))
    )


def start(policy: Policy, engine: str, count: int) -> EnginePool:
    settings = SETTINGS.model_copy(update={"engine": engine, "engines": count})
    pool = EnginePool.start(policy.base, settings, [2], place(Cluster(2, 0, 2), count))
    assert pool.set_policy(policy) > 0
    return pool


def stage(pool: EnginePool, requests: int) -> Iterator[dict[str, Any]]:
    return samples_in(rollout_stage(np.arange(requests), pool, ray.put(ASKED), SAMPLING))


def kill_engine(pid: int) -> None:
    psutil.Process(pid).kill()


def kill_core(pid: int) -> None:
    """Kills only vLLM's own core, a child of the engine's process with torch in memory."""
    cores = [p for p in psutil.Process(pid).children() if p.memory_info().rss > 200 * 2**20]
    assert len(cores) == 1
    cores[0].kill()


@pytest.mark.parametrize(
    ("engine", "count", "kills", "requests"),
    [
        pytest.param("vllm", 1, [kill_engine, kill_core], 120, marks=pytest.mark.slow),
        pytest.param("vllm", 2, [kill_core], 120, marks=pytest.mark.slow),
        ("transformers", 2, [kill_engine], 40),
    ],
)
def test_killed_in_the_middle(
    tuned: Policy, engine: str, count: int, kills: list[Any], requests: int
) -> None:
    pool = start(tuned, engine, count)
    try:
        untouched = {row["problem_id"]: row["completion"] for row in stage(pool, requests)}
        assert len(untouched) == requests
        for number, kill in enumerate(kills, 1):
            rows: list[dict[str, Any]] = []
            back: Any = None
            meanwhile = 0
            for row in stage(pool, requests):
                rows.append(row)
                if len(rows) == 10:
                    facts = pool.facts()[0]
                    assert facts["in_flight"] > 0
                    kill(facts["pid"])
                    time.sleep(2)
                    back = pool.engines[0].ready.remote()
                meanwhile += back is not None and not ray.wait([back], timeout=0)[0]
            assert pool.restarts() == number
            assert sorted(row["problem_id"] for row in rows) == ASKED.problem_ids[:requests]
            assert {row["policy"] for row in rows} == {tuned.digest}
            assert {row["problem_id"]: row["completion"] for row in rows} == untouched
            if count > 1:
                assert meanwhile > 8, "the other engine did not go on"
    finally:
        pool.stop()


def test_a_swap_waits_for_an_engine_that_is_being_restarted(tuned: Policy) -> None:
    pool = start(tuned, "transformers", 2)
    try:
        base = Policy("base", tuned.base, None, tuned.base.digest)
        kill_engine(pool.pids[0])
        pool.set_policy(base)
        assert [fact["policy"] for fact in pool.facts()] == [base.digest] * 2
        assert len({fact["pid"] for fact in pool.facts()} | set(pool.pids)) == 3
        assert pool.restarts() == 1
    finally:
        pool.stop()


@pytest.mark.parametrize("engine", ["vllm", "transformers"])
def test_when_the_first_token_by_a_policy_came(tuned: Policy, engine: str) -> None:
    pool = start(tuned, engine, 1)
    try:
        (before,) = pool.facts()
        assert before["policy"] == tuned.digest
        assert before["first_token_at"] is None
        assert 0 < before["swap_seconds"] < 60
        asked = time.time()
        prompts = PROMPTS[:4]
        ask = pool.engines[0].generate.remote
        answers = ray.get([ask(prompt, SAMPLING, tuned) for prompt in prompts])
        ended = time.time()
        (after,) = pool.facts()
        assert asked < after["first_token_at"] < ended
        later = ray.get([ask(prompt, SAMPLING, tuned) for prompt in prompts])
        assert later == answers, "watching for the first token changed the answer"
        (at_last,) = pool.facts()
        assert at_last["first_token_at"] == after["first_token_at"]
        assert at_last["finished"] == after["finished"] + len(prompts)
    finally:
        pool.stop()


def test_no_merged_copy_is_left(tuned: Policy) -> None:
    def copies() -> set[Path]:
        return set(Path(tempfile.gettempdir()).glob("haloforge-merged-*"))

    prepare()
    mine = Path(tempfile.mkdtemp(prefix=f"haloforge-merged-{os.getpid()}-"))
    try:
        pool = start(tuned, "transformers", 1)
        left = Path(tempfile.mkdtemp(prefix=f"haloforge-merged-{pool.pids[0]}-"))
        kill_engine(pool.pids[0])
        pool.set_policy(tuned)
        assert not left.exists()
        assert mine.exists()
        assert not [path for path in copies() if str(pool.pids[0]) in path.name]
        pool.stop()
    finally:
        mine.rmdir()
