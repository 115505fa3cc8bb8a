"""Seconds by stage, over the sittings of a run."""

from pathlib import Path

import pytest

from haloforge.errors import InputError
from haloforge.store import clock as clocks
from haloforge.store.clock import Clock
from tests.processes import wait_until


def failing(error: BaseException) -> None:
    raise error


def test_sittings_add_up_and_a_refused_one_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "seconds.json"
    assert Clock(path).time("sft", lambda: "result") == "result"
    first = Clock(path).seconds["sft"]
    with pytest.raises(KeyboardInterrupt):
        Clock(path).time("sft", lambda: failing(KeyboardInterrupt()))
    stopped = Clock(path).seconds["sft"]
    assert stopped > first > 0
    with pytest.raises(InputError):
        Clock(path).time("sft", lambda: failing(InputError("another run is here")))
    assert Clock(path).seconds == {"sft": stopped}


def test_what_a_kill_ends_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds are on the disk while the stage goes on, and taken back where it is refused."""
    monkeypatch.setattr(clocks, "KEEP_S", 0.01)
    path = tmp_path / "seconds.json"
    Clock(path).note("earlier", 2.0)

    def of_train() -> float:
        return Clock(path).seconds.get("train", 0.0)

    def more_than(seconds: float) -> float:
        assert wait_until(lambda: of_train() > seconds, 10)
        return of_train()

    def seen() -> float:
        """Once more than when it is first looked at: it was written again."""
        return more_than(more_than(0.0))

    inside = Clock(path).time("train", seen)
    total = Clock(path).seconds
    assert total["earlier"] == 2.0 and total["train"] > inside
    assert Clock(path).time("train", seen) > total["train"]
    total = Clock(path).seconds

    def refused() -> None:
        assert wait_until(lambda: Clock(path).seconds != total, 10)
        raise InputError("another run is here")

    with pytest.raises(InputError):
        Clock(path).time("train", refused)
    assert Clock(path).seconds == total


def test_a_sitting_that_is_refused_writes_nothing_over_another_s(tmp_path: Path) -> None:
    path = tmp_path / "seconds.json"
    first = Clock(path)

    def refused() -> None:
        first.note("sft", 5.0)  # by the process that is at work
        raise InputError("another process is at work here")

    with pytest.raises(InputError):
        Clock(path).time("sft", refused)
    assert Clock(path).seconds == {"sft": 5.0}


@pytest.mark.parametrize("torn", [b"", b'{"sft": 1', b"12", b"\xff\xfe"])
def test_a_torn_file_is_set_aside_and_counting_begins_anew(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "seconds.json"
    path.write_bytes(torn)
    clock = Clock(path)
    assert clock.seconds == {}
    clock.note("first", 2.0)
    assert Clock(path).seconds == {"first": 2.0}
    assert (tmp_path / "seconds.json.torn").read_bytes() == torn
