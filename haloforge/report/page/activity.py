"""`logs/activity.jsonl`: who was at work when, and who waited."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from haloforge.report.page.files import Files, mapping, number
from haloforge.store.layout import ACTIVITY, LOGS

KINDS = ("engines", "verifiers", "trainers")
MOST_BINS = 400
GAP_S = 120.0
"""Seconds without a row from which on the run is taken to have been stopped."""
_GAP_WIDTH = 0.02  # of the time line


class Use(NamedTuple):
    """How many of a kind there were and how many of them were at work, in one interval. Of engines
    these are requests: the room for them, and how many were in flight."""

    capacity: float
    busy: float


@dataclass(frozen=True)
class Interval:
    """One row: what went on in the `seconds` before `at` (unix time). `uses` holds the kinds that
    were there, `queued` the samples drawn and not judged at its end."""

    at: float
    seconds: float
    stage: str
    phase: str
    cycle: int | None
    uses: Mapping[str, Use]
    queued: int
    samples: int
    tokens: int
    cached: int
    restarts: Mapping[str, int]

    @property
    def title(self) -> str:
        """Of the stage, with its cycle."""
        name = self.stage.replace("_", " ")
        return name if self.cycle is None else f"{name} {self.cycle}"


def read_activity(files: Files) -> list[Interval]:
    """The rows in the order of time; what is not a row of numbers is left out and told."""
    found, broken = [], 0
    for row in files.lines(files.folder / LOGS / ACTIVITY):
        interval = _interval(row)
        if interval is None:
            broken += 1
        else:
            found.append(interval)
    if broken:
        files.note(files.folder / LOGS / ACTIVITY, f"{broken} rows without a time are left out")
    return _spread(sorted(found, key=lambda each: each.at))


def _spread(intervals: list[Interval]) -> list[Interval]:
    """With the work that an interval holds beyond what fits it in those before it, of the same
    phase: a group of samples and an optimizer step are told when they have ended."""
    found: list[Interval] = []
    over = dict.fromkeys(KINDS, 0.0)  # seconds of work
    after: Interval | None = None
    for each in reversed(intervals):
        if after is None or (each.stage, each.cycle, each.phase) != (
            after.stage,
            after.cycle,
            after.phase,
        ):
            over = dict.fromkeys(KINDS, 0.0)
        uses = dict(each.uses)
        for kind in ("verifiers", "trainers"):
            use = uses.get(kind) or (after and over[kind] and after.uses.get(kind))
            if not use:
                continue
            there = kind in uses
            work = over[kind] + (use.busy * each.seconds if there else 0.0)
            fits = min(work, use.capacity * each.seconds)
            over[kind] = work - fits
            uses[kind] = Use(use.capacity, fits / each.seconds)
        after = replace(each, uses=uses)
        found.append(after)
    return found[::-1]


def _interval(row: dict[str, Any]) -> Interval | None:
    at, seconds = number(row.get("at")), number(row.get("seconds"))
    if at is None or seconds is None or not 0 < seconds < 1e6:
        return None
    cycle = number(row.get("cycle"))
    verifiers, trainers = mapping(row.get("verifiers")), mapping(row.get("trainers"))
    engines = [mapping(engine) for engine in mapping(row.get("engines")).values()]
    room = sum(_figure(engine, "capacity") for engine in engines)
    flying = sum(_figure(engine, "in_flight") for engine in engines)
    workers, actors = _figure(trainers, "workers"), _figure(verifiers, "actors")
    uses = {
        "engines": Use(room, flying),
        "verifiers": Use(actors, _figure(verifiers, "busy")),
        "trainers": Use(workers, workers * _figure(trainers, "busy")),
    }
    return Interval(
        at=at,
        seconds=seconds,
        stage=str(row.get("stage") or "unnamed")[:40],
        phase=str(row.get("phase") or "")[:40],
        cycle=None if cycle is None else int(cycle),
        uses={kind: use for kind, use in uses.items() if use.capacity > 0},
        queued=int(_figure(verifiers, "queued")),
        samples=int(_figure(row, "samples")),
        tokens=int(_figure(row, "tokens")),
        cached=int(_figure(row, "cached")),
        restarts={
            str(kind)[:20]: int(_figure(mapping(row.get("restarts")), kind))
            for kind in mapping(row.get("restarts"))
        },
    )


def _figure(row: Mapping[str, Any], name: str) -> float:
    return max(0.0, number(row.get(name)) or 0.0)


def _busy(use: Use) -> float:
    """A mean of an interval may come out a little above what there was at its end."""
    return min(use.busy, use.capacity)


@dataclass
class Tally:
    """Sums over intervals. `busy` and `capacity` are seconds by kind."""

    seconds: float = 0.0
    samples: int = 0
    tokens: int = 0
    cached: int = 0
    longest_queue: int = 0
    capacity: dict[str, float] = field(default_factory=dict)
    busy: dict[str, float] = field(default_factory=dict)

    def add(self, each: Interval) -> None:
        """One interval more."""
        self.seconds += each.seconds
        self.longest_queue = max(self.longest_queue, each.queued)
        self.samples += each.samples
        self.tokens += each.tokens
        self.cached += each.cached
        for kind, use in each.uses.items():
            there, busy = (each.seconds * number for number in (use.capacity, _busy(use)))
            self.capacity[kind] = self.capacity.get(kind, 0.0) + there
            self.busy[kind] = self.busy.get(kind, 0.0) + busy

    def used(self, kind: str) -> float | None:
        """The share of its time that this kind was at work; None where there was none."""
        capacity = self.capacity.get(kind, 0.0)
        return self.busy[kind] / capacity if capacity else None


def tallies(rows: Sequence[Interval]) -> dict[tuple[str, str], Tally]:
    """By title and phase, in the order in which they came."""
    found: dict[tuple[str, str], Tally] = {}
    for each in rows:
        found.setdefault((each.title, each.phase), Tally()).add(each)
    return found


def restarts(rows: Sequence[Interval]) -> dict[str, int]:
    """Of engines, verifiers and trainers (by those names in the singular), over all rows."""
    found: dict[str, int] = {}
    for each in rows:
        for kind, times in each.restarts.items():
            found[kind] = found.get(kind, 0) + times
    return {kind: times for kind, times in found.items() if times}


class Gap(NamedTuple):
    """Time that is cut out, at `place` of the time line, of so many seconds."""

    place: float
    width: float
    seconds: float


class Part(NamedTuple):
    """One title and phase on the time line, from `begin` to `end`."""

    title: str
    phase: str
    begin: float
    end: float


@dataclass(frozen=True)
class Timeline:
    """Intervals on one line in seconds, long gaps between them cut out.

    `edges` bound the bins, [bins + 1]; `used` has by kind the share at work in each, NaN where
    there was none of the kind; `queued` is the most there, `tokens` and `samples` are rates a
    second, NaN where nothing is recorded.
    """

    edges: "np.ndarray[Any, Any]"
    used: Mapping[str, "np.ndarray[Any, Any]"]
    queued: "np.ndarray[Any, Any]"
    tokens: "np.ndarray[Any, Any]"
    samples: "np.ndarray[Any, Any]"
    gaps: Sequence[Gap]
    parts: Sequence[Part]


def timeline(rows: Sequence[Interval]) -> Timeline | None:
    """None without rows."""
    if not rows:
        return None
    placed, gaps, end = _placed(rows)
    usual = float(np.median([each.seconds for each in rows]))
    bins = int(np.clip(np.ceil(end / usual), 1, MOST_BINS))
    edges = np.linspace(0.0, end, bins + 1)
    seconds, tokens, samples, queued = (np.zeros(bins) for _ in range(4))
    capacity = {kind: np.zeros(bins) for kind in KINDS}
    busy = {kind: np.zeros(bins) for kind in KINDS}
    for each, begin in placed:
        for place, overlap in _overlaps(edges, begin, begin + each.seconds):
            share = overlap / each.seconds
            seconds[place] += overlap
            tokens[place] += each.tokens * share
            samples[place] += each.samples * share
            queued[place] = max(queued[place], each.queued)
            for kind, use in each.uses.items():
                capacity[kind][place] += use.capacity * overlap
                busy[kind][place] += _busy(use) * overlap
    return Timeline(
        edges=edges,
        used={kind: _ratio(busy[kind], capacity[kind]) for kind in KINDS},
        queued=np.where(capacity["verifiers"] > 0, queued, np.nan),
        tokens=_ratio(tokens, seconds),
        samples=_ratio(samples, seconds),
        gaps=gaps,
        parts=_parts(placed),
    )


def _placed(rows: Sequence[Interval]) -> tuple[list[tuple[Interval, float]], list[Gap], float]:
    """Each interval with where it begins on the line, the gaps, and where the line ends."""
    clear = [max(0.0, b.at - b.seconds - a.at) for a, b in pairwise(rows)]
    worked = rows[-1].at - rows[0].at + rows[0].seconds - sum(s for s in clear if s >= GAP_S)
    width = max(1.0, _GAP_WIDTH * worked)
    place, placed, gaps = 0.0, [(rows[0], 0.0)], []
    end = rows[0].seconds
    for each, before, free in zip(rows[1:], rows, clear, strict=False):
        place += before.seconds
        if free >= GAP_S:
            gaps.append(Gap(place, width, free))
            place += width
        else:
            # As far from the end of the one before as it was; they may overlap by what a clock is
            # off.
            place = max(0.0, place + (each.at - each.seconds - before.at))
        placed.append((each, place))
        end = max(end, place + each.seconds)
    return placed, gaps, end


def _overlaps(
    edges: "np.ndarray[Any, Any]", begin: float, end: float
) -> Iterator[tuple[int, float]]:
    width = edges[1] - edges[0]
    last = len(edges) - 2
    for place in range(min(int(begin / width), last), min(int(end / width), last) + 1):
        overlap = min(end, float(edges[place + 1])) - max(begin, float(edges[place]))
        if overlap > 0:
            yield place, overlap


def _ratio(part: "np.ndarray[Any, Any]", whole: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _parts(placed: Sequence[tuple[Interval, float]]) -> list[Part]:
    found: list[Part] = []
    for each, begin in placed:
        end = begin + each.seconds
        last = found[-1] if found else None
        near = last is not None and begin - last.end < GAP_S / 2
        if last and near and (last.title, last.phase) == (each.title, each.phase):
            found[-1] = last._replace(end=max(end, last.end))
        else:
            found.append(Part(each.title, each.phase, begin, end))
    return found
