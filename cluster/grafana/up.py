#!/usr/bin/env python3
"""Prometheus and Grafana with the dashboard of Haloforge, for the runs of a Ray cluster.

    python3 cluster/grafana/up.py                      the Ray of this machine
    python3 cluster/grafana/up.py http://HEAD:8265     a cluster, by its dashboard
    python3 cluster/grafana/up.py --import             the dashboard, into a Grafana that is there:
                                                       GRAFANA_URL and GRAFANA_TOKEN

Both listen on this machine alone and end with Ctrl-C. Needs nothing but Python: it runs where
Haloforge is not installed too. Exit codes: 2 wrong arguments, 3 something is missing, 4 one of the
two died.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).resolve().parent
DASHBOARD, ALERTS = HERE / "haloforge.json", HERE / "alerts.yml"
SCRAPE = "10s"
_LOCAL = "127.0.0.1"
_START_S = 60.0
_GET = {
    "prometheus": "apt-get install prometheus, or https://prometheus.io/download",
    "grafana": "https://grafana.com/docs/grafana/latest/setup-grafana/installation",
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Prometheus and Grafana for runs of Haloforge.")
    parser.add_argument(
        "address", nargs="?", help="a cluster's dashboard, such as http://HEAD:8265"
    )
    parser.add_argument(
        "--import", dest="send", action="store_true", help="into a Grafana there is"
    )
    parser.add_argument("--only-files", action="store_true", help="write the files, start nothing")
    parser.add_argument(
        "--folder", type=Path, default=_cache() / "grafana", help="for all they keep"
    )
    parser.add_argument("--prometheus-port", type=int, default=9090)
    parser.add_argument("--grafana-port", type=int, default=3000)
    given = parser.parse_args()
    if given.send:
        print(send(os.environ.get("GRAFANA_URL"), os.environ.get("GRAFANA_TOKEN")))
        return
    if given.address and not given.address.startswith(("http://", "https://")):
        fail(f"{given.address} is no address of a dashboard, such as http://HEAD:8265", 2)
    folder = given.folder.expanduser().absolute()
    prometheus = f"http://{_LOCAL}:{given.prometheus_port}"
    write_files(folder, prometheus, given.address)
    if given.only_files:
        print(folder)
        return
    serve(folder, given.prometheus_port, given.grafana_port)


def write_files(
    folder: Path, prometheus: str, address: str | None = None, scrape: str = SCRAPE
) -> None:
    """Writes Prometheus's configuration and Grafana's provisioning to `folder`, for the cluster
    whose dashboard is at `address`, or the Ray of this machine. Other parts of it stay."""
    provisioning = folder / "provisioning"
    for made in (folder, provisioning / "datasources", provisioning / "dashboards"):
        made.mkdir(parents=True, exist_ok=True)
    _write(folder / "prometheus.yml", prometheus_config(folder, address, scrape))
    source = {
        "name": "Prometheus",  # as Ray's own dashboards call it
        "uid": "haloforge-prometheus",
        "type": "prometheus",
        "access": "proxy",
        "url": prometheus,
        "isDefault": True,
        "jsonData": {"timeInterval": scrape},
    }
    _write(
        provisioning / "datasources" / "haloforge.yaml", {"apiVersion": 1, "datasources": [source]}
    )
    rays = ray_folder() / "session_latest" / "metrics" / "grafana" / "dashboards"
    places = {"Haloforge": folder / "dashboards", **({} if address else {"Ray": rays})}
    providers = [
        {"name": name, "folder": name, "type": "file", "options": {"path": str(place)}}
        for name, place in places.items()
        if name == "Haloforge" or place.is_dir()
    ]
    _write(
        provisioning / "dashboards" / "haloforge.yaml", {"apiVersion": 1, "providers": providers}
    )
    (folder / "dashboards").mkdir(exist_ok=True)
    shutil.copy(DASHBOARD, folder / "dashboards")


def prometheus_config(folder: Path, address: str | None, scrape: str = SCRAPE) -> dict[str, Any]:
    """What Prometheus reads: JSON is YAML. The token is named by its file, never written here."""
    job: dict[str, Any] = {"job_name": "ray"}
    if address is None:
        found = ray_folder() / "prom_metrics_service_discovery.json"
        job["file_sd_configs"] = [{"files": [str(found)], "refresh_interval": scrape}]
    else:
        discovery: dict[str, Any] = {
            "url": f"{address.rstrip('/')}/api/prometheus/sd",
            "refresh_interval": scrape,
        }
        token = token_file(folder)
        if token is not None:
            discovery["authorization"] = {"type": "Bearer", "credentials_file": str(token)}
        job["http_sd_configs"] = [discovery]
    return {
        "global": {"scrape_interval": scrape, "evaluation_interval": scrape},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [job],
    }


def ray_folder() -> Path:
    """Where Ray keeps its sessions on this machine."""
    return Path(os.environ.get("RAY_TMPDIR") or "/tmp") / "ray"


def token_file(folder: Path) -> Path | None:
    """The file that holds the cluster's token, looked for where Ray's clients look for it."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        path = folder / "token"
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(token.strip())
        return path
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named or "~/.ray/auth_token").expanduser()
    if path.is_file():
        return path.absolute()
    if named:
        fail(f"RAY_AUTH_TOKEN_PATH: there is no {path}", 2)
    return None


def serve(folder: Path, prometheus_port: int, grafana_port: int) -> None:
    """Both programs, until one dies or this process is asked to end."""
    prometheus, grafana = find("prometheus"), find("grafana", "grafana-server")
    for port in (prometheus_port, grafana_port):
        if taken(port):
            fail(f"port {port} is taken: give --prometheus-port or --grafana-port", 3)
    signal.signal(signal.SIGTERM, _stop)
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        running["prometheus"] = start_prometheus(prometheus, folder, prometheus_port)
        running["grafana"] = start_grafana(grafana, folder, grafana_port)
        for port in (prometheus_port, grafana_port):
            _wait_for(port, running, folder)
        print(f"Prometheus: http://{_LOCAL}:{prometheus_port}")
        print(f"Dashboard:  http://{_LOCAL}:{grafana_port}/d/haloforge")
        print(f"All is kept in {folder}; Ctrl-C ends both.", flush=True)
        while not (died := _dead(running)):
            time.sleep(0.5)
        fail(f"{died} has ended; see {folder / died}.log", 4)
    except KeyboardInterrupt:
        print("ended")
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def start_prometheus(program: str, folder: Path, port: int) -> "subprocess.Popen[bytes]":
    """Prometheus on the configuration in `folder`, where it keeps its data too."""
    return _start(
        folder / "prometheus.log",
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={_LOCAL}:{port}",
    )


def start_grafana(program: str, folder: Path, port: int) -> "subprocess.Popen[bytes]":
    """Grafana, which everyone on this machine may look at; it has no other user."""
    own = Path(program).resolve().parent.parent
    home = own if (own / "public").is_dir() else Path("/usr/share/grafana")
    settings = {
        "GF_PATHS_PROVISIONING": str(folder / "provisioning"),
        "GF_PATHS_DATA": str(folder / "grafana"),
        "GF_PATHS_LOGS": str(folder / "grafana" / "log"),
        "GF_SERVER_HTTP_ADDR": _LOCAL,
        "GF_SERVER_HTTP_PORT": str(port),
        "GF_AUTH_ANONYMOUS_ENABLED": "true",
        "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
        "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION": "true",
        "GF_SECURITY_ALLOW_EMBEDDING": "true",  # in Ray's dashboard
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": str(folder / "dashboards" / DASHBOARD.name),
    }
    words = [program] if Path(program).name == "grafana-server" else [program, "server"]
    return _start(folder / "grafana.log", *words, "--homepath", str(home), **settings)


def send(url: str | None, token: str | None) -> str:
    """Gives the dashboard to the Grafana at `url`, in place of what it has of that name; returns
    the dashboard's address. `token` is of a service account that may write dashboards."""
    if not url or not token:
        fail("--import needs GRAFANA_URL and GRAFANA_TOKEN (a service account's, an editor)", 2)
    body = {
        "dashboard": {**json.loads(DASHBOARD.read_text()), "id": None},
        "overwrite": True,
        "message": "haloforge",
    }
    request = urllib.request.Request(
        f"{url.rstrip('/')}/api/dashboards/db",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {token}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            told = json.load(answer)
    except urllib.error.HTTPError as error:
        reason = " ".join(error.read(300).decode(errors="replace").split())
        fail(f"Grafana refuses the dashboard: {error.code} {reason}", 3)
    except (OSError, ValueError) as error:
        fail(f"no Grafana at {url}: {error}", 3)
    return f"{url.rstrip('/')}{told.get('url', '/d/haloforge')}"


def find(name: str, *others: str) -> str:
    """The program's path; where it is not installed this says where to get it, and ends."""
    found = next(filter(None, map(shutil.which, (name, *others))), None)
    return found or fail(f"{name} is not installed: {_GET[name]}", 3)


def taken(port: int) -> bool:
    """Whether something listens on this port of this machine."""
    with socket.socket() as asking:
        return asking.connect_ex((_LOCAL, port)) == 0


def fail(message: str, code: int) -> NoReturn:
    """Ends with a line on stderr."""
    print(f"up.py: {message}", file=sys.stderr)
    sys.exit(code)


def _start(log: Path, *words: str, **settings: str) -> "subprocess.Popen[bytes]":
    # A session of its own: Ctrl-C is for this process, which ends them in turn.
    with log.open("ab") as file:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**os.environ, **settings},
            start_new_session=True,
        )


def _wait_for(port: int, running: dict[str, "subprocess.Popen[bytes]"], folder: Path) -> None:
    deadline = time.monotonic() + _START_S
    while not taken(port):
        if died := _dead(running):
            fail(f"{died} did not start; see {folder / died}.log", 4)
        if time.monotonic() > deadline:
            fail(f"nothing listens on port {port} after {_START_S:.0f} s; see {folder}/*.log", 4)
        time.sleep(0.2)


def _dead(running: dict[str, "subprocess.Popen[bytes]"]) -> str | None:
    return next((name for name, process in running.items() if process.poll() is not None), None)


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def _cache() -> Path:
    given = os.environ.get("HALOFORGE_CACHE")
    return Path(given) if given else Path("~/.cache/haloforge").expanduser()


def _stop(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
