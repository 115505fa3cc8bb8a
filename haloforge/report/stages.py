"""A run's stages as a tree: which are done, under way and to come, and how long they take."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

_PLAIN_SECONDS = 15.0
_RATE_SECONDS = 120.0
_NOTE_SECONDS = 0.5
_NOTHING_SECONDS = 0.1


class Stage:
    """The progress of one stage in units; made by `Report.stage`.

    `tell` takes a plain line now and then, where there is no live display. `note` is shown beside
    the fact while it is under way, and may be set at any time.
    """

    def __init__(
        self, name: str, total: int | None, unit: str, tell: Callable[[str], None] | None = None
    ) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done, self.fact, self.ended = 0, "", False
        self.note = ""
        self.went_on = False
        self._tell = tell
        self._began = self._told = self._counting = time.monotonic()
        # When how much was done, over the last minutes: start-up must not spoil the rate. Now and
        # then only, or it would hold as much as is done in that time.
        self._recent: deque[tuple[float, int]] = deque()

    def advance(self, count: int = 1, fact: str = "", total: int | None = None) -> None:
        """`count` more units are done, of `total` if that is now known better; `fact` is a short
        word on how it goes. Shows nothing itself, so it may be called thousands of times a second.
        """
        self.done += count
        self.total = total or self.total
        self.fact = fact
        now = time.monotonic()
        if not self._recent:
            self._counting = now
            self._recent.append((now, self.done))
        elif now - self._counting < _NOTE_SECONDS:
            # What comes at once at first was done before: a training that goes on tells it anew.
            self._recent[0] = (now, self.done)
        elif now - self._recent[-1][0] >= _NOTE_SECONDS:
            self._note(now)
        if self._tell and now - self._told >= _PLAIN_SECONDS:
            self._told = now
            rate, left = self.rate(now), self.left(now)
            if not rate:
                self._tell(self._line(f"{duration(now - self._began)} so far"))
            elif left is None:
                self._tell(self._line(f"{rate_text(rate)} {self.unit}/s"))
            else:
                self._tell(self._line(f"{rate_text(rate)} {self.unit}/s, {duration(left)} left"))

    def already(self, count: int, fact: str = "going on") -> None:
        """`count` units were done in an earlier sitting."""
        self.went_on = True
        self.advance(count, fact)

    def _note(self, now: float) -> None:
        self._recent.append((now, self.done))
        while now - self._recent[0][0] > _RATE_SECONDS and len(self._recent) > 2:
            self._recent.popleft()

    def rate(self, now: float) -> float:
        """Units a second over the last two minutes up to `now`, of time.monotonic(); 0 where
        nothing is known."""
        if not self._recent:
            return 0.0
        then, done = self._recent[0]
        return (self.done - done) / (now - then) if now - then >= _NOTE_SECONDS else 0.0

    def left(self, now: float) -> float | None:
        """Seconds left at that rate, None where nobody knows."""
        rate = self.rate(now)
        return None if self.total is None or not rate else max(0, self.total - self.done) / rate

    def tell_end(self) -> None:
        """Its last line, where lines are told."""
        if self._tell:
            self._tell(self._line(f"took {duration(time.monotonic() - self._began)}"))

    def _line(self, text: str) -> str:
        facts = ", ".join(filter(None, (self.fact, self.note)))
        fact = f" ({facts})" if facts else ""
        of = f"/{self.total}" if self.total is not None else ""
        return f"{self.name}: {self.done}{of} {self.unit}{fact}, {text}"


class Node:
    """A stage's place in the tree. It is to come until it has `began`, in time.monotonic().

    `progress` is what counts its units, where something does. `measured` says that what it took
    tells what others of its kind will: not where it found things done before.
    """

    def __init__(
        self, name: str, parent: "Node | None" = None, takes_progress: bool = True
    ) -> None:
        self.name, self.parent, self.takes_progress = name, parent, takes_progress
        self.children: list[Node] = []
        self.began: float | None = None
        self.ended: float | None = None
        self.progress: Stage | None = None
        self.result, self.failed, self.measured = "", False, True
        self.planned, self.extra = False, False  # whether its parts are, and whether it was not

    @property
    def under_way(self) -> bool:
        return self.began is not None and self.ended is None

    @property
    def kind(self) -> tuple[str, str]:
        """Stages of one kind take about as long: cycles, a phase of each, benchmarks."""
        parent = self.parent.name if self.parent else ""
        return _first_word(parent), _first_word(self.name)

    @property
    def path(self) -> str:
        """Its name after those of what it is part of."""
        names = [self.name]
        node = self.parent
        while node is not None and node.parent is not None:
            names.insert(0, node.name)
            node = node.parent
        return ": ".join(names)

    def seconds(self, now: float) -> float:
        """What it took, or took so far."""
        until = now if self.ended is None else self.ended
        return 0.0 if self.began is None else until - self.began

    def told(self) -> str:
        """What came of it in a word: its own, else what its parts came to, the last first, or the
        last alone where those have parts themselves."""
        if self.result:
            return self.result
        ended = [child for child in self.children if child.ended is not None]
        if not ended:
            return self.progress.fact if self.progress else ""
        if any(child.children for child in ended):
            return ended[-1].told()
        return ", ".join(filter(None, (child.told() for child in reversed(ended))))


class Tree:
    """What a run does; `current` is the innermost stage under way, `root` where none is."""

    def __init__(self) -> None:
        self.root = Node("")
        self.current = self.root

    def plan(self, names: Sequence[str]) -> None:
        """These are to come in what is under way, in this order; those of the name that are there
        stay."""
        there = {child.name for child in self.current.children}
        self.current.planned = True
        for name in names:
            if name not in there:
                self.current.children.append(Node(name, self.current))

    def enter(self, name: str, takes_progress: bool = True) -> Node:
        """`name` is under way, as part of what is: the planned one, or one more before those that
        are to come."""
        now, siblings = time.monotonic(), self.current.children
        to_come = [child for child in siblings if child.began is None]
        node = next((child for child in to_come if child.name == name), None)
        if node is None:
            node = Node(name, self.current, takes_progress)
            node.extra = True
            siblings.insert(siblings.index(to_come[0]) if to_come else len(siblings), node)
        if self.root.began is None:
            self.root.began = now
        node.began = now
        self.current = node
        return node

    def leave(self, node: Node, failed: bool = False) -> None:
        """`node` has ended with all of its parts; nothing where it had."""
        if node.ended is not None:
            return
        while self.current is not node:
            self._end(self.current, failed)
        self._end(node, failed)

    def _end(self, node: Node, failed: bool) -> None:
        node.ended = time.monotonic()
        last = [child for child in node.children if child.ended is not None][-1:]
        node.failed = failed or any(child.failed for child in last)
        if node.parent is None:
            raise ValueError("the tree's root is no stage")
        self.current = parent = node.parent
        nothing = not (node.progress or node.result or node.failed or node.children)
        if nothing and node.extra and node.seconds(node.ended) < _NOTHING_SECONDS:
            parent.children.remove(node)

    def reused(self) -> None:
        """What is under way found something done before, so that its seconds tell nothing."""
        node: Node | None = self.current
        while node is not None:
            node.measured = False
            node = node.parent

    def left(self, now: float) -> float | None:
        """Seconds until all that is planned has ended: by the rate of what is counted, and for the
        rest by what others of its kind took in this sitting. None where one of them is unknown, and
        where a stage failed."""
        if not self.root.planned or any(child.failed for child in self.root.children):
            return None
        took: dict[tuple[str, str], list[float]] = {}
        for node in _below(self.root):
            if node.ended is not None and node.measured and not node.failed:
                took.setdefault(node.kind, []).append(node.seconds(now))
        return _left(self.root, now, {kind: sum(all_) / len(all_) for kind, all_ in took.items()})


def _left(node: Node, now: float, expected: dict[tuple[str, str], float]) -> float | None:
    if node.ended is not None:
        return 0.0
    if node.planned:
        parts = [_left(child, now, expected) for child in node.children]
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None
    if node.progress and not node.progress.ended:
        counted = node.progress.left(now)
        if counted is not None:
            return counted
    whole = expected.get(node.kind)
    spent = node.seconds(now)
    # What takes longer than the others did may take any time.
    return None if whole is None or spent > whole else whole - spent


def _below(node: Node) -> Iterator[Node]:
    for child in node.children:
        yield child
        yield from _below(child)


def _first_word(name: str) -> str:
    return name.split(" ", 1)[0]


def rate_text(rate: float) -> str:
    """Two digits of a small number, all before the point of another."""
    return f"{rate:.2g}" if rate < 10 else f"{rate:,.0f}"


def duration(seconds: float) -> str:
    """In words: 9.5 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def clock(seconds: float) -> str:
    """As on a stopwatch: 0:09, 3:20, 2:05:00."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
