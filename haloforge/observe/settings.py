"""Settings of how a run is watched. None of them changes what it makes."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ObserveSettings(BaseModel):
    """What a run tells beside its results.

    `enabled` false turns all of it off: metrics, logs, the report while it goes on, trackers.
    `every_s` are the seconds between two looks at engines, verifiers and trainers. `log_level`
    `debug` writes a line for each sample too. The report is written anew after each stage and
    cycle, and every `report_s` seconds meanwhile (0: not meanwhile).

    `trackers` get the curves: `tensorboard`, `wandb`, `mlflow`; the last two must be installed.
    `project` is their project or experiment; where they are is told by their own variables
    (WANDB_BASE_URL, WANDB_MODE, MLFLOW_TRACKING_URI).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = True
    every_s: float = Field(10, gt=0)
    log_level: Literal["debug", "info", "warning"] = "info"
    report_s: float = Field(120, ge=0)
    trackers: list[Literal["tensorboard", "wandb", "mlflow"]] = ["tensorboard"]
    project: str = "haloforge"
