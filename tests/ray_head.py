"""A Ray head of its own with a token, in a folder of its own."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.processes import family, free_port, living, wait_until

TOKEN = "plugh-plugh-plugh-plugh-plugh-plugh"


class Head(NamedTuple):
    """Where it answers, and the environment of a client that may use it."""

    address: str
    job_server: str
    client: dict[str, str]


@contextmanager
def ray_head() -> Iterator[Head]:
    """A head with one CPU, ended after. Ray's sockets want a short path."""
    with tempfile.TemporaryDirectory(prefix="hf", dir="/tmp") as made:
        client = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        client |= {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        dashboard = free_port()
        words = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
        words += ["--num-cpus=1", "--num-gpus=0", f"--port={free_port()}", f"--temp-dir={made}/ray"]
        words += [f"--dashboard-port={dashboard}", f"--ray-client-server-port={free_port()}"]
        words += ["--dashboard-host=127.0.0.1", f"--object-store-memory={128 * 2**20}"]
        words += ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
        log = Path(made, "log")
        with log.open("w") as output:
            head = subprocess.Popen(
                words, env=client, stdout=output, stderr=output, start_new_session=True
            )
        told = Path(made, "ray", "ray_current_cluster")
        try:
            up = wait_until(lambda: told.exists() or head.poll() is not None, 180)
            assert up and head.poll() is None, log.read_text()
            yield Head(told.read_text().strip(), f"http://127.0.0.1:{dashboard}", client)
        finally:
            processes = family(head.pid) if head.poll() is None else []
            head.send_signal(signal.SIGTERM)
            head.wait(60)
            wait_until(lambda: not living(processes), 20)
            for process in living(processes):
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
