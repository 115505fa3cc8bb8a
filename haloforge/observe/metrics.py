"""Ray's metrics of a run, which reach Prometheus through each node's agent as `ray_NAME`.

All are set by the driver, which sees every sample, so that each has one source and the same tags.

Ray forgets a gauge twenty seconds after it was set. So those that say what something came to, a
score or a selection, are set again until the next one comes: a Prometheus that looks once a minute
finds them too. Those that say what goes on now end with it.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ray.util.metrics import Counter, Gauge, Histogram, Metric

from haloforge.observe.activity import Interval
from haloforge.schema import Outcome
from haloforge.verify.rewards import COMPILED_CLEAN, NO_PROGRAM, RAN, RIGHT, WITH_WARNINGS

TAGS = ("run", "cycle", "stage")
"""Of every metric: the run's folder, the cycle ('' outside of RAFT), and the stage."""


@dataclass(frozen=True)
class Kind:
    """A metric: what Ray makes of it, what it says, its tags beside `TAGS`, and whether its last
    value holds until the next."""

    kind: Literal["counter", "gauge", "histogram"]
    says: str
    tags: tuple[str, ...] = ()
    now: bool = False
    """Whether it says what goes on, which is nothing once its phase is over."""
    holds: bool = False
    """Whether its last value holds until the next."""


METRICS = {
    "haloforge_samples_total": Kind("counter", "Samples that have a verdict", ("outcome",)),
    "haloforge_reward": Kind("histogram", "Reward of each judged sample"),
    "haloforge_tokens_total": Kind("counter", "Tokens of those samples"),
    "haloforge_cache_hits_total": Kind("counter", "Verdicts that the cache knew"),
    "haloforge_failures_total": Kind(
        "counter", "Samples that failures of ours kept from a verdict (infra_error)"
    ),
    "haloforge_restarts_total": Kind("counter", "Actors that were started anew", ("part",)),
    "haloforge_engine_requests": Kind(
        "gauge", "Requests under way in an engine", ("engine",), now=True
    ),
    "haloforge_engine_capacity": Kind("gauge", "Requests it computes at once", ("engine",)),
    "haloforge_verifiers": Kind("gauge", "Verifiers that have judged in the stage"),
    "haloforge_verifying_seconds_total": Kind(
        "counter", "Seconds in which verifiers judged, of all together"
    ),
    "haloforge_queue_depth": Kind(
        "gauge",
        "Requests beyond what engines compute at once; samples not judged yet",
        ("queue",),
        now=True,
    ),
    "haloforge_trainers": Kind("gauge", "Training workers"),
    "haloforge_training_seconds_total": Kind("counter", "Seconds of optimizer steps"),
    "haloforge_stage_seconds": Kind(
        "gauge", "Seconds of a phase of the stage so far", ("phase",), holds=True
    ),
    "haloforge_train_step": Kind("gauge", "Optimizer steps done", holds=True),
    "haloforge_train_loss": Kind("gauge", "Nats per trained token, of the last step", holds=True),
    "haloforge_train_eval_loss": Kind("gauge", "Nats per token on held-out rows", holds=True),
    "haloforge_train_lr": Kind("gauge", "Learning rate of the last step", holds=True),
    "haloforge_train_grad_norm": Kind("gauge", "Norm of the gradient before clipping", holds=True),
    "haloforge_train_tokens_per_s": Kind(
        "gauge", "Trained tokens a second, of the last step", holds=True
    ),
    "haloforge_train_seconds": Kind("gauge", "Seconds of the last step", holds=True),
    "haloforge_train_memory_mb": Kind("gauge", "MiB that rank 0 held at most", holds=True),
    "haloforge_held_out": Kind(
        "gauge",
        "Measures on held-out problems, with their 95% interval",
        ("measure", "bound"),
        holds=True,
    ),
    "haloforge_selected": Kind("gauge", "Samples kept, and dropped by rule", ("rule",), holds=True),
    "haloforge_health": Kind(
        "gauge", "Signs of a collapse, of the cycle's samples", ("sign",), holds=True
    ),
}
"""By name, without the `ray_` that Ray puts before it."""

LEVELS = (NO_PROGRAM, WITH_WARNINGS, COMPILED_CLEAN, RAN, RIGHT)
_NEAR = 0.0005
# Ray keeps of a histogram how many values fell into each bucket, and makes their sum of the middles
# of the buckets. So each reward that verdicts give ends a bucket of its own, so narrow that its
# middle is that reward; between those nothing falls.
_BUCKETS = [_NEAR, *(bound for level in LEVELS[1:] for bound in (level - _NEAR, level))]


_Series = tuple[str, tuple[tuple[str, str], ...]]


@dataclass
class Metrics:
    """Sets the metrics of one process; `tags` are what it stands at now."""

    tags: dict[str, str] = field(default_factory=lambda: dict.fromkeys(TAGS, ""))
    _made: dict[str, Metric] = field(default_factory=dict)
    _going: dict[_Series, None] = field(default_factory=dict)
    _held: dict[tuple[str, ...], tuple[float, dict[str, str]]] = field(default_factory=dict)
    _turn: threading.RLock = field(default_factory=threading.RLock)

    def count(self, name: str, number: float, **tags: str) -> None:
        """`number` more of a counter."""
        if number > 0:
            self._metric(name).inc(number, {**self.tags, **tags})

    def set(self, name: str, value: float | None, **tags: str) -> None:
        """The value of a gauge; None is not told."""
        if value is None:
            return
        kind, of = METRICS[name], {**self.tags, **tags}
        self._metric(name).set(value, of)
        with self._turn:
            if kind.now:
                self._going[name, tuple(of.items())] = None
            if kind.holds:
                self._held[name, of["stage"], *(of[tag] for tag in kind.tags)] = value, of

    def rest(self) -> None:
        """A phase is over: of what went on in it nothing does any more."""
        with self._turn:
            going, self._going = self._going, {}
        for name, of in going:
            self._metric(name).set(0, dict(of))

    def hold(self) -> None:
        """Sets what holds once more, each as it was last set, whatever cycle that was of."""
        with self._turn:
            held = list(self._held.items())
        for (name, *_), (value, of) in held:
            self._metric(name).set(value, of)

    def forget(self) -> None:
        """What comes now is of another run: nothing holds any more."""
        with self._turn:
            self._held = {}

    def observe(self, name: str, value: float, times: int) -> None:
        """So often the same value, for a histogram."""
        metric = self._metric(name)
        for _ in range(times):
            metric.observe(value, self.tags)

    def set_all(self, name: str, tag: str, values: Mapping[str, float | None]) -> None:
        """A gauge for each of `values`, told apart by `tag`; others of its name hold no more."""
        with self._turn:
            self._held = {key: held for key, held in self._held.items() if key[0] != name}
        for key, value in values.items():
            self.set(name, value, **{tag: key})

    def came(self, now: Interval) -> None:
        """What came in an interval."""
        for outcome, number in now.outcomes.items():
            self.count("haloforge_samples_total", number, outcome=outcome)
        self.count("haloforge_failures_total", now.outcomes[Outcome.INFRA_ERROR])
        for reward, number in now.rewards.items():
            self.observe("haloforge_reward", reward, number)
        self.count("haloforge_tokens_total", now.tokens)
        self.count("haloforge_cache_hits_total", now.cached)
        self.count("haloforge_verifying_seconds_total", now.verifying_s)
        self.count("haloforge_training_seconds_total", now.training_s)
        for part, number in now.restarts.items():
            self.count("haloforge_restarts_total", number, part=part)

    def goes_on(self, now: Interval, row: Mapping[str, Any]) -> None:
        """Who is at work, and what waits; `row` is the interval's in the activity."""
        for name, load in now.engines.items():
            self.set("haloforge_engine_requests", load["requests"], engine=name)
            self.set("haloforge_engine_capacity", load["capacity"], engine=name)
        if now.engines:
            over = [max(0.0, load["requests"] - load["capacity"]) for load in now.engines.values()]
            self.set("haloforge_queue_depth", sum(over), queue="engines")
        if row["verifiers"]:
            self.set("haloforge_verifiers", row["verifiers"]["actors"])
            self.set("haloforge_queue_depth", row["verifiers"]["queued"], queue="verifiers")
        if row["trainers"]:
            self.set("haloforge_trainers", row["trainers"]["workers"])

    def _metric(self, name: str) -> Metric:
        with self._turn:
            if name not in self._made:
                kind = METRICS[name]
                keys = (*TAGS, *kind.tags)
                if kind.kind == "histogram":
                    made = Histogram(name, kind.says, boundaries=_BUCKETS, tag_keys=keys)
                else:
                    made = (Counter if kind.kind == "counter" else Gauge)(
                        name, kind.says, tag_keys=keys
                    )
                self._made[name] = made
            return self._made[name]
