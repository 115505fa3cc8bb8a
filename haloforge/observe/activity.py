"""What engines, verifiers and trainers do over time: `RUN/logs/activity.jsonl`, a row an interval.

README.md explains the fields. The driver measures all of it: engines are asked, verifiers send what
they did along with verdicts, trainers with their steps.
"""

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from haloforge.schema import Outcome

_MOST_ENGINES = 16
ENGINE, VERIFIER, TRAINER = "engine", "verifier", "trainer"


@dataclass
class _Actor:
    """What was last heard of a process of a verifier or an engine: sums since it began."""

    busy: float = 0.0
    done: int = 0


@dataclass
class Interval:
    """What was judged and trained since the interval began."""

    began: float
    samples: int = 0
    tokens: int = 0
    cached: int = 0
    verifying_s: float = 0.0
    training_s: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    rewards: Counter[float] = field(default_factory=Counter)
    restarts: Counter[str] = field(default_factory=Counter)
    engines: dict[str, dict[str, float]] = field(default_factory=dict)


class Activity:
    """Adds up what happens between two calls of `take`; any thread may tell it.

    An actor that was started anew counts from 0 again, which is seen by its process. What takes
    long, a group of samples or an optimizer step, is told when it has ended: so an interval may
    hold more work than fits it, which was begun before.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._now = Interval(time.monotonic())
        self._verifiers: dict[str, dict[int, _Actor]] = {}  # by actor and process
        self._engines: dict[str, tuple[int, _Actor]] = {}  # with the process
        self._seen: dict[str, float] = {}
        self._waiting = 0
        self._fleet = self._workers = 0
        self._step_s = self._presumed_s = 0.0
        self._step_ended = time.monotonic()

    def judged(self, outcome: str, reward: float, tokens: int) -> None:
        """A sample of so many tokens has this verdict."""
        with self._turn:
            now = self._now
            if outcome != Outcome.INFRA_ERROR:
                now.samples += 1
                now.tokens += tokens
            now.outcomes[outcome] += 1
            if outcome != Outcome.INFRA_ERROR:
                now.rewards[round(reward, 3)] += 1
            self._waiting -= 1

    def verified(self, told: Mapping[str, Any]) -> None:
        """What a verifier did since its process began (see `verify/stage.py`)."""
        with self._turn:
            lives = self._verifiers.setdefault(told["actor"], {})
            if (actor := lives.get(told["process"])) is None:
                self._now.restarts[VERIFIER] += bool(lives)
                actor = lives[told["process"]] = _Actor()
            # Its groups come in any order, also those of an earlier process: an older sum says
            # nothing new.
            self._now.verifying_s += max(0.0, told["busy_s"] - actor.busy)
            self._now.cached += max(0, told["cache_hits"] - actor.done)
            actor.busy = max(actor.busy, told["busy_s"])
            actor.done = max(actor.done, told["cache_hits"])

    def generated(self, facts: Mapping[str, Mapping[str, Any]]) -> None:
        """What engines say of themselves (`EngineActor.facts`), by name."""
        with self._turn:
            at = time.monotonic()
            for name, told in facts.items():
                if "request_s" not in told:
                    continue
                now = _Actor(told["request_s"], told["finished"])
                process, actor = self._engines.get(name, (told["pid"], now))
                seen = self._seen.get(name, at)
                if process != told["pid"]:
                    actor = _Actor()
                drawn = told["finished"] - actor.done
                self._waiting += drawn
                passed = at - seen
                mean = (told["request_s"] - actor.busy) / passed if passed > 0 else 0.0
                self._now.engines[name] = {
                    "in_flight": round(mean, 2),
                    "capacity": told["capacity"],
                    "requests": told["in_flight"],
                }
                self._engines[name] = told["pid"], now
                self._seen[name] = at

    def trained(self, seconds: float, workers: int) -> None:
        """So many workers have ended a step, which took so long. Those of an earlier sitting, told
        again at once, took none of this time."""
        with self._turn:
            at = time.monotonic()
            took = min(seconds, at - self._step_ended)
            self._now.training_s += max(0.0, took - self._presumed_s)
            self._workers, self._step_ended = workers, at
            self._step_s, self._presumed_s = took, 0.0

    def fleet(self, number: int) -> None:
        """So many verifiers at the least begin, and take the place of those before: nothing waits
        for them yet."""
        with self._turn:
            self._verifiers, self._waiting, self._fleet = {}, 0, number

    def trainers(self, number: int) -> None:
        """So many workers are to train."""
        with self._turn:
            self._workers = number

    def restarted(self, part: str, number: int) -> None:
        """So many actors of this part were started anew."""
        with self._turn:
            self._now.restarts[part] += number

    def begin(self) -> None:
        """Another phase begins: with its own verifiers and trainers, and nothing that waits."""
        with self._turn:
            self._verifiers, self._waiting = {}, 0
            self._fleet = self._workers = 0
            self._step_s = self._presumed_s = 0.0
            self._step_ended = time.monotonic()

    def take(self) -> tuple[Interval, dict[str, Any]]:
        """What came since this was last called, and the same as a row of `activity.jsonl`."""
        with self._turn:
            now, at = self._now, time.monotonic()
            self._now = Interval(at)
            seconds = max(at - now.began, 1e-3)
            verifiers = trainers = None
            if self._verifiers or self._fleet:
                verifiers = {
                    "actors": max(self._fleet, len(self._verifiers)),
                    # More than there are where a group took longer than the interval: the report
                    # gives that back to those before.
                    "busy": round(now.verifying_s / seconds, 3),
                    "queued": max(0, self._waiting),
                }
            if self._workers:
                # A step that is under way is presumed to take as long as the one before.
                under_way = at - max(now.began, self._step_ended)
                presumed = min(under_way, max(0.0, self._step_s - self._presumed_s))
                self._presumed_s += presumed
                now.training_s += presumed
                trainers = {
                    "workers": self._workers,
                    "busy": round(now.training_s / seconds, 3),
                }
        return now, {
            "at": round(time.time(), 2),
            "seconds": round(seconds, 3),
            "engines": _few(now.engines),
            "verifiers": verifiers,
            "trainers": trainers,
            "samples": now.samples,
            "tokens": now.tokens,
            "cached": now.cached,
            "outcomes": dict(now.outcomes),
            "restarts": {part: number for part, number in now.restarts.items() if number},
        }


def _few(engines: Mapping[str, Mapping[str, float]]) -> dict[str, Mapping[str, float]]:
    """All of them, or their sums where they are many: a row comes every few seconds."""
    if len(engines) <= _MOST_ENGINES:
        return dict(engines)
    names = next(iter(engines.values()))
    sums = {name: round(sum(each[name] for each in engines.values()), 2) for name in names}
    return {f"{len(engines)} engines": sums}
