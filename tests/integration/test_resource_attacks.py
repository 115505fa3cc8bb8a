"""Attacks on what a box may take and on its end: judged by what the host sees of them.

Each works where its guard is off, and a right program beside it is judged right, and in time.
"""

import os
import signal
import subprocess
import tempfile
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from haloforge.verify import box as boxes
from haloforge.verify import launcher
from haloforge.verify.limits import BoxLimits, Guards
from haloforge.verify.process import STDERR_CAP, RunResult
from haloforge.verify.sandbox import LANDLOCK, Sandbox
from haloforge.verify.toolchains import PYTHON
from tests.attacking import Row, Seen, neighbour, watching
from tests.boxes import LIMITS, as_box_user, eventually, guarded, processes_with

RUN = replace(LIMITS, wall_s=7)
COMPILE = replace(RUN, single_process=False)
HURRIED = replace(RUN, wall_s=0.5)
LATE_S = 6  # a deadline of 0.5 s comes three times as late at most, one of 7 s later than that
FREE = Guards(limits=False)
HEAD = "import ctypes, mmap, os, resource, signal, sys, threading, time\nlibc = ctypes.CDLL(None)\n"

Effect = Callable[[RunResult, Seen], bool]


def seconds(result: RunResult, _: Seen) -> bool:
    return result.wall_ms > LATE_S * 1000


def tasks(result: RunResult, seen: Seen) -> bool:
    return seen.tasks > RUN.processes and result.wall_ms > 1000  # it was there and it stayed


def memory(_: RunResult, seen: Seen) -> bool:
    return seen.memory_mb > RUN.memory_mb * 1.3


def disk(_: RunResult, seen: Seen) -> bool:
    return seen.disk_mb > RUN.file_mb * 2.5


class Attack(NamedTuple):
    """A program, what it is after, and what stops it."""

    code: str
    effect: Effect
    first: str
    second: str
    limits: BoxLimits = RUN
    guards: Guards = FREE
    """Those that are left where what stops it is off."""
    loose: BoxLimits | None = None
    """Limits where what stops it is off, if those are what stops it."""


LOOKS = "the host looks at the whole box ten times a second"
CLOCK = "the deadline"
CPU = "the kernel's limit of CPU time"
RLIMIT = "the kernel's limit of {}"
ATTACKS = {
    "many processes": Attack(
        "for _ in range(60):\n    if os.fork() == 0: time.sleep(9)\ntime.sleep(1)",
        tasks,
        "a count of processes for each box",
        CLOCK,
        COMPILE,
    ),
    "many threads": Attack(
        "threading.stack_size(65536)\nfor _ in range(60):\n"
        "    threading.Thread(target=time.sleep, args=(1,)).start()",
        tasks,
        "a count of threads for each box",
        RLIMIT.format("address space"),
    ),
    "fork by a 32-bit call": Attack(
        "page = mmap.mmap(-1, 4096, prot=7)\npage.write(bytes.fromhex('b802000000cd80c3'))\n"
        "call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))\n"
        "call() or time.sleep(2)\ntime.sleep(2)",
        lambda _, seen: seen.tasks > 1,
        "the filter kills on calls of another architecture",
        "a count of processes for each box",
        guards=Guards(namespaces=False, seccomp=False),
    ),
    "much memory": Attack(
        "kept = b'x' * (400 << 20)\ntime.sleep(0.5)", memory, RLIMIT.format("address space"), LOOKS
    ),
    "much shared memory": Attack(
        "kept = mmap.mmap(-1, 400 << 20)\nkept.write(b'x' * (200 << 20))\n"
        "kept.write(b'x' * (200 << 20))\ntime.sleep(0.5)",
        memory,
        RLIMIT.format("address space"),
        LOOKS,
    ),
    "memory after raising the limits": Attack(
        "for which in resource.RLIMIT_AS, resource.RLIMIT_DATA:\n    try:\n"
        "        resource.setrlimit(which, [resource.RLIM_INFINITY] * 2)\n"
        "    except ValueError: pass\nkept = b'x' * (400 << 20)\ntime.sleep(0.5)",
        memory,
        "hard limits, which only root raises",
        LOOKS,
    ),
    "memory of many processes": Attack(
        "for _ in range(6):\n    if os.fork() == 0:\n        kept = []\n"
        "        for _ in range(15): kept.append(b'x' * (10 << 20)); time.sleep(0.06)\n"
        "        time.sleep(9)\ntime.sleep(3)",
        lambda _, seen: seen.memory_mb > 600,
        LOOKS,
        CLOCK,
        COMPILE,
    ),
    "locked memory": Attack(
        "kept = mmap.mmap(-1, 1 << 20)\nat = ctypes.addressof(ctypes.c_char.from_buffer(kept))\n"
        "libc.mlock(ctypes.c_void_p(at), ctypes.c_size_t(1 << 20))\ntime.sleep(0.5)",
        lambda _, seen: seen.locked_kb > 0,
        RLIMIT.format("locked memory"),
        RLIMIT.format("address space"),
    ),
    "many open files": Attack(
        "kept = []\ntry:\n    while len(kept) < 200: kept.append(os.open('/dev/null', 0))\n"
        "except OSError: pass\ntime.sleep(0.5)",
        lambda _, seen: seen.open_files > 64,
        RLIMIT.format("open files"),
        "the host's own limit of them",
    ),
    "a big file": Attack(
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nwith open('x', 'wb', 0) as file:\n"
        "    for _ in range(32): file.write(bytes(1 << 20))\n    time.sleep(0.5)",
        disk,
        RLIMIT.format("a file's size"),
        "a file system of its own for each box; without namespaces " + LOOKS,
        COMPILE,
    ),
    "many files": Attack(
        "for n in range(32):\n    with open(str(n), 'wb', 0) as file: file.write(bytes(1 << 20))\n"
        "    time.sleep(0.03)\ntime.sleep(0.3)",
        disk,
        "a file system of its own for each box; without namespaces " + LOOKS,
        "runs have nothing to write to without namespaces; " + CLOCK,
        COMPILE,
    ),
    "deleted files that stay open": Attack(
        "kept = []\nfor n in range(32):\n    kept.append(open('x', 'wb', 0)); os.remove('x')\n"
        "    kept[-1].write(bytes(1 << 20))\n    time.sleep(0.03)\ntime.sleep(0.3)",
        disk,
        "a file system of its own for each box; without namespaces " + LOOKS,
        RLIMIT.format("open files"),
        COMPILE,
    ),
    "many empty files": Attack(
        "for n in range(20000):\n    open(str(n), 'w').close()\n"
        "    if n % 200 == 0: time.sleep(0.01)\ntime.sleep(0.3)",
        lambda _, seen: seen.files > 8000,
        "a file system of its own for each box; without namespaces " + LOOKS,
        CLOCK,
        COMPILE,
    ),
    "endless output": Attack(
        "while True: print('x' * 1000)",
        lambda result, _: len(result.stdout) > RUN.output_kb << 10,
        "output is cut at its cap, and the box ended",
        CLOCK,
        guards=Guards(),
        loose=replace(RUN, output_kb=1 << 15),
    ),
    "endless loop": Attack("while True: pass", seconds, CLOCK, CPU, HURRIED, Guards(), RUN),
    "endless sleep": Attack(
        "time.sleep(60)", seconds, CLOCK, "PID namespaces end with us", HURRIED, Guards(), RUN
    ),
    "a program that stops itself": Attack(
        "os.kill(os.getpid(), signal.SIGSTOP)", seconds, CLOCK, "SIGKILL", HURRIED, Guards(), RUN
    ),
    "a program that ignores signals": Attack(
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"
        "for n in range(1, 32):\n    try: signal.signal(n, signal.SIG_IGN)\n"
        "    except OSError: pass\nwhile True: time.sleep(60)",
        seconds,
        "SIGKILL, which none can ignore",
        CLOCK,
        HURRIED,
        Guards(),
        RUN,
    ),
    "a loop with closed streams": Attack(
        "for fd in range(3): os.close(fd)\ntime.sleep(60)",
        seconds,
        "the end of a box is that of its processes, not of its streams",
        CLOCK,
        HURRIED,
        Guards(),
        RUN,
    ),
    "processes that wait for each other's CPUs": Attack(
        "for _ in range(8): os.fork() or exec('while True: pass')\ntime.sleep(60)",
        seconds,
        "what a box has of the CPUs is no time without one, whoever waits in it",
        CPU,
        replace(HURRIED, single_process=False),
        Guards(),
        COMPILE,
    ),
}


def run(sandbox: Sandbox, attack: Attack, limits: BoxLimits) -> bool:
    """Whether an attack had its effect."""
    code = (HEAD + attack.code).encode()
    with watching(sandbox) as seen:
        result = sandbox.run([*PYTHON, "main.py"], {"main.py": code}, b"", limits)
    return attack.effect(result, seen)


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_takes_no_more_than_it_may(name: str, box: Sandbox) -> None:
    with neighbour(box):
        assert not run(box, ATTACKS[name], ATTACKS[name].limits)


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_attack_takes_more_without_its_guard(name: str) -> None:
    attack = ATTACKS[name]
    assert run(guarded(attack.guards), attack, attack.loose or attack.limits)


def test_second_line_of_memory(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's own look at a box, where the kernel's limit were not there."""
    bounds = type(box)._bounds
    monkeypatch.setattr(
        type(box),
        "_bounds",
        lambda *args: {**bounds(*args), "rlimits": {}},
    )
    hog = "kept = []\nwhile True:\n    kept.append(b'x' * (4 << 20)); time.sleep(0.01)"
    result = box.run([*PYTHON, "-c", HEAD + hog], {}, b"", RUN)
    assert result.memory_exceeded
    assert result.killed


def test_endless_diagnostics_are_cut(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "for _ in range(300): print('x' * 1000, file=sys.stderr)"
    argv = [*PYTHON, "-c", HEAD + code]
    assert len(box.run(argv, {}, b"", RUN).stderr) == STDERR_CAP
    monkeypatch.setattr(boxes, "STDERR_CAP", 1 << 30)
    assert len(box.run(argv, {}, b"", RUN).stderr) == 300 * 1001


class Leaver(NamedTuple):
    """A program that leaves a process behind, which has `MARKER` on its command line."""

    code: str
    first: str = "the PID namespace; without it the box's first process, which adopts all"
    second: str = "new processes are denied to programs under test"


STAY = "os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(60)', 'MARKER'])"
SEEN = "os.close(end); os.read(begun, 1); time.sleep(1)"  # from when the process is what it stays
QUIET = "null = os.open('/dev/null', 2)\nfor fd in range(3): os.dup2(null, fd)\n"
LEAVERS = {
    "a daemon": Leaver(
        "if os.fork() == 0:\n    try: os.setsid()\n    except OSError: pass\n"
        f"    if os.fork() == 0:\n        {STAY}\n    os._exit(0)\n{SEEN}"
    ),
    "a child that ignores signals": Leaver(
        "if os.fork() == 0:\n    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"
        f"    {STAY}\n{SEEN}"
    ),
    "a stopped child": Leaver(
        f"child = os.fork()\nif child == 0:\n    {STAY}\n{SEEN}\nos.kill(child, signal.SIGSTOP)"
    ),
    "a child of the watcher": Leaver(  # CLONE_PARENT
        "child = libc.syscall(56, 0x8000 | 17, 0, 0, 0, 0)\nassert child >= 0\n"
        f"if child == 0:\n    {STAY}\n{SEEN}"
    ),
    "a child in another group": Leaver(
        "if os.fork() == 0:\n    try: os.setpgid(0, 0)\n    except OSError: pass\n"
        f"    {STAY}\n{SEEN}"
    ),
    "a child that holds the output": Leaver(f"if os.fork() == 0:\n    {STAY}\n{SEEN}"),
}


def leaver(name: str, marker: str) -> str:
    quiet = "" if "output" in name else QUIET
    return HEAD + "begun, end = os.pipe()\n" + quiet + LEAVERS[name].code.replace("MARKER", marker)


@pytest.mark.parametrize("name", LEAVERS)
def test_nothing_is_left_behind(name: str, box: Sandbox) -> None:
    marker = f"left-{os.getpid()}-{box.tier}"
    ran = list[bool]()
    with (
        neighbour(box),
        box.start([*PYTHON, "-c", leaver(name, marker)], {}, b"", COMPILE) as started,
    ):
        ran.append(eventually(lambda: bool(sleeping(marker))))
        start = time.monotonic()
        result = started.wait()
        left = sleeping(marker)
    assert ran == [True], "it did not run, so nothing was shown"
    assert left == []
    assert result.exit_code == 0
    assert time.monotonic() - start < 3.5
    alone = box.run([*PYTHON, "-c", leaver(name, marker)], {}, b"", RUN)
    assert not alone.clean  # the second line
    assert sleeping(marker) == []


@pytest.mark.parametrize("name", LEAVERS)
def test_it_is_left_behind_outside(name: str) -> None:
    marker = f"outside-{os.getpid()}"
    argv = [*as_box_user(), *PYTHON, "-c", leaver(name, marker)]
    subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    left = sleeping(marker)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left


def sleeping(marker: str) -> list[int]:
    return processes_with(f"time.sleep(60)\0{marker}")


FOLDERS = {
    "a closed folder": "os.mkdir('a', 0o300); os.mkdir('a/b')",
    "a folder too deep for a path": "for _ in range(600): os.mkdir('d' * 200); os.chdir('d' * 200)",
}


CARELESS = """
def careless(folder):
    import os
    for inner, _, files in os.walk(folder, topdown=False):
        try:
            for name in files: os.unlink(os.path.join(inner, name))
            os.rmdir(inner)
        except OSError: pass
module.remove = careless
"""
"""Removes a folder by paths, and only what it may: instead of the spawner's own way."""


def folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("haloforge-boxes-*"))


def leaves(name: str) -> bool:
    """Whether a box without namespaces leaves something of its folder: those with them have it in
    memory, where it goes with them."""
    before = folders()
    code = textwrap.dedent(HEAD + FOLDERS[name] + "\nprint(1)")
    sandbox = Sandbox(LANDLOCK)
    result = sandbox.run([*PYTHON, "-c", code], {}, b"", COMPILE)
    (folder,) = folders() - before
    left = list(folder.iterdir())
    sandbox.close()
    assert result.stdout == b"1\n" or result.disk_full, result
    for command in (("chmod", "-R", "u+rwx"), ("rm", "-rf")) if folder.exists() else ():
        subprocess.run([*command, str(folder)], check=True)
    return bool(left)


@pytest.mark.parametrize("name", FOLDERS)
def test_no_folder_is_left_behind(name: str) -> None:
    assert not leaves(name)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_left_behind_without_care(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    start = "codes, note = "
    monkeypatch.setattr(launcher, "TEXT", launcher.TEXT.replace(start, CARELESS + start))
    assert leaves(name)


TABLE = [
    *(Row("resources", name, each.first, each.second) for name, each in ATTACKS.items()),
    Row("resources", "endless diagnostics", "diagnostics are read and dropped past a cap", CLOCK),
    *(Row("lifetime", name, each.first, each.second) for name, each in LEAVERS.items()),
    *(
        Row(
            "lifetime", name, "a file system of its own", "the first process removes it as its user"
        )
        for name in FOLDERS
    ),
]
