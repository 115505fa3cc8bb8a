"""What watches a run, in one: the driver tells it what happens, it tells all who want to know."""

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haloforge.observe.activity import ACTIVITY, Activity
from haloforge.observe.live import LiveReport
from haloforge.observe.log import LOGS, attach
from haloforge.observe.metrics import Metrics
from haloforge.observe.settings import ObserveSettings
from haloforge.observe.trackers import TENSORBOARD, Trackers, check_trackers
from haloforge.report.progress import Report
from haloforge.schema import Outcome
from haloforge.store.remote import saved, shown
from haloforge.store.run import write_atomic
from haloforge.train.metrics import WATCHED

if TYPE_CHECKING:
    from haloforge.benchmark.passk import Estimate
    from haloforge.rollout.pool import EnginePool
    from haloforge.train.metrics import StepMetrics


STATE = "state.json"
RUNNING, ENDED, STOPPED, FAILED = "running", "ended", "stopped", "failed"


class Observer:
    """Watches the runs of a session, one after the other; off, all calls do nothing.

    A run is the outermost folder: a RAFT run in a pipeline's folder is watched as the pipeline's.
    Raises ResourceError for a tracker that is not installed. Nothing it does later ends a run: what
    cannot be written is said.
    """

    def __init__(self, settings: ObserveSettings, report: Report) -> None:
        if settings.enabled:
            check_trackers(settings)
        self._settings, self._report = settings, report
        self._metrics, self._activity = Metrics(), Activity()
        self._log = attach(getattr(logging, settings.log_level.upper()), report.say)
        self._run: Path | None = None
        self._stage, self._phase, self._cycle = "", "", 0
        self._phase_began = time.monotonic()
        self._pool: EnginePool | None = None
        self._turn = threading.RLock()
        self._over = threading.Event()
        self._reported_at = 0.0
        self._live: LiveReport | None = None
        self._trackers: Trackers | None = None
        self._failed = False

    def enter(self, run: Path, stage: str, config: Mapping[str, Any]) -> None:
        """The run in this folder is worked at from now on, with this stage; nothing new where it is
        part of the run that is watched."""
        if not self._settings.enabled:
            return
        run = run.resolve()
        if self._run is not None and run.is_relative_to(self._run):
            return
        self._leave()
        self._run = run
        self._metrics.tags["run"] = shown(run) if "://" in shown(run) else _short(run)
        self.stage(stage)
        self._live = LiveReport(run, self._report.say)
        self._trackers = Trackers(run, self._metrics.tags["run"], self._settings, self._report.say)
        self._trackers.begin(config)
        self._over = threading.Event()
        watch = threading.Thread(
            target=self._watch, args=(self._over,), name="observer", daemon=True
        )
        watch.start()

    def stage(self, name: str) -> None:
        """Another stage of the run begins; what comes is of no cycle."""
        with self._turn:
            self._look()
            self._stage, self._cycle = name, 0
            self._at()

    @contextmanager
    def phase(self, name: str, cycle: int = 0) -> Iterator[None]:
        """What is done in the block is this phase of the stage, in this cycle. One in another is
        part of that."""
        if self._phase or self._run is None:
            yield
            return
        self._ask_engines()
        with self._turn:
            self._look()
            self._phase, self._phase_began = name, time.monotonic()
            self._cycle = cycle or self._cycle
            self._activity.begin()
            self._at()
            self._tell_state(RUNNING)
        try:
            yield
        finally:
            self._ask_engines()
            with self._turn:
                self._look()
                self._phase = ""

    def engines(self, pool: "EnginePool | None") -> None:
        """These engines are asked what they do, from now on."""
        self._pool = pool
        self._ask_engines()

    def judged(self, sample: Mapping[str, Any], verdict: Mapping[str, Any]) -> None:
        """A sample has its verdict."""
        if self._run is None:
            return
        outcome = verdict["outcome"]
        self._activity.judged(outcome, verdict["reward"], sample["num_tokens"])
        if self._log.level <= logging.DEBUG:
            told = f"{sample['problem_id']} {sample['index']}: {outcome}, {verdict['reward']:g}"
            logging.getLogger("haloforge").debug(told, extra={"sample_id": sample["sample_id"]})

    def verified(self, told: Mapping[str, Any] | None) -> None:
        """What a verifier did, as it sends it."""
        if told is not None:
            self._activity.verified(told)

    def restarted(self, part: str, number: int) -> None:
        """So many engines, verifiers or trainers died and were started anew."""
        if number:
            self._activity.restarted(part, number)

    def trained(self, step: "StepMetrics", workers: int) -> None:
        """An optimizer step is done."""
        if self._run is None:
            return
        values: dict[str, float | None] = {name: getattr(step, name) for name in WATCHED}
        self._metrics.set("haloforge_train_step", step.step)
        for name, value in values.items():
            self._metrics.set(f"haloforge_train_{name}", value)
        self._activity.trained(step.seconds, workers)
        if self._trackers is not None:
            part = f"{self._stage} {self._cycle}" if self._cycle else self._stage
            self._trackers.step(part, values, step.step)

    def selected(self, summary: Mapping[str, Any], health: Mapping[str, float | None]) -> None:
        """What a cycle's selection kept and dropped, and the signs of a collapse."""
        rules = {
            "kept": summary["kept"],
            **{f"dropped_{k}": v for k, v in summary["dropped"].items()},
        }
        self._metrics.set_all("haloforge_selected", "rule", rules)
        self._metrics.set_all("haloforge_health", "sign", dict(health))
        judged = max(1, summary["samples"] - summary["outcomes"].get(Outcome.INFRA_ERROR, 0))
        shares = {
            f"outcomes/{name}": count / judged
            for name, count in summary["outcomes"].items()
            if name != Outcome.INFRA_ERROR
        }
        values = {
            "raft/mean_reward": summary["mean_reward"],
            "raft/kept": summary["kept"],
            **shares,
        }
        values |= {f"health/{name}": value for name, value in health.items()}
        self._track("selection", values)

    def measured(self, measures: "Mapping[str, Estimate]") -> None:
        """What a benchmark came to, or the cycle's policy on held-out problems."""
        for name, found in measures.items():
            bounds = {"mean": found.mean, "low": found.low, "high": found.high}
            for bound, value in bounds.items():
                self._metrics.set("haloforge_held_out", value, measure=name, bound=bound)
        of = "held_out" if self._stage == "raft" else self._stage
        self._track(of, {f"{of}/{name}": found.mean for name, found in measures.items()})

    def ended(self, what: str) -> None:
        """A stage or a cycle has ended: the report says so."""
        logging.getLogger("haloforge").debug(f"{what} has ended")
        if self._live is not None:
            self._look()
            self._live.write()

    def close(self, error: BaseException | None = None) -> None:
        """Nothing more is watched; `error` is what ended the run, if one did."""
        if error is not None and self._run is not None:
            expected = isinstance(error, KeyboardInterrupt)
            level = logging.WARNING if expected else logging.ERROR
            told = "stopped" if expected else f"{type(error).__name__}: {error}"
            logging.getLogger("haloforge").log(level, told, exc_info=None if expected else error)
            self._leave(STOPPED if expected else FAILED, told)
        self._leave()

    def _leave(self, state: str = ENDED, message: str = "") -> None:
        if self._run is None:
            return
        self._over.set()
        self._look()
        self._tell_state(state, message)
        if self._trackers is not None:
            self._trackers.close()
        for path in self._files():
            saved(path)
        if self._live is not None:
            self._live.close()
        self._log.end()
        self._metrics.forget()
        self._run = self._live = self._trackers = None

    def _track(self, part: str, values: Mapping[str, float | None]) -> None:
        if self._trackers is not None:
            self._trackers.cycle(part, values, self._cycle)

    def _at(self) -> None:
        """Where the run stands, for metrics and log."""
        self._metrics.tags["stage"] = self._stage
        self._metrics.tags["cycle"] = str(self._cycle or "")
        if self._run is not None:
            self._log.begin(self._run, self._stage.replace(" ", "_"), self._cycle)

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(self._settings.every_s):
            self._ask_engines()
            self._look()
            waited = time.monotonic() - self._reported_at
            if self._live is not None and 0 < self._settings.report_s <= waited:
                self._reported_at = time.monotonic()
                self._live.write()
                for path in self._files():
                    saved(path)

    def _ask_engines(self) -> None:
        pool = self._pool
        if pool is not None and self._run is not None:
            self._activity.generated(pool.loads())

    def _look(self) -> None:
        """Tells what came since the last time: to Ray's metrics, and as a row of the activity."""
        with self._turn:
            if self._run is None:
                return
            now, row = self._activity.take()
            metrics = self._metrics
            metrics.hold()
            for outcome, number in now.outcomes.items():
                metrics.count("haloforge_samples_total", number, outcome=outcome)
            metrics.count("haloforge_failures_total", now.outcomes[Outcome.INFRA_ERROR])
            for reward, number in now.rewards.items():
                metrics.observe("haloforge_reward", reward, number)
            metrics.count("haloforge_tokens_total", now.tokens)
            metrics.count("haloforge_cache_hits_total", now.cached)
            metrics.count("haloforge_verifying_seconds_total", now.verifying_s)
            metrics.count("haloforge_training_seconds_total", now.training_s)
            for part, number in now.restarts.items():
                metrics.count("haloforge_restarts_total", number, part=part)
            over = 0.0
            for name, load in now.engines.items():
                metrics.set("haloforge_engine_requests", load["requests"], engine=name)
                metrics.set("haloforge_engine_capacity", load["capacity"], engine=name)
                over += max(0.0, load["requests"] - load["capacity"])
            if now.engines:
                metrics.set("haloforge_queue_depth", over, queue="engines")
            if row["verifiers"]:
                metrics.set("haloforge_verifiers", row["verifiers"]["actors"])
                metrics.set("haloforge_queue_depth", row["verifiers"]["queued"], queue="verifiers")
            if row["trainers"]:
                metrics.set("haloforge_trainers", row["trainers"]["workers"])
            if not self._phase:
                return
            seconds = time.monotonic() - self._phase_began
            metrics.set("haloforge_stage_seconds", seconds, phase=self._phase)
            told = {"stage": self._stage, "phase": self._phase, "cycle": self._cycle or None, **row}
            self._append(json.dumps(told))

    def _append(self, line: str) -> None:
        assert self._run is not None
        try:
            path = self._run / LOGS / ACTIVITY
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            self._cannot_write(ACTIVITY, error)

    def _tell_state(self, state: str, message: str = "") -> None:
        """`state.json`: how the run stands. One that a kill ended stands there as running, and no
        process holds its folder."""
        if self._run is None:
            return
        told = {
            "state": state,
            "stage": self._stage,
            "phase": self._phase,
            "cycle": self._cycle or None,
            "at": round(time.time(), 2),
            "message": message,
        }
        try:
            write_atomic(self._run / LOGS / STATE, json.dumps(told) + "\n")
        except OSError as error:
            self._cannot_write(STATE, error)

    def _cannot_write(self, what: str, error: OSError) -> None:
        if not self._failed:
            self._failed = True
            self._report.say(f"{what} is not kept: {error.strerror or error}")

    def _files(self) -> list[Path]:
        """What grows while a run goes on."""
        assert self._run is not None
        folders = (self._run / LOGS, self._run / TENSORBOARD)
        return [path for folder in folders for path in folder.glob("*") if path.is_file()]


def _short(run: Path) -> str:
    """The folder as it is seen from here, or all of its path."""
    here = Path.cwd()
    return str(run.relative_to(here)) if run.is_relative_to(here) else str(run)
