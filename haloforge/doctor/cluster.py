"""Ray: whether it can start here, or whether the one that is named answers and lets us in."""

import json
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from haloforge.doctor.finding import Finding, fault, ok, warning
from haloforge.doctor.joining import COMPARE_NOT

JOB_PORT, GCS_PORT = 8265, 6379
_CONNECT_S = 5.0
_JOIN_S = 90.0
_SOCKET_PATH = 107  # characters that the kernel allows a Unix socket
_RAY_PATH = 64  # "/session_DATE_TIME_PID/sockets/plasma_store", with a long PID
_HOST = re.compile(r"(\[[^\]]*\]|[^:;]*)(:\d+)?")
_GIVE = "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=FILE"


@dataclass(frozen=True)
class Token:
    """The token that Ray would send, without the means to show it by accident. `problem` says why
    there is none where one was promised."""

    mode: str
    source: str
    header: Mapping[str, str]
    problem: str | None = None

    def __repr__(self) -> str:
        return f"Token({self.mode}, from {self.source})"


def find_token(environment: Mapping[str, str] = os.environ, home: Path | None = None) -> Token:
    """As Ray looks for it: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token. Where
    RAY_AUTH_MODE is not set, a token that is there is used."""
    mode = environment.get("RAY_AUTH_MODE", "").lower()
    default = (home or Path.home()) / ".ray" / "auth_token"
    problem = None
    if text := environment.get("RAY_AUTH_TOKEN", "").strip():
        source = "RAY_AUTH_TOKEN"
    elif named := environment.get("RAY_AUTH_TOKEN_PATH"):
        source, text = f"RAY_AUTH_TOKEN_PATH ({named})", _content(Path(named).expanduser())
        problem = None if text else f"RAY_AUTH_TOKEN_PATH: {named} cannot be read or is empty"
    else:
        source, text = str(default), _content(default)
        if not text:
            source = "nowhere"
            problem = "RAY_AUTH_MODE=token, but there is no token" if mode == "token" else None
    used = mode == "token" or (not mode and bool(text))
    header = {"Authorization": f"Bearer {text}"} if used and text else {}
    return Token(mode or ("token" if text else "not set"), source, header, problem)


def _content(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def check_authentication(
    named: bool, environment: Mapping[str, str] = os.environ, home: Path | None = None
) -> Finding:
    """Whether there is a token and where from, for a cluster that is `named` or a private one; who
    else can read its file. The token itself is not shown."""
    name, token = "ray token", find_token(environment, home)
    if token.problem:
        return fault(name, token.problem, f"{_GIVE}\nray get-auth-token --generate")
    if token.mode not in ("token", "not set"):
        told = (
            f"RAY_AUTH_MODE={token.mode}: whoever reaches a Ray without tokens can run code in it"
        )
        return warning(name, told, "unset RAY_AUTH_MODE")
    if not token.header:
        told = "none here; " + (
            "needed where the cluster asks for one" if named else "Ray makes one for a private Ray"
        )
        return ok(name, told)
    file = _token_file(environment, home)
    if file is not None and _readable_by_all(file):
        told = f"from {token.source}, which every user of this machine may read"
        return warning(name, told, f"chmod 600 {file}")
    return ok(name, f"from {token.source}")


def _token_file(environment: Mapping[str, str], home: Path | None) -> Path | None:
    if environment.get("RAY_AUTH_TOKEN", "").strip():
        return None
    default = (home or Path.home()) / ".ray" / "auth_token"
    return Path(environment.get("RAY_AUTH_TOKEN_PATH") or default).expanduser()


def _readable_by_all(file: Path) -> bool:
    folders = file.absolute().parents
    reached = all(folder.stat().st_mode & stat.S_IXOTH for folder in folders)
    return reached and bool(file.stat().st_mode & stat.S_IROTH)


def check_private(environment: Mapping[str, str] = os.environ) -> Finding:
    """Whether a private Ray could start here: none is started."""
    name = "ray"
    try:
        version = metadata.version("ray")
    except metadata.PackageNotFoundError:
        return fault(name, "not installed", "pip install 'haloforge[cpu]'")
    named = environment.get("RAY_TMPDIR") or environment.get("TMPDIR") or "/tmp"
    if len(str(Path(named, "ray"))) + _RAY_PATH > _SOCKET_PATH:
        told = f"{version}; sockets below {named} would have too long a path"
        return fault(name, told, "export RAY_TMPDIR=/tmp")
    try:
        with socket.create_server(("127.0.0.1", 0)):
            pass
    except OSError as error:
        return fault(name, f"{version}; no port can be opened on 127.0.0.1: {error.strerror}")
    return ok(name, f"{version}; no cluster is named, so runs start a private one, in {named}/ray")


def check_cluster(
    address: str, computing: str | None, compare: bool, patience: float = _JOIN_S
) -> Finding:
    """Whether the cluster answers at `address` and takes our token, and whether its nodes have what
    this machine has, which joining tells. Nothing of it is changed."""
    name, shown = "ray cluster", without_secrets(address)
    client = address.startswith("ray://")
    place = _place(address, 10001 if client else GCS_PORT)
    if address != "auto":
        if not client and ":" not in address:
            told = f"{shown}: a cluster's address has a port, and a job server's is a URL"
            advice = f"halo-forge doctor --address {shown}:{GCS_PORT}\n"
            advice += f"halo-forge doctor --address http://{shown}:{JOB_PORT}"
            return fault(name, told, advice)
        if place is None:
            return fault(name, f"{shown}: is no host with a port from 1 to 65535", None)
        if why := _unreachable(*place):
            told = f"{shown}: {why}"
            return fault(name, told, "Start it (`ray start --head`), or give its head's address.")
    words = [sys.executable, "-m", "haloforge.doctor.joining", address]
    words.append((computing or "") if compare else COMPARE_NOT)
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=patience)
    except subprocess.TimeoutExpired:
        told = f"{shown}: listens, but did not let this machine in within {patience:.0f} s"
        return fault(name, f"{told}; most often for another token or version of Ray", _GIVE)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = next((line for line in done.stderr.splitlines() if "oken" in line), "")
        said = said or (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return fault(name, f"{shown}: Ray ended: {said.strip()}", _GIVE)
    return _told(shown, json.loads(lines[-1]), compare)


def _told(shown: str, found: Mapping[str, object], compare: bool) -> Finding:
    name = "ray cluster"
    nodes = f"{shown}: {found.get('nodes')} node(s)"
    if "refused" in found:
        return fault(name, f"{shown}: answers, but refuses the token", _GIVE)
    if "unreached" in found:
        told = f"{shown}: {found['unreached']}"
        if "nodes" in found:  # it answers, but work is sent from its nodes only
            told = f"{nodes} live, the token is right; it cannot be joined: {found['unreached']}"
        advice = "Run on one of its nodes, or send jobs to its job server:\n"
        advice += f"halo-forge submit --address http://HEAD:{JOB_PORT} STAGE"
        return fault(name, told, advice)
    if "differences" in found:
        advice = (
            "Install the same on all nodes (cluster/README.md), or set ray.same_versions=false."
        )
        return fault(name, f"{nodes} live, the token is right; {found['differences']}", advice)
    if not compare:
        return ok(name, f"{nodes} live; versions were not compared (ray.same_versions=false)")
    if found.get("silent"):
        told = f"{nodes} live, of which {found['silent']} do not say what versions they have"
        return warning(name, told, "ray status")
    return ok(name, f"{nodes} live, with the versions that are installed here")


def check_job_server(
    address: str, environment: Mapping[str, str] = os.environ, home: Path | None = None
) -> Finding:
    """Whether a job server answers there, and takes our token."""
    import requests

    name, shown = "ray job server", without_secrets(address)
    if "://" not in address:
        told = f"{shown}: http:// is missing before it"
        return fault(name, told, f"export RAY_API_SERVER_ADDRESS=http://{shown}")
    url = f"{address.rstrip('/')}/api/version"
    header = find_token(environment, home).header
    try:
        answer = requests.get(url, headers=dict(header), timeout=_CONNECT_S)
    except requests.Timeout:
        return fault(name, f"{shown}: no answer in {_CONNECT_S:g} s", f"curl {shown}/api/version")
    except requests.RequestException as error:
        why = "nothing listens there" if "refused" in str(error) else type(error).__name__
        return fault(name, f"{shown}: {why}", f"curl {shown}/api/version")
    if answer.status_code in (401, 403):
        wrong = "refuses the token" if header else "wants the cluster's token, and none is set"
        return fault(name, f"{shown}: {wrong} ({answer.status_code})", _GIVE)
    try:
        version = str(answer.json()["ray_version"])
    except (ValueError, KeyError, TypeError):
        told = f"{shown}: answers {answer.status_code}, but not as Ray's job server"
        return fault(name, told, f"curl {shown}/api/version")
    here = metadata.version("ray")
    if version != here:
        told = f"{shown}: Ray {version}, but {here} is installed here"
        return warning(name, told, f"pip install 'ray[data,serve,train]=={version}'")
    return ok(
        name, f"{shown}: Ray {version}, {'takes the token' if header else 'asks for no token'}"
    )


def _place(address: str, usual: int) -> tuple[str, int] | None:
    """Its host and port, `usual` where it names none; None where it is no address."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        port = usual if parts.port is None else parts.port
    except ValueError:
        return None
    return (parts.hostname or "", port) if port else None


def _unreachable(host: str, port: int) -> str | None:
    try:
        socket.create_connection((host, port), _CONNECT_S).close()
    except TimeoutError:
        return f"no answer in {_CONNECT_S:g} s"
    except OSError as error:
        return f"cannot be reached ({error.strerror or error})"
    return None


def without_secrets(address: str) -> str:
    """Of the address scheme, host, port and path: what else there is may be a secret."""
    scheme, mark, rest = address.partition("://") if "://" in address else ("", "", address)
    rest = re.split("[?#]", rest, maxsplit=1)[0]
    place, slash, path = rest.partition("/")
    host = _HOST.match(place.rpartition("@")[2])
    return f"{scheme}{mark}{host[0] if host else ''}{slash}{path.partition(';')[0]}"
