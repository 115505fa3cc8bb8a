"""What the progress of a stage tells, and what it holds while it does."""

import tracemalloc
from itertools import count
from types import SimpleNamespace

import pytest

from haloforge.report import stages
from haloforge.report.progress import Report


def test_the_rate_is_that_of_the_last_minutes_and_takes_no_memory_for_each_sample(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ticks = count()
    clock = SimpleNamespace(monotonic=lambda: next(ticks) / 500)
    monkeypatch.setattr(stages, "time", clock)
    with Report().stage("sampling", 50_000, "samples") as stage:
        tracemalloc.start()
        for _ in range(50_000):
            stage.advance()
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    told = capsys.readouterr().err.splitlines()
    assert "500 samples/s" in told[0] and "left" in told[0]
    assert held < 100_000  # bytes; a note of each sample would be millions
