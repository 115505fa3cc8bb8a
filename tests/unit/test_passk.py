"""pass@k against exact arithmetic, and intervals against what they promise."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haloforge.benchmark.passk import estimate, pass_at_k


@settings(deadline=None)
@given(st.data())
def test_pass_at_k_is_exact(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 400))
    c = data.draw(st.integers(0, n))
    k = data.draw(st.integers(1, n))
    exact = 1 - Fraction(comb(n - c, k), comb(n, k))
    assert pass_at_k(n, c, k) == pytest.approx(float(exact), rel=1e-12, abs=1e-300)


def test_pass_at_k_is_exact_for_every_small_case() -> None:
    for n in range(1, 51):
        for k in range(1, n + 1):
            ways = comb(n, k)
            for c in range(n + 1):
                exact = float(1 - Fraction(comb(n - c, k), ways))
                assert abs(pass_at_k(n, c, k) - exact) <= 1e-13 * exact, (n, c, k)


def test_pass_at_1_is_the_share_of_right_samples() -> None:
    assert pass_at_k(10, 3, 1) == pytest.approx(0.3)


def test_k_above_n_is_refused() -> None:
    with pytest.raises(ValueError, match="k=5"):
        pass_at_k(4, 2, 5)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        values = rng.beta(1, 2, size=60)  # the true mean is 1/3
        result = estimate(values.tolist(), [str(i) for i in range(60)], 1000, trial)
        covered += result.low <= 1 / 3 <= result.high
    assert 0.90 <= covered / 300 <= 0.985


@pytest.mark.parametrize("k", [1, 5])
def test_coverage_on_a_benchmark_of_usual_size(k: int) -> None:
    """20 samples of each of 164 problems, which differ as a weak model finds them; 2000 times."""
    n, problems, times = 20, 164, 2000
    rng = np.random.default_rng(1)
    a, b = 0.4, 1.2
    truth = 1 - np.prod([(b + i) / (a + b + i) for i in range(k)])  # E[1 - (1 - p)^k]
    values = np.array([pass_at_k(n, c, k) for c in range(n + 1)])
    names = [str(i) for i in range(problems)]
    covered = 0
    for _ in range(times):
        right = rng.binomial(n, rng.beta(a, b, size=problems))
        found = estimate(values[right].tolist(), names, 1000, 0)
        covered += bool(found.low <= truth <= found.high)
    assert 0.92 <= covered / times <= 0.97


def test_variants_of_one_problem_are_one_draw() -> None:
    values = [0.0, 1.0] * 10
    apart = estimate(values, [str(i) for i in range(20)], 2000, 0)
    # Twenty problems, but only two things were measured, ten times each.
    together = estimate(values, ["a", "b"] * 10, 2000, 0)
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_one_group_says_nothing() -> None:
    result = estimate([1.0, 1.0], ["a", "a"], 1000, 0)
    assert (result.mean, result.low, result.high) == (1.0, 0.0, 1.0)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_values_that_are_all_equal_leave_doubt(value: float) -> None:
    """As wide as the exact interval for 0 of 30 (Clopper and Pearson): 11.6 percent."""
    result = estimate([value] * 30, [str(i) for i in range(30)], 1000, 0)
    assert result.mean == value
    assert result.high - result.low == pytest.approx(0.1157, abs=1e-4)
    assert 0 <= result.low <= value <= result.high <= 1
