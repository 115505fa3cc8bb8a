"""A run's log: a JSON object a line, a file for each stage, in the run's folder `logs`.

All goes through the standard logger `haloforge`, whichever module says it. What concerns a sample
has its `sample_id`, by which it is found in the run's Parquet files.
"""

import json
import logging
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from haloforge.store.layout import LOGS

LOGGER = logging.getLogger("haloforge")
# What it is told never goes to the terminal, which is the report's.
LOGGER.addHandler(logging.NullHandler())
LOGGER.propagate = False
ENDED = "ended_by"
"""Marks the record of the error that ended a run, which is told elsewhere too."""
_LAST = 5
"""Warnings and errors that are told again where a run fails."""
_MESSAGE_CHARS = 2000
_TRACE_CHARS = 20_000
_EARLIER = 100  # lines from before a run has its folder, as where Ray's logs are


class RunLog(logging.Handler):
    """Writes what the logger is told to `RUN/logs/STAGE.jsonl`, between `begin` and `end`.

    A line has `at` (UTC, ISO 8601), `level`, `stage`, `cycle` (null outside of RAFT), `message`,
    and `sample_id` where it concerns one. What was said before the first `begin` comes first. What
    cannot be written, as on a full disk, is said once and never stops a run.
    """

    def __init__(self, level: int, tell: Callable[[str], None]) -> None:
        super().__init__(level)
        self.path: Path | None = None
        self._stage, self._cycle = "", 0
        self._tell = tell
        self._writes = self._failed = False
        self._earlier: deque[logging.LogRecord] = deque(maxlen=_EARLIER)
        self._last: deque[str] = deque(maxlen=_LAST)

    def begin(self, run: Path, stage: str, cycle: int = 0) -> None:
        """What comes now is of this stage and cycle (0 for none) of the run in the folder `run`."""
        self.acquire()  # what other threads say is of the old place or of the new one
        try:
            self._stage, self._cycle = stage, cycle
            self.path = run / LOGS / f"{stage}.jsonl"
            self._writes = not self._failed
            earlier = list(self._earlier)
            self._earlier.clear()
        finally:
            self.release()
        for record in earlier:
            self.handle(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Appends the record. Opened each time: lines are few, and the file may be set aside."""
        if not self._writes or self.path is None:
            self._earlier.append(record)
            return
        message = _clipped(record.getMessage(), _MESSAGE_CHARS)
        if record.exc_info and record.exc_info[1] is not None:
            trace = logging.Formatter().formatException(record.exc_info)
            message += "\n" + trace[-_TRACE_CHARS:]  # whose end says what failed
        level = record.levelname.lower()
        told: dict[str, Any] = {
            "at": _time(record.created),
            "level": level,
            "stage": self._stage,
            "cycle": self._cycle or None,
            "message": message,
        }
        sample_id = getattr(record, "sample_id", None)
        if sample_id is not None:
            told["sample_id"] = sample_id
        if record.levelno >= logging.WARNING and not hasattr(record, ENDED):
            of = f" (sample {sample_id})" if sample_id is not None else ""
            # It may quote what a model wrote, which must not steer a terminal.
            line = message.partition("\n")[0]
            self._last.append(f"{level}: {''.join(map(_printed, line))}{of}")
        try:
            append(self.path, json.dumps(told))
        except OSError as error:
            self._writes, self._failed = False, True  # before this is told, which is logged too
            self._tell(f"no more is logged: {self.path}: {error.strerror or error}")

    def end(self, failed: bool = True) -> None:
        """What comes now is not of the run; where that `failed` its last lines and path stay
        known."""
        self._writes = self._failed = False
        if not failed:
            self.path = None
            self._last.clear()
        self._earlier.clear()

    def last(self) -> list[str]:
        """The last warnings and errors of this process's run, the oldest first, without the error
        that ended it."""
        return list(self._last)


class Seldom:
    """Lets a line through once in SECONDS, with how often it came since; KINDS different lines in
    that time at most: what a million samples have in common must not fill a disk."""

    SECONDS, KINDS = 15.0, 20

    def __init__(self) -> None:
        self._since = 0.0
        self._counts: dict[str, int] = {}
        self._others = 0

    def take(self, line: str) -> str | None:
        """What is to be told now that `line` came; None for nothing."""
        now = time.monotonic()
        if now - self._since < self.SECONDS and self._counts:
            if line in self._counts:
                self._counts[line] += 1
                return None
            if len(self._counts) >= self.KINDS:
                self._others += 1
                return None
            self._counts[line] = 0
            return line
        again = self._counts.get(line, 0)
        others = sum(self._counts.values()) - again + self._others
        self._since, self._counts, self._others = now, {line: 0}, 0
        more = [f"{again} more of it"] * (again > 0) + [f"{others} of others"] * (others > 0)
        return f"{line} ({' and '.join(more)} since the last line)" if more else line

    def rest(self) -> int:
        """How many were not told, and will not be."""
        left = sum(self._counts.values()) + self._others
        self._counts, self._others = {}, 0
        return left


def attached() -> RunLog | None:
    """The log that this process writes, if it does."""
    return next((each for each in LOGGER.handlers if isinstance(each, RunLog)), None)


def attach(level: int, tell: Callable[[str], None]) -> RunLog:
    """A log in the place of an earlier one; `tell` says where it fails."""
    detach()
    log = RunLog(level, tell)
    LOGGER.addHandler(log)
    LOGGER.setLevel(level)
    return log


def detach() -> None:
    """This process writes no log any more."""
    if (earlier := attached()) is not None:
        LOGGER.removeHandler(earlier)


def write(path: Path, text: str) -> None:
    """Whole or not at all, and only here: the observer brings it to object storage later."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.tmp")
    partial.write_text(text)
    partial.replace(path)


def append(path: Path, line: str) -> None:
    """One line more in the file `path`, whose folder may have been set aside meanwhile."""
    try:
        file = path.open("a", encoding="utf-8")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a", encoding="utf-8")
    with file:
        file.write(line + "\n")


def _printed(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]


def _clipped(text: str, most: int) -> str:
    left = len(text) - most
    return text if left <= 0 else f"{text[:most]} ... ({left} characters more)"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
