"""Serving on several nodes, by Ray Serve's own configuration, by `--address` and as a job; and
replicas that come and go."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml
from openai import OpenAI

from tests.adapters import random_adapter
from tests.cluster_files import manifest
from tests.local_cluster import RAY, LocalCluster
from tests.processes import free_port, wait_until
from tests.serving import served

KEY = "key-of-the-service"
SMALL = {"rollout.max_model_len": 512, "rollout.kv_cache_gb": 0.1, "rollout.max_num_seqs": 8}
QUESTION: list[Any] = [{"role": "user", "content": "Print 42."}]
SERVE = str(Path(sys.executable).with_name("serve"))

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tiny_model: Path, tmp_path: Path) -> Path:
    """The folder of a RAFT run of two cycles."""
    for cycle in (1, 2):
        random_adapter(tiny_model, tmp_path / "raft" / f"cycle_{cycle}_final", cycle)
    return tmp_path / "raft"


def client_at(port: int, key: str = "none") -> OpenAI:
    return OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key, max_retries=0, timeout=300)


def names_at(client: OpenAI) -> list[str]:
    try:
        return [model.id for model in client.models.list().data]
    except openai.AuthenticationError:
        raise
    except openai.OpenAIError:
        return []


def answer(client: OpenAI, model: str) -> Any:
    return client.chat.completions.create(
        model=model, messages=QUESTION, max_tokens=8, temperature=0
    )


def test_the_service_s_configuration_serves_a_run_and_wants_the_key(
    cluster: LocalCluster, run: Path, tmp_path: Path
) -> None:
    cluster.environment["HALOFORGE_API_KEY"] = KEY
    cluster.start()
    port = free_port()
    config = yaml.safe_load(manifest("RayService")["spec"]["serveConfigV2"])
    [application] = config["applications"]
    application["args"].update({"serve.models": [str(run)], **SMALL})
    del application["args"]["ray.scales_to"]  # there are no GPUs
    config |= {"proxy_location": "HeadOnly", "http_options": {"host": "127.0.0.1", "port": port}}
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(config))
    address = cluster.client["RAY_API_SERVER_ADDRESS"]
    done = subprocess.run(
        [SERVE, "deploy", str(tmp_path / "serve.yaml"), "--address", address],
        env=cluster.client,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    client = client_at(port, KEY)
    expected = ["cycle_1_final", "cycle_2_final", "latest", "tiny"]
    assert wait_until(lambda: names_at(client) == expected, 240)
    by_name = {name: answer(client, name) for name in expected}
    assert by_name["latest"].model == by_name["cycle_2_final"].model
    texts = {name: each.choices[0].message.content for name, each in by_name.items()}
    assert texts["latest"] == texts["cycle_2_final"] != texts["cycle_1_final"]
    with pytest.raises(openai.AuthenticationError):
        names_at(client_at(port))


def test_a_command_changes_what_a_cluster_serves_and_a_job_ends_with_it(
    cluster: LocalCluster, run: Path, tmp_path: Path
) -> None:
    cluster.start()
    port = free_port()

    def forge(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "haloforge", *words],
            env=cluster.client,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=400,
        )

    sets = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]
    common = ["--port", str(port), *sets]
    head = cluster.client["RAY_ADDRESS"]
    first = run / "cycle_1_final"
    done = forge("serve", "--model", str(first), "--address", head, "--detach", *common)
    assert done.returncode == 0, done.stderr
    client = client_at(port)
    assert names_at(client) == ["cycle_1_final", "tiny"], "it stays when the command has ended"
    old = answer(client, "cycle_1_final").choices[0].message.content
    done = forge("serve", "--model", f"new={run}", "--address", head, "--detach", *common)
    assert done.returncode == 0, done.stderr
    assert names_at(client) == ["new/cycle_1_final", "new/cycle_2_final", "new/latest", "tiny"]
    assert answer(client, "new/cycle_1_final").choices[0].message.content == old
    server = cluster.client["RAY_API_SERVER_ADDRESS"]
    shutdown = [SERVE, "shutdown", "-y", "--address", server]
    subprocess.run(shutdown, env=cluster.client, check=True, timeout=100)
    assert wait_until(lambda: not names_at(client), 60)
    job = ["submit", "--detach", "--address", server, "serve", "--model", str(first)]
    done = forge(*job, *common)
    assert done.returncode == 0, done.stderr
    assert wait_until(lambda: names_at(client) == ["cycle_1_final", "tiny"], 240)
    stop = [RAY, "job", "stop", done.stdout.strip(), "--address", server]
    subprocess.run(stop, env=cluster.client, check=True, capture_output=True, timeout=100)
    assert wait_until(lambda: not names_at(client), 60), "the app ends with its job"


def test_replicas_come_with_the_requests_and_go(run: Path, tmp_path: Path) -> None:
    settings = [f"{name}={value}" for name, value in SMALL.items()]
    settings += ["serve.max_replicas=2", "serve.target_ongoing_requests=1"]
    settings += ["serve.upscale_delay_s=1", "serve.downscale_delay_s=5"]
    with served([str(run)], tmp_path / "log", *settings, environment=os.environ) as server:
        client = OpenAI(base_url=server.address, api_key="none", max_retries=0, timeout=200)
        stop = threading.Event()

        lost: list[Exception] = []

        def ask() -> None:
            while not stop.is_set():
                try:
                    client.chat.completions.create(
                        model="latest", messages=QUESTION, max_tokens=200
                    )
                except openai.OpenAIError as error:
                    lost.append(error)

        askers = [threading.Thread(target=ask) for _ in range(6)]
        for asker in askers:
            asker.start()
        try:
            assert len(server.replicas()) == 1
            assert wait_until(lambda: len(server.replicas()) == 2, 120)
        finally:
            stop.set()
            for asker in askers:
                asker.join()
        assert not lost, "a request while they came"
        assert wait_until(lambda: len(server.replicas()) == 1, 120)
        assert answer(client, "latest").choices[0].message.content is not None
        shutil.rmtree(run)
        with pytest.raises(openai.NotFoundError):
            answer(client, "cycle_1_final")
        assert answer(client, "tiny").model == "tiny", "the base does not need the run"
