"""CPU, memory and disk of this machine, within the limits of its container.

`root` is where the kernel's files are: /proc and /sys, of another machine in tests.
"""

import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path

from haloforge.doctor.finding import Finding, fault, ok, warning
from haloforge.model.precision import has_bf16
from haloforge.store.machine import cpu_name

GB = 2**30
ROOT = Path("/")
# With the bundled model a pipeline on a few problems held 5 GB while it sampled, by Ray's processes
# and an engine, and 7.2 GB with a trainer beside them: PSS of its processes, of which pages of
# files can be given back.
LEAST_GB, ENOUGH_GB = 6, 8
# A run of the bundled model writes about 1 GB (`halo-forge plan`), and as much is copied meanwhile.
LEAST_DISK_GB, ENOUGH_DISK_GB = 1, 5
RAY_FULL = 0.95
"""Share of a disk in use from which on Ray puts no more objects there."""
_SLOW_STORE_GB = 10e9 / GB  # from there on Ray refuses to do without /dev/shm
_UNLIMITED = 2**60  # what a cgroup of version 1 says where there is no limit, or more


def check_system(system: str | None = None) -> Finding:
    """Linux, for whose kernel the sandbox is made."""
    name = system or platform.system()
    if name == "Linux":
        return ok("system", f"Linux {platform.release()}, {platform.machine()}")
    return fault(
        "system",
        f"{name}: the sandbox needs Linux",
        "docker build -f cluster/images/cpu.Dockerfile -t haloforge-cpu .",
    )


def check_cpu(root: Path = ROOT) -> Finding:
    """Cores that may be used, and what the CPU computes in."""
    cores = os.cpu_count() or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    limit = cpu_limit(root)
    told = [cpu_name(root), f"{cores} cores"]
    if affinity < cores:
        told.append(f"this process may use {affinity} of them")
    if limit is not None and limit < cores:
        told.append(f"its cgroup {limit:g} of them")
    bf16 = has_bf16(root / "proc/cpuinfo")
    told.append("bfloat16" if bf16 else "no bfloat16 instructions, so float32 is computed in")
    usable = min(affinity, limit or affinity)
    if usable < 2:
        return warning("cpu", f"{', '.join(told)}; engines, trainers and verifiers take turns on 1")
    return ok("cpu", ", ".join(told))


def check_memory(root: Path = ROOT) -> Finding:
    """What the machine or the container has, and what of it is free."""
    table = dict(re.findall(r"^(\w+): +(\d+) kB", _read(root / "proc/meminfo"), re.M))
    total, free = (int(table[name]) * 1024 for name in ("MemTotal", "MemAvailable"))
    limit, used = memory_limit(root)
    told = f"{free / GB:.1f} of {total / GB:.1f} GB free"
    if limit is not None and limit < total:
        told = f"{told}; its cgroup may use {limit / GB:.1f} GB and uses {used / GB:.1f}"
        free, total = min(free, limit - used), limit
    advice = "Take a larger machine, or end what takes the memory:\nps aux --sort=-rss | head"
    if total < LEAST_GB * GB:
        return fault("memory", f"{told}; a run needs {LEAST_GB} GB at the least", advice)
    if free < LEAST_GB * GB:
        return warning("memory", f"{told}; a run needs {LEAST_GB} GB at the least", advice)
    if total < ENOUGH_GB * GB:
        told = f"{told}: small models and short answers only"
        return warning("memory", told, "Ask what a configuration takes:\nhalo-forge plan")
    return ok("memory", told)


def check_shared_memory(object_store_mb: int, path: Path = Path("/dev/shm")) -> Finding:
    """Room for the object store of a private Ray, in which nodes and processes share data."""
    name, wanted = "shared memory", object_store_mb / 1024
    if not path.is_dir():
        return warning(name, f"no {path}: Ray keeps its objects on the disk, more slowly")
    free = _free(path) / GB
    told = f"{free:.2f} GB free in {path}"
    if free >= wanted:
        return ok(name, told)
    told = f"{told}, but ray.object_store_mb is {object_store_mb}"
    advice = f"mount -o remount,size={wanted + 0.5:.1f}G {path}"
    if Path("/.dockerenv").exists():
        advice = f"Start the container with --shm-size={wanted + 0.5:.1f}g"
    if wanted > _SLOW_STORE_GB:
        return fault(name, f"{told}: Ray does not start", advice)
    return warning(name, f"{told}: Ray keeps its objects on the disk, more slowly", advice)


def check_disk(name: str, path: Path, for_ray: bool = False) -> Finding:
    """Room at `path`, and whether files can be made there; it need not be there yet."""
    place = path.expanduser().absolute()
    while not place.exists():
        place = place.parent
    found = os.statvfs(place)
    free = found.f_bavail * found.f_frsize
    used = 1 - found.f_bavail / found.f_blocks if found.f_blocks else 0.0
    told = f"{path}: {free / GB:.1f} GB free"
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        advice = "Work in a folder of your own, or set another (HALOFORGE_CACHE, RAY_TMPDIR)."
        return fault(name, f"{told}; {place} cannot be written to", advice)
    if found.f_files and not found.f_favail:
        return fault(name, f"{told}, but no file can be added (no inodes left)", f"df -i {place}")
    advice = f"du -xh --max-depth=2 {place} | sort -h | tail"
    if free < LEAST_DISK_GB * GB:
        return fault(name, f"{told}; {LEAST_DISK_GB} GB is needed at the least", advice)
    if for_ray and used > RAY_FULL:
        return warning(name, f"{told}; {used:.0%} full, so Ray would spill no objects", advice)
    if free < ENOUGH_DISK_GB * GB:
        told = f"{told}; a run of the bundled model takes 1 to 2 GB, larger ones more"
        return warning(name, told, advice)
    return ok(name, told)


def cpu_limit(root: Path = ROOT) -> float | None:
    """Cores that the cgroups of this process allow; None without a limit."""
    found = []
    for folder in _cgroups(root, "cpu"):
        quota, period = [*_read(folder / "cpu.max").split(), "", ""][:2]  # version 2
        if not quota:
            quota = _read(folder / "cpu.cfs_quota_us").strip()
            period = _read(folder / "cpu.cfs_period_us").strip()
        if quota.isdigit() and period.isdigit() and int(period):
            found.append(int(quota) / int(period))
    return min(found, default=None)


def memory_limit(root: Path = ROOT) -> tuple[int | None, int]:
    """Bytes that the cgroups of this process allow, and those in use of them that the kernel would
    not give back; None without a limit."""
    found: list[tuple[int, int]] = []
    for folder in _cgroups(root, "memory"):
        names = (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        )
        for limit, usage in names:
            told = _read(folder / limit).strip()
            if told.isdigit() and int(told) < _UNLIMITED:
                statistics = _read(folder / "memory.stat")
                cached = re.search(r"^(?:total_)?inactive_file (\d+)$", statistics, re.M)
                used = int(_read(folder / usage).strip() or 0) - int(cached[1] if cached else 0)
                found.append((int(told), max(0, used)))
    return min(found, key=lambda pair: pair[0] - pair[1], default=(None, 0))


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's cgroup and of those above it, of both versions.

    In a container the path may be the host's, and only the outermost folder is there.
    """
    mount = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        top = mount / controller if controllers else mount
        folder = top / path.strip("/")
        while folder != top:
            yield folder
            folder = folder.parent
        yield top


def _read(path: Path) -> str:
    """Empty where the kernel has no such file."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _free(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize
