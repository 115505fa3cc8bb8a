"""Attacks on the host and on other boxes: each works outside, and without the guards against it."""

import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import pytest

from haloforge.verify import canaries, sandbox
from haloforge.verify.limits import Guards
from haloforge.verify.sandbox import LANDLOCK, Sandbox
from tests.attacking import NONE, Row, open_folder
from tests.boxes import (
    LIMITS,
    MANY,
    as_box_user,
    bare,
    boxed,
    eventually,
    guarded,
    processes_with,
)


@dataclass(frozen=True)
class Host:
    """What an attacker is after: a folder with a file and a socket, more sockets, a process."""

    folder: Path
    port: int
    udp: int
    abstract: str
    victim: int
    """A process of the same user as programs in boxes."""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with open_folder() as folder:
        yield from attacked(folder)


def attacked(folder: Path) -> Iterator[Host]:
    (folder / "secret").write_text("the-secret")
    if as_box_user():
        os.chown(folder / "secret", 65534, 65534)
    abstract = f"haloforge-test-{os.getpid()}"
    environment = {"SECRET": "the-secret", "PATH": "/usr/bin:/bin"}
    with (
        socket.create_server(("127.0.0.1", 0), backlog=50) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as nameless,
        subprocess.Popen([*as_box_user(), "/bin/sleep", "600"], env=environment) as victim,
    ):
        udp.bind(("127.0.0.1", 0))
        unix.bind(str(folder / "socket"))
        (folder / "socket").chmod(0o777)
        unix.listen(50)
        nameless.bind(f"\0{abstract}")
        nameless.listen(50)
        assert eventually(lambda: victim.pid in processes_with("/bin/sleep\0"))
        try:
            yield Host(folder, tcp.getsockname()[1], udp.getsockname()[1], abstract, victim.pid)
        finally:
            victim.kill()


class Attack(NamedTuple):
    """A line that raises where it fails, and the guards each of which makes it fail."""

    line: str
    guards: tuple[str, ...]


# {names} are fields of Host.
ATTACKS = {
    "read a host file": Attack(
        "assert open('{folder}/secret').read() == 'the-secret'", ("namespaces", "landlock")
    ),
    "write a host file": Attack(
        "open('{folder}/written', 'w').write('x')", ("namespaces", "landlock")
    ),
    "delete a host file": Attack("os.remove('{folder}/{victim}')", ("namespaces", "landlock")),
    "empty a host file": Attack(
        "os.truncate('{folder}/secret', 10)", ("namespaces", "landlock", "seccomp")
    ),
    "empty a host file while opening it": Attack(
        "os.close(os.open('{folder}/empty', os.O_RDONLY | os.O_TRUNC))",
        ("namespaces", "landlock", "seccomp"),
    ),
    "change a host file's mode": Attack(
        "os.chmod('{folder}/secret', 0o644)", ("namespaces", "seccomp")
    ),
    "change a host file's times": Attack("os.utime('{folder}/secret')", ("namespaces", "seccomp")),
    "change a host file's attributes": Attack(
        "os.setxattr('{folder}/secret', 'user.x', b'x')", ("namespaces", "seccomp")
    ),
    "list a host folder": Attack("assert os.listdir('{folder}')", ("namespaces", "landlock")),
    "watch a host folder": Attack(
        "assert libc.inotify_add_watch(libc.inotify_init(), b'{folder}', 2) >= 0",
        ("namespaces", "seccomp"),
    ),
    "connect to TCP": Attack(
        "socket.create_connection(('127.0.0.1', {port}), 2)", ("namespaces", "landlock", "seccomp")
    ),
    "send UDP": Attack(
        "client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
        "client.connect(('127.0.0.1', {udp})); client.send(b'x'); client.send(b'x')",
        ("namespaces", "seccomp"),
    ),
    "connect to a unix socket": Attack(
        "socket.socket(socket.AF_UNIX).connect('{folder}/socket')", ("namespaces", "seccomp")
    ),
    "connect to an abstract socket": Attack(
        r"socket.socket(socket.AF_UNIX).connect('\0{abstract}')",
        ("namespaces", "landlock", "seccomp"),
    ),
    "signal another process": Attack("os.kill({victim}, 0)", ("namespaces", "landlock", "seccomp")),
    "signal by a pidfd": Attack(
        "signal.pidfd_send_signal(os.pidfd_open({victim}), 0)",
        ("namespaces", "landlock", "seccomp"),
    ),
    "signal as the owner of a pipe": Attack(
        "ends = os.pipe(); fcntl.fcntl(ends[0], fcntl.F_SETOWN, {victim}); "
        "assert fcntl.fcntl(ends[0], fcntl.F_GETOWN) == {victim}",
        ("namespaces", "seccomp"),
    ),
    "trace another process": Attack(
        "assert libc.ptrace(16, {victim}, 0, 0) == 0; libc.ptrace(17, {victim}, 0, 0)",
        ("namespaces", "landlock", "seccomp"),
    ),
    "change another process's priority": Attack(
        "os.setpriority(os.PRIO_PROCESS, {victim}, 19)", ("namespaces", "seccomp")
    ),
    "change another process's CPUs": Attack(
        "os.sched_setaffinity({victim}, os.sched_getaffinity({victim}))", ("namespaces", "seccomp")
    ),
    "change another process's scheduling": Attack(
        "os.sched_setscheduler({victim}, os.SCHED_BATCH, os.sched_param(0))",
        ("namespaces", "seccomp"),
    ),
    "change another process's limits": Attack(
        "resource.prlimit({victim}, resource.RLIMIT_CORE, (0, 0))", ("namespaces", "seccomp")
    ),
    "read another process's environment": Attack(
        "assert b'the-secret' in open('/proc/{victim}/environ', 'rb').read()",
        ("namespaces", "landlock"),
    ),
    "read another process's command line": Attack(
        "assert open('/proc/{victim}/cmdline', 'rb').read()", ("namespaces", "landlock")
    ),
    "start a process": Attack("assert os.system('/bin/true') == 0", ("seccomp",)),
    "fork": Attack("os.fork() or os._exit(0)", ("seccomp",)),
    "keep memory in a memfd": Attack("os.memfd_create('x')", ("seccomp",)),
    "keep memory in System V shared memory": Attack(
        "assert libc.shmget(0, 4096, 0o1600) >= 0", ("seccomp",)
    ),
    "keep memory in /dev/shm": Attack(
        "open('/dev/shm/haloforge', 'w'); os.remove('/dev/shm/haloforge')",
        ("namespaces", "landlock"),
    ),
    "be root of a new user namespace": Attack("assert libc.unshare(0x10000000) == 0", ("seccomp",)),
    "outlive its box": Attack("assert libc.prctl(1, 0, 0, 0, 0) == 0", ("seccomp",)),
}
NAMES = {
    "namespaces": "namespaces of its own",
    "landlock": "Landlock",
    "seccomp": "the system-call filter",
}
SECOND = {  # of those that one guard stops alone
    "start a process": "a count of processes for each box",
    "fork": "a count of processes for each box",
    "keep memory in a memfd": "the kernel's limits of a file's size and of open files",
    "keep memory in System V shared memory": "a namespace of IPC for each box, which ends with it",
    "be root of a new user namespace": "Landlock allows no mount, the box no more rights",
    "outlive its box": "the PID namespace; the kernel's limit of CPU time",
}
TABLE = [
    Row("reach", name, *[NAMES[guard] for guard in attack.guards][:2])
    if len(attack.guards) > 1
    else Row("reach", name, NAMES[attack.guards[0]], SECOND[name])
    for name, attack in ATTACKS.items()
]
LINES = [(name, guard) for name, attack in ATTACKS.items() for guard in attack.guards]


def program(line: str, host: Host) -> str:
    """Prints `worked`, or why the line failed."""
    for name in ("written", "empty", str(host.victim)):
        (host.folder / name).unlink(missing_ok=True)
    for name in ("empty", str(host.victim)):
        (host.folder / name).write_text("x")
        (host.folder / name).chmod(0o666)
        if as_box_user():
            os.chown(host.folder / name, 65534, 65534)
    return f"""
import ctypes, fcntl, os, resource, signal, socket
libc = ctypes.CDLL(None)
libc.ptrace.argtypes = [ctypes.c_long] * 2 + [ctypes.c_void_p] * 2
try:
    {line.format(**vars(host))}
    print("worked")
except (OSError, AssertionError, ValueError) as error:
    print("failed", repr(error))
"""


def state(host: Host) -> object:
    """All that the attacks are after."""
    files = {path.name: path.stat() for path in host.folder.iterdir()}
    shown = {
        name: (found.st_mode, found.st_uid, found.st_size, found.st_mtime_ns)
        for name, found in files.items()
    }
    process = os.getpriority(os.PRIO_PROCESS, host.victim), os.sched_getaffinity(host.victim)
    return shown, process, Path(f"/proc/{host.victim}/limits").read_text()


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_works_outside_and_fails_inside(name: str, host: Host, box: Sandbox) -> None:
    code = program(ATTACKS[name].line, host)
    assert bare(code).splitlines()[-1] == "worked", "the attack itself is broken"
    code = program(ATTACKS[name].line, host)
    before = state(host)
    result = boxed(box, code)
    assert result.stdout.startswith(b"failed"), result
    assert state(host) == before


@pytest.mark.parametrize("version", [1, 2, 3, 5])
def test_older_kernels_are_as_safe(
    version: int, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Landlock learns more with each version; what it does not know yet the filter must stop."""
    monkeypatch.setattr(sandbox, "landlock_version", lambda: version)
    box = Sandbox(LANDLOCK)
    try:
        assert canaries.attack(box, LIMITS) == []
        for attack in ATTACKS.values():
            code = program(attack.line, host)
            before = state(host)
            result = boxed(box, code)
            assert result.stdout.startswith(b"failed"), (attack, result)
            assert state(host) == before
        compiling = boxed(box, program(ATTACKS["signal another process"].line, host), MANY)
        assert compiling.stdout.startswith(b"failed"), compiling
    finally:
        box.close()


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_works_in_a_box_without_its_guards(name: str, host: Host) -> None:
    off = dict.fromkeys(ATTACKS[name].guards, False)
    # Landlock cannot be told to leave one thing; without namespaces it stands for them.
    box = guarded(replace(Guards(namespaces=False), **off))
    assert boxed(box, program(ATTACKS[name].line, host)).stdout.splitlines()[-1:] == [b"worked"]


@pytest.mark.parametrize(("name", "guard"), LINES)
def test_each_of_its_guards_stops_it_alone(name: str, guard: str, host: Host) -> None:
    box = guarded(replace(NONE, **{guard: True}))
    result = boxed(box, program(ATTACKS[name].line, host))
    assert result.stdout.startswith(b"failed"), result
