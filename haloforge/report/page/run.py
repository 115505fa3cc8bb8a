"""What a run's folder holds, as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from haloforge.benchmark.passk import Estimate
from haloforge.benchmark.results import Result
from haloforge.raft.health import Health
from haloforge.report.page.activity import Interval
from haloforge.report.page.columns import Counts
from haloforge.report.page.samples import ShownSample

Kind = Literal["pipeline", "raft", "sft", "benchmark", "nothing"]
State = Literal["finished", "running", "stopped", "empty"]


@dataclass(frozen=True)
class Status:
    """Whether the run has ended; `where` is what it is, or was, at, `message` why it failed."""

    state: State
    where: str = ""
    message: str = ""


@dataclass(frozen=True)
class Step:
    """One optimizer step. Losses are in nats per trained token."""

    step: int
    loss: float
    lr: float | None
    eval_loss: float | None
    tokens_per_s: float | None


@dataclass(frozen=True)
class Training:
    """Of SFT or of a cycle. `facts` are those of the adapter's `haloforge.json`: none while it is
    being trained."""

    name: str
    steps: Sequence[Step]
    facts: Mapping[str, Any]
    done: bool


@dataclass(frozen=True)
class Cycle:
    """One cycle of RAFT. `record` is that in the statistics: empty for a cycle that is under way,
    of which `counts` tell what is committed so far. `held_out` is its score on problems that are
    never trained on. `seconds` are by stage, `worked` those in which samples were made."""

    number: int
    counts: Counts
    record: Mapping[str, Any]
    held_out: Result | None
    seconds: Mapping[str, float]
    worked: float
    engine_restarts: int

    @property
    def selection(self) -> Mapping[str, Any]:
        """What was chosen to train on."""
        found = self.record.get("selection")
        return found if isinstance(found, dict) else {}

    @property
    def health(self) -> Health | None:
        """Signs of a collapse, where they were measured."""
        found = self.selection.get("health")
        try:
            return Health(**found) if isinstance(found, dict) else None
        except TypeError:
            return None

    @property
    def tokens_per_second(self) -> float | None:
        """While samples were made and judged."""
        mean = self.counts.mean_tokens
        return mean * self.counts.judged / self.worked if mean and self.worked else None

    @property
    def programs_per_second(self) -> float | None:
        """As those."""
        return self.counts.judged / self.worked if self.worked else None

    def measures(self) -> Mapping[str, Estimate]:
        """On held-out problems."""
        return self.held_out.measures if self.held_out else {}


@dataclass(frozen=True)
class Measured:
    """One benchmark: its result where it has ended, and what is committed of it."""

    name: str
    result: Result | None
    counts: Counts
    engine_restarts: int


@dataclass(frozen=True)
class Note:
    """A line of a log, of a warning or an error."""

    at: str
    level: str
    stage: str
    message: str


@dataclass(frozen=True)
class Run:
    """All that the page tells. Empty where there is nothing (yet)."""

    name: str
    kind: Kind
    status: Status
    benchmarks: Sequence[Measured] = ()
    start: Result | None = None
    cycles: Sequence[Cycle] = ()
    trainings: Sequence[Training] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    hardware: Mapping[str, Any] = field(default_factory=dict)
    activity: Sequence[Interval] = ()
    samples: Sequence[ShownSample] = ()
    notes: Sequence[Note] = ()
    noted: Mapping[str, int] = field(default_factory=dict)
    unreadable: Sequence[str] = ()

    @property
    def results(self) -> dict[str, Result]:
        """Of the benchmarks that have ended, by name."""
        return {each.name: each.result for each in self.benchmarks if each.result}

    @property
    def counted(self) -> dict[str, Counts]:
        """Of each benchmark and cycle, in the order in which they ran."""
        named = {f"benchmark {each.name}".strip(): each.counts for each in self.benchmarks}
        cycles = {f"cycle {cycle.number}": cycle.counts for cycle in self.cycles}
        last = named.pop("benchmark raft", None) if self.kind == "pipeline" else None
        found = {**named, **cycles, **({"benchmark raft": last} if last else {})}
        return {name: counts for name, counts in found.items() if counts.samples}
