"""A training's metrics as they come in: a JSON line a step, and TensorBoard."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from tensorboardX import SummaryWriter

from haloforge.store.layout import METRICS, TENSORBOARD

WATCHED = ("loss", "eval_loss", "lr", "grad_norm", "tokens_per_s", "seconds", "memory_mb")
"""What TensorBoard and Ray's metrics are told of a step."""


@dataclass(frozen=True)
class StepMetrics:
    """One optimizer step, counted from 1. Losses are in nats per trained token.

    `grad_norm` is before clipping. `tokens_per_s` counts trained tokens alone, no prompt and no
    padding, over `seconds`, in which a validation or a checkpoint has no part. `memory_mb` is the
    most that rank 0 held so far: of its GPU, or resident where there is none.
    """

    step: int
    num_steps: int
    loss: float
    lr: float
    grad_norm: float
    trained_tokens: int
    seconds: float
    tokens_per_s: float
    memory_mb: float
    eval_loss: float | None = None


class MetricsLog:
    """Writes `metrics.jsonl` and a TensorBoard folder in `output`.

    The file is begun anew: a run that goes on is told its history first.
    """

    def __init__(self, output: Path) -> None:
        self._board_path = output / TENSORBOARD
        self.steps: list[StepMetrics] = []
        self._file: TextIO = (output / METRICS).open("w", encoding="utf-8")
        self._board = SummaryWriter(str(self._board_path), flush_secs=10)

    def close(self) -> None:
        """Nothing more comes."""
        self._file.close()
        self._board.close()

    def begin(self, history: Sequence[dict[str, Any]]) -> None:
        """The metrics so far are these: workers began, or went on from a checkpoint."""
        self.steps = []
        self._file.seek(0)
        self._file.truncate()
        self._board.close()
        for old in self._board_path.glob("events.*"):
            old.unlink()
        self._board = SummaryWriter(str(self._board_path), flush_secs=10)
        for line in history:
            self.add(StepMetrics(**line))

    def add(self, metrics: StepMetrics) -> None:
        """One step more."""
        self.steps.append(metrics)
        told = asdict(metrics)
        self._file.write(json.dumps(told) + "\n")
        self._file.flush()
        for name in WATCHED:
            if told[name] is not None:
                self._board.add_scalar(f"train/{name}", told[name], metrics.step)
