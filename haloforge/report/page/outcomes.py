"""Plots of what samples came to: outcomes, rewards, and what was kept of them."""

from collections import Counter
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from haloforge.report.hostile import visible
from haloforge.report.page.columns import Counts
from haloforge.report.page.run import Cycle, Run
from haloforge.report.page.svg import (
    BLUE,
    GREEN,
    HALF,
    HATCH,
    INK,
    ORANGE,
    OURS,
    PURPLE,
    SKY,
    VERMILION,
    WIDE,
    YELLOW,
    Plot,
    Table,
    canvas,
    drawn,
    legend,
    styled,
)
from haloforge.report.page.words import NONE, figure, percent, span
from haloforge.schema import Outcome

_LIMITS = (Outcome.TIMEOUT, Outcome.MEMORY_LIMIT, Outcome.OUTPUT_LIMIT)
_COMPILED = (Outcome.COMPILED, Outcome.COMPILED_WITH_WARNINGS)
# Bottom to top: name, outcomes, colour, hatch.
_GROUPS: tuple[tuple[str, tuple[str, ...], str, str], ...] = (
    ("passed", (Outcome.PASSED,), GREEN, ""),
    ("wrong answer", (Outcome.WRONG_ANSWER,), SKY, "///"),
    ("over a limit", _LIMITS, YELLOW, "+++"),
    ("crashed", (Outcome.RUNTIME_ERROR,), ORANGE, "xxx"),
    ("compiled, not run", _COMPILED, BLUE, "\\\\\\"),
    ("compile error", (Outcome.COMPILE_ERROR,), VERMILION, "|||"),
    ("no code", (Outcome.NO_CODE,), PURPLE, "---"),
    ("failure of ours", (Outcome.INFRA_ERROR,), OURS, "xxxxxx"),
)
# From the worst to the best: colour and hatch of a reward, by share of the way up.
_REWARDS = ((VERMILION, "|||"), (PURPLE, "---"), (BLUE, "\\\\\\"), (SKY, "///"), (GREEN, ""))
_MOST_REWARDS = 12


def outcomes(run: Run) -> Plot | None:
    """How the samples of each cycle and benchmark ended, in percent."""
    counted = run.counted
    if not counted:
        return None
    names = short_names(counted)
    chart, (axes,) = canvas(WIDE, 3.6)
    base = [0.0] * len(counted)
    for name, members, colour, hatch in _GROUPS:
        shares = [100 * sum(c.outcomes[o] for o in members) / c.samples for c in counted.values()]
        if not any(shares):
            continue
        _stack(axes, shares, base, name, colour, hatch)
        base = [low + share for low, share in zip(base, shares, strict=True)]
    _named_ticks(axes, names)
    styled(axes, y="% of samples", top=100)
    legend(chart, axes, 4)
    passed = [
        percent(c.outcomes[Outcome.PASSED] / c.judged) if c.judged else NONE
        for c in counted.values()
    ]
    good = [percent(compiled(c) / c.judged) if c.judged else NONE for c in counted.values()]
    cycles = [place for place, name in enumerate(counted) if name.startswith("cycle")]
    if cycles:
        first, last = cycles[0], cycles[-1]
        lead = f"Cycle {span(names[first].split()[-1], names[last].split()[-1])}"
        finding = (
            f"{lead}: {span(good[first], good[last])} of the samples compile and "
            f"{span(passed[first], passed[last])} pass."
        )
    else:
        finding = (
            "; ".join(
                f"{n}: {g} of the samples compile and {p} pass"
                for n, g, p in zip(names, good, passed, strict=True)
            )
            + "."
        )
    kinds = [o for o in [*Outcome] if any(c.outcomes[o] for c in counted.values())]
    rows = [
        [name, f"{c.samples:,}", *(f"{c.outcomes[o]:,}" for o in kinds)]
        for name, c in counted.items()
    ]
    table = Table("Samples by outcome", ["of", "samples", *kinds], rows)
    return drawn(chart, "outcomes", "Outcomes", finding, table, wide=True)


def compiled(counts: Counts) -> int:
    """Samples whose program compiled."""
    without = (Outcome.NO_CODE, Outcome.COMPILE_ERROR, Outcome.INFRA_ERROR)
    return counts.samples - sum(counts.outcomes[o] for o in without)


def short_names(counted: Mapping[str, Counts]) -> list[str]:
    """What stands below the bars."""
    return [name.replace("benchmark ", "bench. ") for name in counted]


def _named_ticks(axes: Axes, names: Sequence[str]) -> None:
    step = max(1, -(-len(names) // 14))
    places = range(0, len(names), step)
    axes.set_xticks(list(places), [names[p] for p in places])


def _stack(
    axes: Axes,
    shares: Sequence[float],
    base: Sequence[float],
    name: str,
    colour: str,
    hatch: str,
) -> None:
    axes.bar(
        range(len(shares)),
        shares,
        0.72,
        bottom=base,
        color=colour,
        hatch=hatch,
        edgecolor=HATCH,
        linewidth=0.5,
        label=name,
    )


def rewards(run: Run) -> Plot | None:
    """The share of the judged samples at each reward, and their mean."""
    counted = {name: c for name, c in run.counted.items() if c.rewards.total()}
    if run.cycles:
        counted = {name: c for name, c in counted.items() if name.startswith("cycle")}
    if not counted:
        return None
    levels = sorted({reward for c in counted.values() for reward in c.rewards})[:_MOST_REWARDS]
    chart, (axes,) = canvas(HALF, 3.3)
    base = [0.0] * len(counted)
    for level in levels:
        colour, hatch = _REWARDS[min(4, max(0, round(level * 4)))]
        shares = [100 * c.rewards[level] / c.rewards.total() for c in counted.values()]
        _stack(axes, shares, base, f"{level:g}", colour, hatch)
        base = [low + share for low, share in zip(base, shares, strict=True)]
    for place, counts in enumerate(counted.values()):
        if len(counted) <= 10:
            mean = figure(counts.mean_reward)
            axes.text(place, 102, mean, ha="center", va="bottom", fontsize=8.5, color=INK)
    _named_ticks(axes, short_names(counted))
    styled(axes, y="% of judged samples", top=112)
    axes.set_yticks(range(0, 101, 20))
    legend(chart, axes, 6)
    means = [figure(c.mean_reward, 3) for c in counted.values()]
    names = list(counted)
    lead = f"{names[0]} to {names[-1]}" if len(names) > 1 else names[0]
    finding = f"Mean reward, {lead}: {span(means[0], means[-1])}."
    finding += " It stands over each bar." if len(counted) <= 10 else ""
    rows = [
        [name, mean, *(percent(c.rewards[level] / c.rewards.total()) for level in levels)]
        for (name, c), mean in zip(counted.items(), means, strict=True)
    ]
    table = Table(
        "Share of the judged samples at each reward",
        ["of", "mean", *(f"{level:g}" for level in levels)],
        rows,
    )
    return drawn(chart, "rewards", "Rewards", finding, table)


def selection(run: Run) -> Plot | None:
    """What was kept to train on, and what each rule dropped, in percent of the samples."""
    chosen = [cycle for cycle in run.cycles if cycle.selection.get("samples")]
    if not chosen:
        return None
    rules = Counter({visible(str(rule)): 0 for cycle in chosen for rule in _dropped(cycle)})
    chart, (axes,) = canvas(HALF, 3.3)
    base = [0.0] * len(chosen)
    series = [("kept", [_share(cycle, cycle.selection.get("kept", 0)) for cycle in chosen])]
    series += [(rule, [_share(c, _dropped(c).get(rule, 0)) for c in chosen]) for rule in rules]
    looks = [(GREEN, ""), *_DROPPED]
    for (name, shares), (colour, hatch) in zip(series, looks * 2, strict=False):
        values = [100 * share for share in shares]
        _stack(axes, values, base, name.replace("_", " "), colour, hatch)
        base = [low + value for low, value in zip(base, values, strict=True)]
    _named_ticks(axes, [f"cycle {cycle.number}" for cycle in chosen])
    styled(axes, y="% of samples", top=100)
    legend(chart, axes, 3)
    kept = series[0][1]
    most = max(rules, key=lambda r: sum(_dropped(c).get(r, 0) for c in chosen), default=None)
    finding = f"Kept to train on: {span(percent(kept[0]), percent(kept[-1]))} of the samples"
    finding += f"; most were dropped by the rule {most.replace('_', ' ')}." if most else "."
    rows = [
        [
            str(cycle.number),
            f"{cycle.selection['samples']:,}",
            f"{cycle.selection.get('kept', 0):,}",
            f"{_earlier(cycle):,}",
            *(f"{_dropped(cycle).get(rule, 0):,}" for rule in rules),
        ]
        for cycle in chosen
    ]
    head = ["cycle", "samples", "kept", "of earlier cycles, beside them"]
    head += [f"dropped: {rule.replace('_', ' ')}" for rule in rules]
    table = Table("Samples kept, and dropped by the first rule that did", head, rows)
    return drawn(chart, "selection", "Kept and dropped", finding, table)


_DROPPED = (
    (VERMILION, "|||"),
    (SKY, "///"),
    (YELLOW, "+++"),
    (PURPLE, "---"),
    (BLUE, "\\\\\\"),
    (ORANGE, "xxx"),
    (OURS, "xxxxxx"),
    (OURS, "\\\\\\"),
    (OURS, "///"),
)


def _dropped(cycle: Cycle) -> Mapping[str, int]:
    found = cycle.selection.get("dropped")
    return found if isinstance(found, dict) else {}


def _earlier(cycle: Cycle) -> int:
    found = cycle.selection.get("earlier")
    return found.get("kept", 0) if isinstance(found, dict) else 0


def _share(cycle: Cycle, number: int) -> float:
    return number / max(1, cycle.selection["samples"])
