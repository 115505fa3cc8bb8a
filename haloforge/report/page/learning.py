"""Plots of training, and of the signs of a collapse that its answers may show."""

from typing import Any

from matplotlib.axes import Axes

from haloforge.raft.health import Health
from haloforge.report.page.run import Cycle, Run, Training
from haloforge.report.page.svg import (
    BLUE,
    HALF,
    HATCH,
    INK,
    LOOKS,
    MUTED,
    ORANGE,
    SKY,
    WIDE,
    Plot,
    Table,
    canvas,
    drawn,
    legend,
    styled,
    whole_numbers,
)
from haloforge.report.page.words import NONE, duration, figure, percent, span

_MOST_POINTS = 600
_QUANTILES = [0.05, 0.25, 0.5, 0.75, 0.95]


def loss(run: Run) -> Plot | None:
    """The loss and the learning rate by step, one training after the other."""
    trainings = [training for training in run.trainings if training.steps]
    if not trainings:
        return None
    chart, (upper, lower) = canvas(WIDE, 4.2, rows=2, ratios=[2.2, 1])
    begin = 0
    evaluated = False
    for number, training in enumerate(trainings):
        steps = training.steps
        every = -(-len(steps) // _MOST_POINTS)
        shown = [*steps[::every], *([steps[-1]] if (len(steps) - 1) % every else [])]
        x = [begin + step.step for step in shown]
        marker = "." if len(steps) < 80 else None
        name = "training loss" if number == 0 else None
        upper.plot(x, [s.loss for s in shown], color=BLUE, marker=marker, lw=1.2, label=name)
        rated = [(at, s.lr) for at, s in zip(x, shown, strict=True) if s.lr is not None]
        lower.plot([at for at, _ in rated], [lr for _, lr in rated], color=ORANGE, lw=1.4, ls="--")
        held = [(begin + s.step, s.eval_loss) for s in steps if s.eval_loss is not None]
        if held:
            label = None if evaluated else "loss on held-out rows"
            at, losses = zip(*held, strict=True)
            upper.plot(at, losses, color=ORANGE, marker="s", ls=":", ms=4, label=label)
            evaluated = True
        end = begin + steps[-1].step
        _stage(upper, lower, begin, end, training, len(trainings))
        begin = end
    upper.set_xlim(0.5, begin + 0.5)
    styled(upper, y="nats per token")
    styled(lower, x="optimizer step, of all trainings", y="learning rate")
    lower.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    whole_numbers(lower, range(1, begin + 1))
    if evaluated:
        legend(chart, upper, 2)
    ends = trainings if len(trainings) <= 3 else [trainings[0], trainings[-1]]
    told = [f"{t.name} {figure(t.steps[0].loss, 3)} to {figure(t.steps[-1].loss, 3)}" for t in ends]
    finding = f"Loss from the first step to the last: {'; '.join(told)}."
    rows = [_row(training) for training in trainings]
    head = ["training", "rows", "steps", "first loss", "last loss", "learning rate, first"]
    head += ["last", "trained tokens", "took"]
    table = Table("Trainings", head, rows)
    return drawn(chart, "loss", "Loss and learning rate", finding, table, wide=True)


def _stage(
    upper: Axes, lower: Axes, begin: int, end: int, training: Training, trainings: int
) -> None:
    if begin:
        for axes in (upper, lower):
            axes.axvline(begin + 0.5, color=MUTED, lw=0.8, ls=":")
    if trainings <= 14:
        text = training.name if training.done else f"{training.name} (under way)"
        upper.annotate(
            text,
            xy=((begin + end + 1) / 2, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            color=INK,
        )


def _row(training: Training) -> list[str]:
    steps, facts = training.steps, training.facts
    rates = [step.lr for step in steps if step.lr is not None]

    def told(name: str) -> str:
        value = facts.get(name)
        return f"{value:,}" if isinstance(value, int) else NONE

    seconds = facts.get("seconds")
    return [
        training.name if training.done else f"{training.name} (under way)",
        told("rows"),
        f"{len(steps):,}",
        figure(steps[0].loss, 3),
        figure(steps[-1].loss, 3),
        f"{max(rates):.2g} at most" if rates else NONE,
        f"{rates[-1]:.2g}" if rates else NONE,
        told("trained_tokens"),
        duration(seconds) if isinstance(seconds, int | float) else NONE,
    ]


def lengths(run: Run) -> Plot | None:
    """How long answers are, by cycle or benchmark: the middle half, and 5% to 95%."""
    counted = {name: c for name, c in run.counted.items() if c.mean_tokens}
    if run.cycles:
        counted = {name: c for name, c in counted.items() if name.startswith("cycle")}
    if not counted:
        return None
    chart, (axes,) = canvas(HALF, 3.3)
    found = [counts.token_quantiles(_QUANTILES) for counts in counted.values()]
    boxes = [
        {"whislo": q[0], "q1": q[1], "med": q[2], "q3": q[3], "whishi": q[4], "fliers": []}
        for q in found
    ]
    line: dict[str, Any] = {"color": INK, "linewidth": 0.9}
    axes.bxp(
        boxes,
        positions=range(len(boxes)),
        widths=0.5,
        patch_artist=True,
        showfliers=False,
        boxprops={"facecolor": SKY, "edgecolor": HATCH, "linewidth": 0.6},
        medianprops={"color": HATCH, "linewidth": 1.8},
        whiskerprops=line,
        capprops=line,
    )
    means = [counts.mean_tokens or 0.0 for counts in counted.values()]
    axes.plot(range(len(means)), means, color=ORANGE, marker="D", ls="--", label="mean")
    names = [name.replace("benchmark ", "bench. ") for name in counted]
    step = max(1, -(-len(names) // 10))
    axes.set_xticks(range(0, len(names), step), names[::step])
    styled(axes, y="tokens of an answer")
    legend(chart, axes, 1)
    cut = [counts.cut_off / counts.samples for counts in counted.values()]
    finding = (
        f"Mean length {span(figure(means[0], 1), figure(means[-1], 1))} tokens; "
        f"{span(percent(cut[0]), percent(cut[-1]))} of the answers are cut off at the token "
        "limit. Boxes hold the middle half, whiskers 5% to 95%."
    )
    rows = [
        [name, figure(mean, 1), *map(str, q), percent(share)]
        for name, mean, q, share in zip(counted, means, found, cut, strict=True)
    ]
    head = ["of", "mean", *(f"{share:.0%} at most" for share in _QUANTILES), "cut off"]
    table = Table("Tokens of an answer", head, rows)
    return drawn(chart, "lengths", "Answer lengths", finding, table)


_SIGNS = (
    ("duplicates", "repeat another answer"),
    ("trivial", "can pass no test"),
    ("answer_entropy", "how unlike the answers to a problem are (entropy)"),
)


def health(run: Run) -> Plot | None:
    """Duplicates, trivial answers, and how unlike each other answers are."""
    measured = [(cycle, cycle.health) for cycle in run.cycles]
    found: list[tuple[Cycle, Health]] = [(c, h) for c, h in measured if h]
    if not found:
        return None
    chart, (axes,) = canvas(HALF, 3.3)
    for look, (name, told) in zip(LOOKS, _SIGNS, strict=False):
        points = [(c.number, getattr(h, name)) for c, h in found if getattr(h, name) is not None]
        axes.plot(
            [number for number, _ in points],
            [100 * value for _, value in points],
            color=look.colour,
            marker=look.marker,
            linestyle=look.line,
            label=told,
        )
    whole_numbers(axes, [cycle.number for cycle, _ in found])
    styled(axes, x="RAFT cycle", y="%", top=104)
    legend(chart, axes, 1)
    first, last = found[0][1], found[-1][1]
    finding = (
        f"{span(percent(first.duplicates), percent(last.duplicates))} of the answers repeat "
        f"another, {span(percent(first.trivial), percent(last.trivial))} can pass no test; entropy "
        f"of the answers to a problem "
        f"{span(figure(first.answer_entropy), figure(last.answer_entropy))} (1: all differ)."
    )
    rows = [
        [
            str(cycle.number),
            percent(h.duplicates),
            percent(h.trivial),
            figure(h.answer_entropy),
            figure(h.mean_tokens, 1),
            figure(h.nats_per_token),
        ]
        for cycle, h in found
    ]
    head = ["cycle", "duplicates", "trivial", "answer entropy", "mean tokens", "nats per token"]
    return drawn(chart, "health", "Signs of a collapse", finding, Table("Signs", head, rows))
