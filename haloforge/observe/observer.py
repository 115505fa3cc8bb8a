"""What watches a run, in one: the driver tells it what happens, it tells all who want to know."""

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from haloforge.observe.activity import Activity
from haloforge.observe.live import LiveReport
from haloforge.observe.log import ENDED, LOGGER, RunLog, Seldom, append, attach, detach, write
from haloforge.observe.metrics import Metrics
from haloforge.observe.settings import ObserveSettings
from haloforge.observe.trackers import Trackers, check_trackers
from haloforge.report.progress import Report
from haloforge.schema import Outcome
from haloforge.store.layout import (
    ACTIVITY,
    ENVIRONMENT,
    FAILED,
    FINISHED,
    LOGS,
    REPORT,
    RUNNING,
    STATE,
    STOPPED,
    TENSORBOARD,
)
from haloforge.store.remote import saved, shown
from haloforge.train.metrics import WATCHED

if TYPE_CHECKING:
    from haloforge.benchmark.passk import Estimate
    from haloforge.rollout.pool import EnginePool
    from haloforge.train.metrics import StepMetrics

_JOIN_S = 5.0
_AT_ONCE_S, _PATIENCE_S = 0.3, 2.0
"""What engines have to answer in where the run waits for it, and where it does not."""
_SAVE_S = 60.0


class Observer:
    """Watches the runs of a session, one after the other; off, all calls do nothing.

    A run is the outermost folder: a RAFT run in a pipeline's folder is watched as the pipeline's.
    Raises ResourceError for a tracker that is not installed. Nothing it does later ends a run: what
    fails is said once, and the rest goes on.
    """

    def __init__(self, settings: ObserveSettings, report: Report) -> None:
        self._settings, self._report = settings, report
        self._log: RunLog | None = None
        if settings.enabled:
            self._log = attach(getattr(logging, settings.log_level.upper()), report.say)
        else:
            detach()  # one of an earlier session in this process
        self._metrics, self._activity = Metrics(), Activity()
        self._run: Path | None = None
        self._stage, self._phase, self._cycle = "", "", 0
        self._config: Mapping[str, Any] = {}
        self._begun = False  # whether the run has got to a first phase
        self._phase_began = time.monotonic()
        self._pool: EnginePool | None = None
        self._turn = threading.RLock()
        self._over = threading.Event()
        self._watcher: threading.Thread | None = None
        self._live: LiveReport | None = None
        self._trackers: Trackers | None = None
        self._lost = Seldom()
        self._faults: set[str] = set()

    @contextmanager
    def run(self, folder: Path, stage: str, config: Mapping[str, Any]) -> Iterator[None]:
        """The run in this folder is worked at in the block, beginning with this stage; nothing new
        where it is part of the run that is watched. With an error it stays open for `close`, which
        is told why; of a run that is refused before its first phase nothing is told."""
        entered = self.enter(folder, stage, config)
        yield
        if entered:
            self._leave(failed=False)

    def enter(self, folder: Path, stage: str, config: Mapping[str, Any]) -> bool:
        """As `run` without its end; says whether this is a run of its own."""
        run = folder.resolve()
        inner = self._run is not None and run.is_relative_to(self._run)
        if inner or not self._settings.enabled:
            return False
        check_trackers(self._settings)
        self._leave(failed=True)  # one that an error ended, which was caught
        name = shown(run) if "://" in shown(run) else _short(run)
        self._run, self._config, self._begun, self._faults = run, config, False, set()
        self._metrics.tags["run"] = name
        self.stage(stage)
        self._live = LiveReport(run, self._report.say)
        if "://" not in name:
            self._report.point_to(f"report: {name}/{REPORT} (samples: halo-forge view {name})")
        self._over = threading.Event()
        self._watcher = threading.Thread(
            target=self._watch, args=(self._over, self._live), name="observer", daemon=True
        )
        self._watcher.start()
        return True

    def _begin(self) -> None:
        """The run was not refused: now there is something to tell of it."""
        assert self._run is not None
        self._begun = True
        self._tell_environment()
        with self._harmless("trackers are told nothing"):
            name = self._metrics.tags["run"]
            self._trackers = Trackers(self._run, name, self._settings, self._report.say)
            self._trackers.begin(self._config)

    def stage(self, name: str) -> None:
        """Another stage of the run begins; what comes is of no cycle."""
        if self._run is None:
            return
        self._look()
        with self._turn:
            self._stage, self._cycle = name, 0
            self._at()

    @contextmanager
    def phase(self, name: str, cycle: int = 0) -> Iterator[None]:
        """What is done in the block is this phase of the stage, in this cycle. One in another is
        part of that."""
        if self._phase or self._run is None:
            yield
            return
        if not self._begun:
            self._begin()
        self._look()
        with self._turn:
            self._phase, self._phase_began = name, time.monotonic()
            self._cycle = cycle or self._cycle
            self._activity.begin()
            self._at()
        self._tell_state(RUNNING)
        try:
            yield
        finally:
            self._look()
            with self._turn, self._harmless("metrics are not set"):
                self._phase = ""
                self._metrics.rest()

    def engines(self, pool: "EnginePool | None") -> None:
        """These engines are asked what they do, from now on."""
        self._pool = pool
        if self._run is not None:
            self._ask_engines(_AT_ONCE_S)

    def judged(self, sample: Mapping[str, Any], verdict: Mapping[str, Any]) -> None:
        """A sample has its verdict."""
        if self._run is None or self._log is None:
            return
        outcome = verdict["outcome"]
        self._activity.judged(outcome, verdict["reward"], sample["num_tokens"])
        if outcome == Outcome.INFRA_ERROR:
            why = (verdict.get("diagnostics") or "").strip().partition("\n")[0]
            if line := self._lost.take(f"no verdict on a sample: {why or 'no reason is known'}"):
                LOGGER.warning("%s", line, extra={"sample_id": sample["sample_id"]})
        elif self._log.level <= logging.DEBUG:
            told = f"{sample['problem_id']} {sample['index']}: {outcome}, {verdict['reward']:g}"
            LOGGER.debug("%s", told, extra={"sample_id": sample["sample_id"]})

    def verified(self, told: Mapping[str, Any] | None) -> None:
        """What a verifier did, as it sends it."""
        if told is not None and self._run is not None:
            self._activity.verified(told)

    def verifiers(self, number: int) -> None:
        """A fleet of so many verifiers at the least begins, the only one from now on."""
        self._activity.fleet(number)

    def trainers(self, number: int) -> None:
        """So many workers are to train, from now on in this phase."""
        self._activity.trainers(number)

    def restarted(self, part: str, number: int) -> None:
        """So many engines, verifiers or trainers died and were started anew."""
        if number and self._run is not None:
            self._activity.restarted(part, number)
            LOGGER.warning("%d of the part %s died and began anew", number, part)

    def trained(self, step: "StepMetrics", workers: int) -> None:
        """An optimizer step is done."""
        if self._run is None:
            return
        self._activity.trained(step.seconds, workers)
        values: dict[str, float | None] = {name: getattr(step, name) for name in WATCHED}
        with self._harmless("metrics are not set"):
            self._metrics.set("haloforge_train_step", step.step)
            for name, value in values.items():
                self._metrics.set(f"haloforge_train_{name}", value)
        if self._trackers is not None:
            part = f"{self._stage} {self._cycle}" if self._cycle else self._stage
            self._trackers.step(part, values, step.step)

    def selected(self, summary: Mapping[str, Any], health: Mapping[str, float | None]) -> None:
        """What a cycle's selection kept and dropped, and the signs of a collapse."""
        if self._run is None:
            return
        dropped = {f"dropped_{rule}": number for rule, number in summary["dropped"].items()}
        with self._harmless("metrics are not set"):
            self._metrics.set_all(
                "haloforge_selected", "rule", {"kept": summary["kept"], **dropped}
            )
            self._metrics.set_all("haloforge_health", "sign", dict(health))
        judged = max(1, summary["samples"] - summary["outcomes"].get(Outcome.INFRA_ERROR, 0))
        values = {"raft/mean_reward": summary["mean_reward"], "raft/kept": summary["kept"]}
        values |= {
            f"outcomes/{name}": count / judged
            for name, count in summary["outcomes"].items()
            if name != Outcome.INFRA_ERROR
        }
        values |= {f"health/{name}": value for name, value in health.items()}
        self._track("selection", values)

    def measured(self, measures: "Mapping[str, Estimate]") -> None:
        """What a benchmark came to, or the cycle's policy on held-out problems."""
        if self._run is None:
            return
        with self._harmless("metrics are not set"):
            for name, found in measures.items():
                bounds = {"mean": found.mean, "low": found.low, "high": found.high}
                for bound, value in bounds.items():
                    self._metrics.set("haloforge_held_out", value, measure=name, bound=bound)
        of = "held_out" if self._stage == "raft" else self._stage
        self._track(of, {f"{of}/{name}": found.mean for name, found in measures.items()})

    def ended(self, what: str) -> None:
        """A stage or a cycle has ended: the report says so."""
        if self._live is not None and self._begun:
            LOGGER.debug("%s has ended", what)
            self._look()
            self._live.write()

    def close(self, error: BaseException | None = None) -> None:
        """Nothing more is watched; `error` is what ended the run, if one did."""
        if error is not None and self._run is not None and self._begun:
            if isinstance(error, KeyboardInterrupt):
                LOGGER.warning("stopped", extra={ENDED: error})
                self._tell_state(STOPPED)
            else:
                told = f"{type(error).__name__}: {error}"
                LOGGER.error("%s", told, exc_info=error, extra={ENDED: error})
                self._tell_state(FAILED, told)
        self._leave(failed=error is not None)

    def _leave(self, failed: bool) -> None:
        if self._run is None:
            return
        self._look()
        if not failed and self._begun:
            self._tell_state(FINISHED)
        self._over.set()
        if self._watcher is not None:
            self._watcher.join(_JOIN_S)  # which may wait for engines
        if lost := self._lost.rest():
            LOGGER.warning("no verdict on %d more samples", lost)
        if self._trackers is not None:
            with self._harmless("trackers are told nothing"):
                self._trackers.close(failed)
        self._save()
        if self._live is not None:
            self._live.close(write=self._begun)
        self._metrics.forget()
        with self._turn:
            if self._log is not None:
                self._log.end(failed)
            self._run = self._live = self._trackers = self._watcher = None
            self._phase = ""

    def _track(self, part: str, values: Mapping[str, float | None]) -> None:
        if self._trackers is not None:
            self._trackers.cycle(part, values, self._cycle)

    def _at(self) -> None:
        """Where the run stands, for metrics and log."""
        self._metrics.tags["stage"] = self._stage
        self._metrics.tags["cycle"] = str(self._cycle or "")
        if self._run is not None and self._log is not None:
            self._log.begin(self._run, self._stage.replace(" ", "_"), self._cycle)

    def _watch(self, over: threading.Event, live: LiveReport) -> None:
        reported = saved_at = time.monotonic()
        while not over.wait(self._settings.every_s):
            self._look(_PATIENCE_S)
            now, every_s = time.monotonic(), self._settings.report_s
            if every_s and now - reported >= every_s and self._begun:
                reported = now
                live.write()
            if now - saved_at >= _SAVE_S:
                saved_at = now
                self._save()

    def _ask_engines(self, timeout_s: float) -> None:
        pool = self._pool
        if pool is not None:
            with self._harmless("engines were not asked what they do"):
                try:
                    self._activity.generated(pool.loads(timeout_s))
                except Exception:
                    if self._pool is pool:  # else they were just ended
                        raise

    def _look(self, patience_s: float = _AT_ONCE_S) -> None:
        """Tells what came since the last time: to Ray's metrics, and as a row of the activity.
        Engines that do not answer are waited for so long, which the run itself must not be."""
        if self._run is None:
            return
        self._ask_engines(patience_s)
        with self._turn:
            if self._run is None:
                return
            now, row = self._activity.take()
            with self._harmless("metrics are not set"):
                self._metrics.hold()
                self._metrics.came(now)
                if self._phase:
                    self._metrics.goes_on(now, row)
                    seconds = time.monotonic() - self._phase_began
                    self._metrics.set("haloforge_stage_seconds", seconds, phase=self._phase)
            if self._phase:
                told = {"stage": self._stage, "phase": self._phase, "cycle": self._cycle or None}
                with self._harmless("what the run does is not all kept"):
                    append(self._run / LOGS / ACTIVITY, json.dumps({**told, **row}))

    def _tell_environment(self) -> None:
        """`environment.json`: versions and hardware of this sitting."""
        assert self._run is not None
        if ray.is_initialized():
            from haloforge.benchmark.environment import environment

            with self._harmless("versions and hardware are not kept"):
                write(self._run / LOGS / ENVIRONMENT, environment().model_dump_json() + "\n")

    def _tell_state(self, state: str, message: str = "") -> None:
        """`state.json`: how the run stands. One that a kill ended stands there as running, while no
        process holds its folder."""
        if self._run is None:
            return
        at = {"stage": self._stage, "phase": self._phase, "cycle": self._cycle or None}
        told = {"state": state, **at, "at": round(time.time(), 2), "message": message}
        with self._harmless("how the run stands is not kept"):
            write(self._run / LOGS / STATE, json.dumps(told) + "\n")

    def _save(self) -> None:
        """What grows while a run goes on gets to object storage now and then, if the run is
        there."""
        if self._run is None:
            return
        with self._harmless("logs are not stored"):
            for folder in (self._run / LOGS, self._run / TENSORBOARD):
                for path in folder.glob("*"):
                    if path.is_file() and path.suffix != ".tmp":
                        saved(path)

    @contextmanager
    def _harmless(self, fault: str) -> Iterator[None]:
        """A block whose errors end no run. They are said once for each kind of fault."""
        try:
            yield
        except Exception as error:  # of Ray, of a disk, of object storage
            if fault not in self._faults:
                self._faults.add(fault)
                lines = str(error).strip().splitlines() or [type(error).__name__]
                self._report.say(f"observe: {fault}: {lines[0]}; the run goes on")


def _short(run: Path) -> str:
    """The folder as it is seen from here, or all of its path."""
    here = Path.cwd()
    return str(run.relative_to(here)) if run.is_relative_to(here) else str(run)
