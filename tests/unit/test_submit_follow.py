"""How a job is submitted and followed, what breaks on the way, with no cluster."""

import json
import logging
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
import ray
from ray.job_submission import JobStatus

from haloforge import submit as module
from haloforge.errors import InfraError, ResourceError
from haloforge.submit import Job, connect, follow, submit

RAFT = Job("raft", ("raft", "train", "--output", "/shared/x"))
TAKEN = RuntimeError(
    "Request failed with status code 400: Traceback (most recent call last):\n  File x, line 1\n"
    "ValueError: Job with submission_id x already exists. Please use a different submission_id.\n."
)


class Client:
    """Stands for a cluster's job server: `says` are the words of each time that its log is read, an
    exception in their place breaks off there."""

    other = JobStatus.RUNNING
    last = ("a\n", "b\n")

    def __init__(self, says: list[list[Any]], code: int | None, status: str, message: str) -> None:
        self.says, self.submitted = says, dict[str, Any]()
        self.jobs: list[Any] = []
        self.refusals: list[Exception] = []
        self.gone: Exception | None = None
        self.ended = SimpleNamespace(
            status=JobStatus(status), driver_exit_code=code, message=message
        )

    def list_jobs(self) -> list[Any]:
        return self.jobs

    def submit_job(self, **asked: Any) -> str:
        if self.refusals:
            self.jobs.append(
                SimpleNamespace(submission_id=asked["submission_id"], status=self.other)
            )
            raise self.refusals.pop()
        self.submitted = asked
        folder = Path(asked["runtime_env"]["working_dir"])
        self.uploaded = {str(path.relative_to(folder)) for path in folder.rglob("*")}
        return str(asked["submission_id"])

    async def tail_job_logs(self, name: str) -> AsyncIterator[str]:
        for words in self.says.pop(0) if self.says else self.last:
            if isinstance(words, Exception):
                raise words
            yield words

    def get_job_info(self, name: str) -> Any:
        running = SimpleNamespace(status=JobStatus.RUNNING)
        if self.gone is not None:
            raise self.gone
        return running if self.says else self.ended


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def followed(
    says: list[list[Any]], code: int | None = 0, status: str = "SUCCEEDED", message: str = ""
) -> tuple[str, int]:
    heard: list[str] = []
    ended = follow(Client(says, code, status, message), "raft-1", heard.append)
    return "".join(heard), ended


def test_a_job_is_followed_to_its_end_and_its_exit_code_is_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_AGAIN_S", 0)
    assert followed([["a\n", "b\n"]], 3, "FAILED") == ("a\nb\n", 3)
    # The log is read from its beginning again, and nothing is told twice.
    broken = RuntimeError("WebSocket connection closed unexpectedly")
    assert followed([["a\n", broken], ["a\nb", "c\n"]]) == ("a\nbc\n", 0)
    assert followed([["a\n"], ["a\nb\n"]]) == ("a\nb\n", 0)


def test_a_job_without_an_exit_code_is_a_failure_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AGAIN_S", 0)
    with pytest.raises(InfraError, match=r"^job raft-1 failed: no such package$"):
        followed([["a\n"]], None, "FAILED", "no such package\nat line 1")
    with pytest.raises(InfraError, match=r"^job raft-1 stopped"):
        followed([["a\n"]], None, "STOPPED")


def handshake(status: int) -> aiohttp.WSServerHandshakeError:
    request: Any = SimpleNamespace(real_url="http://head/api/jobs/raft-1/logs/tail")
    return aiohttp.WSServerHandshakeError(request, (), status=status, message="Invalid response")


@pytest.mark.parametrize(
    "broken",
    [handshake(502), aiohttp.ServerDisconnectedError(), aiohttp.ClientPayloadError(), OSError("x")],
)
def test_a_tunnel_or_a_dashboard_that_restarts_is_waited_for(
    broken: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AGAIN_S", 0)
    assert followed([["a\n", broken], [broken], ["a\n", "b\n"]], 3, "FAILED") == ("a\nb\n", 3)
    # What it said last is asked for again, but not for ever.
    assert followed([["a\n", broken]]) == ("a\nb\n", 0)
    assert followed([["a\n", broken], *[[broken]] * 9]) == ("a\n", 0)


def test_a_cluster_that_is_gone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AGAIN_S", 0)
    monkeypatch.setattr(module, "_PATIENCE_S", 0)
    client = Client([], 0, "SUCCEEDED", "")
    client.gone = ConnectionError("refused")
    with pytest.raises(InfraError, match=r"raft-1 answers no more \(refused\)"):
        follow(client, "raft-1", print)


def test_a_job_that_a_new_head_does_not_know_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_AGAIN_S", 0)
    client = Client([], 0, "SUCCEEDED", "")
    client.gone = RuntimeError("Request failed with status code 404: Job raft-1 does not exist.")
    with pytest.raises(InfraError, match=r"head was started anew.*submitted again it goes on"):
        follow(client, "raft-1", print)
    # A proxy may say 404 too; the job that is listed is there.
    client.jobs = [SimpleNamespace(submission_id="raft-1", status=JobStatus.RUNNING)]
    monkeypatch.setattr(module, "_PATIENCE_S", 0)
    with pytest.raises(InfraError, match="answers no more"):
        follow(client, "raft-1", print)


def test_a_terminal_that_is_gone_is_no_broken_connection() -> None:
    def closed(words: str) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(InfraError, match=r"cannot be written .*Broken pipe.*it goes on"):
        follow(Client([["a\n"]], 0, "SUCCEEDED", ""), "raft-1", closed)


def test_the_same_job_is_not_started_twice() -> None:
    job = Job("raft", ("raft", "train", "--cycles", "2"))
    client = Client([], 0, "SUCCEEDED", "")
    first = submit(client, job, print)
    assert first == f"{job.name}-1"
    assert client.submitted["entrypoint"] == "python -m haloforge raft train --cycles 2"
    assert "haloforge/__main__.py" in client.uploaded
    client.submitted = {}
    running = SimpleNamespace(submission_id=first, status=JobStatus.RUNNING)
    client.jobs = [SimpleNamespace(submission_id=None, status=JobStatus.RUNNING), running]
    assert submit(client, job, print) == first and not client.submitted
    running.status = JobStatus.FAILED
    assert submit(client, job, print) == f"{job.name}-2"
    assert Job("raft", ("raft", "train", "--cycles", "3")).name != job.name


def test_the_number_follows_the_highest_known() -> None:
    client = Client([], 0, "SUCCEEDED", "")
    for name in (f"{RAFT.name}-7", f"{RAFT.name}-x", f"{RAFT.name}", "other-9", None):
        client.jobs.append(SimpleNamespace(submission_id=name, status=JobStatus.STOPPED))
    assert submit(client, RAFT, print) == f"{RAFT.name}-8"


def test_another_that_submits_the_same_at_once_is_joined_or_followed_on() -> None:
    client = Client([], 0, "SUCCEEDED", "")
    client.refusals = [TAKEN]
    assert submit(client, RAFT, print) == f"{RAFT.name}-1" and not client.submitted
    client = Client([], 0, "SUCCEEDED", "")
    client.other, client.refusals = JobStatus.FAILED, [TAKEN, TAKEN]
    assert submit(client, RAFT, print) == f"{RAFT.name}-3"
    client.refusals = [TAKEN] * 9
    with pytest.raises(InfraError, match="already exists"):
        submit(client, RAFT, print)


def test_what_the_server_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client([], 0, "SUCCEEDED", "")
    failed = "Request failed with status code 500: Traceback (most):\n x\nKeyError: 'y'\n."
    for refusal, told in (
        (RuntimeError(failed), "KeyError: 'y'"),
        (ConnectionError("Broken\npipe"), "Broken"),
    ):
        client.refusals = [refusal]
        client.jobs = []
        with pytest.raises(InfraError, match=f"did not take job raft-.*: .*{told}$") as raised:
            submit(client, RAFT, print)
        assert "\n" not in str(raised.value)

    def broken() -> list[Any]:
        raise RuntimeError("Request failed with status code 502: Bad gateway.")

    monkeypatch.setattr(client, "list_jobs", broken)
    with pytest.raises(InfraError, match=r"does not list its jobs: .*502"):
        submit(client, RAFT, print)


def test_nothing_of_the_environment_goes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "verysecret")
    client = Client([], 0, "SUCCEEDED", "")
    submit(client, RAFT, print)
    assert {*client.submitted} == {"entrypoint", "submission_id", "runtime_env"}
    assert {*client.submitted["runtime_env"]} == {"working_dir"}
    assert "verysecret" not in json.dumps(client.submitted)


@pytest.mark.parametrize("scheme", ["http", "https", ""])
def test_a_server_that_does_not_answer_is_not_waited_for(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CONNECT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection, says nothing
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ResourceError, match=r"no job server at .*: no answer in 0\.2 s$"):
            connect(f"{scheme}://{address}" if scheme else address)
    with pytest.raises(ResourceError, match="no job server at ") as refused:
        connect(f"{scheme}://{address}" if scheme else address)
    assert "\n" not in str(refused.value)


@contextmanager
def answering(status: int, body: str) -> Iterator[str]:
    """The address of a server that gives this answer to all that is asked."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (401, "", "wants the cluster's token"),
        (403, "", "wants the cluster's token"),
        (404, "not here", "Version check returned 404"),
        (502, "bad gateway", "502 Server Error"),
        (200, "<html>", ""),
        (200, "{}", "ray_version"),
        (200, "[]", ""),
    ],
)
def test_what_is_no_job_server_or_lets_nobody_in_is_one_line(
    status: int, body: str, told: str
) -> None:
    raises = pytest.raises(ResourceError, match="job server at http")
    with answering(status, body) as address, raises as refused:
        connect(address)
    assert told in str(refused.value) and "\n" not in str(refused.value)


def test_what_ray_says_of_its_requests_is_not_shown() -> None:
    loggers = [
        logging.getLogger(f"ray.{name}")
        for name in (
            "dashboard.modules.dashboard_sdk",
            "dashboard.modules.job.sdk",
            "_private.runtime_env.packaging",
        )
    ]
    for logger in loggers[:2]:
        logger.setLevel(logging.INFO)  # as Ray does
    with answering(200, json.dumps({"ray_version": ray.__version__})) as address:
        connect(address)
    assert not [logger.name for logger in loggers if logger.isEnabledFor(logging.INFO)]
