"""Pooling seeds, and what is kept of each."""

from pathlib import Path
from typing import Any

import pytest

from haloforge import study as module
from haloforge.benchmark.results import Result
from haloforge.cli.study import study_command
from haloforge.config import Settings, load_settings
from haloforge.errors import HaloforgeError, InputError
from haloforge.store.run import write_atomic
from haloforge.study import pool, study
from tests.results import passing

PROBLEMS = [f"p{i}" for i in range(20)]


def record(seed: int, base: list[float], raft: list[float]) -> dict[str, Any]:
    return {
        "seed": seed,
        "trivial_rate": {"base": 0.2, "raft": 0.1 * seed},
        "problems": {
            name: {"group": name, "values": {"base": {"pass@1": b}, "raft": {"pass@1": r}}}
            for name, b, r in zip(PROBLEMS, base, raft, strict=True)
        },
    }


def test_seeds_are_averaged_by_problem_before_problems_are_resampled() -> None:
    """Two seeds that differ in opposite ways on each problem: no difference, and no doubt."""
    low, high = [0.2] * 20, [0.6] * 20
    mixed = [0.2, 0.6] * 10
    other = [0.6, 0.2] * 10
    found = pool([record(0, low, mixed), record(1, high, other)], 500)
    assert found.seeds == [0, 1]
    assert found.models["base"]["pass@1"].mean == pytest.approx(0.4)
    gain = found.differences["raft_minus_base"]["pass@1"]
    assert gain.mean == pytest.approx(0.0, abs=1e-12)
    assert found.trivial_rate == {"base": pytest.approx(0.2), "raft": pytest.approx(0.05)}


def test_a_gain_on_many_problems_has_its_interval_above_zero() -> None:
    found = pool([record(0, [0.1] * 20, [0.1] * 8 + [0.5] * 12)], 500)
    assert found.differences["raft_minus_base"]["pass@1"].low > 0


def test_a_measure_that_older_seeds_lack_is_left_out() -> None:
    records = [record(0, [0.2] * 20, [0.4] * 20), record(1, [0.2] * 20, [0.4] * 20)]
    for row in records[1]["problems"].values():
        row["values"]["base"]["run_rate"] = 0.5
    assert set(pool(records, 500).models["base"]) == {"pass@1"}


def test_seeds_of_different_problems_are_refused() -> None:
    other = record(1, [0.0] * 20, [0.0] * 20)
    del other["problems"]["p3"]
    with pytest.raises(InputError, match="different problems"):
        pool([record(0, [0.0] * 20, [0.0] * 20), other], 500)


@pytest.fixture
def runs(tmp_path: Path) -> list[Settings]:
    return [
        load_settings(None, {"seed": seed, "output": str(tmp_path / "runs" / str(seed))})
        for seed in (0, 1)
    ]


def test_a_seed_with_a_result_is_not_run_again(
    tmp_path: Path, runs: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []

    def pipeline(settings: Settings) -> dict[str, Result]:
        ran.append(settings.seed)
        if ran == [0, 1]:
            raise KeyboardInterrupt  # stopped in the second seed
        write_atomic(Path(settings.output) / "summary.json", '{"trivial_rate": {"base": 0}}')
        return {"base": passing([1] * 20, 2)}

    monkeypatch.setattr(module, "pipeline", pipeline)
    with pytest.raises(KeyboardInterrupt):
        study(runs, tmp_path / "results")
    first = (tmp_path / "results" / "seed_0.json").read_bytes()
    assert study(runs, tmp_path / "results").seeds == [0, 1]
    assert ran == [0, 1, 1]
    assert (tmp_path / "results" / "seed_0.json").read_bytes() == first
    changed = [
        load_settings(None, {"seed": s.seed, "output": s.output}, ["raft.cycles=9"]) for s in runs
    ]
    with pytest.raises(InputError, match=r"seed_0\.json was made with other settings"):
        study(changed, tmp_path / "results")


def test_an_incomplete_run_gives_no_result(
    tmp_path: Path, runs: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "pipeline", lambda settings: {"base": passing([1] * 20, 2, lost=2)})
    with pytest.raises(HaloforgeError, match="samples of base were lost"):
        study(runs, tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_seeds_go_below_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def runs(each: list[Settings], results: Path) -> Any:
        asked.extend(settings.output for settings in each)
        raise HaloforgeError("enough")

    monkeypatch.setattr(module, "study", runs)
    for output in ("s3://b/study?region=eu-west-1", "runs/study"):
        with pytest.raises(HaloforgeError, match="enough"):
            study_command.main(
                ["--seeds", "0,1", "--output", output, "--results", str(tmp_path)],
                standalone_mode=False,
            )
    assert asked == [
        "s3://b/study/seed_0?region=eu-west-1",
        "s3://b/study/seed_1?region=eu-west-1",
        "runs/study/seed_0",
        "runs/study/seed_1",
    ]
