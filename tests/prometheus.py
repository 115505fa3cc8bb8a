"""A real Prometheus in a folder of its own, and what it says."""

import json
import shutil
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster.grafana import up
from tests.processes import free_port, wait_until

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed"
)


class Prometheus:
    """What the server at `url` knows."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, parameters: Mapping[str, object] | None = None) -> Any:
        """The data of an answer of its API."""
        query = urllib.parse.urlencode(parameters or {})
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=30) as answer:
            told = json.load(answer)
        assert told["status"] == "success", told
        return told["data"]

    def over(self, expression: str, start: float, end: float) -> list[dict[str, Any]]:
        """The series of an expression, each with its values, second by second."""
        asked = {"query": expression, "start": start, "end": end, "step": 1}
        return list(self.ask("query_range", asked)["result"])


@contextmanager
def prometheus(folder: Path, address: str | None = None) -> Iterator[Prometheus]:
    """One that asks Ray once a second, by the files that `up.py` writes."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    up.write_files(folder, url, address, scrape="1s")
    process = up.start_prometheus("prometheus", folder, port)
    try:
        ready = wait_until(lambda: up.taken(port) or process.poll() is not None, 30)
        assert ready and process.poll() is None, (folder / "prometheus.log").read_text()
        yield Prometheus(url)
    finally:
        process.terminate()
        process.wait(20)
