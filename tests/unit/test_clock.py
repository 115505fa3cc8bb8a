"""Seconds by stage, over the sittings of a run."""

from pathlib import Path

import pytest

from haloforge.errors import InputError
from haloforge.store.clock import Clock


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


@pytest.mark.parametrize("torn", [b"", b'{"sft": 1', b"12", b"\xff\xfe"])
def test_a_torn_file_is_set_aside_and_counting_begins_anew(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "seconds.json"
    path.write_bytes(torn)
    clock = Clock(path)
    assert clock.seconds == {}
    clock.note("first", 2.0)
    assert Clock(path).seconds == {"first": 2.0}
    assert (tmp_path / "seconds.json.torn").read_bytes() == torn
