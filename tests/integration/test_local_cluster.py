"""`cluster/local.sh` with the real Ray: three nodes, a job on them, one lost and brought back."""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.processes import living, names, wait_until

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "cluster" / "local.sh"
# What a job sees: its own node, on which nothing is scheduled, and where a verifier would go.
JOB = """
import ray

@ray.remote(num_cpus=1, resources={"verifier": 0.001})
def where():
    return ray.get_runtime_context().get_node_id()

ray.init()
nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
own = nodes[ray.get_runtime_context().get_node_id()]
print("driver on", own["NodeName"], own["Resources"].get("CPU", 0))
print("task on", nodes[ray.get(where.remote(), timeout=60)]["NodeName"])
"""


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    with tempfile.TemporaryDirectory(prefix="hf", dir="/tmp") as made:
        variables = {**os.environ, "HALOFORGE_LOCAL": f"{made}/local"}
        yield {**variables, "HALOFORGE_PYTHON": sys.executable}
        run({**variables}, "stop")


def run(environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [SCRIPT, *arguments], env=environment, cwd="/", capture_output=True, text=True, timeout=400
    )


def started_in(environment: dict[str, str]) -> list[psutil.Process]:
    """The processes that name the cluster's folder: Ray's carry it on their command lines."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(environment["HALOFORGE_LOCAL"] in word for word in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return living(found)


def states(environment: dict[str, str]) -> set[tuple[str, str]]:
    """Name and state of each node, as Ray has it."""
    lines = run(environment, "nodes").stdout.splitlines()
    return {(line.split()[0], line.split()[1]) for line in lines}


def test_three_nodes_a_job_and_a_lost_node(environment: dict[str, str]) -> None:
    started = run(environment, "start", "--gpu-cpus", "1", "--verifier-cpus", "1")
    assert started.returncode == 0, started.stderr
    lines = [shlex.split(line)[1] for line in started.stdout.splitlines()]
    client = {**environment, **dict(line.split("=", 1) for line in lines)}
    job = Path(environment["HALOFORGE_LOCAL"]).parent / "job.py"
    job.write_text(JOB)
    ray = str(Path(sys.executable).with_name("ray"))
    submit = [ray, "job", "submit", "--", "python", str(job)]
    done = subprocess.run(submit, env=client, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "driver on head 0" in done.stdout
    assert "task on verifier" in done.stdout
    refused = {**client, "RAY_AUTH_TOKEN": "another"}
    wrong = subprocess.run(submit, env=refused, capture_output=True, text=True, timeout=300)
    assert wrong.returncode != 0

    assert run(environment, "kill-node", "verifier").returncode == 0
    assert wait_until(lambda: ("verifier", "DEAD") in states(environment), 60)
    assert {("head", "ALIVE"), ("gpu", "ALIVE")} <= states(environment)
    again = run(environment, "start", "--gpu-cpus", "1", "--verifier-cpus", "1")
    assert again.returncode == 0, again.stderr
    assert ("verifier", "ALIVE") in states(environment)

    assert run(environment, "stop").returncode == 0
    assert not names(started_in(environment))
    assert not Path(environment["HALOFORGE_LOCAL"]).exists()
