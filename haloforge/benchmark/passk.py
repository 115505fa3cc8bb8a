"""pass@k with intervals, from counts a problem."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Estimate:
    """A mean over problems with its 95% interval, in fractions; differences are in [-1, 1]."""

    mean: float
    low: float
    high: float
    problems: int

    def __str__(self) -> str:
        return f"{self.mean:.1%} [{self.low:.1%}, {self.high:.1%}]"


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """Chance that one of `k` samples is right: 1 - C(n-c, k) / C(n, k) (Chen et al. 2021).

    The product is summed as logarithms, which keeps a relative error of 1e-15. Raises ValueError
    where `k` exceeds `num_samples`: there is no unbiased estimate then.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"k={k} needs at least {k} samples, there are {num_samples}")
    if not 0 <= num_right <= num_samples:
        raise ValueError(f"{num_right} right of {num_samples} samples")
    if num_samples - num_right < k:
        return 1.0
    below = np.arange(num_samples - num_right + 1, num_samples + 1)
    return float(-np.expm1(np.log1p(-k / below).sum()))


def estimate(
    values: Sequence[float],
    groups: Sequence[str],
    resamples: int,
    seed: int,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Estimate:
    """Mean of one value a problem, with a percentile bootstrap over groups of problems.

    Variants of one problem share a group and are drawn together (a cluster bootstrap, Efron and
    Tibshirani 1993). With one group the interval is `bounds`, the values' range: it says nothing.
    Where all groups have one value, resampling would show no doubt at all; there the interval is as
    wide as for a share of 0 or 1 in that many draws (Clopper and Pearson 1934).
    """
    names = sorted(set(groups))
    index = {name: i for i, name in enumerate(names)}
    sums = np.zeros(len(names))
    counts = np.zeros(len(names))
    for value, group in zip(values, groups, strict=True):
        sums[index[group]] += value
        counts[index[group]] += 1
    mean = float(sums.sum() / counts.sum())
    if len(names) == 1:
        return Estimate(mean, *bounds, len(values))
    if np.ptp(sums / counts) < 1e-12:
        margin = 1 - 0.025 ** (1 / len(names))
        return Estimate(
            mean, max(bounds[0], mean - margin), min(bounds[1], mean + margin), len(values)
        )
    means = _resampled_means(sums, counts, resamples, seed)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(mean, float(low), float(high), len(values))


def _resampled_means(
    sums: NDArray[np.float64], counts: NDArray[np.float64], resamples: int, seed: int
) -> NDArray[np.float64]:
    """Means of `resamples` draws of as many groups as there are, with replacement; [resamples]."""
    times = _draws(len(sums), resamples, seed)
    return (times @ sums) / (times @ counts)


@functools.lru_cache(maxsize=2)  # the measures of one set of problems come one after the other
def _draws(groups: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """How many times each group is drawn in each resample; [resamples, groups]."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(groups, np.full(groups, 1 / groups), size=resamples).astype(np.float64)
