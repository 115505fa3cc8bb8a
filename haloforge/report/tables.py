"""Results as text."""

from collections.abc import Mapping, Sequence
from itertools import combinations

from haloforge.benchmark.compare import differences
from haloforge.benchmark.measure import Result
from haloforge.benchmark.passk import Estimate


def results_table(results: Mapping[str, Result]) -> str:
    """One row a measure, one column a model; paired differences; what the samples came to.

    Differences are in percentage points, on the problems that both models were measured on.
    """
    names = list(results)
    measures = list(dict.fromkeys(m for result in results.values() for m in result.measures))
    rows = [["measure", *names]]
    for measure in measures:
        found = [results[name].measures.get(measure) for name in names]
        rows.append([measure, *(str(e) if e else "not measured" for e in found)])
    lines = _columns(rows)
    pairs = list(combinations(names, 2))
    if pairs:
        paired = [differences(results[later], results[earlier]) for earlier, later in pairs]
        rows = [["paired difference", *(f"{later} - {earlier}" for earlier, later in pairs)]]
        for measure in measures:
            found = [difference.get(measure) for difference in paired]
            rows.append([measure, *(_signed(e) if e else "not measured" for e in found)])
        lines += ["", *_columns(rows)]
    first = next(iter(results.values()))
    lines.append("")
    lines.append(
        f"{first.problems} problems, {first.samples} samples each, temperature "
        f"{first.settings['temperature']:g}; mean over problems [95% interval by bootstrap]"
    )
    for name, result in results.items():
        outcomes = ", ".join(
            f"{count} {outcome}" for outcome, count in sorted(result.outcomes.items())
        )
        shares = ", ".join(f"{share:.0%} {what}" for what, share in result.shares.items())
        lines.append(f"{name}: {outcomes}; of them {shares}")
        if not result.complete:
            lines.append(
                f"{name}: INCOMPLETE, {result.infra_errors} samples lost to failures of ours"
            )
    if not any(measure.startswith("pass@") for measure in measures):
        lines.append("No problem has tests: compiling was measured, correctness was not.")
    return "\n".join(lines)


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows with their cells aligned, a line of dashes below the first."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return lines


def _signed(estimate: Estimate) -> str:
    """A difference in percentage points."""
    mean, low, high = (100 * x for x in (estimate.mean, estimate.low, estimate.high))
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"
