"""Keeps the terminal for the user: loggers and native code of libraries write to files."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

_STDERR = 2


@contextmanager
def native_stderr_to(path: Path) -> Iterator[None]:
    """What native code and child processes print to standard error goes to `path` meanwhile.

    Python's own `sys.stderr` still reaches the terminal. Ray's core prints there from C++, where
    no logger can be told otherwise.
    """
    python = sys.stderr
    shared = python.fileno() == _STDERR if _has_descriptor() else False
    terminal = os.dup(_STDERR)
    with path.open("ab") as log:
        os.dup2(log.fileno(), _STDERR)
    if shared:
        sys.stderr = os.fdopen(os.dup(terminal), "w", buffering=1, encoding="utf-8")
    try:
        yield
    finally:
        if shared:
            sys.stderr.close()
            sys.stderr = python
        os.dup2(terminal, _STDERR)
        os.close(terminal)


def _has_descriptor() -> bool:
    try:
        sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):  # replaced by something that is no file
        return False
    return True


def loggers_to_files() -> None:
    """Takes Ray's loggers off the terminal; those that write files go on writing them."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # Serve tells a driver all it does
    for name in ("ray.data", "ray.train"):
        logger = logging.getLogger(name)
        logger.propagate = False
        for handler in list(logger.handlers):
            if isinstance(handler, logging.StreamHandler) and not isinstance(
                handler, logging.FileHandler
            ):
                logger.removeHandler(handler)


def cluster_errors_to_stderr() -> None:
    """What Ray tells every driver of its cluster, such as the end of a lost node's log, goes where
    native code writes. Ray prints it to standard output, where results are."""

    def write(data: dict[str, Any], ignore_prefix: bool) -> None:
        os.write(_STDERR, "".join(f"{line}\n" for line in data["lines"]).encode())

    ray._private.worker.print_to_stdstream = write
