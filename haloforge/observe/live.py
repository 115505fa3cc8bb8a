"""Keeps `report.html` up to date while a run goes on, in a process that takes no one's turn."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from haloforge.errors import HaloforgeError
from haloforge.store.layout import REPORT
from haloforge.store.remote import saved

_NICE = 19
_WAIT_S = 60.0
"""What a report may take; it is ended then."""


class LiveReport:
    """Writes the report of `run` anew when it is asked to, one at a time; what is asked meanwhile
    is done once after that. A report that fails is told once, and ends no run."""

    def __init__(self, run: Path, tell: Callable[[str], None]) -> None:
        self._run, self._tell = run, tell
        self._asked, self._ended, self._last = threading.Event(), False, True
        self._told = False
        self._turn = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._work, name="report", daemon=True)
        self._thread.start()

    def write(self) -> None:
        """Writes it soon."""
        self._asked.set()

    def close(self, write: bool = True) -> None:
        """Writes it a last time, unless it is not to, and waits until it is there; one that is
        under way is given up."""
        with self._turn:
            self._ended, self._last = True, write
            if self._child is not None:
                self._child.kill()
        self._asked.set()
        self._thread.join()  # which waits for no report longer than _WAIT_S

    def _work(self) -> None:
        ended = False
        while not ended:
            self._asked.wait()
            self._asked.clear()
            with self._turn:
                ended = self._ended
            fault = self._written(last=ended)
            with self._turn:
                given_up = self._ended and not ended
            if fault and not self._told and not given_up:
                self._told = True
                self._tell(f"{self._run / REPORT} could not be written: {fault}")

    def _written(self, last: bool) -> str | None:
        """Writes it; what went wrong, if anything did."""
        try:
            with self._turn:
                if self._ended and not (last and self._last):
                    return None
                self._child = child = subprocess.Popen(
                    command(self._run),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    start_new_session=True,  # Ctrl-C is for the run
                    text=True,
                    errors="replace",
                )
            if not last:
                with suppress(ProcessLookupError):  # it is done already
                    os.setpriority(os.PRIO_PROCESS, child.pid, _NICE)
            try:
                _, said = child.communicate(timeout=_WAIT_S)
            except subprocess.TimeoutExpired:
                return f"it took longer than {_WAIT_S:.0f} s"
            finally:
                child.kill()
                child.wait()
                with self._turn:
                    self._child = None
            if child.returncode:
                lines = said.strip().splitlines() or [f"it ended with {child.returncode}"]
                return lines[-1]
            if (self._run / REPORT).exists():
                saved(self._run / REPORT)
        except (OSError, HaloforgeError) as error:
            return str(error)
        return None


def command(run: Path) -> Sequence[str]:
    """What writes the report of `run`."""
    return [sys.executable, "-m", "haloforge.observe.child", str(os.getpid()), "report", str(run)]
