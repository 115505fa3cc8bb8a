"""From engines through the fleet into shards: each sample is committed once, whatever dies.

A sleeping actor stands for the engine; an answer kills the verifier that judges it.
"""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from haloforge.config import Settings, load_settings
from haloforge.placement import Fleet
from haloforge.report.progress import Report
from haloforge.rollout.engine import Prompt
from haloforge.rollout.pool import EnginePool
from haloforge.rollout.settings import Sampling
from haloforge.sampling import sample_and_judge
from haloforge.schema import Problem
from haloforge.store.shards import read_judged
from tests.fleets import SCRIPTED
from tests.observing import unobserved
from tests.sleeping_engine import FencingEngine, pool_of
from tests.stored_run import elsewhere

DEADLY = 77
SAMPLING = Sampling(temperature=0.0, top_p=1.0, max_tokens=8, stop_at_fence=False)


@pytest.fixture(scope="module")
def pool() -> Iterator[EnginePool]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    engine = ray.remote(FencingEngine).options(num_cpus=0, max_concurrency=100).remote()
    yield pool_of([engine])
    ray.shutdown()


def own_settings(path: Path, text: str) -> Settings:
    path.write_text(text)
    return load_settings(None, {"verify.verifier": f"{path}:Scripted", "verify.cache": False})


@pytest.mark.parametrize("place", ["here", "in object storage"])
def test_every_sample_is_judged_or_given_up_and_those_again_the_next_time(
    pool: EnginePool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    place: str,
) -> None:
    deadly = SCRIPTED.replace('word == "die"', f'code.strip() == "slept {DEADLY}"')
    settings = own_settings(tmp_path / "own.py", deadly)
    problems = [Problem(problem_id=f"p{n}", prompt="?", language="none") for n in range(6)]
    sleeps = {problem.problem_id: 10 for problem in problems} | {"p3": DEADLY}
    prompts = [Prompt([sleep]) for sleep in sleeps.values()]
    monkeypatch.setattr("haloforge.sampling._prompts", lambda *_: prompts)
    monkeypatch.setattr("haloforge.sampling.PASS_ROWS", 8)  # two passes
    session: Any = SimpleNamespace(
        settings=settings,
        fleet=Fleet(1, 2, 0.5),
        report=Report(),
        observer=unobserved(),
        engines=lambda _: pool,
    )
    policy: Any = None
    there = place != "here"
    folder: Path = request.getfixturevalue("folder") if there else tmp_path / "run"
    sample_and_judge(session, policy, problems, 2, SAMPLING, "run", 1, folder, "toy", raw=True)
    judged = list(read_judged(folder))
    assert sorted((row.sample["problem_id"], row.sample["index"]) for row in judged) == [
        (f"p{n}", index) for n in range(6) for index in range(2)
    ]
    for row in judged:
        lost = row.sample["problem_id"] == "p3"
        assert row.verdict["outcome"] == ("infra_error" if lost else "passed")
        assert row.verdict["raw_outcome"] == (None if lost else "passed")
        assert row.verdict["sample_id"] == row.sample["sample_id"]

    if there:
        folder = elsewhere(monkeypatch, tmp_path)
    session.settings = own_settings(tmp_path / "mild.py", SCRIPTED)
    session.engines = lambda _: pytest.fail("a sample was drawn again")
    sample_and_judge(session, policy, problems, 2, SAMPLING, "run", 1, folder, "toy")
    again = list(read_judged(folder))
    assert [row.sample for row in again] == [row.sample for row in judged]
    assert {row.verdict["outcome"] for row in again} == {"passed"}
    for before, after in zip(judged, again, strict=True):
        assert after.verdict["sample_id"] == before.sample["sample_id"]
        assert after == before or before.sample["problem_id"] == "p3"
