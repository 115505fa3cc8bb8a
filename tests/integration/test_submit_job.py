"""`halo-forge submit` on the nodes of `cluster/local.sh`: followed, killed, refused."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.local_cluster import RAY, LocalCluster
from tests.processes import wait_until

SECRET = "a-key-of-the-submitter"
SLEEPS = "import time\ntime.sleep(2)\nprint(sum(map(int, input().split())))"
TESTS = [{"stdin": "1 2\n", "stdout": "3\n"}]
ROWS = 12


class Submitter:
    """Runs `halo-forge submit` from `folder` with what a user's environment would hold."""

    def __init__(self, cluster: LocalCluster, folder: Path) -> None:
        secrets = {"AWS_SECRET_ACCESS_KEY": SECRET, "HF_TOKEN": SECRET}
        self.folder, self.environment = folder, {**cluster.client, **secrets}

    def options(self, **variables: str) -> dict[str, Any]:
        environment = {**self.environment, **variables}
        return {"cwd": self.folder, "env": environment, "text": True}

    def words(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "haloforge", "submit", *arguments]

    def __call__(self, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            self.words(*arguments), capture_output=True, timeout=300, **self.options(**variables)
        )
        told = done.stdout + done.stderr
        assert "Traceback" not in told, told
        # Ray's own loggers are quiet.
        assert " INFO " not in done.stderr and ".py:" not in done.stderr, done.stderr
        return done

    def ray_job(self, *arguments: str) -> str:
        words = [RAY, "job", *arguments]
        return subprocess.run(words, capture_output=True, timeout=100, **self.options()).stdout


@pytest.fixture
def submit(cluster: LocalCluster, tmp_path: Path) -> Submitter:
    cluster.start()
    return Submitter(cluster, tmp_path)


def test_jobs_of_stages(submit: Submitter, tmp_path: Path) -> None:
    output = tmp_path / "out"
    _ends_as_its_stage(submit, output)
    _is_told_by_its_id_alone(submit, output)
    _outlives_who_follows_it(submit, output)
    _keeps_no_secret(submit)
    _is_refused(submit)


def _ends_as_its_stage(submit: Submitter, output: Path) -> None:
    done = submit("prepare", "--dataset", "starter", "--output", f"{output}/train.jsonl")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "problems of" in done.stdout or "conversations of" in done.stdout
    assert (output / "train.jsonl").read_text().count("\n") > 10
    failed = submit("verify", "--input", "none.jsonl", "--output", f"{output}/none.parquet")
    assert failed.returncode == 2, failed.stdout + failed.stderr
    lines = [line for line in failed.stdout.splitlines() if "error:" in line]
    assert len(lines) == 1 and "none.jsonl" in lines[0], failed.stdout


def _is_told_by_its_id_alone(submit: Submitter, output: Path) -> None:
    detached = submit(
        "--detach", "prepare", "--dataset", "starter", "--output", f"{output}/b.jsonl"
    )
    assert detached.returncode == 0, detached.stderr
    name = detached.stdout.strip()
    assert detached.stdout == f"{name}\n" and name.startswith("prepare-")
    assert f"{output}/b.jsonl" in submit.ray_job("logs", "-f", name)
    assert (output / "b.jsonl").exists()


def _outlives_who_follows_it(submit: Submitter, output: Path) -> None:
    samples = [
        {"sample_id": f"s{n}", "language": "python", "tests": TESTS, "code": f"{SLEEPS} # {n}"}
        for n in range(ROWS)
    ]
    lines = "".join(f"{json.dumps(sample)}\n" for sample in samples)
    (submit.folder / "samples.jsonl").write_text(lines)
    asked = ("verify", "--input", "samples.jsonl", "--output", f"{output}/v.parquet")
    told = submit.folder / "told"
    with told.open("w") as stream:
        first = subprocess.Popen(
            submit.words(*asked), stdout=stream, stderr=subprocess.STDOUT, **submit.options()
        )
    assert wait_until(lambda: "Ray dashboard" in told.read_text(), 120), told.read_text()
    first.kill()
    first.wait()
    again = submit(*asked)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "runs already: this is that one" in again.stderr and "uploading" not in again.stderr
    assert f"Verdicts: {output}/v.parquet" in again.stdout
    verdicts = pq.read_table(output / "v.parquet").to_pylist()
    assert [verdict["outcome"] for verdict in verdicts] == ["passed"] * ROWS
    name = again.stderr.split("job ")[1].split()[0]
    third = submit(*asked)
    assert third.returncode == 0, third.stdout + third.stderr
    assert f"job {name.removesuffix('1')}2: uploading" in third.stderr
    assert f"all {ROWS} verdicts are there already" in third.stdout


def _keeps_no_secret(submit: Submitter) -> None:
    program = (
        "from ray.job_submission import JobSubmissionClient as Client\n"
        "print([job.model_dump_json() for job in Client().list_jobs()])"
    )
    words = [sys.executable, "-c", program]
    kept = subprocess.run(words, capture_output=True, timeout=100, **submit.options())
    assert "-m haloforge verify" in kept.stdout, kept.stderr
    assert SECRET not in kept.stdout


def _is_refused(submit: Submitter) -> None:
    asked = ("prepare", "--dataset", "starter", "--output", "/shared/x.jsonl")
    wrong = submit(*asked, RAY_AUTH_TOKEN="another")
    assert wrong.returncode == 3, wrong.stderr
    assert len(wrong.stderr.splitlines()) == 1 and "wants the cluster's token" in wrong.stderr
    began = time.monotonic()
    nowhere = submit("--address", "http://10.255.255.1:8265", *asked, no_proxy="*")
    assert nowhere.returncode == 3 and "no job server at" in nowhere.stderr, nowhere.stderr
    assert time.monotonic() - began < 15
    with (submit.folder / "big.jsonl").open("wb") as big:
        big.truncate(150 * 2**20)
    large = submit("verify", "--input", "big.jsonl", "--output", "/shared/v.parquet")
    assert large.returncode == 2
    assert "at most 100 are: big.jsonl (150 MB)" in large.stderr
