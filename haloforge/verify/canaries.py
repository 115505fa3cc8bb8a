"""Attacks run once in a box before it is trusted, each judged by its effect."""

import contextlib
import json
import os
import socket
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from haloforge.errors import InfraError
from haloforge.verify.process import RunResult

SECRET = "haloforge-canary"
BOX_VARIABLES = {"PATH", "LANG", "LC_CTYPE", "HOME", "TMPDIR", "PWD"}
Run = Callable[[Sequence[str], Mapping[str, bytes], bytes], RunResult]

# Runs in the box. Prints the attacks that worked, and `alive` to show that it could have.
SCRIPT = """
import json, os, socket, sys, threading
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
attempt("TCP to the host", lambda: connect(socket.AF_INET, ("127.0.0.1", target["port"])))
attempt("a unix socket of the host", lambda: connect(socket.AF_UNIX, target["unix"]))
attempt("signalling a host process", lambda: os.kill(target["pid"], 0))
attempt("starting a process", fork)
attempt("filling the disk", fill)
attempt("more memory than its limit", allocate)
attempt("reading the host's environment", lambda: bool(set(target["variables"]) & set(os.environ)))
attempt("being root", lambda: os.getuid() == 0)
attempt("keeping a file of the host open", lambda: any(writable(fd) for fd in range(3, 64)))
thread = threading.Thread(target=lambda: None)
thread.start()
thread.join()
os.remove("fill")
write("own-file")
print(json.dumps({"alive": True, "worked": worked}))
"""


def attack(run: Run, python: str, memory_mb: int, file_mb: int) -> list[str]:
    """The attacks that came through in one box; an empty list is what a sandbox must give.

    `run` takes argv, files and stdin; the box it makes has `memory_mb` and `file_mb`.

    Raises InfraError when the canary could not run at all, for then nothing is shown.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="haloforge-canary-")))
        folder.chmod(0o777)  # else the host's own permissions, not the box, would stop it
        secret = folder / "secret"
        secret.write_text(SECRET)
        secret.chmod(0o644)
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(folder / "socket"))
        (folder / "socket").chmod(0o777)
        unix.listen()
        target = {
            "secret": str(secret),
            "marker": str(folder / "marker"),
            "port": tcp.getsockname()[1],
            "unix": str(folder / "socket"),
            "pid": os.getpid(),
            "file_mb": file_mb,
            "memory_mb": memory_mb,
            "variables": sorted(set(os.environ) - BOX_VARIABLES),
        }
        result = run(
            [python, "-I", "canary.py"], {"canary.py": SCRIPT.encode()}, json.dumps(target).encode()
        )
        try:
            holes: list[str] = json.loads(result.stdout)["worked"]
        except ValueError:
            last = result.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise InfraError(f"the canary did not run: {''.join(last) or result}") from None
        # What the host sees counts, whatever the box says.
        if (folder / "marker").exists():
            holes.append("writing a host file (seen from the host)")
        for server in (tcp, unix):
            server.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                server.accept()[0].close()
                holes.append("a connection (seen from the host)")
        return holes
