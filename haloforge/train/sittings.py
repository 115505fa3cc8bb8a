"""Seconds and restarts of a training over all the sittings that it took."""

import json
import time
from contextlib import suppress
from pathlib import Path

from haloforge.store.run import read_record, write_atomic

_KEEP_S = 30.0


class Sittings:
    """Keeps `seconds` and `restarts` of the run with the digest `run` in the JSON file `path`.

    `began` is when this sitting did, as `time.perf_counter` says. They begin anew where the file is
    another run's or torn, and are as they were where it cannot be written.
    """

    def __init__(self, path: Path, run: str, began: float) -> None:
        before = read_record(path)
        if before.get("run") != run:
            before = {}
        self._path, self._run = path, run
        self._began = began - before.get("seconds", 0.0)
        self._kept = began
        self.restarts: int = before.get("restarts", 0)

    @property
    def seconds(self) -> float:
        """Of all sittings, this one up to now."""
        return time.perf_counter() - self._began

    def restarted(self) -> None:
        """Workers began anew in this sitting."""
        self.restarts += 1
        self.keep()

    def go_on(self) -> None:
        """Keeps them where that was half a minute ago, for a kill that leaves no time to."""
        if time.perf_counter() - self._kept >= _KEEP_S:
            self.keep()

    def keep(self) -> None:
        """Writes them."""
        self._kept = time.perf_counter()
        told = {"run": self._run, "seconds": round(self.seconds, 3), "restarts": self.restarts}
        with suppress(OSError):
            write_atomic(self._path, json.dumps(told) + "\n")
