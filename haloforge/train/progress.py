"""The actor between a training run's workers and its driver."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from haloforge.errors import HaloforgeError, ResourceError
from haloforge.train.metrics import StepMetrics


class Progress:
    """Between the workers and the driver: what was done, and whether to go on.

    It is on the driver's node, and what was trained goes to `folder` there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._events: list[StepMetrics | list[dict[str, Any]]] = []
        self._error: HaloforgeError | None = None
        self._over = False

    def begin(self, history: list[dict[str, Any]]) -> None:
        """Workers start, after the steps in `history`."""
        self._events.append(history)

    def push(self, metrics: StepMetrics) -> bool:
        """A step was made; whether it was the last that is wanted."""
        self._events.append(metrics)
        return self._over

    def keep(self, name: str, content: bytes) -> None:
        """A file of what was trained."""
        try:
            (self._folder / name).write_bytes(content)
        except OSError as error:
            raise ResourceError(f"{self._folder / name}: {error.strerror}") from None

    def fail(self, error: HaloforgeError) -> None:
        """Trying again would be in vain."""
        self._error = self._error or error
        self._over = True

    def end(self) -> None:
        """The workers are to stop at their next step."""
        self._over = True

    def is_over(self) -> bool:
        return self._over

    def error(self) -> HaloforgeError | None:
        return self._error

    def take(self) -> list[StepMetrics | list[dict[str, Any]]]:
        """The events since the last call; they are not kept."""
        taken, self._events = self._events, []
        return taken


def start_progress(folder: Path) -> Any:
    """A handle to a new `Progress`, on this node: another may be lost, and the run goes on."""
    here = ray.get_runtime_context().get_node_id()
    place = NodeAffinitySchedulingStrategy(here, soft=False)
    # No two actors of a namespace may share a name, and the one before may not be quite gone.
    named = f"training-progress-{uuid4().hex[:8]}"
    actor = ray.remote(num_cpus=0, scheduling_strategy=place, name=named)(Progress)
    return actor.remote(folder)
