"""Trackers: what they are told, once, and that none of them holds a run up or ends it."""

import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from haloforge.errors import ResourceError
from haloforge.observe import backends
from haloforge.observe import trackers as module
from haloforge.observe.backends import plain_name
from haloforge.observe.settings import ObserveSettings
from haloforge.observe.trackers import Trackers, check_trackers
from tests.observing import points_of

CONFIG = {"seed": 1, "raft": {"cycles": 3, "eval_prompts": None, "k": [1, 5]}, "long": "x" * 9000}
VALUES = {"loss": 0.5, "eval_loss": None}


def tell(
    run: Path, said: list[str], names: list[Any], cycles: int = 3, failed: bool = False
) -> None:
    """A sitting of a RAFT run that tells all it has up to this cycle, from its first on."""
    trackers = Trackers(run, "runs/raft", ObserveSettings(trackers=names), said.append)
    trackers.begin(CONFIG)
    for cycle in range(1, cycles + 1):
        for step in (1, 2):
            trackers.step(f"raft {cycle}", {**VALUES, "loss": cycle + step / 10}, step)
        trackers.cycle("held_out", {"held_out/pass@1": cycle / 10, "none": None}, cycle)
    trackers.close(failed)


EXPECTED = [
    point
    for cycle in (1, 2, 3)
    for point in (
        ("train/loss", 2 * cycle - 1, cycle + 0.1),
        ("train/loss", 2 * cycle, cycle + 0.2),
        ("held_out/pass_at_1", cycle, cycle / 10),
    )
]


def test_tensorboard_holds_each_point_once_however_often_the_run_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    for cycles in (1, 2, 2, 3):
        tell(tmp_path, said, ["tensorboard"], cycles)
    found = points_of(tmp_path / "tensorboard")
    assert sorted(found) == sorted((n, s, round(v, 6)) for n, s, v in EXPECTED)
    text = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").iterdir())
    assert text.count(b"raft.cycles: 3") == 1 and said == []


def test_what_a_kill_left_untold_is_told_and_no_more(tmp_path: Path) -> None:
    settings, said = ObserveSettings(), list[str]()
    trackers = Trackers(tmp_path, "run", settings, said.append)
    trackers.step("sft", VALUES, 1)
    trackers.step("sft", VALUES, 2)
    told = threading.Event()
    trackers._lanes["tensorboard"].put(lambda tracker: told.set())
    assert told.wait(30)
    # Killed here: nothing is closed.
    again = Trackers(tmp_path, "run", settings, said.append)
    for step in (1, 2, 3):
        again.step("sft", VALUES, step)
    again.step("raft 1", VALUES, 1)
    again.close()
    steps = [step for name, step, _ in points_of(tmp_path / "tensorboard") if name == "train/loss"]
    assert steps == [1, 2, 3, 4]


def test_names_are_plain() -> None:
    assert plain_name("benchmark base/pass@1") == "benchmark_base/pass_at_1"
    assert plain_name("dropped (all): ä%") == "dropped__all_____"


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_one_that_is_not_installed_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_trackers(ObserveSettings())
    with pytest.raises(ResourceError, match=f"{name}, which is not installed: pip install {name}"):
        check_trackers(ObserveSettings.model_validate({"trackers": ["tensorboard", name]}))


class Failing:
    """A tracker that raises, or hangs, where it is to."""

    id = "x"

    def __init__(self, where: str, does: Callable[[], None]) -> None:
        self._where, self._does = where, does
        self._at("open")

    def _at(self, where: str) -> None:
        if where == self._where:
            self._does()

    def begin(self, config: Any) -> None:
        self._at("begin")

    def log(self, values: Any, axis: str, step: int) -> None:
        self._at("log")

    def close(self, failed: bool) -> None:
        self._at("close")


@pytest.mark.parametrize("where", ["open", "begin", "log", "close"])
def test_one_that_fails_is_left_out_and_that_is_said_once(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ConnectionError("no server\nat all")

    monkeypatch.setitem(backends.TRACKERS, "wandb", lambda *_: Failing(where, fail))
    said: list[str] = []
    tell(tmp_path, said, ["wandb", "tensorboard"])
    assert said == ["tracker wandb is left out from here on: no server"]
    assert len(points_of(tmp_path / "tensorboard")) == len(EXPECTED)


@pytest.mark.parametrize("where", ["open", "log", "close"])
def test_one_that_hangs_holds_no_run_up(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    def hang() -> None:
        over.wait(60)

    monkeypatch.setitem(backends.TRACKERS, "wandb", lambda *_: Failing(where, hang))
    monkeypatch.setattr(module, "CLOSE_S", 1.0)
    said: list[str] = []
    tell(tmp_path, said, ["wandb", "tensorboard"])
    assert not over.is_set()
    assert said == ["tracker wandb: does not take what is told it in 1 s; the run ends without it"]
    assert len(points_of(tmp_path / "tensorboard")) == len(EXPECTED)
    over.set()


def test_one_that_falls_too_far_behind_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    monkeypatch.setitem(
        backends.TRACKERS, "wandb", lambda *_: Failing("log", lambda: void(over.wait(60)))
    )
    monkeypatch.setattr(module, "_WAITING", 3)
    monkeypatch.setattr(module, "CLOSE_S", 0.2)
    said: list[str] = []
    tell(tmp_path, said, ["wandb"])
    assert said[0] == "tracker wandb is left out from here on: 3 things to tell wait for it"
    assert len(said) == 2
    over.set()


def void(_: object) -> None: ...


def test_a_state_that_cannot_be_kept_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")
    said: list[str] = []
    tell(tmp_path, said, ["tensorboard"])
    assert len(said) == 1 and "trackers.json cannot be written" in said[0]
    assert len(points_of(tmp_path / "tensorboard")) == len(EXPECTED)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Stands for the package, with what it was told."""
    stand_in: Any = ModuleType("wandb")
    stand_in.inits, stand_in.rows, stand_in.axes, stand_in.ends = [], [], {}, []
    stand_in.config = {}

    def init(**options: Any) -> Any:
        stand_in.inits.append(options)
        config = SimpleNamespace(update=lambda told, **_: stand_in.config.update(told))
        return SimpleNamespace(
            id=options["id"] or "new",
            config=config,
            define_metric=lambda name, step_metric=None: stand_in.axes.update({name: step_metric}),
            log=stand_in.rows.append,
            finish=lambda exit_code: stand_in.ends.append(exit_code),
        )

    stand_in.init, stand_in.Settings = init, dict
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    monkeypatch.delenv("WANDB_DIR", raising=False)
    yield stand_in


def test_wandb_goes_on_in_the_same_run(wandb: Any, tmp_path: Path) -> None:
    said: list[str] = []
    tell(tmp_path, said, ["wandb"], 1, failed=True)
    tell(tmp_path, said, ["wandb"], 3)
    assert said == [] and wandb.ends == [1, 0]
    assert [each["id"] for each in wandb.inits] == [None, "new"]
    assert {each["dir"] for each in wandb.inits} == {str(tmp_path / "logs")}
    assert all(each["settings"]["init_timeout"] <= 30 for each in wandb.inits)
    assert wandb.axes == {"step": None, "cycle": None, "train/*": "step", "*": "cycle"}
    told = [
        (name, row.get("step", row.get("cycle")), value)
        for row in wandb.rows
        for name, value in row.items()
        if name not in ("step", "cycle")
    ]
    assert told == EXPECTED
    assert wandb.config["raft.k"] == [1, 5] and wandb.config["raft.eval_prompts"] is None


def test_mlflow_goes_on_in_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    place = (tmp_path / "store").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place)
    said: list[str] = []
    tell(tmp_path / "run", said, ["mlflow"], 1, failed=True)
    client = mlflow.MlflowClient(place)
    experiment = client.get_experiment_by_name("haloforge")

    def runs() -> Any:
        return client.search_runs([experiment.experiment_id])

    assert [run.info.status for run in runs()] == ["FAILED"]
    tell(tmp_path / "run", said, ["mlflow"], 3)
    assert said == []
    (run,) = runs()
    assert run.info.status == "FINISHED" and run.info.run_name == "runs/raft"
    assert run.data.params["raft.cycles"] == "3" and run.data.params["raft.k"] == "[1, 5]"
    assert run.data.params["long"] == "x" * 500 and run.data.params["raft.eval_prompts"] == "None"
    for name in ("train/loss", "held_out/pass_at_1"):
        history = client.get_metric_history(run.info.run_id, name)
        found = sorted((each.key, each.step, each.value) for each in history)
        assert found == [point for point in sorted(EXPECTED) if point[0] == name]


def test_mlflow_takes_many_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    trackers = Trackers(tmp_path, "r", ObserveSettings(trackers=["mlflow"]), said.append)
    trackers.begin({f"a@{number}": {"": number} for number in range(250)})
    trackers.close()
    assert said == []
    client = mlflow.MlflowClient((tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("haloforge")
    (run,) = client.search_runs([experiment.experiment_id])
    assert len(run.data.params) == 250 and run.data.params["a_at_7."] == "7"
