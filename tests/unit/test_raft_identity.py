"""What tells one RAFT run from another, and what does not."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from haloforge.config import load_settings
from haloforge.errors import InputError
from haloforge.model.bases import Base
from haloforge.model.policy import Policy
from haloforge.raft.cycle import _open
from haloforge.raft.difficulty import PASS_RATES, record_rates
from haloforge.report.progress import Report
from tests.observing import unobserved
from tests.raft_runs import problem

POLICY = Policy("p", Base("p", "p", Path("p"), "p"), None, "p")


def opened(folder: Path, **raft: Any) -> dict[str, Any]:
    """The identity of a run with these settings of RAFT."""
    source = folder / "problems.jsonl"
    folder.mkdir(exist_ok=True)
    source.write_text(problem("a").model_dump_json(exclude_defaults=True) + "\n")
    flags = {f"raft.{name}": value for name, value in raft.items()}
    settings = load_settings(None, {"raft.prompts": str(source), **flags})
    session: Any = SimpleNamespace(settings=settings, report=Report(), observer=unobserved())
    _open(session, POLICY, folder / "run", fresh=False)
    found: dict[str, Any] = json.loads((folder / "run" / "run.json").read_text())
    return found


def test_a_run_from_before_goes_on(tmp_path: Path) -> None:
    told = {"samples_per_prompt": 8, "reward_threshold": 0.5, "keep_top_percent": 0.5}
    before = {"learning_rate_decay": 1.0}
    assert opened(tmp_path, **before)["selection"] == told
    assert "history" not in opened(tmp_path, **before)
    # What is trained on does not depend on these.
    opened(tmp_path, **before, cycles=9, min_samples=3, eval_prompts="x.jsonl", patience=2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_per_problem", 2),
        ("max_train_samples", 100),
        ("drop_solved_by_all", True),
        ("drop_solved_by_none", True),
        ("train_on", "all"),
        ("curriculum", "historical"),
    ],
)
def test_what_changes_what_is_trained_on_is_another_run(
    name: str, value: Any, tmp_path: Path
) -> None:
    opened(tmp_path)
    with pytest.raises(InputError, match=f"selection.{name}: was not set, is now"):
        opened(tmp_path, **{name: value})


def test_a_history_is_told_by_its_contents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record_rates(tmp_path / "before", 1, [problem("a")], [8], [3], "policy")
    raft = {"curriculum": "historical", "history": str(tmp_path / "before")}
    opened(tmp_path, **raft)
    assert "raft: 1 pass rates from" in " ".join(capsys.readouterr().err.split())
    carried = json.loads((tmp_path / "run" / PASS_RATES).read_text())
    assert (carried["cycle"], carried["solved"]) == (0, 3)
    moved = (tmp_path / "before").rename(tmp_path / "moved")
    opened(tmp_path, **{**raft, "history": str(moved)})
    record_rates(moved, 2, [problem("a")], [8], [5], "policy")
    with pytest.raises(InputError, match=r"history: was \w+, is now"):
        opened(tmp_path, **{**raft, "history": str(moved)})
    with pytest.raises(InputError, match=r"raft.history .* this run's own"):
        opened(tmp_path, **{**raft, "history": str(tmp_path / "run")})
