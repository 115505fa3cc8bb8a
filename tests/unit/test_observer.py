"""What an observer leaves of a run, without Ray and with engines that stand in."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from haloforge.benchmark.passk import Estimate
from haloforge.errors import InfraError
from haloforge.observe import observer as module
from haloforge.observe.log import LOGGER, attached, detach
from haloforge.observe.observer import Observer
from haloforge.observe.settings import ObserveSettings
from haloforge.report.progress import Report
from haloforge.store.run import open_run
from haloforge.train.metrics import StepMetrics
from tests.observing import lines_of, points_of
from tests.processes import wait_until

STEP = StepMetrics(1, 2, 0.5, 1e-4, 1.0, 100, 2.0, 50.0, 300.0)


class Said(Report):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        LOGGER.info("%s", line)
        self.lines.append(line)


class Page:
    """Stands for the report that is written while a run goes on."""

    made: list["Page"]

    def __init__(self, run: Path, tell: Any) -> None:
        self.run, self.written, self.closed = run, 0, False
        self.made.append(self)

    def write(self) -> None:
        self.written += 1

    def close(self, write: bool = True) -> None:
        self.closed = True


class Pool:
    """Stands for engines that say this of themselves, or raise it."""

    def __init__(self, *told: Any) -> None:
        self._told = list(told)
        self.asked = 0

    def loads(self, timeout_s: float) -> dict[str, dict[str, Any]]:
        self.asked += 1
        told = self._told[0] if len(self._told) == 1 else self._told.pop(0)
        if isinstance(told, Exception):
            raise told
        names = ("pid", "request_s", "finished", "in_flight", "capacity")
        return {"engine-0": dict(zip(names, told, strict=True))}


class Metrics(dict[str, dict[str, float]]):
    """What Ray's metrics would be set to: values by name and tags."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()

        def put(metric: Any, value: float, tags: dict[str, str], add: bool) -> None:
            told = ",".join(f"{name}={tag}" for name, tag in sorted(tags.items()) if tag)
            of = self.setdefault(metric.info["name"], {})
            of[told] = (of.get(told, 0) if add else 0) + value

        for name, method, add in (("Counter", "inc", True), ("Gauge", "set", False)):
            monkeypatch.setattr(
                f"ray.util.metrics.{name}.{method}",
                lambda metric, value, tags, add=add: put(metric, value, tags, add),
            )
        monkeypatch.setattr(
            "ray.util.metrics.Histogram.observe",
            lambda metric, value, tags: put(metric, 1, {**tags, "value": str(value)}, True),
        )


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Page]]:
    Page.made = []
    monkeypatch.setattr(module, "LiveReport", Page)
    threads = set(threading.enumerate())
    yield Page.made
    detach()
    left = {thread.name for thread in set(threading.enumerate()) - threads if thread.is_alive()}
    assert left <= {"lease"}, "threads are left, not of the store's"


def observer(**settings: Any) -> tuple[Observer, Said]:
    said = Said()
    given = {"every_s": 3600.0, "report_s": 0.0, **settings}
    return Observer(ObserveSettings.model_validate(given), said), said


def judge(watching: Observer, outcome: str, number: int = 1, why: str = "") -> None:
    for index in range(number):
        sample = {"sample_id": f"s{index}", "problem_id": "p", "index": index, "num_tokens": 10}
        reward = 1.0 if outcome == "passed" else 0.0
        watching.judged(sample, {"outcome": outcome, "reward": reward, "diagnostics": why})


def test_off_it_leaves_nothing_and_starts_nothing(tmp_path: Path) -> None:
    before = threading.active_count()
    watching, said = observer(enabled=False)
    watching.enter(tmp_path / "run", "raft", {})
    watching.stage("raft")
    with watching.phase("train", 1):
        watching.engines(Pool(AssertionError("asked")))  # type: ignore[arg-type]
        judge(watching, "infra_error")
        watching.verified({"actor": "a", "process": 1, "busy_s": 1.0, "cache_hits": 0})
        watching.restarted("engine", 1)
        watching.trained(STEP, 1)
    watching.selected({}, {})
    watching.measured({"pass@1": Estimate(0.5, 0.4, 0.6, 20)})
    watching.ended("raft")
    watching.close(ValueError("x"))
    assert threading.active_count() == before and attached() is None
    assert list(tmp_path.iterdir()) == [] and said.lines == []
    assert watching._activity.take()[1]["samples"] == 0


def test_a_session_without_a_run_leaves_nothing(tmp_path: Path, pages: list[Page]) -> None:
    """As `data generate` and `data validate` have it."""
    watching, _ = observer(log_level="debug")
    with watching.phase("verify"):
        watching.engines(Pool(AssertionError("asked")))  # type: ignore[arg-type]
        judge(watching, "passed")
        watching.verified({"actor": "a", "process": 1, "busy_s": 1.0, "cache_hits": 0})
    watching.close(ValueError("x"))
    log = attached()
    assert log is not None and log.path is None and pages == []


def test_a_row_says_what_was_done_in_a_phase(tmp_path: Path, pages: list[Page]) -> None:
    watching, said = observer(trackers=[])
    watching.enter(tmp_path, "raft", {})
    watching.engines(Pool((1, 0.0, 0, 0, 64), (1, 0.0, 0, 0, 64), (1, 9.0, 9, 0, 64)))  # type: ignore[arg-type]
    with watching.phase("sample_and_verify", 2):
        judge(watching, "passed", 3)
        judge(watching, "wrong_answer")
        watching.verified({"actor": "a", "process": 1, "busy_s": 0.0, "cache_hits": 2})
        with watching.phase("measure"):  # a part of it
            pass
    with watching.phase("train"):
        watching.trained(STEP, 2)
    watching.close()
    first, second = lines_of(tmp_path / "logs" / "activity.jsonl")
    assert (first["stage"], first["phase"], first["cycle"]) == ("raft", "sample_and_verify", 2)
    assert (first["samples"], first["tokens"], first["cached"]) == (4, 40, 2)
    assert first["outcomes"] == {"passed": 3, "wrong_answer": 1}
    assert first["engines"]["engine-0"]["capacity"] == 64
    assert first["engines"]["engine-0"]["in_flight"] > 0
    assert first["verifiers"] == {"actors": 1, "busy": 0.0, "queued": 5}
    assert (second["phase"], second["trainers"]["workers"]) == ("train", 2)
    assert (second["samples"], second["verifiers"]) == (0, None)
    assert said.lines == [] and [page.closed for page in pages] == [True]


def test_metrics_say_it_too(
    tmp_path: Path, pages: list[Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics(monkeypatch)
    monkeypatch.chdir(tmp_path)
    watching, said = observer(trackers=[])
    watching.enter(tmp_path / "run", "raft", {})
    watching.engines(Pool((1, 0.0, 0, 70, 64)))  # type: ignore[arg-type]
    with watching.phase("sample_and_verify", 1):
        judge(watching, "passed", 3)
        judge(watching, "infra_error", 2)
        watching.verified({"actor": "a", "process": 1, "busy_s": 1.0, "cache_hits": 2})
        watching.restarted("engine", 1)
        watching._look()
        at = "cycle=1,{}run=run,stage=raft"
        engine = at.format("engine=engine-0,")
        assert metrics["haloforge_engine_requests"] == {engine: 70}
        queue = "cycle=1,queue=engines,run=run,stage=raft"
        assert metrics["haloforge_queue_depth"][queue] == 6
    assert metrics["haloforge_engine_requests"] == {engine: 0}, "its phase is over"
    assert metrics["haloforge_queue_depth"][queue] == 0
    assert metrics["haloforge_engine_capacity"] == {engine: 64}
    passed = "cycle=1,outcome=passed,run=run,stage=raft"
    assert metrics["haloforge_samples_total"][passed] == 3
    assert metrics["haloforge_failures_total"] == {at.format(""): 2}
    assert metrics["haloforge_reward"] == {"cycle=1,run=run,stage=raft,value=1.0": 3}
    assert metrics["haloforge_tokens_total"] == {at.format(""): 30}
    assert metrics["haloforge_cache_hits_total"] == {at.format(""): 2}
    assert metrics["haloforge_restarts_total"] == {"cycle=1,part=engine,run=run,stage=raft": 1}
    watching.measured({"pass@1": Estimate(0.5, 0.4, 0.6, 20)})
    low = "bound=low,cycle=1,measure=pass@1,run=run,stage=raft"
    assert metrics["haloforge_held_out"][low] == 0.4
    watching.close()
    assert metrics["haloforge_samples_total"][passed] == 3, "nothing is told twice"
    assert said.lines == []


def test_a_pipeline_is_one_run_with_a_log_a_stage(tmp_path: Path, pages: list[Page]) -> None:
    watching, _ = observer()
    watching.enter(tmp_path / "p", "pipeline", {"seed": 1})
    for stage in ("benchmark base", "raft"):
        watching.stage(stage)
        watching.enter(tmp_path / "p" / stage.replace(" ", "/"), "inner", {"seed": 2})
        with watching.phase("evaluate"):
            watching.enter(tmp_path / "p" / "raft" / "start_eval", "benchmark", {})
            LOGGER.info("in %s", stage)
            watching.measured({"pass@1": Estimate(0.25, 0.0, 0.5, 20)})
        watching.ended(stage)
    watching.close()
    names = {path.name for path in (tmp_path / "p" / "logs").iterdir()}
    stages = {"benchmark_base.jsonl", "raft.jsonl"}
    assert names == {*stages, "activity.jsonl", "trackers.json", "state.json"}
    for path, told in zip(sorted(stages), ("benchmark base", "raft"), strict=True):
        (line,) = lines_of(tmp_path / "p" / "logs" / path)
        assert (line["stage"], line["message"]) == (told.replace(" ", "_"), f"in {told}")
    assert [page.written for page in pages] == [2]
    points = points_of(tmp_path / "p" / "tensorboard")
    expected = [("benchmark_base/pass_at_1", 0, 0.25), ("held_out/pass_at_1", 0, 0.25)]
    assert points == expected


def test_models_that_are_measured_one_after_another_are_runs_of_their_own(
    tmp_path: Path, pages: list[Page]
) -> None:
    watching, _ = observer()
    for name in ("a", "b"):
        with watching.run(tmp_path / name, "benchmark", {"model": name}):
            with watching.phase("measure"):
                judge(watching, "passed")
            LOGGER.info("measured %s", name)
    watching.close()
    watching.close()
    for name in ("a", "b"):
        logs = tmp_path / name / "logs"
        assert [row["samples"] for row in lines_of(logs / "activity.jsonl")] == [1]
        messages = [line["message"] for line in lines_of(logs / "benchmark.jsonl")]
        assert messages == [f"measured {name}"]
    assert [(page.run.name, page.closed) for page in pages] == [("a", True), ("b", True)]


@pytest.mark.parametrize(
    ("error", "level", "told"),
    [
        (InfraError("no engine is left"), "error", "InfraError: no engine is left"),
        (KeyboardInterrupt(), "warning", "stopped"),
    ],
)
def test_what_ended_a_run_is_logged_and_not_told_again(
    tmp_path: Path, pages: list[Page], error: BaseException, level: str, told: str
) -> None:
    watching, _ = observer(trackers=[])
    watching.enter(tmp_path, "raft", {})
    with pytest.raises(type(error)), watching.phase("sample_and_verify", 1):
        LOGGER.warning("an engine died")
        raise error
    watching.close(error)
    last = lines_of(tmp_path / "logs" / "raft.jsonl")[-1]
    assert last["level"] == level and last["message"].splitlines()[0] == told
    assert ("Traceback" in last["message"]) == (level == "error")
    log = attached()
    assert log is not None and log.last() == ["warning: an engine died"]
    assert len(lines_of(tmp_path / "logs" / "activity.jsonl")) == 1


def test_samples_without_a_verdict_are_told_seldom(tmp_path: Path, pages: list[Page]) -> None:
    watching, _ = observer(trackers=[], log_level="warning")
    watching.enter(tmp_path, "raft", {})
    with watching.phase("sample_and_verify", 1):
        judge(watching, "infra_error", 5000, "bwrap: no space\nmore")
        judge(watching, "infra_error", 2)
        judge(watching, "passed", 9)
    watching.close()
    lines = lines_of(tmp_path / "logs" / "raft.jsonl")
    assert [(line["message"], line.get("sample_id")) for line in lines] == [
        ("no verdict on a sample: bwrap: no space", "s0"),
        ("no verdict on a sample: no reason is known", "s0"),
        ("no verdict on 5000 more samples", None),
    ]


def test_engines_that_do_not_answer_are_said_once_and_asked_again(
    tmp_path: Path, pages: list[Page]
) -> None:
    from ray.exceptions import RaySystemError

    watching, said = observer(trackers=[], every_s=0.01)
    fault = RaySystemError("the head is gone")
    pool = Pool(fault, fault, fault, (1, 1.0, 1, 0, 8))
    watching.enter(tmp_path, "raft", {})
    path = tmp_path / "logs" / "activity.jsonl"
    with watching.phase("sample_and_verify", 1):
        watching.engines(pool)  # type: ignore[arg-type]
        assert wait_until(lambda: path.exists() and "engine-0" in path.read_text(), 30)
    watching.engines(None)
    watching.close()
    assert len(said.lines) == 1 and "the head is gone" in said.lines[0]


def test_a_full_disk_is_said_and_the_run_goes_on(
    tmp_path: Path, pages: list[Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, line: str) -> None:
        raise OSError(28, "No space left on device")

    watching, said = observer(trackers=[])
    watching.enter(tmp_path, "raft", {})
    monkeypatch.setattr(module, "append", full)
    for cycle in (1, 2):
        with watching.phase("select", cycle):
            pass
    watching.close()
    assert len(said.lines) == 1 and "No space left on device" in said.lines[0]


def test_looks_from_many_threads_count_each_sample_once(tmp_path: Path, pages: list[Page]) -> None:
    watching, _ = observer(trackers=[], every_s=0.002)
    watching.enter(tmp_path, "raft", {})

    def work() -> None:
        for _ in range(50):
            judge(watching, "passed", 10)
            watching._look()

    with watching.phase("sample_and_verify", 1):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    watching.close()
    rows = lines_of(tmp_path / "logs" / "activity.jsonl")
    assert sum(row["samples"] for row in rows) == 2000


def test_the_report_is_written_meanwhile(tmp_path: Path, pages: list[Page]) -> None:
    watching, _ = observer(trackers=[], every_s=0.01, report_s=0.02)
    watching.enter(tmp_path, "raft", {})
    with watching.phase("train"):
        assert wait_until(lambda: pages[0].written >= 2, 30)
    watching.close()


def test_what_is_told_of_a_run_is_no_part_of_it(tmp_path: Path, pages: list[Page]) -> None:
    """A folder whose identity is lost is the run's still, if it holds no more than that."""
    watching, _ = observer()
    identity = {"seed": 1}
    open_run(tmp_path / "run", identity)
    watching.enter(tmp_path / "run", "raft", {"seed": 1})
    with watching.phase("train"):
        pass
    watching.close()
    assert any((tmp_path / "run" / "tensorboard").iterdir())
    (tmp_path / "run" / "run.json").write_text("{")
    open_run(tmp_path / "run", identity)
    assert (tmp_path / "run" / "run.json.torn").exists()


def test_samples_are_told_one_by_one_at_level_debug(tmp_path: Path, pages: list[Page]) -> None:
    watching, _ = observer(trackers=[], log_level="debug")
    assert LOGGER.level == logging.DEBUG
    watching.enter(tmp_path, "raft", {})
    with watching.phase("sample_and_verify", 1):
        judge(watching, "passed", 2)
    watching.close()
    lines = lines_of(tmp_path / "logs" / "raft.jsonl")
    told = [(line["sample_id"], line["message"]) for line in lines]
    assert told == [("s0", "p 0: passed, 1"), ("s1", "p 1: passed, 1")]
