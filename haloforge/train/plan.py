"""Which rows train at each optimizer step, on which worker, and at what learning rate."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from haloforge.train.settings import TrainSettings

AUTO_MICRO_BATCH_TOKENS = 4096


@dataclass(frozen=True)
class StepPlan:
    """A seeded plan of row ids per step, the same on every worker that computes it.

    `lengths` holds each row's tokens. An epoch is a permutation of all rows cut into batches of
    `batch_size`, its last one short; of a fractional last epoch only the beginning is used (one
    row at least). The rows of a step depend on neither the number of workers nor the lengths.
    """

    lengths: Sequence[int]
    batch_size: int
    epochs: float
    seed: int

    @cached_property
    def _epoch_rows(self) -> list[int]:
        """Rows used in each epoch."""
        num_rows = len(self.lengths)
        whole, part = divmod(self.epochs, 1)
        partial = round(part * num_rows)
        sizes = [num_rows] * int(whole) + ([partial] if partial else [])
        return sizes or [min(1, num_rows)]

    @cached_property
    def _steps_before(self) -> list[int]:
        """Steps before each epoch, and in total at the end."""
        steps = [math.ceil(rows / self.batch_size) for rows in self._epoch_rows]
        return [0, *np.cumsum(steps).tolist()]

    @property
    def num_steps(self) -> int:
        """Optimizer steps in all."""
        return int(self._steps_before[-1])

    def rows(self, step: int) -> list[int]:
        """Row ids of the global batch of `step`, counted from 0."""
        if not 0 <= step < self.num_steps:
            raise IndexError(f"step {step} is not in 0..{self.num_steps - 1}")
        epoch = int(np.searchsorted(self._steps_before, step, side="right")) - 1
        first = (step - self._steps_before[epoch]) * self.batch_size
        last = min(first + self.batch_size, self._epoch_rows[epoch])
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.lengths))
        return [int(row) for row in order[first:last]]

    def micro_batches(
        self, step: int, num_workers: int, micro_batch_size: int | None = None
    ) -> list[list[list[int]]]:
        """The step's rows as `[worker][micro-batch][row]`.

        Rows go longest first to the worker with the fewest tokens, then, sorted by length, into
        micro-batches of at most `micro_batch_size` rows; without it, of as many as fit in
        `AUTO_MICRO_BATCH_TOKENS` padded tokens, one at least. All workers get equally many
        micro-batches, as their collectives must pair up: some may be empty.
        """
        loads: list[list[int]] = [[] for _ in range(num_workers)]
        tokens = [0] * num_workers
        for row in sorted(self.rows(step), key=lambda row: (-self.lengths[row], row)):
            worker = min(range(num_workers), key=lambda worker: (tokens[worker], worker))
            loads[worker].append(row)
            tokens[worker] += self.lengths[row]
        batches = [self._pack(load, micro_batch_size) for load in loads]
        most = max(len(worker) for worker in batches)
        return [worker + [[]] * (most - len(worker)) for worker in batches]

    def _pack(self, rows: list[int], micro_batch_size: int | None) -> list[list[int]]:
        """`rows`, longest first, as micro-batches."""
        batches: list[list[int]] = []
        for row in rows:
            limit = micro_batch_size or max(
                1, AUTO_MICRO_BATCH_TOKENS // (self.lengths[batches[-1][0]] if batches else 1)
            )
            if batches and len(batches[-1]) < limit:
                batches[-1].append(row)
            else:
                batches.append([row])
        return batches


def learning_rate(step: int, num_steps: int, settings: TrainSettings) -> float:
    """The learning rate of `step`, counted from 0: linear warm-up, then the schedule.

    Warm-up ends at the full rate; cosine and linear fall from there to 0 just after the last
    step, so that no step trains at a rate of 0.
    """
    warmup = math.ceil(settings.warmup_ratio * num_steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    progress = (step - warmup) / max(1, num_steps - warmup)
    if settings.schedule == "linear":
        return settings.learning_rate * (1 - progress)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
