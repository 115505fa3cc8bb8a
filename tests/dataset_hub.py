"""A stand-in for the Hugging Face Hub: data sets of a folder, as its HTTP interface serves them."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

NEWEST = "89abcdef0123456789abcdef0123456789abcdef"
"""The commit that each data set has as its main branch."""


class _StandInHub(BaseHTTPRequestHandler):
    """Data set `owner/name` is the folder of that name in `folder`, at any revision but one that is
    called `nowhere`."""

    folder: Path
    asked: list[str]

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, with_body: bool) -> None:
        path = unquote(self.path.partition("?")[0])
        self.asked.append(path)
        if found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            if (self.folder / found[1]).is_dir():
                if found[2] == "nowhere":
                    self._refuse("RevisionNotFound")
                    return
                sha = found[2] if found[2] and len(found[2]) == 40 else NEWEST
                self._send(json.dumps({"id": found[1], "sha": sha}).encode(), with_body)
                return
        elif found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/tree/[^/]+/?(.*)", path):
            root = self.folder / found[1]
            entries = [_entry(each, root) for each in sorted((root / found[2]).rglob("*"))]
            within = "recursive=true" in self.path.lower()
            rows = [e for e in entries if within or Path(e["path"]).parent == Path(found[2])]
            self._send(json.dumps(rows).encode(), with_body)
            return
        elif found := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            file = self.folder / found[1] / found[2]
            if file.is_file():
                self._send(file.read_bytes(), with_body)
                return
        self._refuse("RepoNotFound")

    def _refuse(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, body: bytes, with_body: bool) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        self.send_response(206 if wanted else 200)
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        if wanted:
            start, end = int(wanted[1]), int(wanted[2] or len(body) - 1)
            end = min(end, len(body) - 1)
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(body)}")
            body = body[start : end + 1]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)


def _entry(path: Path, root: Path) -> dict[str, Any]:
    name = str(path.relative_to(root))
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": NEWEST, "size": 0}
    return {"type": "file", "path": name, "oid": NEWEST, "size": path.stat().st_size}


@contextmanager
def dataset_hub(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Address of the stand-in, and the paths that it was asked for."""
    asked: list[str] = []
    handler = type("Hub", (_StandInHub,), {"folder": folder, "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
