"""What was lost to a failure of ours is judged again, also where a process dies meanwhile."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import cloudpickle

from haloforge import sampling
from haloforge.errors import InfraError
from haloforge.placement import Fleet
from haloforge.report.progress import Report
from haloforge.sampling import ProcessDiedError, judge_again
from haloforge.schema import Outcome
from haloforge.store.shards import ShardWriter, read_judged
from tests.observing import unobserved
from tests.raft_runs import Row, stored, write_cycle

ROWS = [Row("p", n, 1.0, outcome=Outcome.INFRA_ERROR if n % 2 else None) for n in range(40)]


class Stored:
    """In the place of `StoredSamples`: the rows as another process would read them."""

    def __init__(self, rows: Callable[[], Iterable[dict[str, Any]]], actors: int) -> None:
        self._sent = cloudpickle.dumps(rows)
        assert len(self._sent) < 5000, "the samples travel with the task"

    def dataset(self) -> list[dict[str, Any]]:
        return list(cloudpickle.loads(self._sent)())

    def judged(self) -> None: ...


@pytest.fixture
def again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Judges what is lost of `ROWS` by verifiers that die after so many; how many each pass had."""
    write_cycle(tmp_path, 1, ROWS)
    passes: list[int] = []

    def run(dies_after: int) -> list[int]:
        def judged(_: Any, fleet: Fleet, rows: list[dict[str, Any]], *__: Any) -> Iterator[Any]:
            passes.append(len(rows))
            for number, row in enumerate(rows):
                if number == dies_after:
                    raise ProcessDiedError("toy stopped: a process died")
                yield row, stored(ROWS[row["index"]]._replace(outcome=None), 1)[1]

        monkeypatch.setattr(sampling, "StoredSamples", Stored)
        monkeypatch.setattr(sampling, "judged_rows", judged)
        session: Any = SimpleNamespace(
            fleet=Fleet(1, 1, 1.0), report=Report(), observer=unobserved()
        )
        nothing: Any = None
        judge_again(session, tmp_path / "cycle_1", nothing, "toy", nothing)
        return passes

    return run


def test_each_once_whatever_dies(
    again: Callable[[int], list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list(read_judged(tmp_path / "cycle_1"))
    replaced: list[str] = []
    add = ShardWriter.add

    def noting(own: ShardWriter, sample: dict[str, Any], verdict: dict[str, Any]) -> None:
        replaced.append(sample["sample_id"])
        add(own, sample, verdict)

    monkeypatch.setattr(ShardWriter, "add", noting)
    assert again(12) == [20, 8]
    after = list(read_judged(tmp_path / "cycle_1"))
    assert [row.sample for row in after] == [row.sample for row in before]
    assert {row.verdict["outcome"] for row in after} == {"passed"}
    lost = [row for row in before if row.verdict["outcome"] == "infra_error"]
    assert sorted(replaced) == sorted(row.sample["sample_id"] for row in lost)


def test_very_many_go_in_parts(
    again: Callable[[int], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "PASS_ROWS", 15)
    assert again(40) == [15, 5]


def test_with_no_verdict_it_ends(again: Callable[[int], list[int]]) -> None:
    with pytest.raises(InfraError, match="toy stopped: 20 samples are left, and none comes"):
        again(0)
