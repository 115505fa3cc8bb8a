"""Seconds by stage, over all the sittings that a run took."""

import json
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TypeVar

from haloforge.errors import InputError
from haloforge.store.run import read_record, write_atomic

_T = TypeVar("_T")
KEEP_S = 30.0


class Clock:
    """Keeps `seconds` in the JSON file `path`, and begins anew where that is torn.

    A stage runs within `under_way` of its name, as a report shows it.
    """

    def __init__(
        self, path: Path, under_way: Callable[[str], AbstractContextManager[None]] | None = None
    ) -> None:
        self._path, self._under_way = path, under_way
        self.seconds: dict[str, float] = read_record(path)
        self._written = dict(self.seconds)

    def time(self, stage: str, run: Callable[[], _T]) -> _T:
        """Runs the stage and adds what it took, also where it was stopped; not where refused.

        What it took so far is written every half minute, for a stop that leaves no time to.
        """
        began, over = time.monotonic(), threading.Event()

        def so_far() -> dict[str, float]:
            took = time.monotonic() - began
            return {**self.seconds, stage: self.seconds.get(stage, 0.0) + took}

        def keep() -> None:
            while not over.wait(KEEP_S):
                with suppress(OSError):  # the next time, or at the end, where it is told
                    self._write(so_far())

        keeper = threading.Thread(target=keep, name="clock", daemon=True)
        keeper.start()
        refused = False
        try:
            with self._under_way(stage) if self._under_way else nullcontext():
                return run()
        except InputError:
            refused = True
            raise
        finally:
            over.set()
            keeper.join()
            if not refused:
                self.seconds = so_far()
            if self.seconds != self._written:
                self._write(self.seconds)

    def note(self, what: str, seconds: float) -> None:
        """Keeps seconds that were measured elsewhere, the first that are noted."""
        if what not in self.seconds:
            self.seconds[what] = seconds
            self._write(self.seconds)

    def _write(self, seconds: dict[str, float]) -> None:
        write_atomic(self._path, json.dumps(seconds) + "\n")
        self._written = dict(seconds)
