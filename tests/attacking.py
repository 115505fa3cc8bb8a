"""What the suites of attacks share: verdicts in any sandbox, and what is seen from the host."""

import contextlib
import copy
import functools
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from haloforge.schema import Problem, Test
from haloforge.verify.box import Box
from haloforge.verify.limits import Guards
from haloforge.verify.sandbox import Sandbox
from haloforge.verify.settings import VerifySettings
from haloforge.verify.spawner import descendants
from haloforge.verify.verifier import Verifier

NONE = Guards(namespaces=False, landlock=False, seccomp=False, limits=False)
SECRET = "the_planted_secret"
PAGE = os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def open_folder(parent: str | None = None) -> Iterator[Path]:
    """A folder that the user of programs in boxes may use, so that it is the box that protects it.

    Not pytest's: its other sessions close what is above theirs.
    """
    with tempfile.TemporaryDirectory(prefix="attacked-", dir=parent) as name:
        Path(name).chmod(0o777)
        yield Path(name)


class Row(NamedTuple):
    """A row of the table of attacks in `haloforge/verify/README.md`."""

    kind: str
    name: str
    first: str
    second: str


@dataclass
class Seen:
    """The most that boxes took at one time, seen from the host, all processes of one together."""

    tasks: int = 0
    memory_mb: float = 0
    locked_kb: int = 0
    disk_mb: float = 0
    files: int = 0
    """Names in the box's folder."""
    open_files: int = 0
    """Of one process."""
    cpu_s: float = 0
    seconds: float = 0
    """Since the watch began."""
    pids: list[int] = field(default_factory=list)
    """First processes."""


@contextlib.contextmanager
def watching(
    sandbox: Sandbox, enough: Callable[[Seen], bool] = lambda seen: False
) -> Iterator[Seen]:
    """What the boxes that start in the sandbox meanwhile take; `enough` ends their programs."""
    seen, over, start = Seen(), threading.Event(), sandbox.start

    def watched(*args: Any, **more: Any) -> Box:
        box = start(*args, **more)
        if box.pid > 0:
            seen.pids.append(box.pid)
        return box

    def look() -> None:
        begun = time.monotonic()
        while not over.wait(0.01):
            seen.seconds = time.monotonic() - begun
            for first in seen.pids[-3:]:
                _measure(first, seen)
                for pid in descendants(first) if enough(seen) else ():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=look)
    thread.start()
    with contextlib.ExitStack() as stack:
        stack.callback(thread.join)
        stack.callback(over.set)
        stack.callback(lambda: vars(sandbox).pop("start"))
        vars(sandbox)["start"] = watched
        yield seen


def _measure(first: int, seen: Seen) -> None:
    tasks = memory = locked = ticks = 0
    nameless = dict[int, int]()
    running = descendants(first)
    for pid in running:
        with contextlib.suppress(OSError):
            process = Path(f"/proc/{pid}")
            memory += int((process / "statm").read_text().split()[1]) * PAGE
            status = dict(
                line.split(":", 1) for line in (process / "status").read_text().splitlines()
            )
            tasks += int(status["Threads"])
            ticks += sum(map(int, (process / "stat").read_text().rpartition(")")[2].split()[11:15]))
            locked += int(status.get("VmLck", "0 kB").split()[0])
            fds = list((process / "fd").iterdir())
            seen.open_files = max(seen.open_files, len(fds))
            for fd in fds:
                with contextlib.suppress(OSError):
                    found = fd.stat()
                    if found.st_nlink == 0 and "memfd" not in str(fd.readlink()):
                        nameless[found.st_ino] = found.st_blocks * 512
    names = disk = 0
    for pid in running[:1]:  # the program, whose folder has the files
        for folder, folders, files in os.walk(f"/proc/{pid}/cwd/"):
            names += len(files) + len(folders)
            for name in files:
                with contextlib.suppress(OSError):
                    disk += os.lstat(f"{folder}/{name}").st_blocks * 512
    seen.tasks = max(seen.tasks, tasks)
    seen.cpu_s = max(seen.cpu_s, ticks / os.sysconf("SC_CLK_TCK"))
    seen.memory_mb = max(seen.memory_mb, memory / (1 << 20))
    seen.locked_kb = max(seen.locked_kb, locked)
    seen.files = max(seen.files, names)
    seen.disk_mb = max(seen.disk_mb, (disk + sum(nameless.values())) / (1 << 20))


@functools.cache
def _verifier() -> Verifier:
    verifier = Verifier(VerifySettings(cache=False), {})
    verifier.sandbox.close()
    return verifier


def verdict(
    sandbox: Sandbox,
    language: str,
    code: str,
    tests: list[Test] | None = None,
    settings: VerifySettings | None = None,
) -> dict[str, Any]:
    """The verdict of a program in a sandbox; without `tests`, of whether it compiles."""
    problem = Problem(
        problem_id="p",
        prompt="?",
        language=language,
        judge="stdio" if tests else "compile",
        tests=tests or [],
    )
    verifier = copy.copy(_verifier())
    verifier.sandbox, verifier.problems = sandbox, {"p": problem}
    verifier.settings = settings or VerifySettings(cache=False)
    fence = "~" * 8
    completion = f"{fence}{language}\n{code}\n{fence}"
    return verifier.verify({"sample_id": "s", "problem_id": "p", "completion": completion})


@contextlib.contextmanager
def neighbour(sandbox: Sandbox) -> Iterator[None]:
    """Judges a right program beside what happens meanwhile: each verdict is right, and in time.

    What is in time depends on how busy the machine is without it.
    """
    over = threading.Event()

    def judge() -> tuple[dict[str, Any], float]:
        start = time.monotonic()
        found = verdict(sandbox, "python", "print(int(input()) + 1)", PLUS_ONE, NEIGHBOURS)
        return found, time.monotonic() - start

    def judge_on() -> list[tuple[dict[str, Any], float]]:
        judged = [judge()]
        while not over.wait(0.2):
            judged.append(judge())
        return judged

    judge()  # the spawner may have to start
    _, alone = judge()
    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(judge_on)
        try:
            yield
        finally:
            over.set()
    for found, seconds in beside.result():
        assert found["outcome"] == "passed", found["diagnostics"]
        assert seconds < 5 + 20 * alone


NEIGHBOURS = VerifySettings(run_wall_s=15, cache=False)
PLUS_ONE = [Test(stdin="1\n", stdout="2\n"), Test(stdin="41\n", stdout="42\n")]
