"""How plots are drawn: matplotlib's SVG with text as text, in colours of the page.

Colours are those of Okabe and Ito (2008), which people who see colours otherwise can tell apart;
none says anything alone: hatches, markers and line styles say the same. The page has a variable
for each, so that the dark one and print have their own.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# By their hexadecimal name, which matplotlib writes, the variables of the page.
ORANGE, SKY, GREEN, YELLOW = "#e69f00", "#56b4e9", "#009e73", "#f0e442"
BLUE, VERMILION, PURPLE = "#0072b2", "#d55e00", "#cc79a7"
INK, LINE, OURS, MUTED = "#010203", "#020304", "#030405", "#040506"
HATCH = "#050607"
_VARIABLES = {
    ORANGE: "orange",
    SKY: "sky",
    GREEN: "green",
    YELLOW: "yellow",
    BLUE: "blue",
    VERMILION: "vermilion",
    PURPLE: "purple",
    LINE: "line",
    OURS: "ours",
    HATCH: "hatch",
    MUTED: "muted",
}
WIDE, HALF = 9.6, 5.0
"""Inches: a plot over the whole width, and one of two beside each other."""
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "haloforge",  # fixed: the same run gives the same page, byte for byte
    "font.size": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "hatch.linewidth": 0.6,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "xtick.color": INK,
    "ytick.color": INK,
    "hatch.color": HATCH,
}


class Look(NamedTuple):
    """How a series looks: never by its colour alone."""

    colour: str
    hatch: str
    marker: str
    line: str


LOOKS = (
    Look(BLUE, "", "o", "-"),
    Look(ORANGE, "///", "s", "--"),
    Look(GREEN, "+++", "^", "-."),
    Look(PURPLE, "xxx", "D", ":"),
    Look(VERMILION, "\\\\\\", "v", (0, (5, 1, 1, 1, 1, 1))),  # type: ignore[arg-type]
    Look(SKY, "---", "P", (0, (1, 1))),  # type: ignore[arg-type]
)
"""Of series, in their order; they begin anew where there are more."""


@dataclass(frozen=True)
class Table:
    """Figures as text; the first column names the row, and the first `words` are no figures."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1
    marked: bool = False
    """Cells that end in * stand out."""


@dataclass(frozen=True)
class Plot:
    """A plot with its text alternative: what it shows in one sentence of figures, and the data."""

    key: str
    title: str
    finding: str
    svg: Markup
    table: Table
    wide: bool = False


def canvas(
    width: float, height: float, rows: int = 1, ratios: Sequence[float] | None = None
) -> tuple[Figure, list[Axes]]:
    """An empty figure of so many inches, and its axes from top to bottom, which share their x."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.patch.set_alpha(0)
        grid = figure.subplots(
            rows, 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": ratios}
        )
        axes = [row[0] for row in grid]
        for each in axes:
            each.patch.set_alpha(0)
            each.spines[["top", "right"]].set_visible(False)
            each.grid(axis="y", color=LINE, linewidth=0.8)
            each.set_axisbelow(True)
            each.tick_params(length=3)
    return figure, axes


def whole_numbers(axes: Axes, values: Sequence[int]) -> None:
    """Ticks of the x axis at whole numbers, at each where they are few."""
    if len(values) <= 12:
        axes.set_xticks(list(values))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def legend(figure: Figure, axes: Axes, columns: int) -> None:
    """Below the plot, in the order in which things were drawn."""
    with matplotlib.rc_context(_STYLE):
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(
            *(handles, labels),
            loc="outside lower center",
            ncols=columns,
            frameon=False,
            handlelength=2.4,
            handleheight=1.1,
        )


def drawn(
    figure: Figure, key: str, title: str, finding: str, table: Table, wide: bool = False
) -> Plot:
    """The plot; `key` tells its ids from those of others on the page."""
    text = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    svg = text.getvalue()
    return Plot(key, title, finding, Markup(_page_svg(svg, key, title, finding)), table, wide)


def _page_svg(svg: str, key: str, title: str, finding: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.S)
    # It would hold for the whole page; the page's own style has it for plots.
    svg = re.sub(r"<style[^>]*>.*?</style>\s*", "", svg, flags=re.S)
    # Ids by number: those of matplotlib are not the same each time. Those that nothing asks for go.
    used = dict.fromkeys(re.findall(r"(?:url\(|href=\")#([^)\"]+)", svg))
    names = {name: f"{key}-{number}" for number, name in enumerate(used)}
    svg = re.sub(r' id="([^"]*)"', lambda m: f' id="{names[m[1]]}"' if m[1] in names else "", svg)
    svg = re.sub(r"(url\(|href=\")#([^)\"]+)", lambda m: f"{m[1]}#{names[m[2]]}", svg)
    svg = re.sub("#[0-9a-f]{6}", lambda m: _colour(m[0]), svg)
    # Whatever fonts are there where it is read; "DejaVu Sans", by which it was laid out, is wide.
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r"\s*\n\s*", " ", svg)
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert size is not None
    head = (
        f'<svg viewBox="0 0 {size[1]} {size[2]}" role="img" '
        f'aria-labelledby="{key}-title {key}-finding" xmlns:xlink="http://www.w3.org/1999/xlink">'
        f'<title id="{key}-title">{escape(title)}</title>'
        f'<desc id="{key}-finding">{escape(finding)}</desc>'
    )
    return head + svg[svg.index(">") + 1 :]


def _colour(name: str) -> str:
    if name == INK:
        return "currentColor"
    return f"var(--{_VARIABLES[name]}, {name})" if name in _VARIABLES else name


def styled(axes: Axes, **labels: Any) -> None:
    """Labels `x`, `y`, and limits `top` and `bottom` of the y axis."""
    if "x" in labels:
        axes.set_xlabel(labels["x"])
    if "y" in labels:
        axes.set_ylabel(labels["y"])
    axes.set_ylim(labels.get("bottom", 0), labels.get("top"))
