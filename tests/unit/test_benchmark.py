"""What a benchmark makes of judged samples: measures, shares, paired differences."""

from pathlib import Path

import pytest

from haloforge.benchmark.compare import differences
from haloforge.benchmark.measure import Result, score
from haloforge.config import load_settings
from haloforge.errors import InputError
from haloforge.model.bases import Base
from haloforge.model.policy import Policy
from haloforge.report.tables import results_table
from haloforge.schema import Problem, Test
from haloforge.store.shards import Judged

SETTINGS = load_settings(
    None, {"benchmark.samples": 2, "benchmark.k": [1, 2], "benchmark.resamples": 500}
)
POLICY = Policy("toy", Base("toy", "toy", Path("toy"), "base"), None, "digest")
READS = "```cpp\nint main() { int a; std::cin >> a; std::cout << a; }\n```"
EMPTY = "```cpp\nint main() {}\n```"


def problems(count: int) -> list[Problem]:
    tests = [Test(stdin="1\n", stdout="1\n")]
    return [
        Problem(problem_id=f"p{i}", prompt="?", language="cpp", judge="stdio", tests=tests)
        for i in range(count)
    ]


def judged(problem: int, index: int, outcome: str, text: str = READS, end: str = "stop") -> Judged:
    identity = {"sample_id": f"{problem}/{index}", "problem_id": f"p{problem}"}
    compiled = outcome not in ("no_code", "compile_error", "infra_error")
    return Judged(
        {**identity, "completion": text, "finish_reason": end},
        {**identity, "outcome": outcome, "compiled": compiled, "sandbox_tier": "landlock"},
    )


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
    assert found.sandbox_tiers == {"landlock": 4}
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
