"""Seconds by stage, over the sittings of a run."""

from pathlib import Path

import pytest

from haloforge.errors import InputError
from haloforge.pipeline import _Clock


def failing(error: BaseException) -> None:
    raise error


def test_sittings_add_up_and_a_refused_one_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "seconds.json"
    assert _Clock(path).time("sft", lambda: "result") == "result"
    first = _Clock(path).seconds["sft"]
    with pytest.raises(KeyboardInterrupt):
        _Clock(path).time("sft", lambda: failing(KeyboardInterrupt()))
    stopped = _Clock(path).seconds["sft"]
    assert stopped > first > 0
    with pytest.raises(InputError):
        _Clock(path).time("sft", lambda: failing(InputError("another run is here")))
    assert _Clock(path).seconds == {"sft": stopped}
