"""What is on the live display, as a terminal would show it."""

import io
import time
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console, ConsoleDimensions
from rich.text import Text

from haloforge.report import display, progress, stages
from haloforge.report.display import ASCII, UNICODE, Failure, frame
from haloforge.report.progress import Report
from haloforge.report.stages import Stage, Tree

PIPELINE = "benchmark base", "sft", "raft", "benchmark raft"
PARTS = "sample and verify", "select", "train"


class Clock:
    """The time, which stands until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def strftime(self, form: str) -> str:
        return "14:03:12"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    for module in (stages, display, progress):
        monkeypatch.setattr(module, "time", found)
    return found


def advance(stage: Stage, clock: Clock, count: int, seconds: float, fact: str = "") -> None:
    """So many units, spread over so many seconds."""
    for _ in range(count):
        clock.now += seconds / count
        stage.advance(1, fact)


def shown(tree: Tree, clock: Clock, width: int = 79, height: int = 40, **more: Any) -> list[str]:
    lines = frame(tree, more.pop("failure", None), clock.now, width, height, **more)
    assert all(line.cell_len <= width for line in lines) and len(lines) <= height
    return [line.plain for line in lines if line.plain]


def ran(tree: Tree, clock: Clock, name: str, seconds: float, result: str = "") -> None:
    node = tree.enter(name)
    clock.now += seconds
    node.result = result
    tree.leave(node)


def test_stages_that_are_done_under_way_and_to_come(clock: Clock) -> None:
    tree = Tree()
    tree.plan(PIPELINE)
    ran(tree, clock, "benchmark base", 200, "pass@1 8.8% [4.6%, 13.8%]")
    sft = tree.enter("sft")
    sft.progress = Stage("train sft", 60, "steps")
    advance(sft.progress, clock, 30, 60, "loss 0.412")
    done, under_way, facts, *to_come, whole = shown(tree, clock)
    assert " ".join(done.split()) == "✓ benchmark base 3:20 pass@1 8.8% [4.6%, 13.8%]"
    assert under_way.startswith("▸ sft") and under_way.endswith(" 30/60 steps  50%")
    assert " 1:00  ━" in under_way and under_way.count("━") == pytest.approx(
        under_way.count("─"), abs=1
    )
    assert facts == "  0.5 steps/s, 1:00 left, loss 0.412"
    assert to_come == ["· raft", "· benchmark raft"]
    assert whole == "4:20 so far"  # how long raft takes nobody knows


def test_cycles_with_their_phases(clock: Clock) -> None:
    tree = Tree()
    tree.plan(["raft"])
    tree.enter("raft")
    tree.plan(["cycle 1", "cycle 2", "cycle 3"])
    first = tree.enter("cycle 1")
    tree.plan(PARTS)
    ran(tree, clock, "sample and verify", 60, "41 passed")
    ran(tree, clock, "select", 2, "33 kept")
    ran(tree, clock, "train", 38, "loss 0.41")
    tree.leave(first)
    tree.enter("cycle 2")
    tree.plan(PARTS)
    tree.enter("sample and verify")
    clock.now += 10
    assert shown(tree, clock) == [
        "▸ raft                     1:50",
        "  ✓ cycle 1                1:40  loss 0.41, 33 kept, 41 passed",
        "  ▸ cycle 2                0:10",
        "    ▸ sample and verify    0:10",
        "    · select",
        "    · train",
        "  · cycle 3",
        # 50 s of this sampling, 40 s of the rest of the cycle, 100 s of the next one.
        "1:50 so far, about 3:10 left",
    ]
    clock.now += 51  # it takes longer than the first did: nobody knows how long
    assert shown(tree, clock)[-1] == "2:41 so far"


def test_what_was_done_in_an_earlier_sitting_tells_nothing_of_what_is_to_come(
    clock: Clock,
) -> None:
    tree = Tree()
    tree.plan(["cycle 1", "cycle 2"])
    tree.enter("cycle 1")
    node = tree.enter("train")
    tree.reused()
    tree.leave(node)
    tree.leave(tree.current)
    assert tree.left(clock.now) is None
    ran(tree, clock, "cycle 2", 5)
    assert tree.left(clock.now) == 0


def test_the_last_failure_is_told_without_what_commands_a_terminal(clock: Clock) -> None:
    out = io.StringIO()
    report = Report(Console(file=out, force_terminal=True, width=80, height=30), live=True)
    with report.open():
        report.failed("first")
        with report.stage("sampling", 10, "samples"):
            report.failed("\x1b[2J\x07gone \u202ereversed\nmore", "a\x1b1")
            report._start().refresh()
    text = out.getvalue()
    assert "! 2 failures of ours, the last at 14:03:12:" in text
    assert "  ␛[2J␇gone ⟨U+202E⟩reversed (sample a␛1)" in text
    assert "more" not in text
    assert "\x1b[2J" not in text.replace("\x1b[2K", "") and "\x07" not in text


@pytest.mark.parametrize("width", [20, 39, 59, 79, 119])
@pytest.mark.parametrize("height", [1, 3, 8, 12, 40])
def test_any_size(clock: Clock, width: int, height: int) -> None:
    tree = Tree()
    tree.plan(["raft", "benchmark raft"])
    tree.enter("raft")
    tree.plan([f"cycle {cycle}" for cycle in range(1, 101)])
    for cycle in range(1, 50):
        ran(tree, clock, f"cycle {cycle}", 60, "12345 passed, 1234 kept, loss 0.412, pass@1 8.8%")
    tree.enter("cycle 50")
    node = tree.enter("sample and verify")
    node.progress = Stage("raft cycle 50", 10_000, "samples")
    advance(node.progress, clock, 1000, 60, "500 passed")
    lines = shown(tree, clock, width, height, failure=Failure(3, "14:03:12", "x" * 300))
    assert lines
    if height >= 12:
        (under_way,) = (line for line in lines if line.strip().startswith("▸ sample"))
        assert width < 39 or "1,000/10,000" in under_way
        assert any("before" in line for line in lines)
        assert any("more to come" in line for line in lines)
    if height == 40:
        assert any(line.startswith("  ✓ cycle 49") for line in lines)
        assert any(line.strip() == "· cycle 51" for line in lines)


def test_a_terminal_without_these_characters(clock: Clock) -> None:
    tree = Tree()
    tree.plan(["sft", "raft"])
    node = tree.enter("sft")
    node.progress = Stage("train sft", 10, "steps")
    advance(node.progress, clock, 5, 10)
    text = "\n".join(shown(tree, clock, 39, signs=ASCII))
    assert text.isascii() and "==" in text and "--" in text


def test_a_stage_that_has_just_begun(clock: Clock) -> None:
    tree = Tree()
    node = tree.enter("train")
    clock.now += 16
    assert shown(tree, clock) == ["▸ train    0:16"]  # engines start, say
    node.progress = Stage("train sft", 60, "steps")
    under_way, facts = shown(tree, clock)
    assert under_way.endswith("─ 0/60 steps   0%") and facts == "  no steps yet"


def test_units_that_nobody_knows_the_number_of(clock: Clock) -> None:
    tree = Tree()
    node = tree.enter("reading")
    node.progress = Stage("reading", None, "rows")
    advance(node.progress, clock, 4000, 100)
    under_way, facts = shown(tree, clock)
    assert under_way.endswith("  4,000 rows") and facts == "  40 rows/s"


def test_names_and_facts_are_one_line_each(clock: Clock) -> None:
    tree = Tree()
    node = tree.enter("a\nname\x1b[1m")
    node.progress = Stage("x", 10, "samples")
    node.progress.advance(1, "a\nfact\x1b[1m")
    assert [line for line in shown(tree, clock) if "\n" in line or "\x1b" in line] == []
    tree.leave(node)
    node.result = "a\nresult\x1b[1m"
    assert shown(tree, clock)[0].endswith("a result␛[1m")


class Terminal(io.StringIO):
    """What was written to a terminal."""

    def isatty(self) -> bool:
        return True


def a_terminal(width: int = 80) -> tuple[Console, Terminal]:
    out = Terminal()
    return Console(file=out, force_terminal=True, width=width, height=30), out


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """The display is shown anew only where that is asked for."""
    monkeypatch.setattr(display, "REFRESHES", 1e-6)


def test_lines_scroll_above_and_the_display_is_gone_at_the_end(
    still: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    console, out = a_terminal()
    report = Report(console)
    with report.open():
        report.plan(["sft", "raft"])
        with report.under_way("sft"):
            report.say("a line")
        report.result("done")
        between = out.getvalue()
    assert between.index("▸ ") < between.index("a line\n") < between.rindex("· raft")
    # What is under the line is erased, and drawn again below it.
    assert "\x1b[2K" in between[: between.index("a line\n")]
    assert out.getvalue().endswith("\x1b[1A\x1b[2K" * 4)  # an empty line, two stages, the time


def test_what_a_failed_run_showed_last_stays(still: None) -> None:
    console, out = a_terminal()
    report = Report(console, live=True)
    cycles = report.each(
        "cycle", [1, 2], ["train", "evaluate"]
    )  # which is held longer than the display
    with pytest.raises(ValueError), report.open():
        for _ in cycles:
            with report.under_way("train"), report.stage("train", 3, "steps") as stage:
                stage.advance(1, "loss 0.4")
                raise ValueError
    last = out.getvalue()[out.getvalue().rindex("▸") :]
    assert last.count("✗") == 2  # the cycle and its training
    assert "train" in last and "loss 0.4" in last and not last.endswith("\x1b[2K")
    assert "cycle 2" in last and "so far" in last and "left" not in last


def test_thousands_of_units_are_rendered_no_more_often(
    still: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = []

    def counted(*told: Any) -> list[Text]:
        frames.append(told)
        return frame(*told)

    monkeypatch.setattr(display, "frame", counted)
    console, _ = a_terminal()
    report = Report(console, live=True)
    with report.stage("sampling", 50_000, "samples") as stage:
        before = len(frames)
        for _ in range(50_000):
            stage.advance(1, "some passed")
        assert len(frames) == before
    assert frames


def test_it_is_shown_anew_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "REFRESHES", 200)
    console, out = a_terminal()
    report = Report(console, live=True)
    with report.stage("sampling", 10, "samples") as stage:
        stage.advance(7)
        for _ in range(1000):
            if "7/10 samples" in out.getvalue():
                break
            time.sleep(0.01)
    assert "7/10 samples" in out.getvalue()


def test_a_terminal_that_becomes_narrower(still: None) -> None:
    """It breaks the lines that were drawn, all of which are erased."""
    console, out = a_terminal(100)
    report = Report(console, live=True)
    with report.under_way("sft"):
        node = report._tree.current
        node.progress = Stage("train sft", 10, "steps")
        node.progress.advance(1, "word " * 20)
        shown = report._start()
        shown.refresh()
        before, console.size = len(out.getvalue()), ConsoleDimensions(40, 30)
        shown.refresh()
        # An empty line, one of 71 columns and one of 99, which are 1 + 2 + 3 now.
        assert out.getvalue()[before:].count("\x1b[1A") == 6 - 1


def test_stages_within_each_other(still: None) -> None:
    console, _ = a_terminal()
    report = Report(console, live=True)
    with report.under_way("sample_and_verify"):
        with report.stage("lost before", 3, "samples") as lost:
            assert report._tree.current.progress is lost  # it is the phase's own
        with report.stage("raft cycle 1", 10, "samples") as outer:
            assert report._tree.current.progress is outer
            with report.stage("references", 4, "solutions") as inner:
                inner.advance(2)
                rows = [line.plain for line in frame(report._tree, None, 0.0, 79, 30, UNICODE)]
                assert rows[1].startswith("▸ sample and verify") and "0/10 samples" in rows[1]
                assert rows[3].startswith("  ▸ references") and "2/4 solutions" in rows[3]
    assert report._display is None and report._tree.current is report._tree.root


def test_no_display_in_a_build_or_on_a_dumb_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for variables, live in (({}, True), ({"CI": "true"}, False), ({"TERM": "dumb"}, False)):
        with monkeypatch.context() as patch:
            patch.delenv("CI", raising=False)
            for name, value in {"TERM": "xterm", **variables}.items():
                patch.setenv(name, value)
            out = Terminal()
            report = Report(Console(file=out))
            with report.stage("sampling", 3, "samples") as stage:
                stage.advance(3)
            assert ("\x1b[" in out.getvalue()) is live
            assert ("sampling: 3/3 samples, took" in out.getvalue()) is not live


def test_forced_colours_make_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = io.StringIO()
    with Report(Console(file=out)).stage("sampling", 3, "samples"):
        pass
    assert "\x1b" not in out.getvalue()


def test_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    console, out = a_terminal()
    report = Report(console, live=True)
    with report.stage("sampling", 4, "samples") as stage:
        stage.advance(2)
        report._start().refresh()
    assert "━" in out.getvalue() and "\x1b[32m" not in out.getvalue()


def test_the_width_is_that_of_the_terminal_that_is_written_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = Terminal()
    monkeypatch.setattr(out, "fileno", lambda: 77)
    sizes = {77: (50, 10)}
    monkeypatch.setattr(display, "os", SimpleNamespace(get_terminal_size=sizes.__getitem__))
    report = Report(Console(file=out, force_terminal=True, width=200), live=True)
    with report.stage("sampling", 4, "samples") as stage:
        stage.advance(2)
        report._start().refresh()
    drawn = [line for line in out.getvalue().splitlines() if "samples" in line]
    assert drawn and all(Text.from_ansi(line).cell_len < 50 for line in drawn)
