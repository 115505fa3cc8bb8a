"""What bounds a box: the guards that hold it, and the limits of one run."""

import math
import os
import resource
from dataclasses import dataclass
from pathlib import Path

from haloforge.schema import Limits
from haloforge.verify.settings import VerifySettings

MIB = 1024 * 1024
UNPRIVILEGED = 65534  # nobody, who root becomes
OPEN_FILES = 64
FILES_PER_MIB = 256
SPARE_TASKS = 1024
UNLIMITED_MIB, UNLIMITED_FILES, UNLIMITED_TASKS = (
    1024,
    262144,
    256,
)  # where this guard is off; still not all there is


@dataclass(frozen=True)
class Guards:
    """What holds a box. All of them is the strongest tier; each is off to show what it stops."""

    namespaces: bool = True
    landlock: bool = True
    seccomp: bool = True
    limits: bool = True


@dataclass(frozen=True)
class BoxLimits:
    """Limits of one run. Memory is that of all its processes together."""

    wall_s: float
    cpu_s: float
    """Of all its threads and processes together, while they live."""
    memory_mb: int
    processes: int
    """Processes and threads at once."""
    output_kb: int
    file_mb: int
    files: int
    """Names in its folder at once."""
    single_process: bool
    """Deny new processes (not threads)."""


def compile_limits(settings: VerifySettings) -> BoxLimits:
    """Limits of a compilation; its output is the program, so the file size caps it."""
    return BoxLimits(
        wall_s=settings.compile_wall_s,
        cpu_s=math.inf,
        memory_mb=settings.compile_memory_mb,
        processes=settings.processes,
        output_kb=settings.file_mb * 1024,
        file_mb=settings.file_mb,
        files=settings.files or settings.file_mb * FILES_PER_MIB,
        single_process=False,
    )


def run_limits(settings: VerifySettings, own: Limits | None = None) -> BoxLimits:
    """Limits of one test; `own` are a problem's own, where it has them."""
    own = own or Limits()
    file_mb = own.file_mb or settings.file_mb
    return BoxLimits(
        wall_s=own.wall_s or settings.run_wall_s,
        cpu_s=own.cpu_s or settings.run_cpu_s or math.inf,
        memory_mb=own.memory_mb or settings.run_memory_mb,
        processes=own.processes or settings.processes,
        output_kb=own.output_kb or settings.output_kb,
        file_mb=file_mb,
        files=own.files or settings.files or file_mb * FILES_PER_MIB,
        single_process=True,
    )


def kernel_cpu_s(limits: BoxLimits) -> int:
    """Seconds of CPU time after which the kernel kills a process. More than the box's own look
    allows: it ends what a killed host process may leave behind.
    """
    return math.ceil(min(limits.cpu_s, limits.wall_s * (os.cpu_count() or 1))) + 1


def rlimits(limits: BoxLimits, namespaces: bool) -> dict[int, int]:
    """The kernel's limits of each process, by their number; none is above the host's own."""
    wanted = {
        resource.RLIMIT_AS: limits.memory_mb * MIB,
        resource.RLIMIT_CPU: kernel_cpu_s(limits),
        resource.RLIMIT_FSIZE: limits.file_mb * MIB,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_CORE: 0,
        # Deep recursion is no crash before memory ends; threads get libc's 2 MiB for "unlimited".
        resource.RLIMIT_STACK: resource.RLIM_INFINITY,
        resource.RLIMIT_NPROC: limits.processes,
    }
    if not namespaces:
        # Counted for the user, who has other programs: it stops a fork bomb that is not seen yet.
        running = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
        wanted[resource.RLIMIT_NPROC] = running + SPARE_TASKS
    return {key: hard_limited(key, value) for key, value in wanted.items()}


def hard_limited(key: int, value: int) -> int:
    """The value, or this process's own hard limit of that kind where that is lower."""
    hard = resource.getrlimit(key)[1]
    if hard == resource.RLIM_INFINITY:
        return value
    return hard if value == resource.RLIM_INFINITY else min(value, hard)
