"""`cluster/local.sh` with the real Ray: three nodes, a job on them, one lost and brought back."""

import subprocess

import pytest

from tests.local_cluster import RAY, LocalCluster
from tests.processes import names, wait_until

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


@pytest.mark.slow
def test_three_nodes_a_job_and_a_lost_node(cluster: LocalCluster) -> None:
    cluster.start()
    job = cluster.folder.parent / "job.py"
    job.write_text(JOB)
    submit = [RAY, "job", "submit", "--", "python", str(job)]
    done = subprocess.run(submit, env=cluster.client, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "driver on head 0" in done.stdout
    assert "task on verifier" in done.stdout
    refused = {**cluster.client, "RAY_AUTH_TOKEN": "another"}
    wrong = subprocess.run(submit, env=refused, capture_output=True, text=True, timeout=300)
    assert wrong.returncode != 0

    assert cluster.run("kill-node", "verifier").returncode == 0
    assert wait_until(lambda: ("verifier", "DEAD") in cluster.states(), 60)
    assert {("head", "ALIVE"), ("gpu", "ALIVE")} <= cluster.states()
    cluster.start()
    assert ("verifier", "ALIVE") in cluster.states()

    assert cluster.run("stop").returncode == 0
    assert not names(cluster.processes())
    assert not cluster.folder.exists()
