"""Where curves go beside the report: TensorBoard, Weights & Biases, MLflow, by one interface."""

import importlib.util
import json
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from haloforge.config import by_dotted_name
from haloforge.errors import ResourceError
from haloforge.observe.backends import TRACKERS, Tracker, plain_name
from haloforge.observe.settings import ObserveSettings
from haloforge.store.remote import saved
from haloforge.store.run import read_record

STATE = "trackers.json"
CLOSE_S = 30.0
"""What a run waits for its trackers at its end, at most."""
_WAITING = 10_000  # things to tell that wait for a tracker
_INSTALLED_ALONE = ("wandb", "mlflow")


def check_trackers(settings: ObserveSettings) -> None:
    """Raises ResourceError for a tracker that is asked for and not installed."""
    for name in settings.trackers:
        if name in _INSTALLED_ALONE and importlib.util.find_spec(name) is None:
            raise ResourceError(
                f"observe.trackers names {name}, which is not installed: pip install {name}"
            )


class Trackers:
    """Those of a run, in one. Each has a thread of its own: a run waits for none but for a while at
    its end.

    What one took is not told it again when the run goes on, after a kill neither: `logs/trackers.
    json` says what that is, and which run of theirs it is. One that fails, as where its server does
    not answer, is left out from then on, and that is said: no run ends by it.
    """

    def __init__(
        self, run: Path, name: str, settings: ObserveSettings, tell: Callable[[str], None]
    ) -> None:
        self._tell, self._path = tell, run / "logs" / STATE
        self._turn = threading.Lock()
        self._unkept = False
        state: dict[str, Any] = {}
        with suppress(OSError):  # which is said where it cannot be written
            state = read_record(self._path)
        self._ids: dict[str, str] = state.get("ids", {})
        self._steps: dict[str, int] = state.get("steps", {})  # in the order of trainings
        self._told: dict[str, dict[str, int]] = state.get("told", {})
        self._lanes = {
            each: _Lane(each, self._opener(each, run, name, settings), self._failed)
            for each in dict.fromkeys(settings.trackers)
        }

    def _opener(
        self, each: str, run: Path, name: str, settings: ObserveSettings
    ) -> Callable[[], Tracker]:
        def opened() -> Tracker:
            tracker: Tracker = TRACKERS[each](run, name, settings, self._ids.get(each))
            with self._turn:
                self._ids[each] = tracker.id
            self._keep()
            return tracker

        return opened

    def begin(self, config: Mapping[str, Any]) -> None:
        """The run's settings, as a tree."""
        flat = by_dotted_name(config)
        for lane in self._lanes.values():
            lane.put(lambda tracker: tracker.begin(flat))

    def step(self, part: str, values: Mapping[str, float | None], step: int) -> None:
        """Values of an optimizer step, counted from 1, of the training called `part`. On the axis
        the steps of one follow those of another."""
        with self._turn:
            earlier = list(self._steps).index(part) if part in self._steps else len(self._steps)
            before = sum(list(self._steps.values())[:earlier])
            self._steps[part] = max(step, self._steps.get(part, 0))
        named = {f"train/{name}": value for name, value in values.items()}
        self._log(part, named, "step", step, before + step)

    def cycle(self, part: str, values: Mapping[str, float | None], cycle: int) -> None:
        """What a cycle came to, or a benchmark."""
        self._log(part, values, "cycle", cycle, cycle)

    def close(self, failed: bool = False) -> None:
        """Nothing more comes in this sitting, which `failed` or not. Waits until all is told, but
        no longer than CLOSE_S."""
        until = time.monotonic() + CLOSE_S
        lanes, self._lanes = self._lanes, {}
        for lane in lanes.values():
            lane.end(failed)
        for name, lane in lanes.items():
            if not lane.ended(max(0.0, until - time.monotonic())):
                self._tell(
                    f"tracker {name}: does not take what is told it in {CLOSE_S:.0f} s; the run "
                    "ends without it"
                )
        self._keep()
        if self._path.exists():
            saved(self._path)

    def _log(
        self, part: str, values: Mapping[str, float | None], axis: str, step: int, place: int
    ) -> None:
        known = {plain_name(name): float(v) for name, v in values.items() if v is not None}
        for name, lane in self._lanes.items():

            def log(tracker: Tracker, name: str = name) -> None:
                told = self._told.setdefault(name, {})
                if step <= told.get(part, -1):
                    return
                tracker.log(known, axis, place)
                with self._turn:
                    told[part] = step
                self._keep()

            lane.put(log)

    def _failed(self, name: str, reason: str) -> None:
        self._tell(f"tracker {name} is left out from here on: {reason}")

    def _keep(self) -> None:
        """A kill loses nothing of it. A failing power may, or a copy of this machine's where the
        run is in object storage, which gets it at the end: then it is told twice."""
        with self._turn:
            state = {"ids": self._ids, "steps": self._steps, "told": self._told}
            partial = self._path.with_name(f"{STATE}.{os.getpid()}.tmp")
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                partial.write_text(json.dumps(state) + "\n")
                partial.replace(self._path)
            except OSError as error:
                unkept, self._unkept = self._unkept, True
                if not unkept:
                    self._tell(f"{self._path} cannot be written: {error.strerror or error}")


class _Lane:
    """A tracker, and the thread that opens it and tells it all, in order."""

    def __init__(
        self, name: str, opened: Callable[[], Tracker], failed: Callable[[str, str], None]
    ) -> None:
        self._name, self._opened, self._failed = name, opened, failed
        self._work: queue.Queue[Callable[[Tracker], None] | None] = queue.Queue(_WAITING)
        self._over = False
        self._thread = threading.Thread(target=self._go, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def put(self, do: Callable[[Tracker], None]) -> None:
        """Soon; not at all once the tracker is left out."""
        if self._over:
            return
        try:
            self._work.put_nowait(do)
        except queue.Full:
            self._over = True
            self._failed(self._name, f"{_WAITING} things to tell wait for it")

    def end(self, failed: bool) -> None:
        """After all else, the tracker is closed."""
        self.put(lambda tracker: tracker.close(failed))
        try:
            self._work.put_nowait(None)
        except queue.Full:
            self._over = True

    def ended(self, wait_s: float) -> bool:
        """Whether it is, within so many seconds."""
        self._thread.join(wait_s)
        return not self._thread.is_alive()

    def _go(self) -> None:
        try:
            tracker = self._opened()
            while (do := self._work.get()) is not None:
                do(tracker)
        except Exception as error:  # of its own, whatever that may be
            if not self._over:
                lines = str(error).strip().splitlines() or [type(error).__name__]
                self._failed(self._name, lines[0])
        self._over = True
