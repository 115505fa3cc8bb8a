"""How a run of a program ended, and the files that are handed to boxes."""

import fcntl
import os
from dataclasses import dataclass

STDERR_CAP = 64 * 1024
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
    memory_exceeded: bool = False
    """Killed for the memory of its processes together, or failed at its limit or saying so."""
    disk_full: bool = False
    """Its folder was full when it ended, or it was killed for what it wrote."""
    max_rss: int = 0
    """Most memory that its largest process held at once, in bytes; 0 where the box was killed."""
    cpu_ms: float = 0.0
    """CPU time of all its processes that were waited for; 0 where the box was killed."""

    @property
    def killed(self) -> bool:
        """It was ended from outside, over a limit."""
        return self.exit_code is None and self.signal is None

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
