"""`report.html`: a run's table and curves as one file that needs nothing else."""

import io
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from haloforge.benchmark.passk import Estimate
from haloforge.benchmark.results import Result
from haloforge.raft.statistics import STATISTICS
from haloforge.report.summary import paired_differences
from haloforge.report.tables import signed
from haloforge.schema import Outcome
from haloforge.store.run import write_atomic

_COLOURS = ("#7f8c9b", "#3b7dd8", "#d9822b")
_WITHOUT_PROGRAM = (Outcome.NO_CODE, Outcome.COMPILE_ERROR, Outcome.INFRA_ERROR)


def write_page(
    path: Path, run: Path, results: Mapping[str, Result], seconds: Mapping[str, float]
) -> None:
    """Writes the page of the pipeline run in the folder `run` to `path`."""
    template = jinja2.Environment(autoescape=True).from_string(
        files("haloforge.report").joinpath("page.html.j2").read_text("utf-8")
    )
    first = next(iter(results.values()))
    measures = [m for m in first.measures if not m.startswith(("compile@", "raw_"))]
    page = template.render(
        title=run.name,
        results=results,
        measures=measures,
        differences={
            name.replace("_minus_", " - "): found
            for name, found in paired_differences(results).items()
        },
        signed=signed,
        first=first,
        seconds=seconds,
        measured=_svg(_measured, results, measures),
        cycles=_svg(_cycles, _statistics(run)),
        losses=_svg(_losses, _training_losses(run)),
    )
    write_atomic(path, page)


def _svg(draw: Any, *data: Any) -> str:
    """One plot as an SVG element whose text stays text."""
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e8ec", linewidth=0.8)
    axes.set_axisbelow(True)
    draw(axes, *data)
    text = io.StringIO()
    # Fixed: the same run gives the same page, byte for byte.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "haloforge"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def _measured(axes: Axes, results: Mapping[str, Result], measures: list[str]) -> None:
    """Each model's measures with their intervals, in percent."""
    width = 0.8 / len(results)
    for i, (name, result) in enumerate(results.items()):
        found: list[tuple[int, Estimate]] = [
            (x, result.measures[m]) for x, m in enumerate(measures) if m in result.measures
        ]
        means = [100 * e.mean for _, e in found]
        error = [
            [100 * (e.mean - e.low) for _, e in found],
            [100 * (e.high - e.mean) for _, e in found],
        ]
        places = [x + (i - (len(results) - 1) / 2) * width for x, _ in found]
        colour = _COLOURS[i % len(_COLOURS)]
        axes.bar(places, means, width * 0.92, color=colour, label=name)
        axes.errorbar(places, means, yerr=error, fmt="none", ecolor="#222", capsize=3, lw=1)
    axes.set_xticks(range(len(measures)), measures)
    axes.set_ylim(0, 100)
    axes.set_ylabel("%")
    axes.set_title("Held-out problems, 95% intervals", fontsize=11)
    axes.legend(frameon=False, fontsize=9)


def _cycles(axes: Axes, statistics: list[dict[str, Any]]) -> None:
    """What the samples that each cycle trained from came to, in percent."""
    cycles = [entry["cycle"] for entry in statistics]
    chosen = [entry["selection"] for entry in statistics]

    def share(number: Any) -> list[float]:
        return [100 * number(s["outcomes"]) / max(1, s["samples"]) for s in chosen]

    compiled = share(lambda o: sum(n for what, n in o.items() if what not in _WITHOUT_PROGRAM))
    passed = share(lambda o: o.get(Outcome.PASSED, 0))
    kept = [100 * s["share_kept"] for s in chosen]
    for values, name, colour in zip(
        (compiled, passed, kept), ("compile", "pass", "kept to train on"), _COLOURS, strict=True
    ):
        axes.plot(cycles, values, marker="o", color=colour, label=name)
    axes.set_xticks(cycles)
    axes.set_xlabel("RAFT cycle")
    axes.set_ylim(0, 100)
    axes.set_ylabel("% of samples")
    axes.set_title("Samples on training problems", fontsize=11)
    axes.legend(frameon=False, fontsize=9)


def _losses(axes: Axes, losses: Mapping[str, list[float]]) -> None:
    """The training loss by step, one line a stage."""
    begin = 0
    for i, (name, values) in enumerate(losses.items()):
        steps = range(begin + 1, begin + len(values) + 1)
        axes.plot(steps, values, marker=".", color=_COLOURS[i % len(_COLOURS)], label=name)
        begin += len(values)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("nats per token")
    axes.set_title("Training loss", fontsize=11)
    axes.legend(frameon=False, fontsize=9)


def _statistics(run: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((run / "raft" / STATISTICS).read_text())
    return found


def _training_losses(run: Path) -> dict[str, list[float]]:
    """Loss by step of SFT and of each cycle that the statistics name."""
    folders = {"SFT": run / "sft" / "final_model"}
    for entry in _statistics(run):
        cycle = entry["cycle"]
        folders[f"cycle {cycle}"] = run / "raft" / f"cycle_{cycle}_final"
    return {
        name: [
            json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()
        ]
        for name, folder in folders.items()
    }
