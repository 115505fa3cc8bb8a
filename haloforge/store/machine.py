"""Which machine this is."""

import platform
import socket
from pathlib import Path


def machine() -> str:
    """Its name, and what its kernel drew when it started: others may have the name too."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{socket.gethostname()} {boot.read_text().strip() if boot.exists() else ''}".rstrip()


def cpu_name(root: Path = Path("/")) -> str:
    """The model of the CPU as Linux names it; its architecture where it does not."""
    for line in (root / "proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
