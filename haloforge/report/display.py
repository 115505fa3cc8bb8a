"""The live display of a run on a terminal: one line a stage, with what is under way in full."""

import os
import sys
import time
from collections.abc import Sequence
from io import UnsupportedOperation
from typing import NamedTuple

from rich.console import Console, ConsoleDimensions, ConsoleRenderable, Group
from rich.live import Live
from rich.text import Text

from haloforge.report.hostile import visible
from haloforge.report.stages import Node, Stage, Tree, clock, rate_text

REFRESHES = 2.0
"""A second: each takes some three milliseconds of CPU, whatever happens in between."""
_BAR = 40
_LEAST_BAR = 6
_LEAST_NAME, _MOST_NAME = 16, 32
_NARROW = 60
# How many stages that are done, and to come, are shown of those beside each other: as many as fit.
_SHOWN = ((12, 12), (4, 4), (2, 2), (1, 1), (0, 0))


class Failure(NamedTuple):
    """The last failure of ours, and how many there were; `at` is the time of day."""

    number: int
    at: str
    text: str


class Signs(NamedTuple):
    """The characters of the display; told apart without colour too."""

    done: str
    failed: str
    under_way: str
    to_come: str
    bar: str
    rest: str


UNICODE = Signs("✓", "✗", "▸", "·", "━", "─")
ASCII = Signs("+", "x", ">", ".", "=", "-")


def frame(
    tree: Tree,
    failure: Failure | None,
    now: float,
    width: int,
    height: int,
    signs: Signs = UNICODE,
) -> list[Text]:
    """What is on the display at `now`, of time.monotonic(): at most `height` lines of at most
    `width` columns, below an empty one. Where that is too low, the first lines are left out."""
    below = _below(tree, failure, now)
    lines: list[Text] = []
    for shown in _SHOWN:
        lines = [Text(), *_stages(tree.root, now, width, signs, shown), *below]
        if len(lines) <= height:
            break
    lines = lines[-height:]
    for line in lines:
        line.truncate(width, overflow="ellipsis" if signs is UNICODE else "crop")
    return lines


def _below(tree: Tree, failure: Failure | None, now: float) -> list[Text]:
    """How long all of it takes, and the last failure."""
    lines = []
    if tree.root.planned:
        left = tree.left(now)
        told = "" if left is None else f", about {clock(left)} left"
        lines.append(Text(f"{clock(tree.root.seconds(now))} so far{told}", "dim"))
    if failure:
        told = "1 failure of ours, at"
        if failure.number > 1:
            told = f"{failure.number:,} failures of ours, the last at"
        lines.append(Text(f"! {told} {failure.at}:", "yellow"))
        lines.append(Text(f"  {failure.text}"))
    return lines


def _stages(root: Node, now: float, width: int, signs: Signs, shown: tuple[int, int]) -> list[Text]:
    rows = list(_rows(root, 0, shown))
    longest = max((2 * depth + len(_name(node)) for depth, node, _ in rows), default=0)
    column = min(longest, _MOST_NAME, max(_LEAST_NAME, width // 3))
    lines = []
    for depth, node, others in rows:
        lines += (
            [Text(f"{'  ' * depth}{signs.done if others.done else signs.to_come} {others}", "dim")]
            if others
            else _lines(node, depth, now, width, column, signs)
        )
    return lines


class _Others(NamedTuple):
    """Stages that are not shown one by one."""

    number: int
    done: bool

    def __str__(self) -> str:
        return f"{self.number} {'before' if self.done else 'more to come'}"


def _rows(
    parent: Node, depth: int, shown: tuple[int, int]
) -> Sequence[tuple[int, Node, _Others | None]]:
    """The stages to show with their depth; those that are done, and those to come, without their
    parts unless one failed, and the first and last of many as one."""
    children = list(parent.children)
    done = [child for child in children if child.ended is not None]
    to_come = [child for child in children if child.began is None]
    rows: list[tuple[int, Node, _Others | None]] = []
    if hidden := _hidden(len(done), shown[0]):
        rows.append((depth, parent, _Others(hidden, done=True)))
    for child in [*done[hidden:], *(child for child in children if child.under_way)]:
        rows.append((depth, child, None))
        if child.under_way or child.failed:
            rows += _rows(child, depth + 1, shown)
    hidden = _hidden(len(to_come), shown[1])
    rows += [(depth, child, None) for child in to_come[: len(to_come) - hidden]]
    if hidden:
        rows.append((depth, parent, _Others(hidden, done=False)))
    return rows


def _hidden(number: int, shown: int) -> int:
    """How many to leave out: a line that says so of one would take its place."""
    return number - shown if number > shown + 1 or not shown else 0


def _lines(node: Node, depth: int, now: float, width: int, column: int, signs: Signs) -> list[Text]:
    """A stage's line, and a second one where its units are counted at the moment."""
    indent, name = "  " * depth, _name(node)
    room = max(1, column - len(indent))
    name = f"{name[: room - 1]}…" if len(name) > room and signs is UNICODE else name[:room]
    if node.began is None:
        return [Text(f"{indent}{signs.to_come} {name}", "dim")]
    line = Text(indent)
    if node.failed:
        line.append(f"{signs.failed} ", "red")
    elif node.ended is not None:
        line.append(f"{signs.done} ", "green")
    else:
        line.append(f"{signs.under_way} ", "bold cyan")
    line.append(name.ljust(room), "bold" if node.under_way else "")
    line.append(
        f" {clock(node.seconds(now)):>{5 if width < _NARROW else 7}}",
        "dim" if node.ended is not None else "",
    )
    if node.ended is not None:
        return [line.append(f"  {_flat(node.told())}")]
    progress = node.progress
    if progress is None or progress.ended:
        return [line]
    line.append("  ")
    line.append_text(_bar(progress, width - line.cell_len, signs))
    return [line, Text(f"{indent}  {_facts(progress, now)}")]


def _bar(progress: Stage, width: int, signs: Signs) -> Text:
    """How much of it is done, in so many columns."""
    if progress.total is None:
        return Text(f"{progress.done:,} {progress.unit}")
    share = min(1.0, progress.done / max(1, progress.total))
    count = f"{progress.done:,}/{progress.total:,}"
    for told in (f" {count} {progress.unit} {share:>4.0%}", f" {count} {share:>4.0%}", f" {count}"):
        length = min(_BAR, width - len(told))
        if length >= _LEAST_BAR:
            full = int(length * share)
            bar = Text().append(signs.bar * full, "green")
            return bar.append(signs.rest * (length - full), "dim").append(told)
    return Text(count)


def _facts(progress: Stage, now: float) -> str:
    if not progress.done:
        return f"no {progress.unit} yet"
    rate, left = progress.rate(now), progress.left(now)
    parts = [f"{rate_text(rate)} {progress.unit}/s" if rate else ""]
    parts += ["" if left is None else f"{clock(left)} left"]
    parts += [_flat(progress.fact), _flat(progress.note)]
    return ", ".join(filter(None, parts))


def _name(node: Node) -> str:
    return _flat(node.name)


def _flat(text: str) -> str:
    """On one line, without what a terminal takes for commands."""
    return visible(" ".join(text.split()))


class Display:
    """Shows `tree` on the terminal of `console` from `start` to `stop`, and `failure`."""

    def __init__(self, console: Console, tree: Tree) -> None:
        self._console, self._tree = console, tree
        self.failure: Failure | None = None
        self._widths: list[int] = []
        self._signs = UNICODE if console.encoding.lower().startswith("utf") else ASCII
        self._live: _Live | None = None

    def start(self) -> None:
        """What is printed to the terminal from now on scrolls above it."""
        self._live = _Live(self, self._console)
        self._live.start(refresh=True)

    def stop(self, keep: bool) -> None:
        """Takes it off the terminal, or leaves what it showed last there."""
        if self._live is not None:
            self._live.transient = not keep
            self._live.stop()
            self._live = None

    def refresh(self) -> None:
        """Shows what is now, without waiting for the next time."""
        if self._live is not None:
            self._live.refresh()

    def __rich__(self) -> Group:
        width, height = self._console.size
        # The last column stays free, where terminals differ in when they begin the next line.
        told = time.monotonic(), max(1, width - 1), max(1, height - 1)
        lines = frame(self._tree, self.failure, *told, self._signs)
        self._widths = [line.cell_len for line in lines]
        return Group(*lines)

    def height_at(self, width: int) -> int:
        """Lines that the last frame takes where the terminal has become so wide."""
        return sum(max(1, -(-each // width)) for each in self._widths)


class _Live(Live):
    """Rich's, on a terminal whose width may change: lines that no longer fit have become several,
    all of which are to be erased before the next frame."""

    def __init__(self, display: Display, console: Console) -> None:
        self._display = display
        super().__init__(
            console=console,
            get_renderable=lambda: display,
            refresh_per_second=REFRESHES,
            # Results that go to a file do not belong on the terminal.
            redirect_stdout=sys.stdout.isatty(),
        )

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        size = _size(self.console)
        if size is not None:
            self.console.size = size
        width = self.console.width
        drawn = self._live_render._shape
        if drawn is not None:
            self._live_render._shape = drawn[0], max(drawn[1], self._display.height_at(width))
        return super().process_renderables(renderables)


def _size(console: Console) -> ConsoleDimensions | None:
    """The terminal's as it is now; None where what is written to is none. Rich asks the process's
    three streams, of which none need be the terminal: native code's output is elsewhere."""
    try:
        columns, lines = os.get_terminal_size(console.file.fileno())
    except (AttributeError, UnsupportedOperation, OSError, ValueError):
        return None
    return ConsoleDimensions(columns, lines) if columns > 0 and lines > 0 else None
