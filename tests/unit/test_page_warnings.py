"""What stands on top of a run's page."""

import json
from pathlib import Path

import pytest

from haloforge.report.page import write_page
from tests.report_runs import MIX, interval, write_activity, write_raft, write_samples
from tests.results import passing


def warned(run: Path) -> dict[str, str]:
    """By kind; the page says them before all else."""
    written = write_page(run)
    page = written.path.read_text(encoding="utf-8")
    for warning in written.warnings:
        assert f'class="w-{warning.kind}"' in page[: page.index("<nav")]
    return {warning.kind: warning.text for warning in written.warnings}


def test_a_good_run_warns_of_nothing(tmp_path: Path) -> None:
    write_activity(write_raft(tmp_path), [interval(1e9 + 10 * n) for n in range(9)])
    assert warned(tmp_path) == {}
    assert 'class="warnings"' not in (tmp_path / "report.html").read_text()


def test_a_collapse(tmp_path: Path) -> None:
    ill = {"duplicates": 0.75, "answer_entropy": 0.2, "trivial": 0.4, "mean_tokens": 20.0}
    write_raft(tmp_path, health=[{}, ill])
    texts = [w.text for w in write_page(tmp_path).warnings if w.kind == "collapse"]
    assert len(texts) == 4
    assert "75% of the answers repeat another" in texts[1]
    assert all("cycle 2" in text for text in texts)


def test_failures_of_ours_and_a_missing_compiler(tmp_path: Path) -> None:
    run = write_raft(tmp_path, samples=200)
    missing = {"diagnostics": "cpp needs g++: apt-get install g++\nmore"}
    write_samples(run / "cycle_1", 200, {"infra_error": 1}, texts=missing)
    box = {"diagnostics": "\x1b[1mthe box failed"}
    write_samples(run / "cycle_2", 200, {"infra_error": 1, "passed": 9}, texts=box)
    found = warned(run)
    assert "cpp needs g++: apt-get install g++ (200 samples lost)" in found["missing"]
    assert "in cycle 1 and cycle 2; the most frequent (200): cpp needs g++" in found["lost"]
    page = (run / "report.html").read_text()
    assert "␛[1mthe box failed" in page


@pytest.mark.parametrize("tier", ["landlock", "unsafe"])
def test_a_low_tier(tmp_path: Path, tier: str) -> None:
    found = warned(write_raft(tmp_path, cycles=1, samples=30, sandbox_tier=tier))
    assert f"30 samples judged in sandbox tier {tier}: " in found["tier"]


def test_only_compiling_is_judged(tmp_path: Path) -> None:
    mix = {"compiled": 5, "compile_error": 2}
    run = write_raft(tmp_path / "raft", cycles=1, mix=mix, tests_total=0)
    assert "in cycle 1" in warned(run)["compile-only"]
    # Tests that no program got to are tests.
    assert "compile-only" not in warned(write_raft(tmp_path / "tested", cycles=1, mix=mix))
    result = passing([1, 2], 5)
    rows = {name: c.model_copy(update={"tested": False}) for name, c in result.per_problem.items()}
    folder = tmp_path / "benchmark"
    folder.mkdir()
    untested = result.model_copy(update={"per_problem": rows})
    (folder / "results.json").write_text(untested.model_dump_json())
    assert "no pass@k" in warned(folder)["compile-only"]


def test_an_incomplete_benchmark(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(passing([1, 2], 5, lost=3).model_dump_json())
    assert "INCOMPLETE, 3 samples" in warned(tmp_path)["incomplete"]


def test_what_died_and_was_started_anew(tmp_path: Path) -> None:
    run = write_raft(tmp_path, mix=MIX)
    rows = [interval(1e9 + 10 * n) for n in range(5)]
    rows[2]["restarts"] = {"verifier": 2}
    write_activity(run, rows)
    (run / "cycle_1" / "engine_restarts.json").write_text("1")
    info = json.loads((run / "cycle_2_final" / "haloforge.json").read_text())
    info["training"]["restarts"] = 3
    (run / "cycle_2_final" / "haloforge.json").write_text(json.dumps(info))
    texts = [w.text for w in write_page(run).warnings if w.kind == "restart"]
    assert texts == [
        "engines died and were started anew 1 time",
        "verifiers died and were started anew 2 times",
        "trainers died and were started anew 3 times",
    ]


def test_few_steps(tmp_path: Path) -> None:
    found = warned(write_raft(tmp_path, steps=4))
    assert "4 in cycle 1 and 4 in cycle 2" in found["few-steps"]
