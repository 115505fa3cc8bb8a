"""Two models measured on the same problems, compared problem by problem."""

from haloforge.benchmark.measure import Result
from haloforge.benchmark.passk import Estimate, estimate
from haloforge.errors import InputError


def differences(later: Result, earlier: Result) -> dict[str, Estimate]:
    """By measure, how much higher `later` is than `earlier`, paired by problem.

    The interval resamples the problems' own differences, so that what makes a problem hard for both
    does not widen it. Raises InputError where no measure has a problem in common.
    """
    found = {}
    for measure in later.values:
        first, second = earlier.values.get(measure, {}), later.values[measure]
        common = sorted(first.keys() & second.keys())
        if common:
            found[measure] = estimate(
                [second[problem] - first[problem] for problem in common],
                [later.groups[problem] for problem in common],
                later.settings["resamples"],
                later.settings["seed"],
                bounds=(-1.0, 1.0),
            )
    if not found:
        raise InputError(f"{later.model} and {earlier.model} were measured on no common problem")
    return found
