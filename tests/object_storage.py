"""A real S3 server on this machine (moto's), for tests of what is kept in object storage."""

import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes import free_port

BUCKET = "runs"


@contextmanager
def s3_server(log: Path) -> Iterator[str]:
    """Its address. Skips where moto's server is not installed."""
    beside = Path(sys.executable).with_name("moto_server")
    program = str(beside) if beside.exists() else shutil.which("moto_server")
    if program is None:
        pytest.skip("moto's server is not installed: make venv")
    address = f"http://127.0.0.1:{(port := free_port())}"
    with log.open("wb") as out:
        server = subprocess.Popen(
            [program, "-H", "127.0.0.1", "-p", str(port)], stdout=out, stderr=out
        )
    try:
        request = urllib.request.Request(f"{address}/{BUCKET}", method="PUT")
        for _ in range(300):
            try:
                urllib.request.urlopen(request, timeout=10).close()
                break
            except OSError:
                assert server.poll() is None, log.read_text()
                time.sleep(0.1)
        yield address
    finally:
        server.kill()
        server.wait()


def environment(address: str) -> dict[str, str]:
    """What makes every S3 client of a process use the server at `address`."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
