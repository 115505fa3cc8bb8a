"""Which machine this is."""

import socket
from pathlib import Path


def machine() -> str:
    """Its name, and what its kernel drew when it started: others may have the name too."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{socket.gethostname()} {boot.read_text().strip() if boot.exists() else ''}".rstrip()
