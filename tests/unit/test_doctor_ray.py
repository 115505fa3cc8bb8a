"""What `halo-forge doctor` finds of Ray, with servers that are none or that refuse."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from aiohttp import web

from haloforge.doctor import cluster
from haloforge.doctor.cluster import (
    check_authentication,
    check_cluster,
    check_job_server,
    check_private,
    find_token,
    without_secrets,
)
from haloforge.doctor.finding import Status
from tests.processes import free_port

SECRET = "xyzzyxyzzyxyzzyxyzzyxyzzyxyzzyxy"


@contextmanager
def server(status: int, body: Any, token: str | None = None) -> Iterator[str]:
    """A job server that answers so; 403 where the token is another one."""

    async def version(request: web.Request) -> web.Response:
        given = request.headers.get("Authorization")
        if token is not None and given != f"Bearer {token}":
            return web.Response(status=403 if given else 401, text="no")
        return web.json_response(body, status=status)

    loop, port, up = asyncio.new_event_loop(), free_port(), threading.Event()

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_get("/api/version", version)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        return runner

    def serve() -> None:
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(start())
        up.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=serve)
    thread.start()
    assert up.wait(20)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def token(text: str = SECRET) -> dict[str, str]:
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": text}


def test_a_job_server_with_the_right_a_wrong_and_no_token(tmp_path: Path) -> None:
    import ray

    with server(200, {"ray_version": ray.__version__}, SECRET) as address:
        right = check_job_server(address, token())
        assert right.status is Status.OK and "takes the token" in right.found
        wrong = check_job_server(address, token("another"))
        assert wrong.status is Status.FAULT and "refuses the token (403)" in wrong.found
        none = check_job_server(address, {}, tmp_path)
        assert none.status is Status.FAULT and "none is set (401)" in none.found
        assert none.advice and "RAY_AUTH_TOKEN_PATH" in none.advice
        for found in (right, wrong, none):
            assert SECRET not in repr(found)


def test_a_server_of_another_version_and_one_that_is_no_ray(tmp_path: Path) -> None:
    with server(200, {"ray_version": "1.0"}) as address:
        found = check_job_server(address, {}, tmp_path)
        assert found.status is Status.WARNING and "Ray 1.0, but" in found.found
    with server(200, ["hello"]) as address:
        assert "not as Ray's job server" in check_job_server(address, {}, tmp_path).found
    with server(502, {}) as address:
        assert check_job_server(address, {}, tmp_path).status is Status.FAULT


def test_a_port_that_nothing_listens_on() -> None:
    port = free_port()
    found = check_job_server(f"http://127.0.0.1:{port}", {})
    assert found.status is Status.FAULT and "nothing listens there" in found.found
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        found = check_cluster(address, None, compare=True)
        assert found.status is Status.FAULT and "Connection refused" in found.found


def test_an_address_without_a_port_says_which_two_it_may_be() -> None:
    found = check_cluster("head", None, compare=True)
    assert found.status is Status.FAULT and found.advice is not None
    assert found.advice.splitlines() == [
        "halo-forge doctor --address head:6379",
        "halo-forge doctor --address http://head:8265",
    ]


def test_what_listens_and_never_answers_is_told_in_time() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        found = check_cluster(address, None, compare=False, patience=3)
    assert found.status is Status.FAULT and "did not let this machine in" in found.found


@pytest.mark.parametrize(
    ("told", "status", "words"),
    [
        ({"refused": "x"}, "fault", "refuses the token"),
        ({"nodes": 2, "unreached": "no raylet"}, "fault", "it cannot be joined: no raylet"),
        ({"unreached": "no"}, "fault", "h:1: no"),
        ({"nodes": 2, "differences": "node b: ray 1 (here 2)"}, "fault", "node b: ray 1 (here 2)"),
        ({"nodes": 3, "silent": 1}, "warning", "3 node(s) live, of which 1 do not say"),
        ({"nodes": 3, "silent": 0}, "ok", "3 node(s) live, with the versions"),
    ],
)
def test_what_a_cluster_says(told: dict[str, Any], status: str, words: str) -> None:
    found = cluster._told("h:1", told, compare=True)
    assert found.status == status and words in found.found
    assert (found.advice is None) == (status == "ok")


def test_where_a_token_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{SECRET}\n")
    named = {"RAY_AUTH_TOKEN_PATH": str(file)}
    assert find_token(named).header == {"Authorization": f"Bearer {SECRET}"}
    assert not find_token({**named, "RAY_AUTH_MODE": "disabled"}).header
    assert find_token({**named, **token("first")}).header["Authorization"] == "Bearer first"
    assert not find_token({}, tmp_path).header
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(SECRET)
    assert find_token({}, tmp_path).header["Authorization"].endswith(SECRET)
    assert SECRET not in repr(find_token(token()))


@pytest.mark.parametrize("given", ["variable", "file", "home", "home, no mode"])
def test_the_token_is_the_one_that_ray_sends(given: str, tmp_path: Path) -> None:
    home, file = tmp_path / "home", tmp_path / "token"
    (home / ".ray").mkdir(parents=True)
    environment = {"RAY_AUTH_MODE": "token", "HOME": str(home)}
    (home / ".ray" / "auth_token").write_text("of-home-of-home-of-home-of-home\n")
    file.write_text("of-file-of-file-of-file-of-file\n")
    if given in ("variable", "file"):
        environment["RAY_AUTH_TOKEN_PATH"] = str(file)
    if given == "variable":
        environment["RAY_AUTH_TOKEN"] = "of-variable-of-variable-of-vari"
    if given == "home, no mode":
        del environment["RAY_AUTH_MODE"]
    words = (
        "from ray._private.authentication import authentication_token_setup as setup\n"
        "from ray._raylet import AuthenticationTokenLoader\n"
        "setup.maybe_enable_token_auth_if_token_available()\n"
        "print(dict(AuthenticationTokenLoader.instance().get_token_for_http_header()))"
    )
    inherited = {name: value for name, value in os.environ.items() if "RAY" not in name}
    done = subprocess.run(
        [sys.executable, "-c", words],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    sent = json.loads(done.stdout.strip().splitlines()[-1].replace("'", '"'))
    assert [*sent.values()] == [*find_token(environment, home).header.values()], done.stderr


def test_what_is_wrong_with_a_token(tmp_path: Path) -> None:
    def check(environment: dict[str, str]) -> tuple[str, str]:
        found = check_authentication(False, environment, tmp_path)
        assert SECRET not in repr(found)
        return found.status, f"{found.found} {found.advice}"

    assert check(token())[0] == "ok"
    assert check({})[0] == "ok"
    status, told = check({"RAY_AUTH_MODE": "token"})
    assert status == "fault" and "there is no token" in told
    status, told = check({"RAY_AUTH_TOKEN_PATH": "/nowhere"})
    assert status == "fault" and "/nowhere cannot be read" in told
    status, told = check({"RAY_AUTH_MODE": "disabled"})
    assert status == "warning" and "can run code" in told


def test_a_token_that_others_may_read() -> None:
    with TemporaryDirectory(dir="/tmp") as folder:  # whose folders above are open to all
        file = Path(folder, "token")
        file.write_text(SECRET)
        file.chmod(0o644)
        named = {"RAY_AUTH_TOKEN_PATH": str(file)}
        assert check_authentication(True, named).status is Status.OK  # nobody gets to it
        Path(folder).chmod(0o755)
        found = check_authentication(True, named)
        assert found.status is Status.WARNING and found.advice == f"chmod 600 {file}"
        file.chmod(0o600)
        assert check_authentication(True, named).status is Status.OK


def test_a_private_ray_needs_a_short_path(tmp_path: Path) -> None:
    assert check_private({}).status is Status.OK
    found = check_private({"RAY_TMPDIR": str(tmp_path / ("x" * 60))})
    assert found.status is Status.FAULT and "too long a path" in found.found


def test_secrets_in_addresses_are_not_shown() -> None:
    assert without_secrets("http://me:XYZZY@head:8265/a?token=XYZZY") == "http://head:8265/a"
    for rest in ("/#token=XYZZY", "#XYZZY", "/;XYZZY", "?XYZZY", ";XYZZY", ":XYZZY", "/#://XYZZY"):
        shown = without_secrets(f"http://me:XYZZY@head:8265{rest}")
        assert shown.rstrip("/") == "http://head:8265", rest
    assert without_secrets("http://[::1]:8265/#XYZZY") == "http://[::1]:8265/"
    assert without_secrets("auto") == "auto"
    assert without_secrets("ray://head:10001") == "ray://head:10001"
    assert without_secrets("head:6379") == "head:6379"
    found = check_job_server(f"http://me:XYZZY@127.0.0.1:{free_port()}", {})
    assert "XYZZY" not in repr(found)


def test_an_address_that_is_none_is_told() -> None:
    found = check_job_server("127.0.0.1:8265", {})
    assert found.status is Status.FAULT and "http:// is missing" in found.found
    assert found.advice == "export RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265"
    for address in ("127.0.0.1:99999", "127.0.0.1:0", "127.0.0.1:x", "ray://[::1:7"):
        found = check_cluster(address, None, compare=False)
        assert found.status is Status.FAULT and "no host with a port" in found.found, address
