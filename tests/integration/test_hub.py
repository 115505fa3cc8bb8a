"""A Hugging Face id resolves through the hub client's own requests, against a local stand-in."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

REVISION = "0123456789abcdef0123456789abcdef01234567"
NAME = "acme/tiny-coder"
RESOLVE = """
import sys
from haloforge.model.bases import resolve_base
base = resolve_base(sys.argv[1])
print(base.public_id, base.digest, base.license, base.path)
"""


class StandInHub(BaseHTTPRequestHandler):
    """Serves the files of `folder` as the one model `NAME`, as the hub's HTTP interface does."""

    folder: Path

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        wanted = self.folder / path.rpartition("/")[2]
        if path in (f"/api/models/{NAME}/revision/main", f"/api/models/{NAME}"):
            files = [{"rfilename": file.name} for file in self.folder.iterdir()]
            facts = {"id": NAME, "sha": REVISION, "siblings": files}
            self._send(json.dumps(facts).encode(), with_body)
        elif path == f"/api/models/{NAME}/tree/{REVISION}":
            tree = [
                {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": REVISION}
                for f in self.folder.iterdir()
            ]
            self._send(json.dumps(tree).encode(), with_body)
        elif path.startswith(f"/{NAME}/resolve/") and wanted.is_file():
            self._send(wanted.read_bytes(), with_body)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _send(self, body: bytes, with_body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.end_headers()
        if with_body:
            self.wfile.write(body)


@pytest.fixture
def hub(tiny_model: Path) -> Iterator[str]:
    handler = type("Hub", (StandInHub,), {"folder": tiny_model})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def resolve(name: str, hub: str, home: Path) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"}
    return subprocess.run(
        [sys.executable, "-c", RESOLVE, name],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_an_id_resolves_to_its_revision(hub: str, tmp_path: Path, tiny_model: Path) -> None:
    done = resolve(NAME, hub, tmp_path)
    assert done.returncode == 0, done.stderr
    public_id, digest, license, path = done.stdout.split()
    assert (public_id, digest, license) == (NAME, REVISION, "None")
    weights = (Path(path) / "model.safetensors").read_bytes()
    assert weights == (tiny_model / "model.safetensors").read_bytes()


def test_an_unknown_id_is_a_failure_of_ours_that_says_what_to_check(
    hub: str, tmp_path: Path
) -> None:
    done = resolve("acme/nothing", hub, tmp_path)
    assert "ResourceError" in done.stderr
    assert "check the id and the connection" in done.stderr
