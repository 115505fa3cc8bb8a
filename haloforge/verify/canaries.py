"""Attacks run once in a sandbox before it is trusted, each judged by its effect."""

import contextlib
import json
import os
import socket
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haloforge.errors import InfraError
from haloforge.verify.box import Box
from haloforge.verify.limits import UNPRIVILEGED, BoxLimits
from haloforge.verify.process import RunResult
from haloforge.verify.spawner import BOX
from haloforge.verify.toolchains import PYTHON

if TYPE_CHECKING:
    from haloforge.verify.sandbox import Sandbox

STARTS_WITHIN_S = 20
SECRET = "haloforge-canary"
BOX_VARIABLES = {"PATH", "LANG", "LC_CTYPE", "HOME", "TMPDIR", "PWD", "MALLOC_ARENA_MAX"}

# Runs in the box. Prints the attacks that worked, and `alive` to show that it could have.
SCRIPT = """
import json, os, resource, signal, socket, sys, threading
target = json.loads(sys.stdin.read())
worked = []
def attempt(name, action):
    try:
        if action() is not False:
            worked.append(name)
    except Exception:
        pass
def connect(family, address):
    with socket.socket(family) as client:
        client.settimeout(1)
        client.connect(address)
def write(path):
    with open(path, "w") as file:
        file.write("x")
def fork():
    if os.fork() == 0:
        os._exit(0)
def fill():
    with open("fill", "wb") as file:
        for _ in range(target["file_mb"] + 1):
            file.write(bytes(1 << 20))
            file.flush()
def allocate():
    bytearray(target["memory_mb"] << 20)
def writable(fd):
    try:
        return os.write(fd, b"x") > 0
    except OSError:
        return False
attempt("reading a host file", lambda: open(target["secret"]).read())
attempt("writing a host file", lambda: write(target["marker"]))
attempt("writing outside the box", lambda: write("/usr/canary"))
attempt("changing a host file's mode", lambda: os.chmod(target["secret"], 0o606))
attempt("TCP to the host", lambda: connect(socket.AF_INET, ("127.0.0.1", target["port"])))
attempt("a unix socket of the host", lambda: connect(socket.AF_UNIX, target["unix"]))
attempt("signalling a host process", lambda: os.kill(target["pid"], 0))
other = target["neighbour"]
attempt("another box's priority", lambda: os.setpriority(os.PRIO_PROCESS, other, 19))
attempt("another box's CPUs", lambda: os.sched_setaffinity(other, [min(os.sched_getaffinity(0))]))
attempt("another box's limits", lambda: resource.prlimit(other, resource.RLIMIT_NOFILE, (8, 8)))
attempt("killing another box", lambda: os.kill(other, signal.SIGKILL))
attempt("starting a process", fork)
attempt("filling the disk", fill)
attempt("more memory than its limit", allocate)
attempt("reading the host's environment", lambda: bool(set(target["variables"]) & set(os.environ)))
attempt("being root", lambda: os.getuid() == 0)
attempt("keeping a file of the host open", lambda: any(writable(fd) for fd in range(3, 64)))
thread = threading.Thread(target=lambda: None)
thread.start()
thread.join()
print(json.dumps({"alive": True, "worked": worked}))
"""

# Leaves a process behind that has left its group and its parents; ends when it is sure to run.
DAEMON = """
import contextlib, os, sys
running, end = os.pipe()
if os.fork() == 0:
    with contextlib.suppress(OSError):
        os.setsid()
    if os.fork() == 0:
        for fd in range(3):
            os.close(fd)
        os.execv("/bin/sleep", [sys.argv[1], "60"])
    os._exit(0)
os.close(end)
os.read(running, 1)
print(os.getcwd())
"""


def attack(sandbox: "Sandbox", limits: BoxLimits) -> list[str]:
    """The attacks that came through; an empty list is what a sandbox must give.

    Raises InfraError when a canary could not run at all, for then nothing is shown.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="haloforge-canary-")))
        folder.chmod(0o777)  # else the host's own permissions, not the box, would stop it
        secret = folder / "secret"
        secret.write_text(SECRET)
        secret.chmod(0o644)
        if os.geteuid() == 0:
            os.chown(secret, UNPRIVILEGED, UNPRIVILEGED)  # whose file it is may change its mode
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(folder / "socket"))
        (folder / "socket").chmod(0o777)
        unix.listen()
        neighbour = _sleeper(
            stack.enter_context(sandbox.start(["/bin/sleep", "60"], {}, b"", limits))
        )
        before = _state(neighbour)
        target = {
            "secret": str(secret),
            "marker": str(folder / "marker"),
            "port": tcp.getsockname()[1],
            "unix": str(folder / "socket"),
            "pid": os.getpid(),
            "neighbour": neighbour,
            "file_mb": limits.file_mb,
            "memory_mb": limits.memory_mb,
            "variables": sorted(set(os.environ) - BOX_VARIABLES),
        }
        files = {"canary.py": SCRIPT.encode()}
        result = sandbox.run([*PYTHON, "canary.py"], files, json.dumps(target).encode(), limits)
        if not result.clean:
            raise InfraError(_silent(result))
        holes: list[str] = json.loads(result.stdout)["worked"]
        # What the host sees counts, whatever the box says.
        if (folder / "marker").exists():
            holes.append("writing a host file (seen from the host)")
        if secret.stat().st_mode & 0o777 != 0o644:
            holes.append("changing a host file (seen from the host)")
        for server in (tcp, unix):
            server.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                server.accept()[0].close()
                holes.append("a connection (seen from the host)")
        if _state(neighbour) != before:
            holes.append("changing another box (seen from the host)")
        daemon = f"haloforge-canary-{os.getpid()}-{neighbour}"
        many = replace(limits, single_process=False)
        result = sandbox.run([*PYTHON, "-c", DAEMON, daemon], {}, b"", many)
        if not result.clean:
            raise InfraError(_silent(result))
        if any(daemon in _command(path) for path in Path("/proc").glob("[0-9]*")):
            holes.append("a process that outlives its box (seen from the host)")
        own = result.stdout.decode().strip()
        if own != BOX and Path(own).exists():
            holes.append("a folder that outlives its box (seen from the host)")
        return holes


def _sleeper(box: Box) -> int:
    """PID of the program of a box that sleeps, as soon as it does."""
    end = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < end:
        for pid in box.processes():
            if _command(Path(f"/proc/{pid}")).startswith("/bin/sleep"):
                return pid
        time.sleep(0.001)
    raise InfraError(f"the canary did not run: {box.wait()}")


def _state(pid: int) -> tuple[Any, ...]:
    """What one process may change of another; empty when it is dead."""
    try:
        limits = Path(f"/proc/{pid}/limits").read_text()
        return os.getpriority(os.PRIO_PROCESS, pid), os.sched_getaffinity(pid), limits
    except OSError:
        return ()


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_text(errors="replace")
    except OSError:
        return ""


def _silent(result: RunResult) -> str:
    last = result.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return f"the canary did not run: {''.join(last) or result}"
