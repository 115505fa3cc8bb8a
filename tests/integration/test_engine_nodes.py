"""Engines on two nodes: they divide the cores of the node that each is on, and nodes get lost."""

import os
from collections.abc import Iterator

import pytest
import ray
from ray.actor import ActorHandle
from ray.cluster_utils import Cluster

from haloforge.errors import InfraError
from haloforge.rollout.dispatch import Dispatch
from haloforge.rollout.engine import Prompt
from haloforge.rollout.settings import Sampling
from tests.sleeping_engine import BoundEngine, MortalEngine, pool_of

SAMPLING = Sampling(temperature=0.0, top_p=1.0, max_tokens=8, stop_at_fence=False)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Two nodes on this machine: the resource tells which."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "resources": {"first": 2}})
    try:
        made.add_node(num_cpus=2, resources={"second": 2})
        ray.init(address=made.address, log_to_driver=False)
        yield made
        ray.shutdown()
    finally:
        made.shutdown()


def engine_on(node: str, kind: type) -> ActorHandle:
    options = {"num_cpus": 0, "resources": {node: 1}, "max_restarts": 3, "max_concurrency": 100}
    return ray.remote(kind).options(**options).remote()


def cores_of(engines: list[ActorHandle]) -> list[tuple[int, ...]]:
    ray.get([engine.__ray_ready__.remote() for engine in engines])
    return ray.get([engine.cores.remote() for engine in engines])


def test_cores_are_those_of_the_engine_s_own_node(cluster: Cluster) -> None:
    every = tuple(sorted(os.sched_getaffinity(0)))
    apart = [engine_on("first", BoundEngine), engine_on("second", BoundEngine)]
    assert cores_of(apart) == [every, every]
    alone, *shared = cores_of([*apart, engine_on("second", BoundEngine)])
    assert alone == every
    assert sorted(core for cores in shared for core in cores) == list(every)
    assert all(shared)


def test_a_lost_node_s_engine_holds_nothing_up(cluster: Cluster) -> None:
    """It has no room elsewhere, so that Ray waits for ever to restart it."""
    stays, goes = (engine_on(node, MortalEngine) for node in ("first", "second"))
    ray.get([engine.__ray_ready__.remote() for engine in (stays, goes)])

    def answers(engines: list[ActorHandle]) -> Iterator[int]:
        policy = pool_of(engines).policy
        dispatch = Dispatch[int](engines, policy, SAMPLING, 10, lambda n: Prompt([500, n]))
        groups = dispatch.answers(range(24), 8)
        return (number for group in groups for number, _ in group)

    both = answers([stays, goes])
    came = [next(both) for _ in range(4)]
    cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
    assert sorted([*came, *both]) == list(range(24))
    with pytest.raises(InfraError, match="no engine came back within 10 s"):
        list(answers([goes]))
