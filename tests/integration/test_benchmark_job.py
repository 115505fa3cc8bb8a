"""`jobs/benchmark.py` through `ray job submit` on a cluster of two nodes, killed at work."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest
from ray.cluster_utils import Cluster
from ray.util.state import list_actors

from tests.processes import free_port, wait_until
from tests.runs import printing_problems, sample_ids

ROOT = Path(__file__).parents[2]
PROBLEMS, SAMPLES, ENGINES = 24, 20, 2


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head with a dashboard, and a node whose resource `boxes` draws the verifiers."""
    ports = {name: free_port() for name in ("dashboard_port", "dashboard_agent_listen_port")}
    head = {"num_cpus": 2, "include_dashboard": True, **ports}
    made = Cluster(initialize_head=True, head_node_args=head)
    # A folder of its own: the nodes of one machine would delete each other's copies of the job.
    with tempfile.TemporaryDirectory() as folder:
        try:
            made.add_node(num_cpus=2, resources={"boxes": 1}, temp_dir=folder)
            # Ray gives a submission ten seconds to find the head's agent, which starts last.
            agent = f"http://127.0.0.1:{ports['dashboard_agent_listen_port']}"
            assert wait_until(lambda: healthy(agent), 120), "the head's agent did not start"
            yield made
        finally:
            made.shutdown()


def healthy(agent: str) -> bool:
    """Whether the agent of a node, by which Ray starts jobs, answers."""
    try:
        with urlopen(f"{agent}/api/local_raylet_healthz", timeout=10) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def submit(cluster: Cluster, *arguments: object) -> "subprocess.Popen[str]":
    """`ray job submit`, which follows the job and ends with its exit code."""
    client = Path(sys.executable).with_name("ray")
    address = f"http://{cluster.webui_url}"
    command = [client, "job", "submit", "--address", address, "--working-dir", ".", "--"]
    job = [sys.executable, "jobs/benchmark.py", *arguments]
    return subprocess.Popen(
        [*map(str, command), *map(str, job)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def drivers() -> list[psutil.Process]:
    """Processes that run the job's script, but for the client and the shell that mention it."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if (process.info["cmdline"] or ["", ""])[1:2] == ["jobs/benchmark.py"]
    ]


def nodes_of(cluster: Cluster, actor: str) -> list[str]:
    """The node of each living actor whose class name has `actor` in it."""
    return [
        str(found.node_id)
        for found in list_actors(address=cluster.address, filters=[("state", "=", "ALIVE")])
        if actor in found.class_name
    ]


@pytest.mark.slow
def test_killed_at_work_and_submitted_again(
    tiny_model: Path, tmp_path: Path, cluster: Cluster
) -> None:
    problems = printing_problems(tmp_path / "problems.jsonl", PROBLEMS)
    out = tmp_path / "out"
    asked = ["run", "--model", tiny_model, "--prompts", problems, "--output", out]
    asked += ["--samples", SAMPLES, "--max-tokens", 64, "--k", "1,2"]
    for setting in (
        "rollout.engine=transformers",
        f"rollout.engines={ENGINES}",
        "verify.resource=boxes",
        "verify.actors=2",
        "benchmark.resamples=100",
    ):
        asked += ["--set", setting]

    first = submit(cluster, *asked)
    assert wait_until(lambda: any(out.glob("commits/*.json")) or first.poll() is not None, 300)
    assert first.poll() is None, first.communicate()[0]
    assert len(nodes_of(cluster, "EngineActor")) == ENGINES
    boxes = cluster.worker_nodes.copy().pop().node_id
    # The first verdicts may come before the second verifier is up.
    both = wait_until(lambda: len(nodes_of(cluster, "VerifierActor")) == 2, 60)
    assert both and nodes_of(cluster, "VerifierActor") == [boxes] * 2
    (driver,) = drivers()
    driver.kill()
    assert first.wait(120) != 0
    assert not (out / "results.json").exists(), "it was not at work any more"
    committed = {path: path.read_bytes() for path in out.rglob("*.parquet")}

    told, _ = (again := submit(cluster, *asked)).communicate(timeout=500)
    assert again.returncode == 0, told
    assert {path: path.read_bytes() for path in committed} == committed
    ids = sample_ids(out)
    assert len(ids) == PROBLEMS * SAMPLES
    assert set(ids.values()) == {1}
    result = json.loads((out / "results.json").read_text())
    assert result["complete"]
    assert result["environment"]["hardware"]["ray_nodes"] == 2
    assert wait_until(lambda: not nodes_of(cluster, "EngineActor"), 60), "engines were left"
