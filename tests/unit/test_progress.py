"""What the progress of a stage tells, and what it holds while it does."""

import tracemalloc
from itertools import count
from types import SimpleNamespace

import pytest

from haloforge.report import progress, stages
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


class Ticking:
    """A clock that one sets."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> Ticking:
    clock = Ticking()
    monkeypatch.setattr(stages, "time", clock)
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_plain_lines_now_and_then_and_at_the_end(
    ticking: Ticking, capsys: pytest.CaptureFixture[str]
) -> None:
    with Report().stage("raft cycle 1", 100, "samples") as stage:
        for _ in range(40):
            ticking.now += 1
            stage.advance(1, "some passed")
        stage.note = "engines restarted: 1"
    assert capsys.readouterr().err.splitlines() == [
        "raft cycle 1: 15/100 samples (some passed), 1 samples/s, 1 min 25 s left",
        "raft cycle 1: 30/100 samples (some passed), 1 samples/s, 1 min 10 s left",
        "raft cycle 1: 40/100 samples (some passed, engines restarted: 1), took 40 s",
    ]


def test_what_was_done_before_is_no_part_of_the_rate(
    ticking: Ticking, capsys: pytest.CaptureFixture[str]
) -> None:
    with Report().stage("verify", 1000, "samples") as stage:
        stage.already(900)
        for _ in range(15):
            ticking.now += 1
            stage.advance()
    assert "915/1000 samples, 1 samples/s, 1 min 25 s left" in capsys.readouterr().err


def test_plain_lines_of_phases_and_their_results(
    ticking: Ticking, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report()
    with report.open(), report.under_way("raft"):
        for _ in report.each("cycle", [1, 2], ["sample_and_verify", "select"]):
            with report.under_way("sample_and_verify"), report.stage("c", 2, "samples") as stage:
                stage.advance(2, "1 passed")
            with report.under_way("select"):
                ticking.now += 3
                report.result("1 kept")
            with report.under_way("evaluate"):
                pass  # nothing to do
            break
    assert capsys.readouterr().err.splitlines() == [
        "c: 2/2 samples (1 passed), took 0.0 s",
        "raft: cycle 1: select: took 3.0 s, 1 kept",
        "raft: cycle 1: took 3.0 s, 1 kept, 1 passed",
        "raft: took 3.0 s, 1 kept, 1 passed",
    ]


def test_a_result_after_its_stage(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report()
    with report.open():
        with report.stage("benchmark base", 1, "samples") as stage:
            stage.advance()
        report.result("pass@1 8.8%")
    assert capsys.readouterr().err.splitlines()[-1] == "benchmark base: pass@1 8.8%"


def test_failures_are_told_now_and_then_with_how_many_were_not(
    ticking: Ticking, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report()
    with report.open():
        for number in range(31):  # one a second
            report.failed(f"sandbox {number}\x1b[2J\nmore", f"s{number}")
            ticking.now += 1
        report.failed("the last")
    assert capsys.readouterr().err.splitlines() == [
        "failure of ours: sandbox 0␛[2J (sample s0)",
        "failure of ours: sandbox 15␛[2J (sample s15); 14 more before it",
        "failure of ours: sandbox 30␛[2J (sample s30); 14 more before it",
        "1 more failures of ours",
    ]


def test_a_line_commands_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Report().say("problem '\x1b[2J': [bold]no markup[/bold]")
    assert capsys.readouterr().err == "problem '␛[2J': [bold]no markup[/bold]\n"


def test_a_stage_that_fails_ends(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report()
    with (
        report.open(),
        pytest.raises(ValueError),
        report.under_way("train"),
        report.stage("train raft", 5, "steps"),
    ):
        raise ValueError
    with report.stage("another", 1, "rows"):
        pass
    assert capsys.readouterr().err.splitlines() == ["another: 0/1 rows, took 0.0 s"]
