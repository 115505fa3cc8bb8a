"""Seconds and restarts of a training add up over its sittings."""

import json
import time
from pathlib import Path

import pytest

from haloforge.train import sittings
from haloforge.train.sittings import Sittings


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its one number is the time."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_sittings_add_up_where_each_is_killed(tmp_path: Path, clock: list[float]) -> None:
    path = tmp_path / "sittings.json"
    first = Sittings(path, "run", began=95.0)
    clock[0] = 110.0
    first.restarted()
    clock[0] = 130.0
    first.go_on()  # kept 20 seconds ago
    second = Sittings(path, "run", began=130.0)
    assert (second.restarts, second.seconds) == (1, 15.0)
    clock[0] = 161.0
    second.go_on()
    clock[0] = 165.0
    third = Sittings(path, "run", began=161.0)
    assert (third.restarts, third.seconds) == (1, 50.0)
    third.restarted()
    assert json.loads(path.read_text()) == {"run": "run", "seconds": 50.0, "restarts": 2}


def test_another_run_and_a_torn_file_begin_anew(tmp_path: Path, clock: list[float]) -> None:
    path = tmp_path / "sittings.json"
    clock[0] = 130.0
    Sittings(path, "run", began=100.0).restarted()
    other = Sittings(path, "other", began=130.0)
    assert (other.restarts, other.seconds) == (0, 0.0)
    path.write_text('{"run": "ru')
    torn = Sittings(path, "run", began=130.0)
    assert (torn.restarts, torn.seconds) == (0, 0.0)


def test_a_disk_that_is_full_stops_no_training(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sittings, "write_atomic", full)
    kept = Sittings(tmp_path / "sittings.json", "run", began=90.0)
    kept.restarted()
    assert (kept.restarts, kept.seconds) == (1, 10.0)
