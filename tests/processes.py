"""Finding every process that a run has started, whoever its parent is by now."""

import time
import uuid
from collections.abc import Callable

import psutil

MARK = "HALOFORGE_TEST_MARK"


def new_mark() -> dict[str, str]:
    """An environment variable that a run and all its children inherit."""
    return {MARK: uuid.uuid4().hex}


def marked(mark: dict[str, str]) -> list[psutil.Process]:
    """The living processes that carry `mark`."""
    found = []
    for process in psutil.process_iter():
        try:
            if (
                process.environ().get(MARK) == mark[MARK]
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process)
        except psutil.Error:
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
