"""One process at a time in a run folder: two would write the same shards under the same names."""

import fcntl
import os
import socket
import time
from errno import ENOLCK, ENOSYS, EOPNOTSUPP
from pathlib import Path

from haloforge.errors import InputError

LOCK = ".lock"
_NO_LOCKS = (ENOLCK, ENOSYS, EOPNOTSUPP)
_LOOKS, _LOOK_SECONDS = 3, 0.05
_held: dict[Path, int] = {}
"""Descriptors by folder. The kernel lets go of them when the process ends, in whatever way; they
are closed in programs that it starts."""


def hold(folder: Path) -> None:
    """Makes `folder` and keeps every other process out of it until this one ends.

    Held already, it stays so. Raises InputError where another process is at work in it. A file
    system without locks keeps none out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    key, path = folder.resolve(), folder / LOCK
    if key in _held:
        if _leads_to(path, _held[key]):
            return
        release(folder)  # what was held has another name now, or is gone
    looks = 0
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            looks += 1
            if looks < _LOOKS:  # it may be `is_held`, which lets go at once
                os.close(descriptor)
                time.sleep(_LOOK_SECONDS)
                continue
            owner = os.read(descriptor, 300).decode(errors="replace").strip()
            os.close(descriptor)
            raise InputError(
                f"{folder}: another process is at work here ({owner or 'not told which'}); wait "
                "until it ends, or name another --output"
            ) from None
        except OSError as error:
            os.close(descriptor)
            if error.errno in _NO_LOCKS:
                return
            raise
        if _leads_to(path, descriptor):
            break
        os.close(descriptor)  # the folder was set aside in between
        folder.mkdir(parents=True, exist_ok=True)
    _held[key] = descriptor
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)


def release(folder: Path) -> None:
    """Lets other processes into `folder` again, before it is renamed or removed."""
    descriptor = _held.pop(folder.resolve(), None)
    if descriptor is not None:
        os.close(descriptor)


def is_held(folder: Path) -> bool:
    """Whether a process is at work in `folder`, this one or another. False also where the file
    system has no locks. Leaves the folder as it is."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    finally:
        os.close(descriptor)
    return False


def check_idle(folder: Path) -> None:
    """Raises InputError where another process is at work in `folder` or in a folder below it; this
    one lets go of what it held there."""
    for path in folder.rglob(LOCK) if folder.is_dir() else ():
        hold(path.parent)
        release(path.parent)


def _leads_to(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
