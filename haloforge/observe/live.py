"""Keeps `report.html` up to date while a run goes on, in a process that takes no one's turn."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from haloforge.store.remote import saved

PAGE = "report.html"
_NICE = 19
_WAIT_S = 60.0
_QUIET: dict[str, Any] = {
    "stdin": subprocess.DEVNULL,
    "stdout": subprocess.DEVNULL,
    "stderr": subprocess.PIPE,
    "text": True,
}


class LiveReport:
    """Writes the report of `run` anew when it is asked to, one at a time; what is asked meanwhile
    is done once after that. A report that fails is told once, and ends no run."""

    def __init__(self, run: Path, tell: Callable[[str], None]) -> None:
        self._run, self._tell = run, tell
        self._asked, self._ended = threading.Event(), False
        self._told = False
        self._thread = threading.Thread(target=self._work, name="report", daemon=True)
        self._thread.start()

    def write(self) -> None:
        """Writes it soon."""
        self._asked.set()

    def close(self) -> None:
        """Writes it a last time and waits until it is there."""
        self._ended = True
        self._asked.set()
        self._thread.join(_WAIT_S)

    def _work(self) -> None:
        ended = False
        while not ended:
            self._asked.wait()
            self._asked.clear()
            ended = self._ended
            command = [sys.executable, "-m", "haloforge", "report", str(self._run)]
            try:
                with subprocess.Popen(command, **_QUIET) as process:
                    if not ended:
                        os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
                    try:
                        _, told = process.communicate(timeout=_WAIT_S)
                    except subprocess.TimeoutExpired:
                        process.kill()
                        raise
                fault = told.strip().splitlines()[-1:] if process.returncode else []
                if process.returncode == 0:
                    saved(self._run / PAGE)
            except (OSError, subprocess.SubprocessError) as error:
                fault = [str(error)]
            if fault and not self._told:
                self._told = True
                self._tell(f"{self._run / PAGE} could not be written: {fault[0]}")
