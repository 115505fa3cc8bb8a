"""What a cycle leaves decides what it trains on and what the next one samples."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from haloforge.config import load_settings
from haloforge.errors import HaloforgeError, InputError
from haloforge.model.bases import Base
from haloforge.model.policy import Policy
from haloforge.raft.cycle import _open, _Run
from haloforge.raft.select import Selection, select
from haloforge.raft.training_set import TrainingSet
from haloforge.report.progress import Report
from tests.observing import unobserved
from tests.raft_runs import Row, problem, write_cycle

POLICY = Policy("p", Base("p", "p", Path("p"), "p"), None, "p")


@pytest.fixture(autouse=True)
def selection_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a task of Ray else."""

    def selected(run: _Run, cycle: int) -> Selection:
        settings = run.settings
        return select(
            run.output, cycle, run.problems, settings.raft, settings.verify, settings.seed
        )

    monkeypatch.setattr(_Run, "_select", selected)


def opened(folder: Path, **raft: Any) -> _Run:
    source = folder / "problems.jsonl"
    rows = [problem(name).model_dump_json(exclude_defaults=True) for name in ("easy", "some")]
    source.write_text("\n".join(rows))
    flags = {f"raft.{name}": value for name, value in raft.items()}
    settings = load_settings(None, {"raft.prompts": str(source), **flags})
    session: Any = SimpleNamespace(settings=settings, report=Report(), observer=unobserved())
    return _open(session, POLICY, folder / "run", fresh=False)


def test_what_is_always_solved_rests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = opened(tmp_path, curriculum="historical")
    assert [each.problem_id for each in run.plan(1).problems] == ["easy", "some"]
    rows = [Row("easy", 0, 1.0), Row("easy", 1, 1.0), Row("some", 0, 1.0), Row("some", 1, 0.0)]
    write_cycle(run.output, 1, rows)
    selection = run.keep_best(POLICY, 1)
    assert len(TrainingSet(selection.path, run.problems, None)) == selection.rows == 2
    capsys.readouterr()
    assert [each.problem_id for each in run.plan(2).problems] == ["some"]
    said = " ".join(capsys.readouterr().err.split())
    assert "1 problems to sample; 2 measured before, 0 not; 1 rest as too easy, 0 as" in said
    # Taken up again, a cycle has the plan that it had.
    assert [
        each.problem_id for each in opened(tmp_path, curriculum="historical").plan(1).problems
    ] == [
        "easy",
        "some",
    ]


def test_a_spoilt_pass_rate_does_not_stop_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = opened(tmp_path, curriculum="historical")
    write_cycle(run.output, 1, [Row("easy", 0, 1.0), Row("some", 0, 1.0)])
    run.keep_best(POLICY, 1)
    path = run.output / "pass_rates.jsonl"
    path.write_text(path.read_text()[:-20])
    again = opened(tmp_path, curriculum="historical")
    said = " ".join(capsys.readouterr().err.split())
    assert f"raft: 1 pass rates in {path} cannot be read and are left out" in said
    assert [each.problem_id for each in again.plan(2).problems] == ["some"]


def test_too_few_to_learn_from_stops_the_run_with_its_rates_kept(tmp_path: Path) -> None:
    run = opened(tmp_path, min_samples=3)
    write_cycle(run.output, 1, [Row("easy", 0, 1.0), Row("some", 0, 0.0)])
    told = r"1 samples .* raft.min_samples=3 are wanted; lower that, or name another --output and"
    with pytest.raises(HaloforgeError, match=told):
        run.keep_best(POLICY, 1)
    assert len((run.output / "pass_rates.jsonl").read_text().splitlines()) == 2
    with pytest.raises(InputError, match="another --output"):
        opened(tmp_path, reward_threshold=0.3)
    assert opened(tmp_path, min_samples=1).keep_best(POLICY, 1).rows == 1


def test_a_cycle_with_few_steps_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = opened(tmp_path)
    write_cycle(run.output, 1, [Row("easy", 0, 1.0), Row("some", 0, 1.0)])
    run.keep_best(POLICY, 1)
    said = " ".join(capsys.readouterr().err.split())
    assert "raft cycle 1: warning: 3 steps are too few to learn much from" in said


def test_the_learning_rate_falls_to_its_floor() -> None:
    chosen = load_settings(None, {}).raft
    assert chosen.learning_rate == 5e-5
    assert load_settings(None, {"train.learning_rate": 1e-4}).raft.learning_rate is None
    both = load_settings(None, {"train.learning_rate": 1e-4, "raft.learning_rate": 2e-5})
    assert both.raft.learning_rate == 2e-5
    rates = [chosen.learning_rate_of(cycle, 5e-5) for cycle in (1, 2, 3, 100)]
    assert rates == pytest.approx([5e-5, 5e-5 * 0.85, 5e-5 * 0.85**2, 1e-6])
    assert chosen.learning_rate_of(9, 1e-7) == 1e-7, "a floor that raises it"
