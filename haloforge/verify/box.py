"""One box from its start until it is gone: pipes drained while it runs, capped, to a deadline."""

import contextlib
import functools
import json
import math
import os
import re
import select
import selectors
import signal
import stat
import sys
import time
from pathlib import Path
from typing import Any

from haloforge.errors import InfraError
from haloforge.verify.limits import MIB, BoxLimits, Guards, kernel_cpu_s
from haloforge.verify.process import STDERR_CAP, RunResult
from haloforge.verify.spawner import descendants

READ_SIZE = 64 * 1024
GONE_WITHIN_S = 10.0
LAST_READ_S = 1.0
BUSY_FACTOR = 10  # a deadline on a busy machine comes at most this many times as late
LEAST_EXTENSION_S = 0.02
LOOK_EVERY_S = 0.1  # at what all processes of a box take together
NEAR_LIMIT = 0.75  # of its memory: a program that fails there is taken to have run out of it
OUT_OF_MEMORY = re.compile(
    rb"(?i)MemoryError|bad_alloc|out ?of ?memory|cannot allocate memory|memory exhausted"
    rb"|memory allocation of \d+ bytes failed"
)
OUTLIVED = f"a box outlived its end for {GONE_WITHIN_S:.0f} s"
PAGE, TICKS_PER_S = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")


class Box:
    """A running box, and its pipes, which it reads and closes. Made by `Sandbox.start`."""

    def __init__(
        self,
        start: float,
        pidfd: int,
        status: int,
        stdout: int,
        stderr: int,
        limits: BoxLimits,
        guards: Guards,
    ) -> None:
        self.pidfd = pidfd
        self.limits = limits
        self.guards = guards
        self.asked_by: Box | None = None
        """A box that this one waits for: time in which that has no CPU does not count here."""
        self._start = start
        self._deadline = self._start + limits.wall_s
        self._look_at = self._start + LOOK_EVERY_S if guards.limits else math.inf
        self._take = {stdout: self._out, stderr: self._err, status: self._told}
        self._stdout, self._stderr, self._status = bytearray(), bytearray(), bytearray()
        self._noted, self._starved_s = start, 0.0
        self._seen: dict[Path, tuple[int, int]] = {}
        self._stopped: str | None = None
        self._gone = False
        self._wall_ms = 0.0

    def __enter__(self) -> "Box":
        return self

    def __exit__(self, *_: object) -> None:
        """End the box, wait until it is gone, and close what is held of it."""
        try:
            if not self._gone:
                self.kill()
                poll = select.poll()
                poll.register(self.pidfd, select.POLLIN)
                if not poll.poll(GONE_WITHIN_S * 1000):
                    raise InfraError(OUTLIVED)
        finally:
            for fd in (self.pidfd, *self._take):
                os.close(fd)

    @functools.cached_property
    def pid(self) -> int:
        """PID of the box's first process on this host; below 0 when it was gone already."""
        text = Path(f"/proc/self/fdinfo/{self.pidfd}").read_text()
        return int(text.rpartition("Pid:")[2].split()[0])

    def processes(self) -> list[int]:
        """PIDs on this host of what runs in the box now, without its first process."""
        return descendants(self.pid)

    def kill(self) -> None:
        """End the box: by its first process where that is no PID 1, whose end ends all."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(
                self.pidfd, signal.SIGKILL if self.guards.namespaces else signal.SIGTERM
            )

    def wait(self) -> RunResult:
        """Let the box run to its end, its deadline or a limit; all of it is gone on return.

        Time in which it was ready to run but got no CPU does not count: a busy machine is not the
        program's fault. Raises InfraError when that comes to `BUSY_FACTOR` times `wall_s`, or when
        the box itself fails.
        """
        with selectors.DefaultSelector() as selector:
            for fd in (self.pidfd, *self._take):
                selector.register(fd, selectors.EVENT_READ)
            while selector.get_map():
                until = min(self._deadline, self._look_at)
                for key, _ in selector.select(max(0.0, until - time.monotonic())):
                    if key.fd == self.pidfd:
                        selector.unregister(key.fd)
                        self._end()
                    elif data := os.read(key.fd, READ_SIZE):
                        self._take[key.fd](data)
                    else:
                        selector.unregister(key.fd)
                if time.monotonic() >= self._look_at:
                    self._look()
                if time.monotonic() >= self._deadline:
                    if self._gone:
                        break  # a stray holds a pipe open
                    self._late()
        return self._result()

    def _late(self) -> None:
        if self._stopped or self._status:
            raise InfraError(OUTLIVED)
        now = time.monotonic()
        self._note_starved()
        self._deadline = self._start + self.limits.wall_s + self._starved_s
        if self._deadline <= now + LEAST_EXTENSION_S:
            self._stop("time")
        elif now >= self._start + self.limits.wall_s * BUSY_FACTOR:
            self.kill()
            took = now - self._start
            raise InfraError(
                f"for {self._starved_s:.0f} of a box's {took:.0f} s others had the CPUs"
            )

    def _note_starved(self) -> None:
        """Count the time since it was last called in which the program was ready to run while
        others had the CPUs: piece by piece, for processes end, and what they waited with them.

        What it has in CPU time itself is no such time, so that many threads or processes of its own
        that wait for each other gain nothing.
        """
        now, waited, used = time.monotonic(), 0, 0
        found = [box._tasks() for box in (self, self.asked_by) if box]
        for tasks in found:
            before = [self._seen.get(task, (0, 0)) for task in tasks]
            pieces = [(r - a, w - b) for (r, w), (a, b) in zip(tasks.values(), before, strict=True)]
            used += sum(run for run, _ in pieces)
            waited += max((wait for _, wait in pieces), default=0)
        self._starved_s += max(0.0, min(waited / 1e9, now - self._noted - used / 1e9))
        self._noted, self._seen = now, {task: ns for tasks in found for task, ns in tasks.items()}

    def _tasks(self) -> dict[Path, tuple[int, int]]:
        """Nanoseconds on a CPU, and waiting for one, of each thread of the box."""
        found = {}
        for pid in [self.pid, *self.processes()]:
            with contextlib.suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    run, wait, _ = (task / "schedstat").read_text().split()
                    found[task] = int(run), int(wait)
        return found

    def _cpu_s(self) -> float:
        """CPU time of the processes that are there now, with that of their threads that ended."""
        ticks = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS_PER_S

    def _look(self) -> None:
        """Stop the box if its processes together are over a limit."""
        self._look_at = time.monotonic() + LOOK_EVERY_S
        self._note_starved()
        if self.limits.cpu_s < math.inf and self._cpu_s() > self.limits.cpu_s:
            self._stop("time")
        memory = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                memory += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
        if memory > self.limits.memory_mb * MIB:
            self._stop("memory")
        elif not self.guards.namespaces:
            written, files = self._written()
            if written > self.limits.file_mb * MIB or files > self.limits.files:
                self._stop("disk")

    def _written(self) -> tuple[int, int]:
        """Bytes and entries in a box's folder that is not a file system of its own, a page more for
        each entry. Files that are open and have no name any more count too.
        """
        try:
            total, files, folders = 0, 0, [Path(f"/proc/{self.pid}/cwd").readlink()]
            device = folders[0].stat().st_dev
        except OSError:  # it has ended
            return 0, 0
        for folder in folders:  # grows meanwhile
            try:
                for path in folder.iterdir():
                    found = path.lstat()
                    total += PAGE + found.st_blocks * 512
                    files += 1
                    if stat.S_ISDIR(found.st_mode):
                        folders.append(path)
            except FileNotFoundError:
                continue
            except OSError:  # too deep for a path, or closed: it hides what it writes
                return sys.maxsize, files
        nameless = dict[int, int]()
        for pid in self.processes():
            with contextlib.suppress(OSError):
                for fd in Path(f"/proc/{pid}/fd").iterdir():
                    file = fd.stat()
                    if file.st_dev == device and file.st_nlink == 0:
                        nameless[file.st_ino] = file.st_blocks * 512
        return total + sum(nameless.values()), files

    def _out(self, data: bytes) -> None:
        self._stdout += data
        if len(self._stdout) > self.limits.output_kb * 1024:
            del self._stdout[self.limits.output_kb * 1024 :]
            self._stop("output")

    def _err(self, data: bytes) -> None:
        self._stderr += data[: STDERR_CAP - len(self._stderr)]

    def _told(self, data: bytes) -> None:
        """The status line comes when the program has ended."""
        self._status += data
        self._wall_ms = (time.monotonic() - self._start) * 1000
        self._deadline = time.monotonic() + GONE_WITHIN_S

    def _stop(self, limit: str) -> None:
        if self._stopped is None:
            self._stopped = limit
            self._deadline = time.monotonic() + GONE_WITHIN_S
            self.kill()

    def _end(self) -> None:
        """The first process has ended, and with it all of the box."""
        self._gone = True
        self._look_at = math.inf
        self._wall_ms = self._wall_ms or (time.monotonic() - self._start) * 1000
        self._deadline = time.monotonic() + LAST_READ_S

    def _result(self) -> RunResult:
        status: dict[str, Any] = json.loads(self._status) if self._status[:1] == b"{" else {}
        if self._stopped is None and (not status or status["told"]):
            reason = b"" if status else self._status.strip()
            raise InfraError(f"the box failed: {reason.decode() or 'it was killed'}")
        killed = self._stopped is not None or bool(status["crowded"])
        code = None if killed else status["code"]
        stderr, max_rss = bytes(self._stderr), status.get("max_rss", 0)
        near = max_rss >= NEAR_LIMIT * self.limits.memory_mb * MIB
        out_of_memory = bool(code) and (near or bool(OUT_OF_MEMORY.search(stderr)))
        cpu_ms = status.get("cpu_ms", 0.0)
        # The clock of the kernel's limit is not quite that of what a process is told to have used.
        by_kernel = code == -signal.SIGKILL and cpu_ms >= 900 * kernel_cpu_s(self.limits)
        return RunResult(
            exit_code=code if code is not None and code >= 0 else None,
            signal=-code if code is not None and code < 0 else None,
            timed_out=self._stopped == "time" or by_kernel,
            output_truncated=self._stopped == "output",
            stdout=bytes(self._stdout),
            stderr=stderr,
            wall_ms=self._wall_ms,
            memory_exceeded=self._stopped == "memory" or out_of_memory,
            disk_full=self._stopped == "disk" or bool(status.get("full")),
            max_rss=max_rss,
            cpu_ms=cpu_ms,
        )
