"""The trackers that `trackers.py` tells; each only knows its own library."""

import logging
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from haloforge.observe.settings import ObserveSettings
from haloforge.store.layout import TENSORBOARD

_PARAM_CHARS = 500  # the most that MLflow's servers of any version take
_PARAMS = 100  # of one request to it
_INIT_S = 30.0


class Tracker(Protocol):
    """Takes a run's curves. Any of its calls may raise whatever its library does."""

    id: str
    """By which a later sitting finds the same run again."""

    def begin(self, config: Mapping[str, Any]) -> None:
        """The run's settings, by dotted names."""

    def log(self, values: Mapping[str, float], axis: str, step: int) -> None:
        """Values by name at a place on `axis`, `step` or `cycle`, which only grows."""

    def close(self, failed: bool) -> None:
        """Nothing more comes in this sitting, which `failed` or not."""


def plain_name(name: str) -> str:
    """`name` as all three take it: of letters, digits, `_`, `-`, `.` and `/`."""
    return re.sub(r"[^A-Za-z0-9_./-]", "_", name.replace("@", "_at_"))


class _TensorBoard:
    """Files in `RUN/tensorboard`, one more in each sitting.

    Not by `SummaryWriter`, whose thread and queue lose the last points in a kill, and wait for ever
    once its disk is full."""

    def __init__(self, run: Path, name: str, settings: ObserveSettings, known: str | None) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar, text

        self._event, self._scalar, self._text = Event, scalar, text
        self.id, self._again = TENSORBOARD, known is not None
        # Its files are named by whole seconds: two sittings in one would share a file.
        own = f".{os.getpid()}.{time.time_ns()}"
        folder = run / TENSORBOARD
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"), own)

    def begin(self, config: Mapping[str, Any]) -> None:
        if not self._again:
            told = "\n".join(f"    {name}: {value}" for name, value in config.items())
            self._write(self._text("settings", told), 0)
            self._writer.flush()

    def log(self, values: Mapping[str, float], axis: str, step: int) -> None:
        for name, value in values.items():
            self._write(self._scalar(name, value), step)
        self._writer.flush()

    def _write(self, summary: Any, step: int) -> None:
        self._writer.write_event(self._event(wall_time=time.time(), step=step, summary=summary))

    def close(self, failed: bool) -> None:
        self._writer.close()


class _Wandb:
    """A run of W&B; its files are in `RUN/logs/wandb` where WANDB_DIR does not say otherwise."""

    def __init__(self, run: Path, name: str, settings: ObserveSettings, known: str | None) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        folder = Path(os.environ.get("WANDB_DIR") or run / "logs")
        folder.mkdir(parents=True, exist_ok=True)
        # The terminal is the report's, and another run may end late in this process.
        options = wandb.Settings(
            init_timeout=_INIT_S, silent=True, console="off", reinit="create_new"
        )
        self._run = wandb.init(
            project=settings.project,
            name=name,
            dir=str(folder),
            id=known,
            resume="allow",
            settings=options,
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

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class _Mlflow:
    """A run of MLflow where MLFLOW_TRACKING_URI says, or in the folder `mlruns` here."""

    def __init__(self, run: Path, name: str, settings: ObserveSettings, known: str | None) -> None:
        # Its newer versions refuse a folder of files unless one is asked for, as here.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # or one takes minutes
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        import mlflow

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        place = os.environ.get("MLFLOW_TRACKING_URI") or Path("mlruns").absolute().as_uri()
        self._client = mlflow.MlflowClient(tracking_uri=place)
        self._metric, self._param = mlflow.entities.Metric, mlflow.entities.Param
        experiment = self._client.get_experiment_by_name(settings.project)
        where = experiment and experiment.experiment_id
        if where is None:
            where = self._client.create_experiment(settings.project)
        self.id = known or self._client.create_run(where, run_name=name).info.run_id
        if known:
            self._client.update_run(known, status="RUNNING")

    def begin(self, config: Mapping[str, Any]) -> None:
        known = self._client.get_run(self.id).data.params
        params = [
            self._param(name, str(value)[:_PARAM_CHARS])
            for name, value in ((plain_name(key), value) for key, value in config.items())
            if name not in known  # a parameter cannot be changed
        ]
        for first in range(0, len(params), _PARAMS):
            self._client.log_batch(self.id, params=params[first : first + _PARAMS])

    def log(self, values: Mapping[str, float], axis: str, step: int) -> None:
        at = int(time.time() * 1000)
        metrics = [self._metric(name, value, at, step) for name, value in values.items()]
        self._client.log_batch(self.id, metrics=metrics)

    def close(self, failed: bool) -> None:
        self._client.set_terminated(self.id, status="FAILED" if failed else "FINISHED")


TRACKERS: dict[str, Any] = {TENSORBOARD: _TensorBoard, "wandb": _Wandb, "mlflow": _Mlflow}
