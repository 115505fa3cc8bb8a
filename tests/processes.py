"""Following the processes that a run has started, until they are gone."""

import socket
import time
from collections.abc import Callable

import psutil


def family(pid: int) -> list[psutil.Process]:
    """Process `pid` and all that descend from it now; they are told apart from later ones."""
    head = psutil.Process(pid)
    return [head, *head.children(recursive=True)]


def names(processes: list[psutil.Process]) -> str:
    """Command lines of those that live, for assertions and their messages."""
    return "\n".join(" ".join(process.cmdline()) for process in living(processes))


def living(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; a zombie does not."""
    found = []
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def wait_until(condition: Callable[[], object], seconds: float) -> bool:
    """Whether `condition` came true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
