"""Two models measured on the same problems, compared problem by problem."""

from collections.abc import Mapping

from haloforge.benchmark.measure import Result
from haloforge.benchmark.passk import Estimate, estimate
from haloforge.errors import InputError

Values = Mapping[str, Mapping[str, float]]


def differences(later: Result, earlier: Result) -> dict[str, Estimate]:
    """By measure, how much higher `later` is than `earlier`, paired by problem.

    Raises InputError where no measure has a problem in common.
    """
    settings = later.settings
    found = paired(
        later.values, earlier.values, later.groups, settings["resamples"], settings["seed"]
    )
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
