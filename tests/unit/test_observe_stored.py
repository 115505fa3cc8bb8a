"""What is told of a run in object storage is there too, and loses nobody a run."""

from pathlib import Path

import pyarrow.fs as pafs
import pytest

from haloforge.errors import InfraError
from haloforge.observe import observer as module
from haloforge.observe.log import LOGGER
from haloforge.observe.observer import Observer
from tests.stored_run import RUN, elsewhere, stored
from tests.unit.test_observer import Page, judge, observer, pages

__all__ = ["pages"]  # a fixture


def watched(folder: Path) -> tuple[Observer, list[str]]:
    watching, said = observer()
    watching.enter(folder, "raft", {"seed": 1})
    with watching.phase("sample_and_verify", 1):
        judge(watching, "passed", 2)
        LOGGER.info("sampled")
    watching.selected(
        {"kept": 1, "dropped": {}, "outcomes": {}, "samples": 2, "mean_reward": 1}, {}
    )
    watching.close()
    return watching, said.lines


def test_logs_and_curves_are_stored_and_gone_on_with_elsewhere(
    folder: Path,
    store: pafs.FileSystem,
    pages: list[Page],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watching, said = watched(folder)
    assert said == [] and watching._metrics.tags["run"] == RUN
    names = {name for name in stored(store) if not name.startswith("tensorboard/")}
    assert {"logs/raft.jsonl", "logs/activity.jsonl", "logs/trackers.json"} <= names
    assert not any(name.endswith(".tmp") for name in names)
    other = elsewhere(monkeypatch, tmp_path)
    assert other != folder
    watched(other)
    found = stored(store)
    assert found["logs/activity.jsonl"].count(b"sample_and_verify") == 2
    boards = [text for name, text in found.items() if name.startswith("tensorboard/")]
    assert sum(text.count(b"raft/mean_reward") for text in boards) == 1, "it is told once"


def test_storage_that_fails_is_said_once_and_ends_nothing(
    folder: Path,
    pages: list[Page],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def taken(path: Path) -> None:
        raise InfraError("another driver has taken the run over")

    monkeypatch.setattr(module, "saved", taken)
    _, said = watched(folder)
    assert len(said) == 1 and "another driver has taken the run over" in said[0]
