"""Which rows train at each optimizer step, on which worker, and at what learning rate."""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from haloforge.errors import InputError
from haloforge.train.settings import MICRO_BATCH_TOKENS, TrainSettings

_WAYS_TO_PACK = 16  # are tried, or up to twice as many


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
    def steps_per_epoch(self) -> int:
        """Optimizer steps of a whole epoch."""
        return math.ceil(len(self.lengths) / self.batch_size)

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
        order = _order(self.seed, epoch, len(self.lengths))
        return [int(row) for row in order[first:last]]

    def micro_batches(
        self,
        step: int,
        num_workers: int,
        settings: TrainSettings,
        packed: bool = True,
    ) -> list[list[list[list[int]]]]:
        """The step's rows as `[worker][micro-batch][sequence][row]`.

        Workers share the rows evenly by tokens, and a worker's rows are packed into sequences of
        about the longest row's length, or up to twice that where it leaves less padding (longer
        ones cost more attention than they spare); if not `packed`, of one row. A micro-batch has at
        most `micro_batch_size` sequences; without it, as many as fit in `micro_batch_tokens`, one
        at least. All workers get equally many micro-batches, as their collectives must pair up:
        some may be empty.
        """
        loads = self._shared_evenly(self.rows(step), num_workers)
        batches = [self._pack(load, settings, packed) for load in loads]
        most = max(len(worker) for worker in batches)
        return [worker + [[]] * (most - len(worker)) for worker in batches]

    def _shared_evenly(self, rows: list[int], shares: int) -> list[list[int]]:
        """`rows` in `shares` lists, the longest first to the one with the fewest tokens (LPT rule,
        Graham 1969)."""
        loads: list[list[int]] = [[] for _ in range(shares)]
        least_first = [(0, share) for share in range(shares)]  # tokens, and whose: a heap
        for row in sorted(rows, key=lambda row: (-self.lengths[row], row)):
            tokens, share = least_first[0]
            loads[share].append(row)
            heapq.heapreplace(least_first, (tokens + self.lengths[row], share))
        return loads

    def _pack(
        self, rows: list[int], settings: TrainSettings, packed: bool
    ) -> list[list[list[int]]]:
        """`rows` as micro-batches of sequences, the longest first."""
        if not rows:
            return []

        def tokens(sequence: list[int]) -> int:
            return sum(self.lengths[row] for row in sequence)

        def padded(sequences: list[list[int]]) -> int:
            return len(sequences) * max(map(tokens, sequences))

        most = tokens(rows) // max(self.lengths[row] for row in rows)
        apart = max(1, most // (2 * _WAYS_TO_PACK))
        counts = range(most, most // 2, -apart) if packed else [len(rows)]
        ways = [self._shared_evenly(rows, count) for count in counts]
        batches: list[list[list[int]]] = []
        most_tokens = settings.micro_batch_tokens or MICRO_BATCH_TOKENS["gpu"]
        least = min(ways, key=padded)
        for sequence in sorted(least, key=tokens, reverse=True):
            limit = settings.micro_batch_size or max(
                1, most_tokens // tokens(batches[-1][0] if batches else sequence)
            )
            if batches and len(batches[-1]) < limit:
                batches[-1].append(sequence)
            else:
                batches.append([sequence])
        return batches


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, num_rows: int) -> npt.NDArray[np.int64]:
    """The rows of an epoch in the order they train; kept, as each of its steps asks."""
    return np.random.default_rng([seed, epoch]).permutation(num_rows)


def learning_rate(step: int, num_steps: int, settings: TrainSettings) -> float:
    """The learning rate of `step`, counted from 0: linear warm-up, then the schedule.

    Warm-up ends at the full rate; cosine and linear fall from there to 0 just after the last
    step, so that no step trains at a rate of 0.
    """
    warmup = warmup_steps(num_steps, settings)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    progress = (step - warmup) / max(1, num_steps - warmup)
    if settings.schedule == "linear":
        return settings.learning_rate * (1 - progress)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def warmup_steps(num_steps: int, settings: TrainSettings) -> int:
    """Steps of warm-up. Raises InputError where none would be left to train at the full rate."""
    steps = math.ceil(settings.warmup_ratio * num_steps)
    if steps < num_steps:
        return steps
    if num_steps == 1 and settings.warmup_ratio < 1:
        return 0
    raise InputError(
        f"train.warmup_ratio={settings.warmup_ratio:g} warms up for {steps} of {num_steps} steps, "
        "which leaves none at the full rate: lower it, or train longer (train.epochs)"
    )
