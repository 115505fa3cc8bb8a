"""The time line of a run: bins of its intervals, and who waited."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from haloforge.report.page.activity import GAP_S, MOST_BINS, read_activity, tallies, timeline
from haloforge.report.page.files import Files
from tests.report_runs import interval, write_activity


def test_shares_are_weighed_by_time(tmp_path: Path) -> None:
    busy = {"actors": 4, "busy": 4.0, "queued": 90}
    rows = [interval(1e9 + 10), interval(1e9 + 40, seconds=30.0, verifiers=busy)]
    write_activity(tmp_path, rows)
    ((key, found),) = tallies(read_activity(Files(tmp_path))).items()
    assert key == ("raft 1", "sample_and_verify")
    assert found.used("engines") == pytest.approx(48 / 64)
    assert found.used("verifiers") == pytest.approx((10 * 0.5 + 30 * 4) / (10 * 2 + 30 * 4))
    assert found.used("trainers") is None
    assert (found.seconds, found.samples, found.longest_queue) == (40.0, 40, 90)


def test_work_that_was_told_late_is_shown_when_it_was_done(tmp_path: Path) -> None:
    late = {"actors": 2, "busy": 5.0, "queued": 0}  # 50 s of work: 20 of them fit in 10 s
    rows = [interval(1e9 + 10 * n, verifiers=None, cycle=1) for n in (1, 2, 3)]
    rows.append(interval(1e9 + 40, verifiers=late, cycle=1))
    rows.insert(0, interval(1e9, verifiers=None, cycle=0))
    write_activity(tmp_path, rows)
    found = read_activity(Files(tmp_path))
    work = [each.uses["verifiers"].busy if "verifiers" in each.uses else None for each in found]
    assert work == pytest.approx([None, None, 1.0, 2.0, 2.0])


def test_breaks_are_cut_out_and_bins_are_few(tmp_path: Path) -> None:
    rows = [interval(1e9 + 10 * n) for n in range(1, 601)]
    rows += [interval(1e9 + 90_000 + 10 * n, phase="train") for n in range(1, 601)]
    write_activity(tmp_path, rows)
    line = timeline(read_activity(Files(tmp_path)))
    assert line is not None
    assert len(line.edges) - 1 == MOST_BINS
    (gap,) = line.gaps
    assert gap.seconds == pytest.approx(84_000)
    assert line.edges[-1] == pytest.approx(12_000 + gap.width)
    assert np.nanmean(line.used["trainers"]) == pytest.approx(0.9)
    assert np.isnan(line.used["trainers"][:190]).all()
    assert [part.phase for part in line.parts] == ["sample_and_verify", "train"]
    assert np.nanmax(line.tokens) == pytest.approx(360)


def test_a_short_pause_stays_as_long_as_it_was(tmp_path: Path) -> None:
    pause = GAP_S - 1
    write_activity(tmp_path, [interval(1e9 + 10), interval(1e9 + 20 + pause)])
    line = timeline(read_activity(Files(tmp_path)))
    assert line is not None
    assert not line.gaps
    assert line.edges[-1] == pytest.approx(20 + pause)
    assert np.isnan(line.tokens).any()


@pytest.mark.parametrize(
    "row",
    [
        {"at": 1e9},
        {"at": 1e9, "seconds": 0},
        {"at": "x", "seconds": 1},
        {"at": 1e9, "seconds": float("nan")},
    ],
)
def test_rows_without_a_time_are_left_out(tmp_path: Path, row: dict[str, object]) -> None:
    write_activity(tmp_path, [row, interval(1e9)], torn='{"at": 1')
    files = Files(tmp_path)
    assert len(read_activity(files)) == 1
    assert files.unreadable == ["logs/activity.jsonl: 1 rows without a time are left out"]


def test_odd_values_do_no_harm(tmp_path: Path) -> None:
    odd: dict[str, Any] = {
        "engines": {"a": None, "b": {"in_flight": -5, "capacity": "many"}},
        "verifiers": [],
        "trainers": {"workers": 2, "busy": 7},
        "cycle": "last",
        "restarts": ["engine"],
        "stage": "<b>" * 100,
        "tokens": None,
    }
    write_activity(tmp_path, [interval(1e9, **odd)])
    (found,) = read_activity(Files(tmp_path))
    assert set(found.uses) == {"trainers"}
    assert tallies([found])[(found.title, found.phase)].used("trainers") == 1.0
    assert timeline([found]) is not None
    assert timeline([]) is None
