"""What a user sees while a run goes on: a live view on a terminal, plain lines elsewhere."""

import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from haloforge.observe.log import LOGGER

_PLAIN_SECONDS = 15.0
_RATE_SECONDS = 120.0
_NOTE_SECONDS = 0.5


class Stage:
    """The progress of one stage; made by `Report.stage`."""

    def __init__(self, name: str, total: int | None, unit: str, bar: Progress | None) -> None:
        self._name, self._total, self._unit, self._bar = name, total, unit, bar
        self._done = 0
        self._fact = ""
        self._began = self._told = time.monotonic()
        # When how much was done, over the last minutes: start-up must not spoil the rate. Now and
        # then only, or it would hold as much as is done in that time.
        self._recent: deque[tuple[float, int]] = deque()
        self._task = bar.add_task(name, total=total, rate="", fact="") if bar else None

    def advance(self, count: int = 1, fact: str = "", total: int | None = None) -> None:
        """`count` more units are done, of `total` if that is now known better; `fact` is a short
        word on how it goes."""
        self._done += count
        self._total = total or self._total
        self._fact = fact
        now = time.monotonic()
        rate = self._rate(now)
        if self._bar and self._task is not None:
            self._bar.update(
                self._task, advance=count, rate=f"{rate:.2g} {self._unit}/s", fact=fact
            )
        elif now - self._told >= _PLAIN_SECONDS:
            self._told = now
            if rate and self._total is None:
                self._line(f"{rate:.2g} {self._unit}/s")
            elif rate and self._total is not None:
                left = _duration((self._total - self._done) / rate)
                self._line(f"{rate:.2g} {self._unit}/s, {left} left")
            else:
                self._line(f"{_duration(now - self._began)} so far")

    def _rate(self, now: float) -> float:
        if not self._recent or now - self._recent[-1][0] >= _NOTE_SECONDS:
            self._recent.append((now, self._done))
        while now - self._recent[0][0] > _RATE_SECONDS and len(self._recent) > 2:
            self._recent.popleft()
        then, done = self._recent[0]
        return (self._done - done) / (now - then) if now > then else 0.0

    def end(self) -> None:
        """The last line of the stage, in plain output."""
        if not self._bar:
            self._line(f"took {_duration(time.monotonic() - self._began)}")

    def _line(self, text: str) -> None:
        fact = f" ({self._fact})" if self._fact else ""
        of = f"/{self._total}" if self._total is not None else ""
        done = f"{self._done}{of} {self._unit}"
        print(f"{self._name}: {done}{fact}, {text}", file=sys.stderr, flush=True)


class Report:
    """Where a run tells its user how it goes, on standard error."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)

    def say(self, line: str) -> None:
        """One line for the user, and for the log."""
        LOGGER.info("%s", line)
        self._console.print(line, soft_wrap=True, markup=False)

    def warn(self, line: str) -> None:
        """The same, of what the user should look at."""
        LOGGER.warning("%s", line)
        self._console.print(line, soft_wrap=True, markup=False)

    @contextmanager
    def stage(self, name: str, total: int | None, unit: str) -> Iterator[Stage]:
        """Shows stage, count, rate and time left of `total` units, None where nobody knows how many
        there are, until the block ends."""
        if not self._console.is_terminal:
            stage = Stage(name, total, unit, None)
            yield stage
            stage.end()
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[fact]}"),
        )
        with Progress(*columns, console=self._console, refresh_per_second=4) as bar:
            yield Stage(name, total, unit, bar)


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
