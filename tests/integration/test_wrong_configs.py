"""What cannot be is refused by a real cluster in one line with the numbers, before any work, and
nothing waits: each has the 30 seconds of its time limit."""

import subprocess
from pathlib import Path

import pytest

from tests.integration.test_pipeline import toy
from tests.local_cluster import LocalCluster
from tests.processes import free_port

WRONG = [
    ("rollout.engines=99", "99 CPU engines for 1 CPUs: lower rollout.engines"),
    ("rollout.tensor_parallel=2", "rollout.tensor_parallel needs GPUs; on CPUs leave it at 1"),
    ("verify.resource=judge", "no node with a CPU has the Ray resource 'judge' of verify.resource"),
    ("ray.compute_resource=a100", "no node has a CPU and the Ray resource 'a100'"),
    (
        "ray.scales_to=[{count: 2, resources: {CPU: 4, gpu: 1}}]; rollout.engines=64",
        "64 CPU engines for 8 CPUs: lower rollout.engines; that counts all 2 nodes",
    ),
    ("train.workers=500", "1 engines and 500 trainers takes"),
    ("rollout.kv_cache_gb=900", "GB of memory (KV cache 900.0"),
    ("rollout.max_model_len=100000", "is more than the 8192 positions that smollm2-135m knows"),
    ("verify.max_actors=0", "setting verify.max_actors: Input should be greater than 0"),
    ("rollout.dtype=int8", "rollout.dtype"),
    ("ray.address=127.0.0.1:{free_port}", "no Ray at 127.0.0.1:"),
    ("output=s3://nowhere/run", "s3://nowhere/run"),
]


@pytest.mark.slow
def test_none_of_them_hangs(cluster: LocalCluster, tmp_path: Path) -> None:
    cluster.start()
    command = toy(tmp_path)
    client = {
        **cluster.client,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
    }
    steered = ("verify.resource=verifier", "ray.compute_resource=gpu")
    failures = []
    for assignments, told in WRONG:
        given = [*steered, *assignments.replace("{free_port}", str(free_port())).split("; ")]
        words = [word for each in given for word in ("--set", each)]
        try:
            done = subprocess.run(
                [*command, *words], env=client, capture_output=True, text=True, timeout=30
            )
        except subprocess.TimeoutExpired as error:
            failures.append(f"{assignments}: still running: {error.stderr!r}")
            continue
        last = done.stderr.strip().splitlines()[-1]
        right = done.returncode in (2, 3, 4) and last.startswith("halo-forge: error: ")
        if not right or told not in last or "Traceback" in done.stderr:
            failures.append(f"{assignments}: exit code {done.returncode}: {done.stderr}")
        assert not list(tmp_path.glob("run/**/commits/*")), "no work was begun"
    assert not failures, "\n".join(failures)
