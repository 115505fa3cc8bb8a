"""Seconds by stage, over all the sittings that a run took."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from haloforge.errors import InputError
from haloforge.store.run import read_record, write_atomic

_T = TypeVar("_T")


class Clock:
    """Keeps `seconds` in the JSON file `path`, and begins anew where that is torn."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.seconds: dict[str, float] = read_record(path)

    def time(self, stage: str, run: Callable[[], _T]) -> _T:
        """Runs the stage and adds what it took, also where it was stopped; not where refused."""
        began, refused = time.monotonic(), False
        try:
            return run()
        except InputError:
            refused = True
            raise
        finally:
            if not refused:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - began
                write_atomic(self._path, json.dumps(self.seconds) + "\n")

    def note(self, what: str, seconds: float) -> None:
        """Keeps seconds that were measured elsewhere, the first that are noted."""
        if what not in self.seconds:
            self.seconds[what] = seconds
            write_atomic(self._path, json.dumps(self.seconds) + "\n")
