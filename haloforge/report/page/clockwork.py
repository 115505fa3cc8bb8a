"""Plots over time: who was at work and who waited, and how much was done."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from haloforge.report.page.activity import KINDS, Tally, Timeline, tallies, timeline
from haloforge.report.page.run import Run
from haloforge.report.page.svg import (
    BLUE,
    GREEN,
    HALF,
    HATCH,
    INK,
    LINE,
    MUTED,
    ORANGE,
    PURPLE,
    VERMILION,
    WIDE,
    Plot,
    Table,
    canvas,
    drawn,
    styled,
)
from haloforge.report.page.words import NONE, duration, figure, listed, percent, span

_LOOKS = {"engines": (BLUE, ""), "verifiers": (ORANGE, "////"), "trainers": (GREEN, "\\\\\\\\")}
_PHASES = {
    "sample_and_verify": "sample, judge",
    "engine_start": "start",
}
_UNITS = ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))


def activity(run: Run) -> Plot | None:
    """Engines, verifiers and trainers over time: how much of each was at work."""
    line = timeline(run.activity)
    if line is None:
        return None
    unit, name = _unit(line)
    chart, axes = canvas(WIDE, 5.4, rows=5, ratios=[0.7, 1.6, 1.6, 1.6, 1])
    _draw_parts(axes[0], line, unit)
    for kind, each in zip(KINDS, axes[1:4], strict=True):
        colour, hatch = _LOOKS[kind]
        _steps(each, line, 100 * line.used[kind], unit, color=colour, hatch=hatch)
        styled(each, y=f"{kind}\n% at work", top=100)
        each.set_yticks([0, 50, 100])
        if np.isnan(line.used[kind]).all():
            each.text(0.5, 0.5, "none", transform=each.transAxes, ha="center", color=MUTED)
    _steps(axes[4], line, line.queued, unit, color=PURPLE, hatch="")
    top = max(1.0, float(np.nanmax(np.append(line.queued, 0.0))) * 1.1)
    cut = "; longer breaks are cut out (striped)" if line.gaps else ""
    styled(axes[4], y="waiting to\nbe judged", x=f"{name} of recorded time{cut}", top=top)
    for each in axes:
        for gap in line.gaps:
            each.axvspan(
                gap.place / unit,
                (gap.place + gap.width) / unit,
                facecolor="none",
                edgecolor=MUTED,
                hatchcolor=MUTED,
                hatch="//////",
                lw=0,
            )
    axes[0].set_xlim(0, line.edges[-1] / unit)
    chart.align_ylabels(axes)
    whole = _sum(tallies(run.activity).values())
    told = [f"{kind} {percent(whole.used(kind), 0)}" for kind in KINDS if whole.used(kind)]
    finding = f"Over {duration(whole.seconds)} recorded, at work while they were there: "
    finding += f"{listed(told)}." if told else "none."
    idle = {kind: 1 - used for kind in KINDS if (used := whole.used(kind)) is not None}
    if len(idle) > 1:
        most = max(idle, key=lambda kind: idle[kind])
        finding += f" The {most} waited most: {percent(idle[most], 0)} of the time."
    return drawn(chart, "timeline", "Use over time", finding, _waits(run), wide=True)


def _sum(found: Iterable[Tally]) -> Tally:
    whole = Tally()
    for each in found:
        whole.seconds += each.seconds
        for kind, seconds in each.capacity.items():
            whole.capacity[kind] = whole.capacity.get(kind, 0.0) + seconds
            whole.busy[kind] = whole.busy.get(kind, 0.0) + each.busy[kind]
    return whole


def _unit(line: Timeline) -> tuple[float, str]:
    return next((unit for unit in _UNITS if line.edges[-1] >= 3 * unit[0]), _UNITS[-1])


def _steps(axes: Axes, line: Timeline, values: Any, unit: float, **look: Any) -> None:
    """The values as steps over the bins; nothing where they are not numbers."""
    edges = line.edges / unit
    # Each bin's two ends: a flat top, and a break where nothing is known.
    x = np.repeat(edges, 2)[1:-1]
    y = np.repeat(values, 2)
    hatch = {"hatch": look["hatch"]} if look.get("hatch") else {}
    axes.fill_between(x, y, 0, where=~np.isnan(y), facecolor=look["color"], lw=0.4,
                      edgecolor=HATCH, alpha=None, **hatch)  # fmt: skip


def _draw_parts(axes: Axes, line: Timeline, unit: float) -> None:
    """Stages with their cycles above, and below them what went on."""
    axes.set_ylim(0, 2)
    axes.set_yticks([])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(bottom=False)
    width = line.edges[-1] / unit
    titles: list[tuple[str, float, float]] = []
    for part in line.parts:
        begin, end = part.begin / unit, part.end / unit
        if titles and titles[-1][0] == part.title and begin - titles[-1][2] < 0.01 * width:
            titles[-1] = (part.title, titles[-1][1], end)
        else:
            titles.append((part.title, begin, end))
        axes.barh(0.45, end - begin, 0.8, begin, facecolor="none", edgecolor=MUTED, lw=0.5)
        _label(axes, _PHASES.get(part.phase, part.phase.replace("_", " ")), begin, end, 0.45, width)
    for title, begin, end in titles:
        axes.barh(1.45, end - begin, 0.9, begin, facecolor=LINE, edgecolor=MUTED, lw=0.5)
        _label(axes, title, begin, end, 1.45, width)


def _label(axes: Axes, text: str, begin: float, end: float, y: float, width: float) -> None:
    """Only where it has room."""
    room = (end - begin) / width * 120  # characters of the whole width
    if len(text) + 1 > room:
        text = text.rpartition(" ")[2] if text[-1:].isdigit() else ""
    if text and len(text) + 1 <= room:
        axes.text((begin + end) / 2, y, text, ha="center", va="center", fontsize=8, color=INK)


def _waits(run: Run) -> Table:
    rows = []
    for (title, phase), each in tallies(run.activity).items():
        idle = [each.used(kind) for kind in KINDS]
        rows.append(
            [
                title,
                phase.replace("_", " ") or NONE,
                duration(each.seconds),
                *(NONE if used is None else percent(1 - used, 0) for used in idle),
                f"{each.longest_queue:,}" if idle[1] is not None else NONE,
                f"{each.cached:,}" if each.cached else NONE,
            ]
        )
    head = ["stage", "what went on", "recorded", "engines idle", "verifiers idle", "trainers idle"]
    head += ["longest queue to be judged", "verdicts from the cache"]
    return Table(f"Who waited how much of the time ({NONE}: none there)", head, rows, words=2)


def throughput(run: Run) -> Plot | None:
    """Tokens and programs a second by cycle or benchmark, while samples were made and judged."""
    rates = [
        (f"cycle {cycle.number}", cycle.tokens_per_second, cycle.programs_per_second)
        for cycle in run.cycles
    ]
    for name, result in run.results.items():
        found = result.throughput
        if found and found.seconds:
            programs = sum(c.n for c in result.per_problem.values()) / found.seconds
            rates.append((f"benchmark {name}".strip(), found.tokens_per_second, programs))
    rates = [rate for rate in rates if rate[1]]
    if not rates:
        return None
    chart, (upper, lower) = canvas(HALF, 3.6, rows=2)
    places = range(len(rates))
    for axes, column, colour, hatch, label in (
        (upper, 1, BLUE, "", "tokens/s"),
        (lower, 2, ORANGE, "////", "programs/s"),
    ):
        values = [float(rate[column] or 0.0) for rate in rates]
        axes.bar(places, values, 0.6, color=colour, hatch=hatch, edgecolor=HATCH, linewidth=0.5)
        styled(axes, y=label)
    names = [name.replace("benchmark", "bench.") for name, *_ in rates]
    step = max(1, -(-len(names) // 9))
    lower.set_xticks(
        range(0, len(names), step),
        names[::step],
        rotation=30 if len(names[::step]) > 4 else 0,
        ha="right" if len(names[::step]) > 4 else "center",
    )
    first, last = rates[0], rates[-1]
    finding = (
        f"{span(figure(first[1], 1), figure(last[1], 1))} tokens/s and "
        f"{span(figure(first[2]), figure(last[2]))} judged programs/s, {first[0]} to {last[0]}, "
        "start of engines left out."
    )
    rows = [[name, figure(tokens, 1), figure(programs)] for name, tokens, programs in rates]
    table = Table("While samples were made and judged", ["of", "tokens/s", "programs/s"], rows)
    return drawn(chart, "throughput", "Throughput", finding, table)


def over_time(run: Run) -> Plot | None:
    """Tokens and programs a second along the recorded time."""
    line = timeline(run.activity)
    if line is None or not np.nansum(line.tokens):
        return None
    unit, name = _unit(line)
    chart, (upper, lower) = canvas(HALF, 3.6, rows=2)
    middles = (line.edges[:-1] + line.edges[1:]) / 2 / unit
    for axes, values, colour, style, label in (
        (upper, line.tokens, BLUE, "-", "tokens/s"),
        (lower, line.samples, VERMILION, "--", "programs/s"),
    ):
        axes.plot(middles, values, color=colour, linestyle=style, lw=1.2)
        styled(axes, y=label)
        for gap in line.gaps:
            axes.axvspan(gap.place / unit, (gap.place + gap.width) / unit, color=LINE, lw=0)
    styled(lower, y="programs/s", x=f"{name} of recorded time")
    rows = [
        [title, phase.replace("_", " ") or NONE, figure(each.tokens / each.seconds, 1),
         figure(each.samples / each.seconds), f"{each.tokens:,}", f"{each.samples:,}"]
        for (title, phase), each in tallies(run.activity).items()
        if each.tokens or each.samples
    ]  # fmt: skip
    best = float(np.nanmax(line.tokens))
    finding = f"At most {figure(best, 1)} tokens/s and {figure(float(np.nanmax(line.samples)))} "
    finding += "judged programs/s."
    head = ["stage", "what went on", "tokens/s", "programs/s", "tokens", "programs"]
    return drawn(
        chart, "over-time", "Throughput over time", finding, Table("Rates", head, rows, words=2)
    )
