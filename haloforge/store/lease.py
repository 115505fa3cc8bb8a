"""One driver at a time at a run in object storage: who is at work there renews a lease.

The lease of one that was killed on this machine is taken over at once; of one elsewhere, when it
was seen not to be renewed. A driver that was stopped, or could not reach the storage, for so long
looks before it writes again, and before each write that makes others count.

What is left: pyarrow has no conditional writes, so the look and the write are two requests. A
driver that is stopped between them until another has taken over still does that one write, and
fails at the next. No data file of the other is lost to it, for names of shards tell drivers apart.
"""

import atexit
import json
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path

import pyarrow.fs as pafs

from haloforge.errors import HaloforgeError, InfraError, InputError
from haloforge.report.progress import Report
from haloforge.store.machine import machine
from haloforge.store.storage import reaching

LEASE = ".lease"
_RENEW_S = 15.0
_SETTLE_S = 1.0
_LOST_AFTER = 3  # times that a lease was not renewed


class Lease:
    """That of this process on the run at `uri`, which is `root` in `store`."""

    def __init__(self, uri: str, store: pafs.FileSystem, root: str) -> None:
        self._uri, self._store, self._path = uri, store, f"{root}/{LEASE}"
        self._owner = {
            "id": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "machine": machine(),
            "pid": os.getpid(),
        }
        self._turn = threading.Lock()
        self._left = threading.Event()
        self._renewed = 0.0
        self._lost = False

    @property
    def tag(self) -> str:
        """What tells this driver's files from those of others."""
        return str(self._owner["id"])[:8]

    def take(self) -> None:
        """Takes the lease, and renews it until this process ends. Raises InputError where another
        driver has it."""
        settle = _SETTLE_S
        seen = self._read()
        if seen and not self._is_dead(seen):
            Report().say(
                f"{self._uri}: a driver had this run; waiting to see if it still does, "
                f"{_LOST_AFTER * _RENEW_S:.0f} seconds at most ..."
            )
            if self._is_still(seen):
                settle = _RENEW_S  # as long as it may take that driver to renew it after all
        self._renew()
        time.sleep(settle)  # of two that begin at once the later has it
        if not self._is_mine(now := self._read()):
            raise self._taken(now)
        threading.Thread(target=self._keep, name="lease", daemon=True).start()
        atexit.register(self.leave)

    def check(self, at_once: bool) -> None:
        """Raises InfraError where the run is no longer this driver's, as far as is known; `at_once`
        asks the storage, which else is asked only when the lease was not renewed in time."""
        with self._turn:
            if not self._lost and (at_once or _now() - self._renewed > _RENEW_S):
                self._look()
        if self._lost:
            raise InfraError(
                f"{self._uri}: another driver has taken this run over, or its {LEASE} was deleted; "
                "the same command goes on from what is stored"
            )

    def leave(self) -> None:
        """Gives the lease back, if it is still this driver's."""
        self._left.set()
        with self._turn, suppress(HaloforgeError, OSError):  # not renewed, which says the same
            if self._is_mine(self._read()):
                self._store.delete_file(self._path)

    def _keep(self) -> None:
        while not self._left.wait(_RENEW_S):
            with self._turn, suppress(HaloforgeError, OSError):  # the next write says so
                if self._left.is_set() or self._lost:
                    return
                self._look()

    def _look(self) -> None:
        """Sees whose the lease is, and renews it where that is due."""
        began = _now()
        if not self._is_mine(self._read()):
            self._lost = True
        elif began - self._renewed >= _RENEW_S:
            before = self._renewed
            try:
                self._renew()
            finally:
                # So slow a renewal, and so late, may have come after another's last look.
                late = _now() - before > _LOST_AFTER * _RENEW_S
                self._lost = late and _now() - began > _RENEW_S

    def _is_still(self, seen: dict[str, object]) -> bool:
        """Waits while the lease stays as it was `seen`; whether it does, or was given back. Raises
        InputError where it is renewed."""
        for _ in range(_LOST_AFTER):
            time.sleep(_RENEW_S)
            again = self._read()
            if not again:
                return False
            if again != seen:
                raise self._taken(again)
        return True

    def _taken(self, lease: dict[str, object]) -> InputError:
        return InputError(
            f"{self._uri}: another driver is at work here (pid {lease.get('pid')} on "
            f"{lease.get('host')}); wait until it ends, or name another --output"
        )

    def _renew(self) -> None:
        began = _now()
        told = json.dumps({**self._owner, "beat": time.time_ns()}).encode()
        with (
            reaching(self._uri, "written"),
            self._store.open_output_stream(self._path) as stream,
        ):
            stream.write(told)
        self._renewed = began

    def _read(self) -> dict[str, object]:
        """Nothing where there is none."""
        with reaching(self._uri):
            try:
                with self._store.open_input_stream(self._path) as stream:
                    return dict(json.loads(stream.read()))
            except (FileNotFoundError, ValueError):
                return {}

    def _is_mine(self, lease: dict[str, object]) -> bool:
        return lease.get("id") == self._owner["id"]

    def _is_dead(self, lease: dict[str, object]) -> bool:
        here = lease.get("machine") == self._owner["machine"]
        return here and not Path(f"/proc/{lease.get('pid')}").exists()


def _now() -> float:
    """Seconds of a clock that also counts while this machine, or this process, is stopped."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
