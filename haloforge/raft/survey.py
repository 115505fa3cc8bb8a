"""One pass over a cycle's samples: of each that may be trained on, some numbers; of all, counts."""

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from haloforge.errors import InfraError
from haloforge.raft.answers import AnswerReader
from haloforge.raft.health import Health, HealthMeter
from haloforge.schema import Outcome, Problem, digest
from haloforge.verify.settings import VerifySettings

BATCH_ROWS = 1024
OUTCOMES = [outcome.value for outcome in Outcome]
_SAMPLE = [
    *("sample_id", "problem_id", "index", "completion"),
    *("finish_reason", "num_tokens", "logprob_sum"),
]
_VERDICT = ["outcome", "compiled", "reward", "sandbox_tier"]
# The shards hold 32-bit rewards, so that 0.7 comes back as 0.69999999.
_REWARD_ROUNDING = 1e-6


_CODES = {"problem": "i", "index": "i", "reward": "f", "outcome": "b"}
_CODES |= {"draw": "Q", "form": "Q", "shard": "i", "row": "i"}


class Candidates:
    """What may be trained on: one entry of each column a sample, 37 bytes in all.

    `problem` is its place among the problems, `outcome` one in OUTCOMES, `draw` breaks ties, `form`
    is that of its answer; `shard` and `row` are where its text stands.
    """

    def __init__(self) -> None:
        self._columns = {name: array(code) for name, code in _CODES.items()}

    def add(self, **values: Any) -> None:
        """One sample, a value for each column."""
        for name, column in self._columns.items():
            column.append(values[name])

    def arrays(self) -> "dict[str, np.ndarray[Any, Any]]":
        """The columns by name; they share the memory."""
        return {
            name: np.frombuffer(column, column.typecode) for name, column in self._columns.items()
        }


class Survey:
    """What a cycle's samples came to.

    `judged` and `solved` count by the problems' places, failures of ours apart: a sample is solved
    where it passed, or compiled where its problem has no tests. `dropped` counts by rule what is no
    candidate.
    """

    def __init__(
        self, problems: Sequence[Problem], verify: VerifySettings, threshold: float, seed: int
    ) -> None:
        self._places = {problem.problem_id: place for place, problem in enumerate(problems)}
        self._tested = [verify.tests(problem) for problem in problems]
        self._reader = AnswerReader(problems, verify)
        self._threshold, self._seed = threshold, seed
        self._meter = HealthMeter()
        self._rewards: Counter[float] = Counter()
        self.candidates = Candidates()
        self.judged, self.solved = (np.zeros(len(problems), np.int64) for _ in range(2))
        self.above_threshold = 0
        self.dropped, self.outcomes, self.tiers = Counter[str](), Counter[str](), Counter[str]()

    def add(
        self, shard: int, row: int, sample: Mapping[str, Any], verdict: Mapping[str, Any]
    ) -> None:
        """Takes the sample in this row of this shard. Raises InfraError for an unknown problem."""
        outcome, reward = verdict["outcome"], verdict["reward"]
        self.outcomes[outcome] += 1
        self.tiers[verdict["sandbox_tier"]] += 1
        place = self._places.get(sample["problem_id"])
        if place is None:
            raise InfraError(
                f"sample {sample['sample_id']}: problem '{sample['problem_id']}' is not in the run"
            )
        if outcome == Outcome.INFRA_ERROR:
            self.dropped["infra_error"] += 1
            return
        answer = self._reader.read(sample, outcome, place)
        self._meter.add(place, answer, sample["num_tokens"], sample["logprob_sum"])
        self._rewards[reward] += 1
        self.judged[place] += 1
        passed = outcome == Outcome.PASSED
        self.solved[place] += passed if self._tested[place] else verdict["compiled"]
        if reward <= 0 or reward < self._threshold - _REWARD_ROUNDING:
            self.dropped["below_threshold"] += 1
            return
        self.above_threshold += 1
        if sample["finish_reason"] == "length":
            self.dropped["cut_off"] += 1
            return
        self.candidates.add(
            problem=place,
            index=sample["index"],
            reward=reward,
            outcome=OUTCOMES.index(outcome),
            draw=int(digest(self._seed, sample["sample_id"]), 16),
            form=answer.form,
            shard=shard,
            row=row,
        )

    def read(self, shards: Sequence[Path]) -> None:
        """Takes each sample of `shards` (see `sample_shards`) with its verdict. Raises InfraError
        for a shard that cannot be read."""
        for number, path in enumerate(shards):
            for row, (sample, verdict) in enumerate(_judged(path)):
                self.add(number, row, sample, verdict)

    @property
    def mean_reward(self) -> float:
        """Of what was judged; the same in whatever order it came."""
        total = sum(reward * number for reward, number in sorted(self._rewards.items()))
        return total / max(1, self._rewards.total())

    @property
    def health(self) -> Health:
        """The signs of a collapse."""
        return self._meter.health()


def _judged(samples: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The samples of a committed shard, each with its verdict."""
    verdicts = samples.parent.parent / "verdicts" / samples.name
    for sample, verdict in zip_longest(_rows(samples, _SAMPLE), _rows(verdicts, _VERDICT)):
        if sample is None or verdict is None:
            raise InfraError(f"{samples}: has not as many rows as {verdicts}")
        yield sample, verdict


def _rows(path: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    for batch in read_batches(path, columns):
        yield from batch.to_pylist()


def read_batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """These columns of a Parquet file of ours, 1,024 rows at a time."""
    try:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(BATCH_ROWS, columns=columns)
    except (OSError, pa.ArrowInvalid) as error:
        raise InfraError(f"{path}: a committed file cannot be read ({error})") from error
