"""What a benchmark makes of judged samples: measures, shares, paired differences."""

import pytest

from haloforge.benchmark.compare import differences
from haloforge.benchmark.results import Result
from haloforge.benchmark.scoring import score
from haloforge.config import load_settings
from haloforge.errors import InfraError, InputError
from haloforge.report.tables import results_table
from haloforge.schema import Problem
from haloforge.store.shards import Judged
from tests.results import POLICY, judged, problems

SETTINGS = load_settings(
    None, {"benchmark.samples": 2, "benchmark.k": [1, 2], "benchmark.resamples": 500}
)
EMPTY = "```cpp\nint main() {}\n```"


def result(rows: list[Judged], count: int = 2) -> Result:
    return score(POLICY, problems(count), rows, SETTINGS)


def test_a_function_need_not_print() -> None:
    problem = Problem(problem_id="p0", prompt="?", judge="function", test_code="assert f(1) == 2")
    rows = [judged(0, 0, "wrong_answer", "```python\ndef f(x):\n    return x\n```")]
    assert score(POLICY, [problem], rows, SETTINGS).shares["trivial"] == 0


def test_measures_keep_compiling_and_passing_apart() -> None:
    rows = [
        judged(0, 0, "passed"),
        judged(0, 1, "wrong_answer"),
        judged(1, 0, "compile_error"),
        judged(1, 1, "timeout"),
    ]
    found = result(rows)
    assert found.measures["compile_rate"].mean == 0.75
    assert found.measures["run_rate"].mean == 0.5
    assert found.measures["pass@1"].mean == 0.25
    assert found.measures["pass@2"].mean == 0.5
    assert found.values["pass@1"] == {"p0": 0.5, "p1": 0.0}
    assert found.complete


def test_shares_of_what_went_wrong() -> None:
    rows = [
        judged(0, 0, "no_code", text="I cannot."),
        judged(0, 1, "wrong_answer", text=EMPTY),
        judged(1, 0, "timeout"),
        judged(1, 1, "compile_error", end="length"),
    ]
    assert result(rows).shares == {
        "no_code": 0.25,
        "cut_off": 0.25,
        "timed_out": 0.25,
        "trivial": 0.25,
    }


def test_a_failure_of_ours_lowers_no_score_and_shows() -> None:
    found = result([judged(0, 0, "passed"), judged(0, 1, "infra_error")])
    assert found.measures["pass@1"].mean == 1.0
    assert "pass@2" not in found.measures
    assert not found.complete
    assert "INCOMPLETE, 1 samples" in results_table({"toy": found})


def test_differences_are_paired_by_problem() -> None:
    worse = result([judged(i, 0, "wrong_answer") for i in range(8)], 8)
    better = result([judged(i, 0, "passed" if i < 4 else "wrong_answer") for i in range(8)], 8)
    gain = differences(better, worse)["pass@1"]
    assert gain.mean == 0.5
    assert 0 < gain.low < gain.mean < gain.high < 1
    same = differences(better, better)["pass@1"]
    assert same.mean == 0
    assert -0.4 < same.low < 0 < same.high < 0.4
    table = results_table({"base": worse, "raft": better})
    assert "raft - base" in table
    assert "+50.0 [" in table


def test_models_without_a_common_problem_are_not_compared() -> None:
    first = result([judged(0, 0, "passed")])
    second = result([judged(1, 0, "passed")])
    with pytest.raises(InputError, match="no common problem"):
        differences(first, second)


def test_the_digest_follows_the_samples() -> None:
    rows = [judged(0, 0, "passed"), judged(1, 0, "passed")]
    assert result(rows).samples_digest == result(rows[::-1]).samples_digest
    other = [judged(0, 0, "passed", text=EMPTY), rows[1]]
    assert result(rows).samples_digest != result(other).samples_digest


def test_what_cannot_run_has_no_run_rate_and_no_pass() -> None:
    """Windows programs are only compiled here, whatever tests their problems have."""
    settings = load_settings(None, {"verify.verifier": "mingw", "benchmark.k": [1]})
    found = score(
        POLICY, problems(2), [judged(0, 0, "compiled"), judged(1, 0, "compiled")], settings
    )
    assert set(found.measures) == {"compile_rate", "compile@1"}


def test_raw_scores_stand_beside_the_others() -> None:
    rows = [
        judged(0, 0, "passed", raw="compile_error"),
        judged(0, 1, "passed", raw="passed"),
        judged(1, 0, "passed", raw="infra_error"),
        judged(1, 1, "wrong_answer"),  # of a time before there were any
    ]
    found = result(rows)
    assert found.measures["pass@1"].mean == 0.75
    assert found.measures["raw_pass@1"].mean == 0.5
    assert found.measures["raw_pass@1"].problems == 1
    assert (found.infra_errors, found.complete) == (1, False)


def test_where_nothing_was_judged_there_is_no_result() -> None:
    with pytest.raises(InfraError, match="no sample could be judged"):
        result([judged(0, 0, "infra_error", raw="passed"), judged(0, 1, "infra_error")])


def test_breakdowns_hold_every_measure_of_the_problems_that_name_it() -> None:
    easy, hard, neither = problems(3)
    asked = [
        easy.model_copy(update={"difficulty": "easy", "tags": ["loops", "text"], "group": "g"}),
        hard.model_copy(update={"difficulty": "hard", "tags": ["loops"], "language": "rust"}),
        neither.model_copy(update={"language": None}),
    ]
    rows = [
        judged(0, 0, "passed"),
        judged(0, 1, "passed"),
        judged(1, 0, "compile_error"),
        judged(1, 1, "passed"),
        judged(2, 0, "wrong_answer"),
    ]
    found = score(POLICY, asked, rows, SETTINGS)
    assert {name: set(rows) for name, rows in found.breakdowns.items()} == {
        "difficulty": {"easy", "hard"},
        "tag": {"loops", "text"},
        "language": {"cpp", "rust"},
    }
    assert found.breakdowns["difficulty"]["easy"]["pass@1"].mean == 1
    hard_ones = found.breakdowns["difficulty"]["hard"]
    assert set(hard_ones) == set(found.measures)
    assert (hard_ones["pass@1"].mean, hard_ones["pass@2"].mean) == (0.5, 1.0)
    assert (hard_ones["pass@1"].low, hard_ones["pass@1"].high) == (0, 1)  # one problem says nothing
    loops = found.breakdowns["tag"]["loops"]["pass@1"]
    assert (loops.mean, loops.problems) == (0.75, 2)
    table = results_table({"toy": found})
    assert "hard        1         50.0% [0.0%, 100.0%]" in table
    assert "rust" in table


def test_a_breakdown_resamples_groups() -> None:
    alike = problems(8, difficulty="easy", group="one")
    apart = problems(8, difficulty="easy")
    rows = [judged(i, 0, "passed" if i % 2 else "wrong_answer") for i in range(8)]
    of_one, of_eight = (
        score(POLICY, asked, rows, SETTINGS).breakdowns["difficulty"]["easy"]["pass@1"]
        for asked in (alike, apart)
    )
    assert (of_one.low, of_one.high) == (0, 1)
    assert 0 < of_eight.low < of_eight.high < 1
