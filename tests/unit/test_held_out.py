"""Scores of the cycles: which is the best, where `best` leads, and when the run stops."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from haloforge.config import load_settings
from haloforge.errors import InputError
from haloforge.preflight import check_raft
from haloforge.raft import held_out
from haloforge.raft.held_out import HeldOut, eval_settings
from haloforge.report.progress import Report
from tests.results import POLICY, passing


def watched(
    run: Path, scores: list[int], monkeypatch: pytest.MonkeyPatch, **raft: Any
) -> tuple[HeldOut, list[Path]]:
    """What watches a run whose start and cycles pass so many of ten samples, and where it keeps
    each score."""
    folders: list[Path] = []

    def benchmark(session: Any, policy: Any, output: Path, settings: Any, on_card: bool) -> Any:
        assert not on_card
        folders.append(output)
        return passing([scores[len(folders) - 1]], 10)

    monkeypatch.setattr(held_out, "benchmark", benchmark)
    flags = {"raft.eval_prompts": "x.jsonl"} | {f"raft.{name}": each for name, each in raft.items()}
    session: Any = SimpleNamespace(settings=load_settings(None, flags), report=Report())
    return HeldOut(session, run), folders


def test_best_leads_to_the_best_cycle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch, folders = watched(tmp_path, [4, 3, 6, 6, 9], monkeypatch)
    leads, told = [], []
    for cycle in range(5):
        (tmp_path / f"cycle_{cycle}_final").mkdir()
        watch.score(POLICY, cycle)
        watch.link_best()
        best = tmp_path / "best"
        leads.append(best.resolve().name if best.is_symlink() else None)
        told.append(json.loads((tmp_path / "best.json").read_text()))
    assert [each["model"] for each in told] == leads
    assert told[1] == {"cycle": 0, "model": None, "pass@1": 0.4}
    assert leads == [None, None, "cycle_2_final", "cycle_2_final", "cycle_4_final"]
    assert len(set(folders)) == 5
    assert watch.best.measure == "pass@1"


def test_patience_stops_when_nothing_gets_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    watch, _ = watched(tmp_path, [4, 6, 5, 6, 2], monkeypatch, patience=2, cycles=9)
    stops = []
    for cycle in range(5):
        watch.score(POLICY, cycle)
        stops.append(watch.stops(cycle))
    assert stops == [False, False, False, True, True]
    said = " ".join(capsys.readouterr().err.split())
    assert "raft: stops after cycle 3: 2 cycles brought no better score than cycle 1" in said


def test_without_patience_all_cycles_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch, _ = watched(tmp_path, [9, 8, 7, 6], monkeypatch)
    for cycle in range(4):
        watch.score(POLICY, cycle)
        assert not watch.stops(cycle)


def test_without_problems_the_run_says_that_it_is_not_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session: Any = SimpleNamespace(settings=load_settings(None, {}), report=Report())
    watch = HeldOut(session, tmp_path)
    watch.score(POLICY, 1)
    assert (watch.scores, watch.stops(1)) == ([], False)
    assert "cycles are not scored" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(InputError, match=r"raft.patience needs raft.eval_prompts"):
        load_settings(None, {"raft.patience": 2})


def test_cycles_are_scored_by_the_benchmark_s_settings() -> None:
    flags = {"benchmark.temperature": 0.3, "benchmark.limit": 3, "raft.eval_prompts": "x.jsonl"}
    found = eval_settings(load_settings(None, flags)).benchmark
    assert (found.prompts, found.samples, found.temperature) == ("x.jsonl", 4, 0.3)
    assert (found.k, found.limit) == ((1,), None)


def test_what_is_trained_on_is_no_held_out_problem() -> None:
    settings = load_settings(None, {"raft.prompts": "starter", "raft.eval_prompts": "starter"})
    with pytest.raises(InputError, match=r"is in raft.prompts and in raft.eval_prompts \(\d+ such"):
        check_raft(settings)
    with pytest.raises(InputError, match=r"nowhere.jsonl"):
        check_raft(load_settings(None, {"raft.eval_prompts": "nowhere.jsonl"}))
    check_raft(load_settings(None, {"raft.eval_prompts": "starter/validation"}))
