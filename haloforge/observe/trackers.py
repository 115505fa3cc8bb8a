"""Where curves go beside the report: TensorBoard, Weights & Biases, MLflow, by one interface."""

import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from haloforge.errors import ResourceError
from haloforge.observe.settings import ObserveSettings
from haloforge.store.run import read_record, write_atomic

TENSORBOARD = "tensorboard"
_STATE = "trackers.json"
_NEEDS = {"wandb": "wandb", "mlflow": "mlflow"}
_PARAM_CHARS = 500  # the most that MLflow's servers of any version take


class Tracker(Protocol):
    """Takes a run's curves."""

    def begin(self, config: Mapping[str, Any]) -> None:
        """The run's settings, by dotted names."""

    def log(self, values: Mapping[str, float], axis: str, step: int) -> None:
        """Values by name at a place on `axis`, `step` or `cycle`, which only grows."""

    def close(self) -> None:
        """Nothing more comes in this sitting."""


class _TensorBoard:
    def __init__(self, run: Path, name: str, settings: ObserveSettings, known: str | None) -> None:
        from tensorboardX import SummaryWriter

        self.id = ""
        self._writer = SummaryWriter(str(run / TENSORBOARD), flush_secs=10)

    def begin(self, config: Mapping[str, Any]) -> None:
        self._writer.add_text("settings", "\n".join(f"    {k}: {v}" for k, v in config.items()))

    def log(self, values: Mapping[str, float], axis: str, step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, run: Path, name: str, settings: ObserveSettings, known: str | None) -> None:
        import wandb

        self._run = wandb.init(
            project=settings.project, name=name, dir=str(run), id=known, resume="allow"
        )
        self.id = str(self._run.id)
        for axis in ("step", "cycle"):
            self._run.define_metric(axis)
        self._run.define_metric("train/*", step_metric="step")
        self._run.define_metric("*", step_metric="cycle")

    def begin(self, config: Mapping[str, Any]) -> None:
        self._run.config.update(dict(config), allow_val_change=True)

    def log(self, values: Mapping[str, float], axis: str, step: int) -> None:
        self._run.log({**values, axis: step})

    def close(self) -> None:
        self._run.finish()


class _Mlflow:
    def __init__(self, run: Path, name: str, settings: ObserveSettings, known: str | None) -> None:
        import mlflow

        self._client = mlflow.MlflowClient()
        experiment = self._client.get_experiment_by_name(settings.project)
        where = experiment and experiment.experiment_id
        if where is None:
            where = self._client.create_experiment(settings.project)
        self.id = known or self._client.create_run(where, run_name=name).info.run_id
        if known:
            self._client.update_run(known, status="RUNNING")

    def begin(self, config: Mapping[str, Any]) -> None:
        known = self._client.get_run(self.id).data.params
        for name, value in config.items():
            if name not in known:  # a parameter cannot be changed
                self._client.log_param(self.id, name, str(value)[:_PARAM_CHARS])

    def log(self, values: Mapping[str, float], axis: str, step: int) -> None:
        for name, value in values.items():
            # Its names take neither @ nor brackets.
            self._client.log_metric(self.id, name.replace("@", "_at_"), value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self.id)


_TRACKERS: dict[str, Any] = {TENSORBOARD: _TensorBoard, "wandb": _Wandb, "mlflow": _Mlflow}


def check_trackers(settings: ObserveSettings) -> None:
    """Raises ResourceError for a tracker that is asked for and not installed."""
    for name in settings.trackers:
        if name in _NEEDS and importlib.util.find_spec(_NEEDS[name]) is None:
            raise ResourceError(
                f"observe.trackers names {name}, which is not installed: pip install {name}"
            )


class Trackers:
    """Those of a run, in one. What was told before a run was stopped is not told again; after a
    kill the steps since the last cycle are.

    One that fails, as where its server does not answer, is left out from then on, and that is said:
    no run ends by it.
    """

    def __init__(
        self, run: Path, name: str, settings: ObserveSettings, tell: Callable[[str], None]
    ) -> None:
        self._tell = tell
        self._path = run / "logs" / _STATE
        state = read_record(self._path)
        self._ids: dict[str, str] = state.get("ids", {})
        self._steps: dict[str, int] = state.get("steps", {})  # in the order of trainings
        self._cycles: dict[str, int] = state.get("cycles", {})
        self._trackers: dict[str, Tracker] = {}
        for each in dict.fromkeys(settings.trackers):
            with self._guarded(each):
                tracker = _TRACKERS[each](run, name, settings, self._ids.get(each))
                self._trackers[each] = tracker
                self._ids[each] = tracker.id
        self._keep()

    def begin(self, config: Mapping[str, Any]) -> None:
        """The run's settings, as a tree."""
        self._each(lambda tracker: tracker.begin(dict(_flat(config))))

    def step(self, part: str, values: Mapping[str, float | None], step: int) -> None:
        """Values of an optimizer step, counted from 1, of the training called `part`. On the axis
        the steps of one follow those of another."""
        steps = self._steps
        if step <= steps.get(part, 0):
            return
        earlier = list(steps).index(part) if part in steps else len(steps)
        before = sum(list(steps.values())[:earlier])
        steps[part] = step
        known = {f"train/{name}": value for name, value in values.items() if value is not None}
        self._each(lambda tracker: tracker.log(known, "step", before + step))

    def cycle(self, part: str, values: Mapping[str, float | None], cycle: int) -> None:
        """What a cycle came to, or a benchmark."""
        if cycle <= self._cycles.get(part, -1):
            return
        self._cycles[part] = cycle
        known = {name: value for name, value in values.items() if value is not None}
        self._each(lambda tracker: tracker.log(known, "cycle", cycle))
        self._keep()

    def close(self) -> None:
        """Nothing more comes in this sitting."""
        self._each(lambda tracker: tracker.close())
        self._trackers = {}
        self._keep()

    def _each(self, do: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            with self._guarded(name):
                do(tracker)

    @contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        """A block in which an error of the tracker's own ends that tracker alone."""
        try:
            yield
        except Exception as error:
            self._trackers.pop(name, None)
            lines = str(error).strip().splitlines() or [type(error).__name__]
            self._tell(f"tracker {name} is left out from here on: {lines[0]}")

    def _keep(self) -> None:
        state = {"ids": self._ids, "steps": self._steps, "cycles": self._cycles}
        write_atomic(self._path, json.dumps(state) + "\n")


def _flat(tree: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        name = f"{above}{key}"
        found += _flat(value, f"{name}.") if isinstance(value, Mapping) else [(name, value)]
    return found
