"""`cluster/grafana/up.py` as a command: its files, both programs, a Grafana that is there already.

Grafana itself is a stand-in here; Prometheus is real.
"""

import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.grafana import up
from cluster.grafana.dashboard import dashboard
from tests.processes import free_port, wait_until

UP = Path(up.__file__)
SERVES = """#!{python}
import http.server, json, os
asked = {{name: value for name, value in os.environ.items() if name.startswith("GF_")}}
with open({told!r}, "w") as file:
    json.dump(asked, file)
port = int(os.environ["GF_SERVER_HTTP_PORT"])
http.server.HTTPServer(("127.0.0.1", port), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def test_files_for_the_ray_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    own = tmp_path / "ray" / "session_latest" / "metrics" / "grafana" / "dashboards"
    own.mkdir(parents=True)
    folder = tmp_path / "made"
    done = subprocess.run(
        [sys.executable, str(UP), "--only-files", "--folder", str(folder)],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, f"{folder}\n"), done.stderr
    config = yaml.safe_load((folder / "prometheus.yml").read_text())
    [found] = config["scrape_configs"][0]["file_sd_configs"]
    assert found["files"] == [str(tmp_path / "ray" / "prom_metrics_service_discovery.json")]
    provisioning = folder / "provisioning"
    [source] = yaml.safe_load((provisioning / "datasources/haloforge.yaml").read_text())[
        "datasources"
    ]
    assert (source["type"], source["url"]) == ("prometheus", "http://127.0.0.1:9090")
    providers = yaml.safe_load((provisioning / "dashboards/haloforge.yaml").read_text())[
        "providers"
    ]
    places = {each["name"]: Path(each["options"]["path"]) for each in providers}
    assert places["Ray"] == own
    assert [file.name for file in places["Haloforge"].iterdir()] == ["haloforge.json"]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["nonsense"], 2, "nonsense is no address of a dashboard"),
        (["--import"], 2, "--import needs GRAFANA_URL and GRAFANA_TOKEN"),
        ([], 3, "prometheus is not installed: apt-get install prometheus"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(
    tmp_path: Path, words: list[str], code: int, told: str
) -> None:
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    command = [sys.executable, str(UP), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == code
    assert done.stderr.startswith(f"up.py: {told}")
    assert len(done.stderr.splitlines()) == 1


def stand_in(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)


def test_grafana_that_is_not_there_is_said(tmp_path: Path) -> None:
    stand_in(tmp_path, "prometheus", "#!/bin/sh\n")
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(UP)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 3
    assert done.stderr.startswith("up.py: grafana is not installed: https://grafana.com/docs/")


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed")
def test_one_command_starts_both_and_ctrl_c_ends_them(tmp_path: Path) -> None:
    """A real Prometheus; a stand-in for Grafana, which tells what it was asked."""
    told = tmp_path / "told.json"
    stand_in(tmp_path, "grafana", SERVES.format(python=sys.executable, told=str(told)))
    ports = [free_port(), free_port()]
    options = ["--prometheus-port", str(ports[0]), "--grafana-port", str(ports[1])]
    command = [sys.executable, str(UP), "--folder", str(tmp_path / "kept"), *options]
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        # A shell has its background commands, such as these tests may be, ignore it.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as running:
        assert running.stdout is not None
        lines = [running.stdout.readline() for _ in range(3)]
        assert lines[0] == f"Prometheus: http://127.0.0.1:{ports[0]}\n"
        assert lines[1] == f"Dashboard:  http://127.0.0.1:{ports[1]}/d/haloforge\n"
        asked_for = json.loads(told.read_text())
        assert asked_for["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
        assert (Path(asked_for["GF_PATHS_PROVISIONING"]) / "dashboards/haloforge.yaml").exists()
        assert Path(asked_for["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]).exists()
        taken = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert (taken.returncode, taken.stderr.split(":")[1]) == (3, f" port {ports[0]} is taken")
        running.send_signal(signal.SIGINT)
        assert running.wait(40) == 0
    assert wait_until(lambda: not any(map(up.taken, ports)), 5)


class _Api(http.server.BaseHTTPRequestHandler):
    """As Grafana's own API answers; `got` is what it was sent."""

    got: list[tuple[str, str, dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.got.append((self.path, self.headers["Authorization"], body))
        allowed = self.headers["Authorization"] == "Bearer right"
        answer = {"status": "success", "url": "/d/haloforge/haloforge"}
        self.send_response(200 if allowed else 401)
        self.end_headers()
        self.wfile.write(json.dumps(answer if allowed else {"message": "Unauthorized"}).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def api() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), _Api) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_dashboard_is_given_to_a_grafana_there_is(api: str) -> None:
    def given(token: str) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "GRAFANA_URL": f"{api}/", "GRAFANA_TOKEN": token}
        command = [sys.executable, str(UP), "--import"]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    done = given("right")
    assert (done.returncode, done.stdout) == (0, f"{api}/d/haloforge/haloforge\n"), done.stderr
    path, _, body = _Api.got[-1]
    assert path == "/api/dashboards/db"
    assert body["overwrite"] is True
    assert body["dashboard"] == {**dashboard(), "id": None}
    refused = given("wrong")
    assert refused.returncode == 3
    assert "Grafana refuses the dashboard: 401" in refused.stderr
    assert "wrong" not in refused.stderr
