"""The whole path on three local nodes, by submitted jobs that lose their submitter and both
workers, gives the samples of an undisturbed run on one."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_pipeline import check_finished, toy
from tests.local_cluster import LocalCluster
from tests.processes import wait_until
from tests.runs import sample_ids

FORGE = [sys.executable, "-m", "haloforge"]


@pytest.mark.slow
def test_submitter_and_nodes_are_lost_and_no_sample_is(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    command = toy(tmp_path)
    settings = str(tmp_path / "toy.yaml")
    alone = tmp_path / "alone"
    done = subprocess.run(
        [*command, "--output", str(alone)], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr

    run = tmp_path / "on-three"
    stage = ["pipeline", "--config", settings, "--output", str(run)]
    steered = ["--set", "verify.resource=verifier", "--set", "ray.compute_resource=gpu"]
    submit = [*FORGE, "submit", *stage, *steered]
    cluster.start()
    terminal = subprocess.Popen(submit, env=cluster.client, stderr=subprocess.DEVNULL)
    assert wait_until((run / "benchmark" / "base" / "run.json").exists, 300)
    terminal.kill()
    assert terminal.wait() == -9

    assert wait_until((run / "benchmark" / "sft" / "run.json").exists, 400)
    assert cluster.run("kill-node", "verifier").returncode == 0
    cluster.start()

    assert wait_until((run / "raft" / "run.json").exists, 400)
    assert cluster.run("kill-node", "gpu").returncode == 0  # the engine, or the trainer, with it
    cluster.start()

    for _ in range(3):  # a job that lost its last engine ends, and goes on by the same command
        done = subprocess.run(
            submit, env=cluster.client, capture_output=True, text=True, timeout=900
        )
        assert "Traceback" not in done.stderr + done.stdout, done.stderr + done.stdout
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr + done.stdout
    check_finished(run)
    assert set(sample_ids(run)) == set(sample_ids(alone))
