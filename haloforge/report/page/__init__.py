"""`report.html`: all that a run's folder tells, as one file that needs nothing else.

Written at any moment of a run, from what is there. README.md, a folder up, says what is on it.
"""

from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from haloforge.report.page import clockwork, facts, learning, measures, outcomes
from haloforge.report.page.gather import gather, kind_of
from haloforge.report.page.run import Run
from haloforge.report.page.warnings import Caution, find_warnings, reasons_of
from haloforge.report.page.words import plural
from haloforge.store.layout import REPORT
from haloforge.store.run import write_atomic

REFRESH_SECONDS = 30


class Written(NamedTuple):
    """Where a page is, and what it warns of."""

    path: Path
    warnings: list[Caution]


def write_report(run: Path) -> Path:
    """Writes the page of the run in the folder `run`, as far as it has come, to `report.html` there
    and returns its path. What is missing is left out, what cannot be read is told on the page.
    Raises OSError where the page cannot be written."""
    return write_page(run).path


def write_page(run: Path) -> Written:
    """As `write_report`, with the warnings."""
    found = gather(run)
    warnings = find_warnings(found)
    path = run / REPORT
    write_atomic(path, render(found, warnings))
    return Written(path, warnings)


def is_run(folder: Path) -> bool:
    """Whether a run has left anything in `folder`."""
    return kind_of(folder) != "nothing"


def render(run: Run, warnings: list[Caution]) -> str:
    """The page as HTML."""
    here = resources.files("haloforge.report.page")
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(lambda name: here.joinpath(name).read_text("utf-8")),
        undefined=jinja2.StrictUndefined,
    )
    plots = {
        "measured": measures.measured(run),
        "held_out": measures.held_out(run),
        "outcomes": outcomes.outcomes(run),
        "rewards": outcomes.rewards(run),
        "selection": outcomes.selection(run),
        "loss": learning.loss(run),
        "lengths": learning.lengths(run),
        "health": learning.health(run),
        "timeline": clockwork.activity(run),
        "throughput": clockwork.throughput(run),
        "over_time": clockwork.over_time(run),
    }
    told: dict[str, Any] = {
        "run": run,
        "warnings": warnings,
        "plots": plots,
        "facts": facts.what_was_run(run),
        "settings": facts.settings_tables(run),
        "compared": facts.before_and_after(run),
        "answers": facts.answers_came_to(run),
        "times": facts.times(run),
        "failures": facts.failures(run),
        "lost": reasons_of(run.counted.values()).total(),
        "plural": plural,
        "refresh": REFRESH_SECONDS if run.status.state == "running" else None,
    }
    return environment.get_template("page.html.j2").render(told)
