"""A run's log: a JSON object a line, a file for each stage, in the run's folder `logs`.

All goes through the standard logger `haloforge`, whichever module says it. What concerns a sample
has its `sample_id`, by which it is found in the run's Parquet files.
"""

import json
import logging
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LOGS = "logs"
LOGGER = logging.getLogger("haloforge")
_LAST = 5
"""Warnings and errors that are told again where a run fails."""
_MESSAGE_CHARS = 2000


class RunLog(logging.Handler):
    """Writes what the logger is told to `RUN/logs/STAGE.jsonl`, from `begin` on.

    A line has `at` (UTC, ISO 8601), `level`, `stage`, `cycle` (null outside of RAFT), `message`,
    and `sample_id` where it concerns one. What cannot be written, as on a full disk, is said once
    and never stops a run.
    """

    def __init__(self, level: int, tell: Callable[[str], None]) -> None:
        super().__init__(level)
        self.path: Path | None = None
        self._stage, self._cycle = "", 0
        self._tell = tell
        self._ended = False
        self._grave: deque[str] = deque(maxlen=_LAST)

    def begin(self, run: Path, stage: str, cycle: int = 0) -> None:
        """What comes now is of this stage and cycle (0 for none) of the run in the folder `run`."""
        self._stage, self._cycle = stage, cycle
        self.path = run / LOGS / f"{stage}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Appends the record. Opened each time: lines are few, and the file may be set aside."""
        if self.path is None or self._ended:
            return
        message = record.getMessage()[:_MESSAGE_CHARS]
        if record.exc_info and record.exc_info[1] is not None:
            message += "\n" + logging.Formatter().formatException(record.exc_info)
        told: dict[str, Any] = {
            "at": _time(record.created),
            "level": record.levelname.lower(),
            "stage": self._stage,
            "cycle": self._cycle or None,
            "message": message,
        }
        sample_id = getattr(record, "sample_id", None)
        if sample_id is not None:
            told["sample_id"] = sample_id
        if record.levelno >= logging.WARNING:
            self._grave.append(f"{told['level']}: {message.splitlines()[0] if message else ''}")
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(told) + "\n")
        except OSError as error:
            self._ended = True  # before this is told, which is logged too
            self._tell(f"no more is logged: {self.path}: {error.strerror or error}")

    def end(self) -> None:
        """What comes now is not of the run; its last lines and path stay known."""
        self._ended = True

    def last(self) -> list[str]:
        """The last warnings and errors of this process's run, the oldest first."""
        return list(self._grave)


def attached() -> RunLog | None:
    """The log that this process writes, if it does."""
    return next((each for each in LOGGER.handlers if isinstance(each, RunLog)), None)


def attach(level: int, tell: Callable[[str], None]) -> RunLog:
    """A log in the place of an earlier one; `tell` says where it fails. Nothing that the logger is
    told goes to the terminal, which is the report's."""
    if (earlier := attached()) is not None:
        LOGGER.removeHandler(earlier)
    log = RunLog(level, tell)
    LOGGER.addHandler(log)
    LOGGER.setLevel(level)
    LOGGER.propagate = False
    return log


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
