"""Models measured on the same problems, compared problem by problem."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haloforge.benchmark.passk import Estimate, estimate
from haloforge.benchmark.results import ProblemCounts, Result, read_result
from haloforge.errors import InputError

Values = Mapping[str, Mapping[str, float]]
# What is asked for, yet shapes no sample.
_NO_CONDITION = {"prompts", "suite", "excluded", "k", "seed", "resamples"}


@dataclass(frozen=True)
class Pair:
    """A model against the first one.

    `problems` counts those in common. `wins` and `losses` hold, by problem_id, the share of samples
    that were right (that compiled, where a problem has no tests) of the first and of this model;
    on `ties` problems both had the same.
    """

    problems: int
    differences: dict[str, Estimate]
    wins: dict[str, tuple[float, float]]
    losses: dict[str, tuple[float, float]]
    ties: int


@dataclass(frozen=True)
class Comparison:
    """Results by name, the first of which all others are compared to; `pairs` by the others' names;
    `warnings` say where the models were not measured alike."""

    results: dict[str, Result]
    pairs: dict[str, Pair]
    warnings: list[str]


def read_results(paths: Sequence[Path]) -> dict[str, Result]:
    """The results in these folders, by names that tell them apart. Raises as `read_result`, and
    InputError for a folder that comes twice."""
    folders = [path if path.is_dir() else path.parent for path in paths]
    names = distinct_names([str(folder.absolute()) for folder in folders])
    return dict(zip(names, map(read_result, paths), strict=True))


def distinct_names(paths: Sequence[str]) -> list[str]:
    """For each path, as few of its last parts as tell all apart, joined by `--`.

    Raises InputError where a path comes twice.
    """
    parts = [Path(path).parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["--".join(part.strip("/") for part in path[-length:]) for path in parts]
        if len(set(names)) == len(names):
            return names
    twice = next(path for path in paths if paths.count(path) > 1)
    raise InputError(f"{twice}: given twice")


def compare(results: Mapping[str, Result]) -> Comparison:
    """Each result against the first. Raises InputError where one has no problem in common with it,
    or where there is none to compare."""
    (reference, first), *others = results.items()
    if not others:
        raise InputError("give two results or more to compare")
    pairs: dict[str, Pair] = {}
    warnings = [
        f"{name}: INCOMPLETE, {result.infra_errors} samples lost to failures of ours"
        for name, result in results.items()
        if not result.complete
    ]
    for name, result in others:
        pairs[name] = _pair(result, first, f"{name} and {reference}")
        if result.problems_digest != first.problems_digest:
            warnings.append(
                f"{name}: other problems than {reference} ({result.problems}, not "
                f"{first.problems}): compared on the {pairs[name].problems} whose ids are in both"
            )
        warnings += [f"{name}: {line}" for line in _unlike(result, first, reference)]
    return Comparison(dict(results), pairs, warnings)


def differences(later: Result, earlier: Result) -> dict[str, Estimate]:
    """By measure, how much higher `later` is than `earlier`, paired by problem.

    Raises InputError where no measure has a problem in common.
    """
    settings = later.settings
    found = paired(later.values, earlier.values, later.groups, settings.resamples, settings.seed)
    if not found:
        raise InputError(f"{later.model} and {earlier.model} were measured on no common problem")
    return found


def paired(
    later: Values, earlier: Values, groups: Mapping[str, str], resamples: int, seed: int
) -> dict[str, Estimate]:
    """The mean of `later` - `earlier` by measure, over the problems that both have a value for.

    The interval resamples the problems' own differences, so that what makes a problem hard for both
    does not widen it.
    """
    found = {}
    for measure in later:
        first, second = earlier.get(measure, {}), later[measure]
        common = sorted(first.keys() & second.keys())
        if common:
            found[measure] = estimate(
                [second[problem] - first[problem] for problem in common],
                [groups[problem] for problem in common],
                resamples,
                seed,
                bounds=(-1.0, 1.0),
            )
    return found


def _pair(later: Result, first: Result, names: str) -> Pair:
    common = [
        problem
        for problem, counts in later.per_problem.items()
        if counts.n and problem in first.per_problem and first.per_problem[problem].n
    ]
    if not common:
        raise InputError(f"{names}: no problem in common, of {later.problems} and {first.problems}")
    shares = {
        problem: _shares(first.per_problem[problem], later.per_problem[problem])
        for problem in common
    }
    wins = {problem: pair for problem, pair in shares.items() if pair[1] > pair[0]}
    losses = {problem: pair for problem, pair in shares.items() if pair[1] < pair[0]}
    ties = len(common) - len(wins) - len(losses)
    return Pair(len(common), differences(later, first), wins, losses, ties)


def _shares(first: ProblemCounts, later: ProblemCounts) -> tuple[float, float]:
    if first.tested and later.tested:
        return first.passed / first.n, later.passed / later.n
    return first.compiled / first.n, later.compiled / later.n


def _unlike(result: Result, first: Result, reference: str) -> list[str]:
    """One line for each condition in which two results differ."""
    ours, theirs = _conditions(result), _conditions(first)
    return [
        f"{name.replace('_', ' ')} is {ours.get(name)}, that of {reference} {theirs.get(name)}"
        for name in {**ours, **theirs}
        if ours.get(name) != theirs.get(name)
    ]


def _conditions(result: Result) -> dict[str, Any]:
    return {
        "samples": result.samples,
        "prompt_style": (result.settings.suite or {}).get("prompt_style"),
        **result.settings.model_dump(exclude=_NO_CONDITION),
        "sandbox_tier": ", ".join(result.sandbox_tiers) or None,
        "toolchains": ", ".join(result.toolchains) or None,
        **result.limits,
    }
