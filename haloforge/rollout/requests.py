"""What a stage of sampling asks for: so many samples of each problem, each known by a number."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from haloforge.rollout.engine import Prompt
from haloforge.schema import sample_id


@dataclass(frozen=True)
class Requests:
    """`samples` completions of each of `problem_ids`, whose prompts stand in `prompts`.

    The numbers of the requests count from 0, problem by problem, so that those of one prompt stand
    together. A million of them are as small as one: what a number asks for is made where it is
    needed.
    """

    run: str
    cycle: int
    problem_ids: Sequence[str]
    samples: int
    prompts: Sequence[Prompt] = ()

    def __len__(self) -> int:
        return len(self.problem_ids) * self.samples

    def prompt(self, number: int) -> Prompt:
        """The prompt of request `number`."""
        return self.prompts[number // self.samples]

    def sample(self, number: int) -> dict[str, Any]:
        """The fields of the sample that request `number` asks for, those that are known before."""
        position, index = divmod(number, self.samples)
        problem_id = self.problem_ids[position]
        return {
            "sample_id": sample_id(self.run, self.cycle, problem_id, index),
            "problem_id": problem_id,
            "cycle": self.cycle,
            "index": index,
        }


@dataclass
class Done:
    """Which of the requests have been answered: a byte for each."""

    requests: Requests
    count: int = 0
    _answered: npt.NDArray[np.bool_] = field(init=False)
    _position: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self._answered = np.zeros(len(self.requests), dtype=np.bool_)
        self._position = {name: place for place, name in enumerate(self.requests.problem_ids)}

    def add(self, problem_id: str, index: int) -> bool:
        """Whether this sample is one of the requests and new."""
        position = self._position.get(problem_id)
        if position is None or not 0 <= index < self.requests.samples:
            return False
        number = position * self.requests.samples + index
        if self._answered[number]:
            return False
        self._answered[number] = True
        self.count += 1
        return True

    def left(self, most: int) -> npt.NDArray[np.int64]:
        """The numbers of the first `most` requests without an answer, in order."""
        return np.flatnonzero(~self._answered)[:most].copy()  # a view would keep all of them
