"""Pass rates are measured, carried over, and decide which problems rest."""

import json
from pathlib import Path
from typing import Any

import pytest

from haloforge.data.problems import prompts_digest
from haloforge.errors import HaloforgeError, InputError
from haloforge.raft.difficulty import (
    PASS_RATES,
    PassRate,
    latest_rates,
    plan,
    read_history,
    record_history,
    record_rates,
    set_torn_aside,
)
from haloforge.raft.settings import RaftSettings
from haloforge.schema import Problem
from tests.raft_runs import problem

HISTORICAL = RaftSettings(curriculum="historical")


def named(problems: list[Problem]) -> list[str]:
    return [each.problem_id for each in problems]


def rate(name: str, cycle: int, solved: int, samples: int = 10) -> PassRate:
    return PassRate(name, prompts_digest([problem(name)]), cycle, samples, solved, "policy")


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / PASS_RATES).read_text().splitlines()]


def test_each_cycle_has_a_row_for_each_problem_that_was_judged(tmp_path: Path) -> None:
    problems = [problem("a"), problem("b"), problem("c")]
    record_rates(tmp_path, 1, problems, [8, 0, 7], [2, 0, 7], "first")
    record_rates(tmp_path, 2, problems, [8, 8, 0], [3, 0, 0], "second")
    found = [(r["cycle"], r["problem_id"], r["solved"], r["samples"]) for r in rows(tmp_path)]
    assert found == [(1, "a", 2, 8), (1, "c", 7, 7), (2, "a", 3, 8), (2, "b", 0, 8)]
    assert rows(tmp_path)[3] == {
        "problem_id": "b",
        "problem_digest": prompts_digest([problems[1]]),
        "cycle": 2,
        "samples": 8,
        "solved": 0,
        "policy": "second",
    }
    before = (tmp_path / PASS_RATES).read_bytes()
    record_rates(tmp_path, 2, problems, [8, 8, 0], [3, 0, 0], "second")
    assert (tmp_path / PASS_RATES).read_bytes() == before


def test_a_cycle_that_is_taken_up_again_sees_what_it_saw(tmp_path: Path) -> None:
    assert latest_rates(tmp_path, 1) == {}
    for cycle, solved in ((1, 2), (2, 9)):
        record_rates(tmp_path, cycle, [problem("a")], [10], [solved], "policy")
    assert latest_rates(tmp_path, 1) == {}
    assert latest_rates(tmp_path, 2)["a"].rate == 0.2
    assert latest_rates(tmp_path, 3)["a"].rate == 0.9


def test_without_a_curriculum_all_are_sampled() -> None:
    problems = [problem("a"), problem("b")]
    found = plan(problems, {"a": rate("a", 1, 10)}, 2, RaftSettings())
    assert named(found.problems) == ["a", "b"]
    assert found[1:] == (1, 1, 0, 0)


@pytest.mark.parametrize(
    ("solved", "rests"), [(0, "hard"), (1, ""), (5, ""), (9, ""), (10, "easy")]
)
def test_what_lies_outside_the_bounds_rests(solved: int, rests: str) -> None:
    problems = [problem("a"), problem("new")]
    latest = {"a": rate("a", 3, solved)}
    for cycle in (4, 5):
        found = plan(problems, latest, cycle, HISTORICAL)
        assert named(found.problems) == (["new"] if rests else ["a", "new"])
        assert found[1:] == (1, 1, int(rests == "easy"), int(rests == "hard"))
    # The policy has changed since: it is measured again.
    assert named(plan(problems, latest, 6, HISTORICAL).problems) == ["a", "new"]


def test_a_curriculum_that_leaves_nothing_is_refused() -> None:
    problems = [problem("a"), problem("b")]
    latest = {"a": rate("a", 1, 10), "b": rate("b", 1, 0)}
    with pytest.raises(
        HaloforgeError, match=r"1 rest as too easy, 1 as too hard; name another --output"
    ):
        plan(problems, latest, 2, HISTORICAL)
    none_rest = RaftSettings(curriculum="historical", curriculum_rest=0)
    assert len(plan(problems, latest, 2, none_rest).problems) == 2


def test_an_earlier_run_is_gone_on_from(tmp_path: Path) -> None:
    earlier, run = tmp_path / "earlier", tmp_path / "run"
    problems = [problem(name) for name in ("easy", "changed", "gone", "old")]
    record_rates(earlier, 1, problems, [10] * 4, [10] * 4, "policy")
    record_rates(earlier, 4, problems[:3], [10] * 3, [10] * 3, "policy")
    now = [problem("easy"), problem("changed", comparison="exact"), problem("old"), problem("new")]
    history = read_history(str(earlier), now)
    assert (history.changed, history.unknown) == (1, 1)
    assert read_history(str(earlier / PASS_RATES), now) == history
    record_history(run, history)
    record_history(run, history)
    found = [(r["problem_id"], r["cycle"]) for r in rows(run)]
    assert found == [("easy", -3), ("old", -3), ("easy", 0)]
    plans = [plan(now, latest_rates(run, cycle), cycle, HISTORICAL) for cycle in (1, 2, 3)]
    # `easy` was measured in the last cycle before this run, `old` three before that.
    assert named(plans[0].problems) == named(plans[1].problems) == ["changed", "old", "new"]
    assert plans[0][1:] == (2, 2, 1, 0)
    assert "easy" in named(plans[2].problems)
    record_rates(run, 1, now, [10, 10, 10, 10], [5, 5, 5, 5], "policy")
    # A third run that goes on from the second knows the first's pass rates too.
    third = read_history(str(run), now).rates
    assert sorted((each.problem_id, each.cycle) for each in third if each.cycle < 0) == [
        ("easy", -4),
        ("easy", -1),
        ("old", -4),
    ]
    (earlier / PASS_RATES).write_text((earlier / PASS_RATES).read_text() + "\n")
    assert read_history(str(earlier), now).digest != history.digest


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"samples": 0}, "field 'samples': Input should be greater than or equal to 1"),
        ({"solved": 11}, "'solved' must be at most 'samples'"),
        ({"cycle": "last"}, "field 'cycle': Input should be a valid integer"),
        ({"problem_id": None}, "field 'problem_id': Input should be a valid string"),
        ({"pass_rate": 0.5}, "field 'pass_rate'"),
    ],
)
def test_a_malformed_history_is_refused_by_line_and_field(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    record_rates(tmp_path, 1, [problem("a"), problem("b")], [10, 10], [1, 1], "policy")
    first, second = rows(tmp_path)
    path = tmp_path / "history.jsonl"
    path.write_text(f"{json.dumps(first)}\n{json.dumps(second | change)}\n")
    with pytest.raises(InputError) as error:
        read_history(str(path), [problem("a")])
    assert f"{path}, line 2: " in str(error.value)
    assert said in str(error.value)
    with pytest.raises(InputError, match=r"none.jsonl: no such file"):
        read_history(str(tmp_path / "none.jsonl"), [problem("a")])


@pytest.mark.parametrize("spoilt", [b"\x00" * 9, b'{"problem_id": "b", "prob', b"\xff\xfe", b"[]"])
def test_a_line_that_a_disk_has_spoilt_is_left_out(tmp_path: Path, spoilt: bytes) -> None:
    problems = [problem(name) for name in ("a", "b", "c")]
    assert set_torn_aside(tmp_path) == 0
    record_rates(tmp_path, 1, problems, [10] * 3, [1, 2, 3], "policy")
    path = tmp_path / PASS_RATES
    whole = path.read_bytes()
    assert set_torn_aside(tmp_path) == 0 and path.read_bytes() == whole
    lines = whole.splitlines()
    path.write_bytes(b"\n".join([lines[0], spoilt, lines[2], b""]))
    before = path.read_bytes()
    assert set_torn_aside(tmp_path) == 1
    assert sorted(latest_rates(tmp_path, 2)) == ["a", "c"]
    assert (tmp_path / f"{PASS_RATES}.torn").read_bytes() == before
    assert set_torn_aside(tmp_path) == 0


@pytest.mark.parametrize(
    "settings", [{"history": "runs/a"}, {"curriculum_bounds": [0.2, 0.8]}, {"curriculum_rest": 1}]
)
def test_settings_without_effect_are_refused(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(InputError, match=f"raft.{name} needs raft.curriculum=historical"):
        RaftSettings.model_validate(settings)
    RaftSettings.model_validate({**settings, "curriculum": "historical"})
    RaftSettings.model_validate(RaftSettings().model_dump(mode="json"))  # as config.yaml holds it


def test_bounds_are_in_order() -> None:
    with pytest.raises(InputError, match=r"raft.curriculum_bounds: 0.9 is above 0.1"):
        RaftSettings(curriculum="historical", curriculum_bounds=(0.9, 0.1))
