"""Plots of what was measured on problems that are not trained on."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from haloforge.benchmark.passk import Estimate
from haloforge.benchmark.results import Result
from haloforge.report.page.run import Run
from haloforge.report.page.svg import (
    HALF,
    HATCH,
    INK,
    LOOKS,
    WIDE,
    Plot,
    Table,
    canvas,
    drawn,
    legend,
    styled,
    whole_numbers,
)
from haloforge.report.page.words import interval, percent, plural


def measured(run: Run) -> Plot | None:
    """Each model's measures with their intervals, in percent."""
    results = run.results
    measures = measures_of(results)
    if not measures:
        return None
    chart, (axes,) = canvas(WIDE if len(measures) > 4 else HALF, 3.2)
    width = 0.8 / len(results)
    for place, (name, result) in enumerate(results.items()):
        look = LOOKS[place % len(LOOKS)]
        found = [(x, result.measures[m]) for x, m in enumerate(measures) if m in result.measures]
        places = [x + (place - (len(results) - 1) / 2) * width for x, _ in found]
        axes.bar(
            places,
            [100 * e.mean for _, e in found],
            width * 0.92,
            color=look.colour,
            hatch=look.hatch,
            edgecolor=HATCH,
            linewidth=0.5,
            label=name or "model",
        )
        _bars(axes, places, [e for _, e in found])
    axes.set_xticks(range(len(measures)), measures)
    styled(axes, y="% of problems' samples", top=102)
    legend(chart, axes, 4)
    told = [
        f"{m}: "
        + ", ".join(
            f"{name} {percent(r.measures[m].mean)}".strip()
            for name, r in results.items()
            if m in r.measures
        )
        for m in measures
    ]
    rows = [[m, *(interval(r.measures.get(m)) for r in results.values())] for m in measures]
    table = Table("Means over problems with 95% intervals", ["measure", *results], rows)
    wide = len(measures) > 4
    return drawn(chart, "measured", "Measures by model", f"{'; '.join(told)}.", table, wide)


def measures_of(results: Mapping[str, Result]) -> list[str]:
    """Those that are shown of the results."""
    names = dict.fromkeys(m for r in results.values() for m in r.measures)
    return [m for m in names if not m.startswith(("compile@", "raw_"))]


def _bars(axes: Axes, places: Sequence[float], found: Sequence[Estimate]) -> None:
    axes.errorbar(
        places,
        [100 * e.mean for e in found],
        yerr=[
            [max(0, 100 * (e.mean - e.low)) for e in found],
            [max(0, 100 * (e.high - e.mean)) for e in found],
        ],
        fmt="none",
        ecolor=INK,
        capsize=3,
        lw=1,
    )


def held_out(run: Run) -> Plot | None:
    """Measures on held-out problems by cycle, cycle 0 being what the run began from."""
    scored = {0: run.start, **{cycle.number: cycle.held_out for cycle in run.cycles}}
    results = {number: result for number, result in scored.items() if result}
    measures = measures_of({str(n): r for n, r in results.items()})
    if not measures:
        return None
    chart, (axes,) = canvas(WIDE, 3.3)
    for place, measure in enumerate(measures):
        look = LOOKS[place % len(LOOKS)]
        found = {n: r.measures[measure] for n, r in results.items() if measure in r.measures}
        # Beside each other, so that no interval hides another.
        shift = (place - (len(measures) - 1) / 2) * 0.012 * max(1, len(results) - 1)
        axes.errorbar(
            [n + shift for n in found],
            [100 * e.mean for e in found.values()],
            yerr=[
                [max(0, 100 * (e.mean - e.low)) for e in found.values()],
                [max(0, 100 * (e.high - e.mean)) for e in found.values()],
            ],
            color=look.colour,
            marker=look.marker,
            linestyle=look.line,
            capsize=3,
            label=measure,
        )
    whole_numbers(axes, list(results))
    if 0 in results and len(results) <= 12:
        axes.set_xticks(list(results), ["start" if n == 0 else str(n) for n in results])
    styled(axes, x="RAFT cycle", y="%", top=102)
    legend(chart, axes, 5)
    best = "pass@1" if "pass@1" in measures else measures[0]
    ends = [n for n, r in results.items() if best in r.measures]
    told = [
        f"{'at the start' if n == 0 else f'after cycle {n}'} {interval(results[n].measures[best])}"
        for n in dict.fromkeys((ends[0], ends[-1]))
    ]
    problems = next(iter(results.values())).problems
    finding = f"{best} on {plural(problems, 'held-out problem')} is {' and '.join(told)}."
    rows = [
        ["start" if n == 0 else str(n), *(interval(r.measures.get(m)) for m in measures)]
        for n, r in results.items()
    ]
    table = Table("Means over held-out problems with 95% intervals", ["cycle", *measures], rows)
    return drawn(chart, "held-out", "Score of each cycle", finding, table, wide=True)
