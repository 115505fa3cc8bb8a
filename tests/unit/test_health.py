"""A collapse shows in numbers, and is said in one line."""

from dataclasses import replace
from pathlib import Path

import pytest

from haloforge.raft.health import Health, warnings
from tests.raft_runs import Row, problem, selected

PRINTS = 'int main() { int x; std::cin >> x; std::cout << "a"; }'
SOUND = Health(0.1, 0.05, 100.0, 0.9, 0.5)


def measured(folder: Path, rows: list[Row], tests: bool = True) -> Health:
    names = sorted({row.problem for row in rows})
    return selected(folder, rows, problems=[problem(name, tests) for name in names]).health


def test_entropy_is_1_where_all_answers_differ_and_0_where_none_does(tmp_path: Path) -> None:
    differ = measured(tmp_path / "differ", [Row("a", i, 1.0) for i in range(8)])
    assert differ.answer_entropy == pytest.approx(1)
    assert differ.duplicates == 0
    same = measured(tmp_path / "same", [Row("a", i, 1.0, "int x; // " + "x" * i) for i in range(8)])
    assert same.answer_entropy == pytest.approx(0)
    assert same.duplicates == 7 / 8


def test_entropy_is_a_mean_over_problems_with_two_samples(tmp_path: Path) -> None:
    rows = [Row("half", i, 1.0, f"int x{i // 2};") for i in range(4)]  # log 2 / log 4
    rows += [Row("differ", 0, 0.0), Row("differ", 1, 0.0, "")]
    rows += [Row("single", 0, 1.0)]
    rows += [Row("single", 1, 0.0, outcome="infra_error")]
    found = measured(tmp_path, rows)
    assert found.answer_entropy == pytest.approx((0.5 + 1) / 2)
    assert found.duplicates == pytest.approx(2 / 7)
    only_single = measured(tmp_path / "single", [Row("a", 0, 1.0), Row("b", 0, 1.0)])
    assert only_single.answer_entropy is None


def test_answers_without_code_are_compared_as_they_stand(tmp_path: Path) -> None:
    rows = [Row("a", 0, 0.0, ""), Row("a", 1, 0.0, ""), Row("a", 2, 0.0), Row("b", 0, 0.0, "")]
    assert measured(tmp_path, rows).duplicates == 1 / 4


def test_what_is_dropped_is_watched_too(tmp_path: Path) -> None:
    rows = [Row("a", 0, 0.0, "int x", tokens=30), Row("a", 1, 0.0, "int  x", "length", tokens=10)]
    found = measured(tmp_path, rows)
    assert (found.duplicates, found.mean_tokens) == (0.5, 20)


def test_trivial_answers_are_those_that_could_pass_no_test(tmp_path: Path) -> None:
    rows = [
        Row("a", 0, 0.5, "int main() {}"),
        Row("a", 1, 0.7, 'int main() { std::cout << "1"; }'),  # reads nothing
        Row("a", 2, 0.7, PRINTS),
        Row("a", 3, 1.0, "int main() { }  // passed, so it is none"),
        Row("a", 4, 0.0, ""),  # no code at all
    ]
    assert measured(tmp_path / "tests", rows).trivial == pytest.approx(2 / 5)
    rows = [row._replace(reward=min(row.reward, 0.5)) for row in rows]
    without_tests = measured(tmp_path / "none", rows, tests=False)
    assert without_tests.trivial == pytest.approx(2 / 5)  # neither `main` prints


def test_nats_per_token_are_of_the_samples_that_hold_them(tmp_path: Path) -> None:
    rows = [Row("a", 0, 1.0, tokens=10, logprob_sum=-5.0), Row("a", 1, 1.0, tokens=30)]
    rows += [Row("a", 2, 1.0, tokens=20, logprob_sum=-1.0)]
    assert measured(tmp_path / "some", rows).nats_per_token == pytest.approx(6 / 30)
    assert measured(tmp_path / "none", [Row("a", 0, 1.0)]).nats_per_token is None


@pytest.mark.parametrize(
    ("name", "first", "sound", "collapsed", "said"),
    [
        ("answer_entropy", 0.9, 0.46, 0.44, "their entropy is 0.44, was 0.90"),
        ("duplicates", 0.1, 0.49, 0.51, "51% of the answers repeat another, 10% did"),
        ("duplicates", 0.4, 0.79, 0.81, "81% of the answers"),
        ("trivial", 0.05, 0.19, 0.21, "21% of the answers can pass no test, 5% in"),
        ("trivial", 0.3, 0.59, 0.61, "61% of the answers"),
        ("mean_tokens", 100.0, 51.0, 49.0, "49 tokens long, were 100"),
        ("mean_tokens", 100.0, 199.0, 201.0, "201 tokens long, were 100"),
    ],
)
def test_a_collapse_is_told_by_the_first_cycle(
    name: str, first: float, sound: float, collapsed: float, said: str
) -> None:
    def cycle(value: float) -> Health:
        return replace(SOUND, **{name: value})

    assert warnings([cycle(first), cycle(collapsed), cycle(sound)]) == []
    (line,) = warnings([cycle(first), cycle(sound), cycle(collapsed)])
    assert said in line
    assert "\n" not in line


def test_nothing_is_said_of_the_first_cycle_or_of_what_is_not_measured() -> None:
    collapsed = Health(1.0, 1.0, 1.0, 0.0, None)
    assert warnings([]) == warnings([collapsed]) == []
    assert len(warnings([SOUND, collapsed])) == 4
    assert warnings([replace(SOUND, answer_entropy=None)] * 2) == []
