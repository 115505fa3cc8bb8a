"""A node that is lost for good while samples are judged: what is left of the cluster goes on."""

import threading
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.data import DataContext
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from haloforge import sampling, watch
from haloforge.config import load_settings
from haloforge.placement import Fleet
from haloforge.rollout.engine import Prompt
from haloforge.rollout.settings import Sampling
from haloforge.schema import Problem
from haloforge.session import Session
from haloforge.store.shards import read_judged
from tests.chaos import two_nodes
from tests.processes import wait_until
from tests.sleeping_engine import FencingEngine, pool_of

SAMPLING = Sampling(temperature=0.0, top_p=1.0, max_tokens=8, stop_at_fence=False)
# Notes each sample, so that the test sees when it is at work.
VERIFIER = """
import time
from haloforge.verify.own import Judgement, Outcome

class Noting:
    def judge(self, code, problem, sandbox):
        with open({notes!r}, "a") as notes:
            notes.write("judged\\n")
        time.sleep(0.3)
        return Judgement(Outcome.PASSED)
"""


def test_a_verifier_without_room_is_waited_for_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "notes"
    (tmp_path / "own.py").write_text(VERIFIER.format(notes=str(notes)))
    name = f"{tmp_path / 'own.py'}:Noting"
    settings = load_settings(
        None, {"verify.verifier": name, "verify.cache": False, "verify.actors": 1}
    )
    problems = [Problem(problem_id=f"p{n}", prompt="?", language="none") for n in range(10)]
    watches: list[watch.NodeWatch] = []

    class Kept(watch.NodeWatch):
        def __init__(self) -> None:
            super().__init__()
            watches.append(self)

    monkeypatch.setattr(watch, "PATIENCE_S", 10)
    monkeypatch.setattr(sampling, "NodeWatch", Kept)
    monkeypatch.setattr(sampling, "_prompts", lambda *_: [Prompt([10])] * len(problems))
    # The proxy stays here, or its loss would end the pass at once.
    monkeypatch.setattr(DataContext.get_current(), "scheduling_strategy", "DEFAULT")
    monkeypatch.setattr(DataContext.get_current(), "enable_progress_bars", False)
    with two_nodes() as cluster:
        ray.init(address=cluster.address, log_to_driver=False)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        engine = ray.remote(FencingEngine).options(
            num_cpus=1,  # so that the verifier has room on the other node alone
            max_concurrency=100,
            scheduling_strategy=here,
        )
        pool = pool_of([engine.remote()])
        session: Any = Session(settings)
        session.engines = lambda _: pool
        assert session.fleet == Fleet(1, 1, 2.0)
        killer = threading.Thread(target=_lose_a_node, args=(cluster, notes))
        killer.start()
        try:
            sampling.sample_and_judge(
                session, pool.policy, problems, 4, SAMPLING, "run", 1, tmp_path / "run", "toy"
            )
        finally:
            killer.join()
            ray.shutdown()
    assert [each.ended for each in watches] == [True, False]
    judged = [(r.sample["problem_id"], r.sample["index"]) for r in read_judged(tmp_path / "run")]
    assert sorted(judged) == sorted((p.problem_id, n) for p in problems for n in range(4))


def _lose_a_node(cluster: Cluster, notes: Path) -> None:
    assert wait_until(lambda: notes.exists() and len(notes.read_text().split()) > 5, 120)
    (node,) = cluster.worker_nodes
    cluster.remove_node(node, allow_graceful=False)
