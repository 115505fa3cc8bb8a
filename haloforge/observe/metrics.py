"""Ray's metrics of a run, which reach Prometheus through each node's agent as `ray_NAME`.

All are set by the driver, which sees every sample, so that each has one source and the same tags.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from ray.util.metrics import Counter, Gauge, Histogram, Metric

from haloforge.verify.rewards import COMPILED_CLEAN, NO_PROGRAM, RAN, RIGHT, WITH_WARNINGS

TAGS = ("run", "cycle", "stage")
"""Of every metric: the run's folder, the cycle ('' outside of RAFT), and the stage."""


@dataclass(frozen=True)
class Kind:
    """A metric: what Ray makes of it, what it says, and its tags beside `TAGS`."""

    kind: Literal["counter", "gauge", "histogram"]
    says: str
    tags: tuple[str, ...] = ()
    now: bool = False
    """Whether it says what goes on, which is nothing once its phase is over."""


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
    "haloforge_stage_seconds": Kind("gauge", "Seconds of a phase of the stage so far", ("phase",)),
    "haloforge_train_step": Kind("gauge", "Optimizer steps done"),
    "haloforge_train_loss": Kind("gauge", "Nats per trained token, of the last step"),
    "haloforge_train_eval_loss": Kind("gauge", "Nats per token on held-out rows"),
    "haloforge_train_lr": Kind("gauge", "Learning rate of the last step"),
    "haloforge_train_grad_norm": Kind("gauge", "Norm of the gradient before clipping"),
    "haloforge_train_tokens_per_s": Kind("gauge", "Trained tokens a second, of the last step"),
    "haloforge_train_seconds": Kind("gauge", "Seconds of the last step"),
    "haloforge_train_memory_mb": Kind("gauge", "MiB that rank 0 held at most"),
    "haloforge_held_out": Kind(
        "gauge", "Measures on held-out problems, with their 95% interval", ("measure", "bound")
    ),
    "haloforge_selected": Kind("gauge", "Samples kept, and dropped by rule", ("rule",)),
    "haloforge_health": Kind("gauge", "Signs of a collapse, of the cycle's samples", ("sign",)),
}
"""By name, without the `ray_` that Ray puts before it."""

# Between the rewards that verdicts give, so that each is counted in a bucket of its own.
_LEVELS = (NO_PROGRAM, WITH_WARNINGS, COMPILED_CLEAN, RAN, RIGHT)
_BETWEEN = [(low + high) / 2 for low, high in pairwise(_LEVELS)]


@dataclass
class Metrics:
    """Sets the metrics of one process; `tags` are what it stands at now."""

    tags: dict[str, str] = field(default_factory=lambda: dict.fromkeys(TAGS, ""))
    _made: dict[str, Metric] = field(default_factory=dict)
    _going: dict[tuple[str, tuple[tuple[str, str], ...]], None] = field(default_factory=dict)
    _turn: threading.RLock = field(default_factory=threading.RLock)

    def count(self, name: str, number: float, **tags: str) -> None:
        """`number` more of a counter."""
        if number > 0:
            self._metric(name).inc(number, {**self.tags, **tags})

    def set(self, name: str, value: float | None, **tags: str) -> None:
        """The value of a gauge; None is not told."""
        if value is not None:
            of = {**self.tags, **tags}
            self._metric(name).set(value, of)
            if METRICS[name].now:
                with self._turn:
                    self._going[name, tuple(of.items())] = None

    def rest(self) -> None:
        """A phase is over: of what went on in it nothing does any more."""
        with self._turn:
            going, self._going = self._going, {}
        for name, of in going:
            self._metric(name).set(0, dict(of))

    def observe(self, name: str, value: float, times: int) -> None:
        """So often the same value, for a histogram."""
        metric = self._metric(name)
        for _ in range(times):
            metric.observe(value, self.tags)

    def set_all(self, name: str, tag: str, values: Mapping[str, float | None]) -> None:
        """A gauge for each of `values`, told apart by `tag`."""
        for key, value in values.items():
            self.set(name, value, **{tag: key})

    def _metric(self, name: str) -> Metric:
        with self._turn:
            if name not in self._made:
                kind = METRICS[name]
                keys = (*TAGS, *kind.tags)
                if kind.kind == "histogram":
                    made = Histogram(name, kind.says, boundaries=_BETWEEN, tag_keys=keys)
                else:
                    made = (Counter if kind.kind == "counter" else Gauge)(
                        name, kind.says, tag_keys=keys
                    )
                self._made[name] = made
            return self._made[name]
