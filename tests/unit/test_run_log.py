"""A run's log: what is in a line, and what happens where none can be written."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from haloforge.observe import log as module
from haloforge.observe.log import LOGGER, Seldom, attach, attached, detach
from haloforge.report.progress import Report
from tests.observing import lines_of


@pytest.fixture(autouse=True)
def detached() -> Iterator[None]:
    yield
    detach()


def test_a_line_says_when_where_and_what(tmp_path: Path) -> None:
    log = attach(logging.INFO, print)
    log.begin(tmp_path, "raft", 2)
    LOGGER.info("kept %d", 3)
    LOGGER.debug("not this")
    log.begin(tmp_path, "benchmark_raft")
    LOGGER.warning("lost", extra={"sample_id": "s1"})
    (first,) = lines_of(tmp_path / "logs" / "raft.jsonl")
    assert first.pop("at").endswith("Z")
    assert first == {"level": "info", "stage": "raft", "cycle": 2, "message": "kept 3"}
    (second,) = lines_of(tmp_path / "logs" / "benchmark_raft.jsonl")
    assert (second["cycle"], second["level"], second["sample_id"]) == (None, "warning", "s1")


def test_what_is_said_before_the_run_has_a_folder_comes_first(tmp_path: Path) -> None:
    log = attach(logging.INFO, print)
    LOGGER.info("Ray's logs are there")
    log.begin(tmp_path, "raft")
    LOGGER.info("begun")
    log.end()
    LOGGER.info("of no run")
    told = [line["message"] for line in lines_of(tmp_path / "logs" / "raft.jsonl")]
    assert told == ["Ray's logs are there", "begun"]


def test_one_run_after_another_has_its_own(tmp_path: Path) -> None:
    log = attach(logging.INFO, print)
    for name in ("a", "b"):
        log.begin(tmp_path / name, "benchmark")
        LOGGER.info(name)
        log.end()
    for name in ("a", "b"):
        (line,) = lines_of(tmp_path / name / "logs" / "benchmark.jsonl")
        assert line["message"] == name


def test_a_later_session_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    first = attach(logging.INFO, print)
    first.begin(tmp_path / "a", "raft")
    second = attach(logging.INFO, print)
    second.begin(tmp_path / "b", "raft")
    LOGGER.info("once")
    assert attached() is second
    assert not (tmp_path / "a" / "logs" / "raft.jsonl").exists()
    assert len(lines_of(tmp_path / "b" / "logs" / "raft.jsonl")) == 1


def test_a_line_stays_one_and_of_bounded_length(tmp_path: Path) -> None:
    log = attach(logging.INFO, print)
    log.begin(tmp_path, "raft")
    LOGGER.error("a\nb\x1b[31m\u2028\ud800" + "x" * 10**6)
    try:
        raise ValueError("y" * 10**6)
    except ValueError:
        LOGGER.exception("it broke")
    text = (tmp_path / "logs" / "raft.jsonl").read_text()
    assert len(text) < 40_000 and text.count("\n") == 2 and text.isascii() and "\x1b" not in text
    first, second = (json.loads(line)["message"] for line in text.splitlines())
    assert first.startswith("a\nb\x1b[31m") and "characters more" in first
    assert second.startswith("it broke\n") and second.endswith("y")


def test_the_last_warnings_are_kept_for_the_end_without_what_steers_a_terminal(
    tmp_path: Path,
) -> None:
    log = attach(logging.INFO, print)
    log.begin(tmp_path, "raft")
    for number in range(9):
        LOGGER.warning("\x1b[2J%d\nmore", number, extra={"sample_id": f"s{number}"})
    LOGGER.info("no warning")
    LOGGER.error("what is told anyhow", extra={module.ENDED: ValueError()})
    assert log.last() == [f"warning: \\x1b[2J{n} (sample s{n})" for n in range(4, 9)]


def test_a_full_disk_is_said_once_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        LOGGER.info(line)  # as a report does

    def full(path: Path, line: str) -> None:
        raise OSError(28, "No space left on device")

    log = attach(logging.INFO, say)
    log.begin(tmp_path, "raft")
    with monkeypatch.context() as patch:
        patch.setattr(module, "append", full)
        LOGGER.warning("one")
        LOGGER.warning("two")
    log.begin(tmp_path, "raft", 2)
    LOGGER.warning("three")
    assert len(said) == 1 and said[0].endswith("No space left on device")
    assert not list(tmp_path.rglob("*.jsonl"))


def test_a_folder_that_cannot_be_made_is_said_too(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "run").write_text("a file")
    log = attach(logging.INFO, said.append)
    log.begin(tmp_path / "run", "raft")
    LOGGER.info("one")
    assert len(said) == 1 and "Not a directory" in said[0]


def test_a_run_that_is_set_aside_meanwhile_is_logged_where_it_is_then(tmp_path: Path) -> None:
    log = attach(logging.INFO, print)
    log.begin(tmp_path / "run", "raft")
    LOGGER.info("before")
    (tmp_path / "run").rename(tmp_path / "run.old-1")
    LOGGER.info("after")
    for name, told in (("run.old-1", "before"), ("run", "after")):
        (line,) = lines_of(tmp_path / name / "logs" / "raft.jsonl")
        assert line["message"] == told


def test_a_report_logs_what_it_says_and_nothing_comes_twice(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    report = Report()
    report.warn("100% of it, with no log")
    log = attach(logging.INFO, print)
    log.begin(tmp_path, "raft")
    report.say("50% of it")
    report.warn("look")
    assert capfd.readouterr().err.splitlines() == ["100% of it, with no log", "50% of it", "look"]
    levels = [(line["level"], line["message"]) for line in lines_of(tmp_path / "logs/raft.jsonl")]
    assert levels == [("info", "50% of it"), ("warning", "look")]


def test_what_comes_a_million_times_is_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("haloforge.observe.log.time.monotonic", lambda: now[-1])
    seldom = Seldom()
    told = []
    for number in range(10_000):
        now.append(100 + number * 0.003)  # 30 s
        told.append(seldom.take("no gcc"))
    lines = [line for line in told if line]
    assert lines[0] == "no gcc" and len(lines) == 2
    assert lines[1] == "no gcc (4999 more of it since the last line)"
    now.append(200.0)
    assert seldom.take("full") == "full (4999 of others since the last line)"
    lines = [line for number in range(1000) if (line := seldom.take(f"other {number}"))]
    assert len(lines) == Seldom.KINDS - 1
    assert seldom.rest() == 1000 - len(lines) and seldom.rest() == 0
