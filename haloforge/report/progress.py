"""What a user sees while a run goes on: a live view on a terminal, plain lines elsewhere."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from rich.console import Console

from haloforge.observe.log import LOGGER
from haloforge.report.display import Display, Failure
from haloforge.report.hostile import first_line, visible
from haloforge.report.stages import Node, Stage, Tree, duration

__all__ = ["Report", "Stage"]
_FAILURES_S = 15.0
_TOLD_S = 1.0


class Report:
    """Where a run tells its user how it goes, on standard error.

    Stages are shown on one live display from the first on until the last has ended, or until the
    block of `open` does. In plain output each tells how it goes now and then, and its end.
    """

    def __init__(self, console: Console | None = None, live: bool | None = None) -> None:
        self._console = console or _standard_error()
        self._live = live
        self._tree = Tree()
        self._display: Display | None = None
        self._held = False
        self._failures = self._untold = 0
        self._told_at = -_FAILURES_S

    def say(self, line: str) -> None:
        """One line for the user, and for the log."""
        LOGGER.info("%s", line)
        self._print(line)

    def warn(self, line: str) -> None:
        """The same, of what the user should look at."""
        LOGGER.warning("%s", line)
        self._print(line)

    def point_to(self, line: str) -> None:
        """Says where to look, which is for no log."""
        self._print(line)

    def _print(self, line: str) -> None:
        self._console.print(visible(line), soft_wrap=True, markup=False, emoji=False)

    @contextmanager
    def open(self) -> Iterator[None]:
        """The display stays between stages until the block ends, and is then gone. Where a stage
        failed what it showed last stays."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
            self._close()

    def plan(self, stages: Sequence[str]) -> None:
        """Names what is to come in what is under way, in its order."""
        self._tree.plan(stages)

    @contextmanager
    def under_way(self, name: str) -> Iterator[None]:
        """A stage, planned or not, is under way until the block ends. What begins meanwhile is part
        of it; a progress alone becomes its own."""
        with self._node(name.replace("_", " ")) as node:
            yield
            self._told(node)

    def each(self, name: str, numbers: Sequence[int], parts: Sequence[str] = ()) -> Iterable[int]:
        """The `numbers`, where `name` and the number is planned from now on, and under way while
        the loop is at it, with its `parts`."""
        self.plan([f"{name} {number}" for number in numbers])
        return self._each(name, numbers, parts)

    def _each(self, name: str, numbers: Sequence[int], parts: Sequence[str]) -> Iterator[int]:
        for number in numbers:
            with self._node(f"{name} {number}") as node:
                self.plan([part.replace("_", " ") for part in parts])
                try:
                    yield number
                finally:  # also of the last one, where the loop is left
                    if not any(child.failed for child in node.children):
                        self._told(node)

    @contextmanager
    def stage(self, name: str, total: int | None, unit: str) -> Iterator[Stage]:
        """Shows stage, count, rate and time left of `total` units, None where nobody knows how many
        there are, until the block ends."""
        stage = Stage(name, total, unit, None if self._is_live else self._tell)
        node = self._tree.current
        free = node.progress is None or node.progress.ended
        if node.takes_progress and free and not node.children and node is not self._tree.root:
            with self._counted(node, stage):
                yield stage
            return
        with self._node(name, stage) as node, self._counted(node, stage):
            yield stage

    @contextmanager
    def _counted(self, node: Node, stage: Stage) -> Iterator[None]:
        node.progress = stage
        try:
            yield
            stage.tell_end()
        finally:
            stage.ended = True
            if stage.went_on:
                self._tree.reused()

    def result(self, text: str) -> None:
        """What the stage that is under way came to, in a word; or that which ended last, where
        none is."""
        node = self._tree.current
        if node is not self._tree.root:
            node.result = text
            return
        ended = [child for child in node.children if child.ended is not None]
        if ended:
            ended[-1].result = text
        if ended and not self._is_live:
            self._tell(f"{ended[-1].path}: {text}")

    def reused(self) -> None:
        """What is under way found something done by an earlier sitting, so that how long it takes
        says nothing of what is to come."""
        self._tree.reused()

    def failed(self, line: str, sample_id: str | None = None) -> None:
        """A failure of ours was seen. It is shown until the next one is, or in plain output told,
        where the last was not just now."""
        text = first_line(line)
        if sample_id is not None:
            text += f" (sample {visible(sample_id)})"
        self._failures += 1
        if self._is_live and (self._held or self._tree.current is not self._tree.root):
            failure = Failure(self._failures, time.strftime("%H:%M:%S"), text)
            self._start().failure = failure
            return
        now = time.monotonic()
        if now - self._told_at < _FAILURES_S:
            self._untold += 1
            return
        self._told_at = now
        more, self._untold = self._untold, 0
        self._tell(f"failure of ours: {text}" + (f"; {more} more before it" if more else ""))

    @property
    def _is_live(self) -> bool:
        if self._live is None:
            # A setting may force colours on what is no terminal, and a build's log may be one.
            file = self._console.file
            on_terminal = file.isatty() and os.environ.get("CI", "") in ("", "0", "false")
            self._live = on_terminal and self._console.is_interactive
        return self._live

    @contextmanager
    def _node(self, name: str, stage: Stage | None = None) -> Iterator[Node]:
        tree = self._tree
        node = tree.enter(name, takes_progress=stage is None)
        node.progress = stage
        if self._is_live:
            self._start()
        failed = True
        try:
            yield node
            failed = False
        except GeneratorExit:
            failed = False  # a loop that was left
            raise
        finally:
            tree.leave(node, failed)
            if tree is self._tree and tree.current is tree.root and not self._held:
                self._close()

    def _told(self, node: Node) -> None:
        """In plain output, what a stage took, where its progress did not say so, and came to."""
        seconds = node.seconds(time.monotonic())
        progress_told = node.progress is not None and not node.result
        if not self._is_live and not progress_told and (node.result or seconds >= _TOLD_S):
            told = node.told()
            took = f"{node.path}: took {duration(seconds)}"
            self._tell(f"{took}, {told}" if told else took)

    def _start(self) -> Display:
        if self._display is None:
            self._display = Display(self._console, self._tree)
            self._display.start()
        return self._display

    def _close(self) -> None:
        """Nothing is shown any more, and what was is forgotten."""
        for node in self._tree.root.children:
            if node.under_way:  # in a loop that an error still holds
                self._tree.leave(node)
        if self._display is not None:
            failed = any(node.failed for node in self._tree.root.children)
            self._display.stop(keep=failed)
            self._display = None
        if self._untold:
            self._tell(f"{self._untold} more failures of ours")
        self._tree = Tree()
        self._failures = self._untold = 0
        self._told_at = -_FAILURES_S

    def _tell(self, line: str) -> None:
        print(visible(line), file=self._console.file, flush=True)


@cache
def _standard_error() -> Console:
    """One for all reports, or what one says would be written across what another shows."""
    return Console(stderr=True, highlight=False)
