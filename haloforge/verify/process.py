"""One command run to a deadline: pipes drained while it runs, capped, and all of it gone after."""

import contextlib
import fcntl
import json
import os
import select
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from haloforge.errors import InfraError

STDERR_CAP = 64 * 1024
READ_SIZE = 64 * 1024
GONE_WITHIN_S = 10.0
LAST_READ_S = 1.0
BUSY_FACTOR = 3  # a deadline on a busy machine comes at most this many times as late
LEAST_EXTENSION_S = 0.02
SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


@dataclass(frozen=True)
class RunResult:
    """How a run ended. `exit_code` is None when the run was killed or died of `signal`."""

    exit_code: int | None
    signal: int | None
    timed_out: bool
    output_truncated: bool
    """It printed more than its cap, and was killed for it."""
    stdout: bytes
    stderr: bytes
    """At most 64 KiB; what comes after is read and dropped."""
    wall_ms: float

    @property
    def clean(self) -> bool:
        """It ended by itself, with exit status 0."""
        return self.exit_code == 0 and not self.timed_out and not self.output_truncated


def sealed_file(name: str, data: bytes) -> int:
    """A file descriptor, at offset 0, of a nameless file that nobody can change any more."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    return fd


class _Box:
    """The process tree under one command, as far as the host must know of it."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.pidfd = os.pidfd_open(process.pid)
        self.init: int | None = None  # pidfd of the process whose end ends the PID namespace
        self.init_pid: int | None = None
        self.status = b""
        self.exit_code: int | None = None

    def read_status(self, data: bytes) -> None:
        """Take in bubblewrap's status lines: one with the PID of the box's init, one at the end."""
        *lines, self.status = (self.status + data).split(b"\n")
        for line in lines:
            fields = json.loads(line)
            if "child-pid" in fields:
                self.init_pid = fields["child-pid"]
                with contextlib.suppress(ProcessLookupError):
                    self.init = os.pidfd_open(fields["child-pid"])
            self.exit_code = fields.get("exit-code", self.exit_code)

    def cpu_wait_s(self) -> float:
        """Seconds that the box's processes were ready to run while others had the CPUs.

        Processes with threads are left out: those can take the CPUs from each other.
        """
        waited, pids = 0, [] if self.init_pid is None else [self.init_pid]
        while pids:
            tasks = Path(f"/proc/{pids.pop()}/task")
            with contextlib.suppress(OSError, ValueError):
                (task,) = tasks.iterdir()
                pids += map(int, (task / "children").read_text().split())
                waited += int((task / "schedstat").read_text().split()[1])
        return waited / 1e9

    def kill(self) -> None:
        if self.init is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.init, signal.SIGKILL)
        if self.process.returncode is None:  # not reaped: its group's number is still its own
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def wait_gone(self) -> None:
        """Wait until the command and its namespace are dead. Raises InfraError when they stay."""
        try:
            self.process.wait(GONE_WITHIN_S)
        except subprocess.TimeoutExpired as error:
            raise InfraError(f"a box outlived SIGKILL for {GONE_WITHIN_S:.0f} s") from error
        if self.init is not None:
            poll = select.poll()
            poll.register(self.init, select.POLLIN)
            if not poll.poll(GONE_WITHIN_S * 1000):
                raise InfraError(f"a box outlived SIGKILL for {GONE_WITHIN_S:.0f} s")

    def close(self) -> None:
        for fd in (self.init, self.pidfd):
            if fd is not None:
                os.close(fd)


class _Drain:
    """Reads a command's pipes until it ends, and kills it at its deadline or output cap."""

    def __init__(self, box: _Box, start: float, wall_s: float, output_cap: int) -> None:
        self.box = box
        self.start = start
        self.wall_s = wall_s
        self.deadline = start + wall_s
        self.output_cap = output_cap
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.timed_out = False
        self.truncated = False
        self.wall_ms = wall_s * 1000

    def run(self, status: int | None) -> None:
        process, box = self.box.process, self.box
        assert process.stdout and process.stderr
        take = {process.stdout.fileno(): self._out, process.stderr.fileno(): self._err}
        if status is not None:
            take[status] = box.read_status
        with selectors.DefaultSelector() as selector:
            for fd in (*take, box.pidfd):
                selector.register(fd, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(max(0.0, self.deadline - time.monotonic()))
                if not ready and time.monotonic() >= self.deadline:
                    if box.process.returncode is not None:
                        return  # a stray outside any namespace holds a pipe open
                    if not self._extended():
                        self.timed_out = not self.truncated
                        self._stop()
                for fd in (key.fd for key, _ in ready):
                    if fd == box.pidfd:
                        selector.unregister(fd)
                        self._ended()
                    elif data := os.read(fd, READ_SIZE):
                        take[fd](data)
                    else:
                        selector.unregister(fd)

    def _extended(self) -> bool:
        """Give back the time in which a busy machine kept the box from running."""
        if self.truncated or self.timed_out:
            return False
        lost = min(self.box.cpu_wait_s(), (BUSY_FACTOR - 1) * self.wall_s)
        self.deadline = self.start + self.wall_s + lost
        return self.deadline > time.monotonic() + LEAST_EXTENSION_S

    def _out(self, data: bytes) -> None:
        self.stdout += data
        if len(self.stdout) > self.output_cap:
            del self.stdout[self.output_cap :]
            if not self.truncated:
                self.truncated = True
                self._stop()

    def _err(self, data: bytes) -> None:
        self.stderr += data[: STDERR_CAP - len(self.stderr)]

    def _stop(self) -> None:
        self.box.kill()
        self.deadline = time.monotonic() + GONE_WITHIN_S

    def _ended(self) -> None:
        """The program has ended: what it left behind gets no more time."""
        self.wall_ms = (time.monotonic() - self.start) * 1000
        self.box.kill()
        self.box.wait_gone()
        self.deadline = time.monotonic() + LAST_READ_S


def execute(
    argv: Sequence[str],
    *,
    stdin: bytes,
    wall_s: float,
    output_cap: int,
    pass_fds: Sequence[int] = (),
    status_pipe: tuple[int, int] | None = None,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
) -> RunResult:
    """Run `argv` to its end, its deadline (seconds) or its output cap (bytes).

    Time in which a box was ready to run but got no CPU does not count, up to twice `wall_s`: a
    busy machine is not the program's fault.

    With `status_pipe` (read end, write end; the write end is passed on and closed here) the command
    is bubblewrap and writes its JSON status there: the exit code is then the program's.
    Raises InfraError when the command cannot be started or its box cannot be set up.
    """
    read_end, write_end = status_pipe or (None, None)
    stdin_fd = sealed_file("stdin", stdin)
    start = time.monotonic()
    try:
        # Without preexec_fn this is vfork: a big parent costs nothing.
        process = subprocess.Popen(
            argv,
            stdin=stdin_fd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=pass_fds if write_end is None else (*pass_fds, write_end),
            start_new_session=True,
            cwd=cwd,
            env=env,
        )
    except OSError as error:
        raise InfraError(f"cannot start {argv[0]}: {error}") from error
    finally:
        os.close(stdin_fd)
        if write_end is not None:
            os.close(write_end)
    with process:
        box = _Box(process)
        drain = _Drain(box, start, wall_s, output_cap)
        try:
            drain.run(read_end)
        finally:
            box.kill()
            box.wait_gone()
            box.close()
    return _result(box, drain, boxed=read_end is not None)


def _result(box: _Box, drain: _Drain, boxed: bool) -> RunResult:
    killed = drain.timed_out or drain.truncated
    code = box.process.returncode
    if boxed:
        code = box.exit_code
        if code is None and not killed:
            reason = bytes(drain.stderr).decode(errors="replace").strip().splitlines()
            raise InfraError(f"the box failed: {reason[-1] if reason else 'no reason given'}")
        if code is not None and code > 128:  # bubblewrap's own way to tell of a signal
            code = 128 - code
    signalled = code is not None and code < 0
    return RunResult(
        exit_code=None if killed or signalled else code,
        signal=-code if code is not None and signalled and not killed else None,
        timed_out=drain.timed_out,
        output_truncated=drain.truncated,
        stdout=bytes(drain.stdout),
        stderr=bytes(drain.stderr),
        wall_ms=drain.wall_ms,
    )
