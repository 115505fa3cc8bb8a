"""A cluster of `cluster/local.sh` in a folder of its own, and its clients."""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.processes import living

SCRIPT = Path(__file__).parents[1] / "cluster" / "local.sh"
RAY = str(Path(sys.executable).with_name("ray"))


class LocalCluster:
    """`environment` is that of the script; `client` that of who uses the cluster, once started."""

    def __init__(self, made: str) -> None:
        self.folder = Path(made) / "local"
        named = {"HALOFORGE_LOCAL": str(self.folder), "HALOFORGE_PYTHON": sys.executable}
        self.environment = {**os.environ, **named}
        self.client: dict[str, str] = {}

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """The script with `arguments`."""
        words = [str(SCRIPT), *arguments]
        return subprocess.run(
            words, env=self.environment, cwd="/", capture_output=True, text=True, timeout=400
        )

    def start(self) -> None:
        """Its nodes, with one CPU each; those that run already stay."""
        started = self.run("start", "--gpu-cpus", "1", "--verifier-cpus", "1")
        assert started.returncode == 0, started.stderr
        lines = [shlex.split(line)[1] for line in started.stdout.splitlines()]
        self.client = {**self.environment, **dict(line.split("=", 1) for line in lines)}

    def states(self) -> set[tuple[str, str]]:
        """Name and state of each node, as Ray has it."""
        lines = self.run("nodes").stdout.splitlines()
        return {(line.split()[0], line.split()[1]) for line in lines}

    def processes(self) -> list[psutil.Process]:
        """Those that name its folder: Ray's carry it on their command lines."""
        found = []
        for process in psutil.process_iter():
            try:
                if any(str(self.folder) in word for word in process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return living(found)


@contextmanager
def local_cluster() -> Iterator[LocalCluster]:
    """A cluster that is yet to be started, and is ended after. Ray's sockets want a short path."""
    with tempfile.TemporaryDirectory(prefix="hf", dir="/tmp") as made:
        cluster = LocalCluster(made)
        try:
            yield cluster
        finally:
            cluster.run("stop")
