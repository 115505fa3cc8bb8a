"""`summary.json`: what a run measured, by model and paired, and what is needed to judge it."""

from collections.abc import Mapping
from dataclasses import asdict
from itertools import combinations
from typing import Any

from haloforge.benchmark.compare import differences
from haloforge.benchmark.passk import Estimate
from haloforge.benchmark.results import Result
from haloforge.model.adapter import installed_versions

Estimates = Mapping[str, Mapping[str, Estimate]]


def paired_name(later: str, earlier: str) -> str:
    """The key of a paired difference, `raft_minus_base`."""
    return f"{later}_minus_{earlier}"


def pairs(names: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Each two of the names, the later one first."""
    return [(later, earlier) for earlier, later in combinations(names, 2)]


def paired_differences(results: Mapping[str, Result]) -> dict[str, dict[str, Estimate]]:
    """By `later_minus_earlier`, the paired differences of two results."""
    return {
        paired_name(later, earlier): differences(results[later], results[earlier])
        for later, earlier in pairs(results)
    }


def summarize(results: Mapping[str, Result], seed: int) -> dict[str, Any]:
    """Measures and paired differences as `mean`, `low`, `high`; shares; digests; versions."""
    return {
        **as_json({name: result.measures for name, result in results.items()}),
        **as_json(paired_differences(results)),
        "trivial_rate": {name: result.shares["trivial"] for name, result in results.items()},
        "shares": {name: result.shares for name, result in results.items()},
        "outcomes": {name: result.outcomes for name, result in results.items()},
        "sandbox_tiers": {name: result.sandbox_tiers for name, result in results.items()},
        "infra_errors": {name: result.infra_errors for name, result in results.items()},
        "problems": {name: result.problems for name, result in results.items()},
        "samples": {name: result.samples for name, result in results.items()},
        "samples_digest": {name: result.samples_digest for name, result in results.items()},
        "seeds": [seed],
        "versions": installed_versions(),
    }


def as_json(estimates: Estimates) -> dict[str, Any]:
    """Estimates as plain values."""
    return {
        name: {measure: asdict(found) for measure, found in measures.items()}
        for name, measures in estimates.items()
    }


def signed(estimate: Estimate) -> str:
    """A difference in percentage points."""
    mean, low, high = (100 * x for x in (estimate.mean, estimate.low, estimate.high))
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"
