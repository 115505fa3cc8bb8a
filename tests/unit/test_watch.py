"""What waits for a node that is gone is ended; what waits for anything else is not."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from haloforge import sampling, watch
from haloforge.sampling import ProcessDiedError, judged_rows


class Execution(threading.Thread):
    """Stands for one of Ray Data, which brings a row and then nothing until it is shut down."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._over = threading.Event()

    def run(self) -> None:
        self._over.wait(60)

    def shutdown(self, force: bool) -> None:
        self._over.set()

    def rows(self, seconds: float, error: Exception | None) -> Iterator[tuple[str, str]]:
        self.start()
        yield "sample", "verdict"
        self.join(seconds)
        if error:
            raise error


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What `judged_rows` brings while CPUs go as these do, and nothing comes for so long."""
    monkeypatch.setattr(watch, "StreamingExecutor", Execution)
    monkeypatch.setattr(watch, "PATIENCE_S", 0.2)
    monkeypatch.setattr(watch, "_LOOK_S", 0.05)

    def run(cpus: list[float], seconds: float, error: Exception | None = None) -> Any:
        left = iter(cpus)
        monkeypatch.setattr(watch, "living_cpus", lambda: next(left, cpus[-1]))
        monkeypatch.setattr(sampling, "verify_stage", lambda *_: Execution())
        monkeypatch.setattr(sampling, "judged_in", lambda run, _: run.rows(seconds, error))
        nothing: Any = None
        return judged_rows(nothing, nothing, nothing, nothing, "toy")

    return run


@pytest.mark.parametrize("error", [None, KeyError("as it was ended")])
def test_a_lost_node_ends_what_waits(judged: Any, error: Exception | None) -> None:
    rows, began = judged([4, 4, 2], 30, error), time.monotonic()
    assert next(rows) == ("sample", "verdict")
    with pytest.raises(ProcessDiedError, match=r"^toy stopped: a node is gone"):
        next(rows)
    assert time.monotonic() - began < 10


def test_what_is_slow_is_waited_for(judged: Any) -> None:
    assert list(judged([4], 1)) == [("sample", "verdict")]


def test_an_error_of_its_own_stays(judged: Any) -> None:
    rows = judged([4], 0.5, KeyError("its own"))
    next(rows)
    with pytest.raises(KeyError, match="its own"):
        next(rows)
